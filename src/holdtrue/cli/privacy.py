"""Commands about personal data: which models used something, and the erasure of an entity."""

import sys
from collections.abc import Iterator
from threading import Event
from typing import Annotated, Any

from holdtrue.cli.context import (
    AsJson,
    Home,
    ProjectName,
    base,
    lines,
    listing,
    open_client,
    project_name,
    show,
    text_of,
)
from holdtrue.cli.declaring import argument, option
from holdtrue.core.errors import ConfigurationError, Locked, Unavailable

_AGAIN_SECONDS = 0.5
_MOST_FAILURES = 10
EntityName = Annotated[str, argument(help="Column and value, as in tailnum=N14228; “-” reads it from input.")]


def data_used(
    source: Annotated[str | None, option("--source", help="A source by its tag, or a dataset.")] = None,
    column: Annotated[str | None, option("--column", help="A column, as in flights.tailnum.")] = None,
    licence: Annotated[str | None, option("--licence", help="A licence by its tag.")] = None,
    personal: Annotated[str | None, option("--personal", help="A kind of personal data, or any.")] = None,
    entity: Annotated[str | None, option("--entity", help="Column and value; “-” reads it from input.")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Tell which models used a source, a column, a licence, a kind of personal data, or an entity's rows."""
    given = {"source": source, "column": column, "licence": licence, "personal": personal}
    asked = {**given, "entity": None if entity is None else _read(entity)}
    with open_client(home) as client:
        found = client.post(f"{base(project_name(client, project))}/usage", asked)["items"]
    columns = {
        "model": lambda each: each["label"],
        "by": lambda each: ", ".join(each["columns"]) or ", ".join(each["datasets"]),
        "windows": lambda each: ", ".join(each["windows"]) or None,
        "releases": lambda each: ", ".join(each["releases"]) or None,
        "answers": lambda each: ", ".join(each["answers"]) or None,
    }
    listing(found, as_json, columns, empty="No model used it.")


def data_erase(
    entity: EntityName,
    reason: Annotated[str, option("--reason", help="Why, without naming the entity.")],
    again: Annotated[bool, option("--again", help="Do an erasure that is done once more.")] = False,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Erase an entity from the online store, the journal and all present and future versions; list its models.

    Cut off in the middle, the same command goes on where it was.
    """
    column, mark, value = _read(entity).partition("=")
    if not mark:
        raise ConfigurationError("No entity is named.", mend="Write it like tailnum=N14228.")
    wanted = {"column": column.strip(), "value": value, "reason": reason, "again": again}
    with open_client(home) as client:
        address = f"{base(project_name(client, project))}/erasures"
        found = _until_done(client, address, wanted)
    show(found, as_json, lambda each: lines(_told(each)))


def data_erasures(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List erasures; whose they were is not known here."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/erasures")["items"]
    columns = {
        "erasure": lambda each: each["id"],
        "column": lambda each: each["column"],
        "state": lambda each: each["state"],
        "requested": lambda each: each["requested_at"],
        "by": lambda each: each["requested_by"],
        "not done": lambda each: ", ".join(each["remaining"]) or None,
        "models": lambda each: len(each["found"].get("models", [])),
    }
    listing(found, as_json, columns, empty="Nothing was erased.")


def _until_done(client: Any, address: str, wanted: Any) -> Any:
    """Ask until the erasure is done; each answer comes within seconds, whatever there is to look through."""
    failures = 0
    while True:
        try:
            found = client.post(address, wanted)
        except (Locked, Unavailable) as error:
            # The request before this one goes on although nobody waited for it; a server that is away may come back.
            code = error.facts.get("code")
            failures = 0 if code == "erasure_running" else failures + 1
            # What somebody has to start does not come back by itself.
            if failures > _MOST_FAILURES or code == "erasure_waits":
                raise
            Event().wait(_AGAIN_SECONDS)
            continue
        failures = 0
        if found["state"] == "done":
            return found
        wanted = {**wanted, "again": False}


def _read(entity: str) -> str:
    """Return the entity; from standard input it stands in no list of processes and no history of a shell."""
    return sys.stdin.readline().rstrip("\n") if entity == "-" else entity


def _told(found: Any) -> Iterator[str]:
    done = found["found"]
    yield f"{found['id']}: {found['state']} {text_of(found['finished_at'])}, by {found['requested_by']}"
    records, said = done["records"], done["said"]
    yield (
        f"journal   {records['predictions']:,} predictions, {records['events']:,} events, {said['labels']:,} labels, "
        + (f"{said['feedback']:,} opinions, {said['spans']:,} spans")
    )
    # Erasures of before counted them with what was said.
    records_gone = done.get("cases", {}).get("records", said.get("cases", 0))
    if records_gone:
        yield f"cases     {records_gone:,} records of evaluation datasets"
    online = done["online"]
    where = f" ({online['server']:,} on the server, {online['file']:,} in the file)" if online.get("server") else ""
    yield f"online    {online['keys']:,} keys{where}"
    datasets = done["datasets"]
    yield f"datasets  {datasets['rows']:,} rows in {datasets['fragments']:,} fragments; new versions: " + (
        ", ".join(datasets["versions"]) or "none"
    )
    yield f"cached    {done['cached']['steps']:,} steps will be done again"
    left = done["left"]
    if left["waiting"]:
        yield f"waiting   {left['waiting']:,} blobs ({left['waiting_bytes']:,} bytes) go with: holdtrue data gc"
    for digest in left["blobs"]:
        yield f"left      blob {digest} is in use and still holds it"
    if left["damaged_files"]:
        yield f"left      {left['damaged_files']:,} damaged files of the journal were set aside before: not searched"
    if datasets["not_searched"]:
        yield f"left      {datasets['not_searched']:,} versions are files as they are: not searched"
    for model in done["models"]:
        where = f", answers: {', '.join(model['answers'])}" if model["answers"] else ""
        yield f"trained   {model['label']} ({model['model']}) on {', '.join(model['windows'])}{where}"
    if not done["models"]:
        yield "trained   no model"
