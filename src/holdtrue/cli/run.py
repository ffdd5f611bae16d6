"""Commands that work with a project file: init, plan, apply, run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.context import BLOCKED, AsJson, File, Home, base, check_beside, lines, open_client, project_file, show
from holdtrue.cli.decide import print_decision, print_differences
from holdtrue.core.errors import ConfigurationError, Conflict, NotFound

if TYPE_CHECKING:
    pass

NAMED = 10
"""How many documents that were left out a command names."""
REFUSED = 3
"""What `run` ends with if the gate refused the release."""


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(init)
    app.command()(plan)
    app.command()(apply)
    app.command()(run)
    app.command()(score)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write the project file.")] = Path(),
    name: Annotated[str, typer.Option("--name", help="Name of the project.")] = "my-project",
) -> None:
    """Write a project file to start from."""
    from importlib.resources import files

    from holdtrue.core.ids import check_name

    check_name(name, "project name")
    target = folder / "project.py"
    if target.exists():
        raise Conflict(f"{target} is there already.", mend="Choose another folder, or remove the file first.")
    folder.mkdir(parents=True, exist_ok=True)
    text = files("holdtrue.cli").joinpath("project_template.py.txt").read_text(encoding="utf-8")
    target.write_text(text.replace("my-project", name), encoding="utf-8")
    typer.echo(f"Wrote {target}.\nNext: holdtrue up --file {target}, then holdtrue apply --file {target}")


def plan(file: File = None, home: Home = None, as_json: AsJson = False) -> None:
    """Show what `apply` would change."""
    _send("plan", file, home, as_json)


def apply(file: File = None, home: Home = None, as_json: AsJson = False) -> None:
    """Make the definitions in the project file those of the project."""
    _send("apply", file, home, as_json)


def run(
    name: Annotated[
        str | None,
        typer.Argument(help="Model or application (default: the only one); with --ingest a dataset (default: each)."),
    ] = None,
    windows: Annotated[
        list[str] | None, typer.Option("--window", "-w", help="Window, such as 2013-01; again for more.")
    ] = None,
    last: Annotated[int | None, typer.Option("--last", help="Train on the last N accepted windows only.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often a test set is asked.")] = 1,
    ingest_only: Annotated[bool, typer.Option("--ingest", help="Only take the named windows in.")] = False,
    file: File = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take deliveries in, make a release of a model or an application, and judge it; cached steps are not run again.

    Ends with 3 if the gate refused the release, else with 4 if a delivery was blocked.
    """
    from holdtrue.project import Workshop, load_project
    from holdtrue.server.settings import load_settings

    project = load_project(project_file(file))
    datasets = _datasets(project, name if ingest_only else None)
    if ingest_only and not windows:
        raise ConfigurationError(
            "No window was named, so there is nothing to take in.",
            mend=f"Name one: holdtrue run --ingest {name or ''} --window YYYY-MM".replace("  ", " "),
        )
    chosen = "" if ingest_only else name or _only(project)
    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings)
        client.post(f"{base(project.name)}/apply", _spec(project))
        workshop = Workshop(project, settings.home, client, on_step=report_steps(as_json))
        taken = [workshop.ingest(dataset, window) for window in windows or [] for dataset in datasets]
        blocked = BLOCKED if any(not each["version"] for each in taken) else 0
        if ingest_only:
            show(taken, as_json, _print_ingests)
            raise typer.Exit(blocked)
        if not as_json:
            _print_ingests(taken)
        author = str(client.get("/api/whoami").get("id", ""))
        if chosen in project.applications:
            from holdtrue.server.asking import completer

            with completer(home, client) as complete:
                result = workshop.assemble(chosen, author, complete, repeats=repeats)
        else:
            windows_wanted = f"last:{last}" if last else "all"
            wanted = {"model": chosen, "windows": windows_wanted, "reason": "asked for by command"}
            result = workshop.train(wanted, author)
    show(result, as_json, _print_result)
    refused = result["decision"] is not None and result["decision"]["outcome"] == "refused"
    raise typer.Exit(REFUSED if refused else blocked)


def score(
    name: Annotated[str, typer.Argument(help="Service or model.")],
    dataset: Annotated[str, typer.Argument(help="Dataset; of an older version, NAME@NUMBER or NAME@ID.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    release: Annotated[str | None, typer.Option("--release", help="Release (default: the one in production).")] = None,
    file: File = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Score a dataset with a release into a Parquet file; parts that were scored before are not scored again."""
    from holdtrue.project import Workshop, load_project
    from holdtrue.server.settings import load_settings

    project = load_project(project_file(file))
    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings)
        workshop = Workshop(project, settings.home, client, on_step=report_steps(as_json))
        result = workshop.score(name, dataset, out.absolute(), release)
    show(result, as_json, _print_scores)


def _print_scores(result: Any) -> None:
    parts = f"{result['parts']} parts, {result['cached']} of them from before"
    typer.echo(f"{result['rows']} rows of {result['dataset']} ({result['version']}), {parts}: {result['out']}")
    typer.echo(f"Scored by {result['release']}.")
    if result["bad"]:
        typer.echo(f"{result['bad']} rows have no score; the column “error” says why:")
        lines(f"  {key}: {error}" for key, error in result["named"])


def _send(verb: str, file: Path | None, home: Path | None, as_json: bool) -> None:
    from holdtrue.project import load_project

    project = load_project(project_file(file))
    with open_client(home) as client:
        found = client.post(f"{base(project.name)}/{verb}", _spec(project))
    show(found, as_json, lambda value: _print_plan(value, verb))


def _spec(project: Any) -> Any:
    from holdtrue.core.codec import dump

    return dump(project.spec())


def _datasets(project: Any, name: str | None) -> list[str]:
    """Return the datasets whose windows are taken in: the one that is named, else each."""
    if name is None:
        return list(project.datasets)
    if name not in project.datasets:
        raise NotFound(
            f"There is no dataset “{name}” in the project file.",
            why=f"Its datasets: {', '.join(project.datasets) or 'none'}.",
            mend="Name one of them, or none to take the windows of each in.",
        )
    return [name]


def _only(project: Any) -> str:
    names = [*project.models, *project.applications]
    if len(names) != 1:
        raise Conflict(
            f"The project has {len(project.models)} models and {len(project.applications)} applications, "
            "and none was named.",
            why=f"They are: {', '.join(names) or 'none'}.",
            mend="Name one: holdtrue run NAME",
        )
    return str(names[0])


def report_steps(as_json: bool) -> Any:
    """Return what prints each step as it is done; nothing where JSON is asked for."""

    def report(step: Any) -> None:
        # An index has a step for each document: too many lines to read.
        if not as_json and step.name != "retrieval entry":
            typer.echo(f"  {step.name}: {'cached' if step.cached else f'{step.seconds:.1f} s'}")

    return report


def _print_ingests(taken: list[Any]) -> None:
    for each in taken:
        _print_ingest(each)


def _print_ingest(taken: Any) -> None:
    state = f"{taken['rows']} rows, {taken['version']}" if taken["version"] else "blocked and quarantined"
    typer.echo(f"  {taken['dataset']} {taken['window']}: {state}")
    if taken["erased"]:
        typer.echo(f"    {taken['erased']} rows of erased entities were left out")
    for finding in taken["findings"]:
        typer.echo(f"    {finding['severity']}: {finding['what']} {finding['mend']}")


def _print_result(result: Any) -> None:
    if result.get("index"):
        print_left_out(result["index"])
    if result["decision"] is None:
        typer.echo(f"{result['release']}: no gate is declared for production, so nothing can let it in there.")
        typer.echo("Declare one in the project file: project.gate(…)")
        return
    print_decision(result["decision"])
    if result["decision"]["outcome"] == "waiting_approval":
        typer.echo(f"Next, by somebody else: holdtrue approve {result['release']} --reason …")


def print_left_out(summary: Any) -> None:
    """Say which documents an index leaves out, and why."""
    left = summary["left_out"]
    if not left:
        return
    typer.echo(f"  {summary['skipped']} left out:")
    lines(f"    {each['uri']}: {each['reason']}, {each['detail']}" for each in left[:NAMED])
    if summary["skipped"] > NAMED:
        typer.echo(f"    and {summary['skipped'] - NAMED} more; --json lists them")


def _print_plan(found: Any, verb: str) -> None:
    _print_contracts(found.get("contracts", []))
    _print_changes(found["changes"], verb)
    drift = found.get("drift", [])
    if drift:
        typer.echo("What is deployed is not as it should be:")
    for each in drift:
        typer.echo(f"  {each['subject']}: {each['what']} {each['why']}\n      to mend it: {each['mend']}")


def _print_changes(changes: list[Any], verb: str) -> None:
    if not changes:
        typer.echo("Nothing to change: what is applied is what the file declares.")
        return
    for change in changes:
        typer.echo(f"  {change['action']:7} {change['kind']} {change['name']}")
        print_differences(change["differences"], " " * 12)
    typer.echo("Apply it: holdtrue apply" if verb == "plan" else "Applied.")


def _print_contracts(contracts: list[Any]) -> None:
    for each in contracts:
        typer.echo(f"  {each['effect']:8} contract {each['dataset']}: {each['what']}")
        for dependent in each["dependents"]:
            typer.echo(f"           {dependent} depends on it")
