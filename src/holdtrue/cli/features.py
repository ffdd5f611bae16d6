"""Commands on features: fill the online store, look an entity up, see how fresh it is, replay what was answered."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.context import (
    AsJson,
    Columns,
    File,
    Home,
    ProjectName,
    base,
    check_beside,
    lines,
    listing,
    open_client,
    project_file,
    project_name,
    show,
    text_of,
)
from holdtrue.core.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from holdtrue.features import OnlineStore
    from holdtrue.project.materialising import Taken
    from holdtrue.server.settings import Settings

group = typer.Typer(help="Features: fill, look up, replay, see who uses what.", no_args_is_help=True)
_UNEQUAL = 1
_WEIGHED = 200


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group.command("materialize")(features_materialize)
    group.command("get")(features_get)
    group.command("status")(features_status)
    group.command("parity")(features_parity)
    group.command("usage")(features_usage)
    app.add_typer(group, name="features")


def features_materialize(
    model: Annotated[str | None, typer.Argument(help="Model whose views are filled (default: all).")] = None,
    only: Annotated[list[str] | None, typer.Option("--view", help="Fill this view alone; again for more.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Take rows from this moment on (default: as far back as views need).")
    ] = None,
    file: File = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fill the online store from accepted windows and recorded events; begun again, it takes what came since."""
    from holdtrue.core.clock import SystemClock, from_microseconds, microseconds
    from holdtrue.core.codec import dump
    from holdtrue.features.taking import taking
    from holdtrue.project import load_project
    from holdtrue.project.materialising import Materialise, materialised
    from holdtrue.server.settings import load_settings
    from holdtrue.storage import BlobStore, make_folder
    from holdtrue.storage.journal import Journal

    project = load_project(project_file(file))
    views = _declared(project, model, only or [])
    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings, "features materialize")
        make_folder(settings.home / "online" / project.name)
        with taking(settings.home / "online", project.name), _online(settings, project.name) as store:
            asked = Materialise(
                project,
                views,
                store,
                Journal(settings.home / "journal", SystemClock()),
                BlobStore(settings.home / "blobs"),
                lambda name: client.get(f"{base(project.name)}/datasets/{name}")["fragments"],
                microseconds(SystemClock().now()),
                None if since is None else microseconds(_moment(since)),
            )
            taken = list(materialised(asked))
    _warn(taken)
    columns: Columns = {
        "view": lambda each: each["view"],
        "source": lambda each: each["source"],
        "rows": lambda each: f"{each['rows']:,}",
        "new": lambda each: f"{each['new']:,}",
        "windows": lambda each: ", ".join(each["windows"]) or None,
        "events": lambda each: f"{each['events']:,}",
        "newest row": lambda each: each["newest"],
    }
    found = [
        {**dump(each), "newest": None if each.newest is None else from_microseconds(each.newest).isoformat()}
        for each in taken
    ]
    listing(found, as_json, columns, empty="No model of the project file has a feature view.")


def _warn(taken: "Sequence[Taken]") -> None:
    """Say which rows were left out."""
    for each in taken:
        if each.unnamed:
            typer.echo(
                f"{each.view}: {', '.join(each.unnamed)} not taken: its rows have no id, and could count twice. "
                "Select the dataset's key too.",
                err=True,
            )
        if each.refused:
            typer.echo(f"{each.view}: {each.refused:,} events cannot be used. {each.why}", err=True)


def features_parity(
    service: Annotated[str | None, typer.Argument(help="Service (default: the only one).")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="Answers of each release.")
    ] = 10_000,
    record: Annotated[bool, typer.Option("--record", help="Record the result as evidence on each release.")] = False,
    most_rate: Annotated[
        float, typer.Option("--at-most", min=0.0, max=1.0, help="Rate that ends with status 0.")
    ] = 1.0,
    file: File = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Compute the features of recorded answers again from accepted windows, and compare them row by row."""
    from holdtrue.project import load_project
    from holdtrue.project.replaying import replay_service
    from holdtrue.server.settings import load_settings

    project = load_project(project_file(file))
    chosen = service or _only(list(project.services))
    if chosen not in project.services:
        raise NotFound(
            f"The project file declares no service “{chosen[:60]}”.",
            why=f"Its services: {', '.join(project.services) or 'none'}.",
            mend="Name one of them.",
        )
    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings, "features parity")
        root = base(project.name)
        found = replay_service(project, chosen, settings.home, client, most=limit)
        if record:
            for each in found:
                content = {name: value for name, value in each.items() if name != "release"}
                client.post(f"{root}/evidence", {"kind": "replay", "subject": each["release"], "content": content})
    show(found, as_json, lambda value: lines(_parity(value)))
    if any(each["rate"] > most_rate for each in found):
        raise typer.Exit(_UNEQUAL)


def features_get(
    service: Annotated[str, typer.Argument(help="Service whose release in production says which features.")],
    entities: Annotated[list[str], typer.Argument(help="Entities: origin=EWR carrier=UA.")],
    at: Annotated[str | None, typer.Option("--at", help="Moment (ISO 8601; default: now).")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Look the features of entities up in the online store, as a request would, with the moments of their rows."""
    from holdtrue.core.clock import SystemClock, from_microseconds, microseconds
    from holdtrue.features import FeatureSet
    from holdtrue.features.finding import find
    from holdtrue.server.settings import load_settings

    given = _pairs(entities)
    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings, "features get")
        name = project_name(client, project)
        pinned = _deployed(client, base(name), service)
        features = FeatureSet.from_json(client.get(f"{base(name)}/versions/{pinned}")["content"])
    entities_known = sorted({view.entity for view in features.views})
    unknown = [entity for entity in given if entity not in entities_known]
    if unknown:
        raise NotFound(
            f"No feature view of “{service}” has the entity “{unknown[0]}”.",
            why=f"Its entities: {', '.join(entities_known) or 'none'}.",
            mend=f"Name one of them: {entities_known[0]}=VALUE." if entities_known else "Its features are of requests.",
        )
    moment = microseconds(SystemClock().now()) if at is None else microseconds(_moment(at))
    with _online(settings, name) as store:
        known = find(store, features.views, given, moment)
    found = [
        {
            "feature": feature,
            "value": None if value != value else value,
            "moment": None if each.found.moment is None else from_microseconds(each.found.moment).isoformat(),
            "age_seconds": None if each.found.moment is None else (moment - each.found.moment) / 1e6,
            "state": each.state,
            "last": None if each.last is None else from_microseconds(each.last).isoformat(),
            "why": each.sentence,
        }
        for each in known
        for feature, value in zip(each.view.features, each.found.values, strict=True)
    ]
    columns: Columns = {
        "feature": lambda each: each["feature"],
        "value": lambda each: each["value"],
        "newest row": lambda each: each["moment"],
        "age": lambda each: None if each["age_seconds"] is None else _age(each["age_seconds"]),
        "": lambda each: each["why"] + (f", last {each['last']}" if each["last"] else ""),
    }
    listing(found, as_json, columns, empty="No view has this entity.")


def features_status(
    service: Annotated[
        str | None, typer.Argument(help="Service whose release in production is meant (default: all).")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="Moment (ISO 8601; default: now).")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Show how fresh and how large each view of production is; status 1 if one misses its objective."""
    from holdtrue.core.clock import SystemClock, from_microseconds, microseconds
    from holdtrue.features import FeatureSet
    from holdtrue.features.freshness import standing
    from holdtrue.server.settings import load_settings

    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings, "features status")
        name = project_name(client, project)
        root = base(name)
        pinned = {_deployed(client, root, service): [service]} if service else _live(client, root)
        sets = [FeatureSet.from_json(client.get(f"{root}/versions/{each}")["content"]) for each in pinned]
    views = list(dict.fromkeys(view for each in sets for view in each.views))
    now = microseconds(SystemClock().now()) if at is None else microseconds(_moment(at))
    with _online(settings, name) as store:
        stand, extents = standing(views, store.newest(views), now), store.extents(views)
    found = [
        {
            "view": each.view,
            "state": each.state,
            "newest": None if each.newest is None else from_microseconds(each.newest).isoformat(),
            "age_seconds": None if each.age is None else each.age / 1e6,
            "allowed": view.freshness,
            "entities": extent.entities,
            "records": extent.records,
            "bytes": extent.bytes,
        }
        for view, each, extent in zip(views, stand, extents, strict=True)
    ]
    columns: Columns = {
        "view": lambda each: each["view"],
        "state": lambda each: each["state"],
        "newest row": lambda each: each["newest"],
        "age": lambda each: None if each["age_seconds"] is None else _age(each["age_seconds"]),
        "allowed": lambda each: each["allowed"],
        "entities": lambda each: f"{each['entities']:,}",
        "records": lambda each: f"{each['records']:,}",
        "bytes": lambda each: f"{each['bytes']:,}",
    }
    listing(found, as_json, columns, empty="No release in production has a feature view.")
    if any(each.misses for each in stand):
        raise typer.Exit(_UNEQUAL)


def features_usage(
    service: Annotated[
        str | None, typer.Argument(help="Service whose features are weighed (default: list who uses which views).")
    ] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """List feature views with who uses them; or what each feature of a service is worth, and what it costs."""
    if service is not None:
        _weigh(service, home, project, as_json)
        return
    with open_client(home) as client:
        root = base(project_name(client, project))
        versions = client.get(f"{root}/versions", kind="feature_view", limit=1000)["items"]
        live = _live(client, root)
    found: dict[str, dict[str, Any]] = {}
    for version in versions:
        for view in version["content"].get("views", ()):
            each = found.setdefault(
                f"{view['name']}/{view['source']}",
                {
                    "view": view["name"],
                    "source": view["source"],
                    "entity": view["entity"],
                    "columns": view.get("columns") or [view.get("column")],
                    "versions": [],
                    "services": [],
                },
            )
            each["versions"].append(f"{version['name']}@{version['number']}")
            each["services"] = sorted({*each["services"], *live.get(version["id"], ())})
    columns = {
        "view": lambda each: each["view"],
        "source": lambda each: each["source"],
        "entity": lambda each: each["entity"],
        "reads": lambda each: ", ".join(each["columns"]),
        "in": lambda each: ", ".join(each["versions"][:5]),
        "answers in": lambda each: ", ".join(each["services"]) or None,
    }
    listing(list(found.values()), as_json, columns, empty="No feature view was released yet: holdtrue run")


@contextmanager
def _online(settings: "Settings", project: str) -> "Generator[OnlineStore]":
    """Open a project's online store beside the data planes that use it."""
    from holdtrue.features import open_online

    folder = settings.home / "online"
    if not settings.online_store and not (folder / project).is_dir():
        raise NotFound(
            f"There is no online store of {project} yet.",
            why="It is made by the first events that a data plane takes, or from history.",
            mend="Fill it: holdtrue features materialize",
        )
    store = open_online(folder, project, settings.online_store)
    try:
        yield store
    finally:
        store.close()


def _declared(project: Any, model: str | None, only: list[str]) -> list[Any]:
    """Return the views of a project's models, or of one; those named in `only` must be among them."""
    if model is not None and model not in project.models:
        raise NotFound.of("model", model)
    models = project.models.values() if model is None else [project.models[model]]
    views = list(dict.fromkeys(view for each in models for view in each.views))
    missing = [name for name in only if name not in {view.name for view in views}]
    if missing:
        raise NotFound(
            f"No model has the feature view “{missing[0]}”.",
            why=f"Their views: {', '.join(view.name for view in views) or 'none'}.",
            mend="Name one of them.",
        )
    return [view for view in views if not only or view.name in only]


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} d"


def _weigh(service: str, home: Path | None, project: str | None, as_json: bool) -> None:
    """Show the value of each feature of a service's release in production, next to what it takes."""
    from holdtrue.cli.usefulness import costs_of, worth
    from holdtrue.core.clock import SystemClock
    from holdtrue.features import FeatureSet
    from holdtrue.server.settings import load_settings
    from holdtrue.storage.journal import Journal

    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings, "features usage")
        name = project_name(client, project)
        root = base(name)
        release = _release(client, root, service)
        pinned = client.get(f"{root}/releases/{release}")["manifest"]["versions"]["features"]
        features = FeatureSet.from_json(client.get(f"{root}/versions/{pinned}")["content"])
        evidence = client.get(f"{root}/evidence", subject=release)["items"]
    content = next((each["content"] for each in evidence if each["kind"] == "usefulness"), None)
    records = Journal(settings.home / "journal", SystemClock()).table("prediction", name, service=service)
    records = records.slice(max(0, records.num_rows - _WEIGHED))
    rows = {each[2:]: records[each].to_pylist() for each in records.column_names if each.startswith("x_")}
    times = [int(each) for each in records["time"].to_pylist()] if records.num_rows else []
    kept = settings.online_store or (settings.home / "online" / name).is_dir()
    with _online(settings, name) if kept else nullcontext() as store:
        found = worth(content, features, costs_of(features, store, rows, times))
    columns: Columns = {
        "feature": lambda each: each["feature"],
        "of view": lambda each: each["view"],
        "value": lambda each: each["value"],
        "interval": lambda each: None if each["value"] is None else f"{each['lower']:+.4f} to {each['upper']:+.4f}",
        "µs a row": lambda each: each["microseconds"],
        "bytes online": lambda each: None if each["bytes"] is None else f"{each['bytes']:,}",
        "": lambda each: "below noise" if each["below_noise"] else "",
    }
    listing(found, as_json, columns, empty="This release has no features.")
    if content is None:
        typer.echo(f"{release} has no evidence of what its features are worth: train it again.", err=True)


def _release(client: Any, root: str, service: str) -> str:
    shown = client.get(f"{root}/services/{service}")["deployments"]
    release = next((each["release"] for each in shown if each["environment"] == "production"), None)
    if release is None:
        raise NotFound(
            f"No release of “{service}” answers in production.",
            mend="Promote one first: holdtrue promote.",
        )
    return str(release)


def _only(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    raise ConfigurationError(
        f"The project file has {len(names)} services of models, and none was named.",
        why=f"They are: {', '.join(names) or 'none'}.",
        mend="Name one: holdtrue features parity SERVICE",
    )


def _pairs(texts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in map(_pair, texts):
        if name in found:
            raise ConfigurationError(
                f"The entity “{name}” is named twice.",
                why="The answer is about one entity of each kind.",
                mend="Ask for one after the other.",
            )
        found[name] = value
    return found


def _pair(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name or not value:
        raise ConfigurationError(f"{text[:60]!r} is not entity=value.", mend="Write it like origin=EWR.")
    return name, value


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text[:60]!r} is no moment.", mend="Write it like 2013-01-31T15:00:00Z.") from None
    if found.tzinfo is None:
        raise ConfigurationError(
            f"{text[:60]!r} has no time zone.",
            why="The same clock time is another moment in another zone.",
            mend=f"Write {text}Z for UTC.",
        )
    return found


def _deployed(client: Any, root: str, service: str) -> str:
    release = _release(client, root, service)
    return client.get(f"{root}/releases/{release}")["manifest"]["versions"]["features"]


def _live(client: Any, root: str) -> dict[str, list[str]]:
    """Return which services answer in production with each version of a feature set."""
    found: dict[str, list[str]] = {}
    for service in client.get(f"{root}/status")["services"]:
        for each in service["deployments"]:
            if each["environment"] == "production":
                versions = client.get(f"{root}/releases/{each['release']}")["manifest"]["versions"]
                if "features" in versions:
                    found.setdefault(versions["features"], []).append(service["name"])
    return found


def _parity(found: list[Any]) -> Iterator[str]:
    for each in found:
        yield (
            f"{each['release']}: {each['mismatched']:,} of {each['rows']:,} answers differ "
            f"({each['rate']:.2%}), {each['compared']} features, windows {', '.join(each['windows'])}"
        )
        if each["not_accepted_yet"]:
            yield f"  {each['not_accepted_yet']:,} answers lie in windows that were not accepted yet"
        ordered = sorted(each["features"].items(), key=lambda item: -item[1]["mismatched"])
        for name, told in ordered:
            causes = ", ".join(f"{cause} {count:,}" for cause, count in told["causes"].items())
            largest = "" if told["largest"] is None else f", by up to {told['largest']:.6g}"
            yield f"  {name}: {told['mismatched']:,} ({told['rate']:.2%}){largest}; likely {causes}"
            for example in told["examples"]:
                said = f"answered with {text_of(example['online'])}, history gives {text_of(example['offline'])}"
                yield f"    {example['prediction']}: {said} ({example['cause']})"
