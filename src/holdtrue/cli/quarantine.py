"""Commands on quarantined deliveries: look at the rows, take them in again, give them up."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from holdtrue.cli.context import (
    BLOCKED,
    AsJson,
    Home,
    ProjectName,
    base,
    check_beside,
    lines,
    open_client,
    project_name,
    show,
    text_of,
)
from holdtrue.cli.declaring import Exit, argument, echo, option
from holdtrue.core.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    import pyarrow as pa

    from holdtrue.server.client import Client

_SHOWN = 10
Id = Annotated[str, argument(metavar="QUARANTINE", help="One that `holdtrue quarantines` lists.")]


def data_quarantine(
    id: Id,
    out: Annotated[Path | None, option("--out", help="Write all rows to this file, .parquet or .csv.")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Show rows that a contract kept out, and why; write them to a file to correct them."""
    with open_client(home) as client:
        address = f"{base(project_name(client, project))}/quarantines/{id}"
        found = client.get(address)
        rows = _rows(client, address)
    if out is not None:
        _write(rows, out)
    shown = {**found, "columns": rows.column_names, "examples": _examples(rows), "file": out and str(out)}
    show(shown, as_json, lambda value: lines(_told(value)))


def data_mend(
    id: Id,
    file: Annotated[
        Path | None, argument(help="Corrected rows (default: the rows as they are, under today's contract).")
    ] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Take quarantined rows in again: corrected ones from a file, or as they are where the contract was mended.

    Ends with 4 if the contract still blocks them.
    """
    from holdtrue.core.clock import SystemClock
    from holdtrue.core.codec import dump, load
    from holdtrue.data import DatasetSpec, KeyInto
    from holdtrue.data.mending import Mending
    from holdtrue.data.reading import Reading, read_file
    from holdtrue.server.settings import load_settings
    from holdtrue.storage import ActionCache, BlobStore

    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings, "data mend")
        root = base(project_name(client, project))
        found = client.get(f"{root}/quarantines/{id}")
        name = found["dataset"]
        spec = load(DatasetSpec, client.get(f"{root}/datasets/{name}/contract"), f"The dataset {name}")
        rows = _rows(client, f"{root}/quarantines/{id}") if file is None else read_file(_there(file), Reading())
        read = {name, *(rule.dataset for rule in spec.contract.rules if isinstance(rule, KeyInto))}
        fragments = {each: client.get(f"{root}/datasets/{each}")["fragments"] for each in sorted(read)}
        mending = Mending(spec, BlobStore(settings.home / "blobs"), ActionCache(settings.home / "actions"), fragments)
        result = mending.taken(found, rows, SystemClock().now())
        answer = client.post(f"{root}/datasets/{name}/deliveries", dump(result))
        after = client.get(f"{root}/quarantines/{id}")
    told = {
        "quarantine": id,
        "dataset": name,
        "window": found["window"],
        "state": after["state"],
        **answer,
        "findings": [dump(each) for each in result.findings],
    }
    show(told, as_json, lambda value: lines(_mended(value)))
    raise Exit(0 if answer["version"] else BLOCKED)


def data_discard(
    id: Id,
    reason: Annotated[str, option("--reason", help="Why the rows will not come again.")],
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Close a quarantine whose rows will not come again."""
    with open_client(home) as client:
        found = client.post(f"{base(project_name(client, project))}/quarantines/{id}/discard", {"reason": reason})
    show(found, as_json, lambda value: echo(f"{value['id']} is {value['state']}."))


def _rows(client: "Client", address: str) -> "pa.Table":
    import pyarrow.parquet as pq

    data = io.BytesIO()
    client.download(f"{address}/rows", data)
    return pq.read_table(data)


def _examples(rows: "pa.Table") -> list[dict[str, Any]]:
    return [
        {name: value if isinstance(value, int | float | str | None) else str(value) for name, value in row.items()}
        for row in rows.slice(0, _SHOWN).to_pylist()
    ]


def _write(rows: "pa.Table", out: Path) -> None:
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    if out.suffix not in (".parquet", ".csv"):
        raise ConfigurationError(
            f"{out.name!r} does not say in which format rows are wanted.",
            why="The ending of the file says it: .parquet or .csv.",
            mend=f"Name it {out.stem or 'rows'}.csv, for example.",
        )
    if not out.parent.is_dir():
        raise NotFound(f"There is no folder {out.parent}.", mend="Make it first, or name another file.")
    if out.suffix == ".parquet":
        pq.write_table(rows, out, compression="zstd")
    else:
        pa_csv.write_csv(rows, out)


def _there(file: Path) -> Path:
    if not file.is_file():
        raise NotFound(f"There is no file {file}.", mend="Name a file with the corrected rows.")
    return file


def _told(found: Any) -> Iterator[str]:
    kind = "the whole delivery" if found["blocked"] else "single rows"
    yield f"{found['id']}: {found['dataset']} {found['window']}, {found['state']}, {found['rows']:,} rows ({kind})"
    yield from (f"{each['severity']}  {each['what']} {each['mend']}" for each in found["findings"])
    for row in found["examples"]:
        yield "  " + ", ".join(f"{name} {text_of(value)}" for name, value in row.items())
    if found["rows"] > len(found["examples"]):
        yield f"  and {found['rows'] - len(found['examples']):,} more: --out FILE"
    if found["file"]:
        yield f"Wrote {found['rows']:,} rows to {found['file']}."
    if found["state"] == "open":
        yield f"Corrected, they are taken in with: holdtrue data mend {found['id']} FILE"


def _mended(found: Any) -> Iterator[str]:
    where = f"{found['dataset']} {found['window']}"
    if found["version"] is None:
        yield f"{where}: still blocked; {found['quarantine']} is {found['state']}"
    else:
        kept = f", {found['quarantined']:,} still kept out" if found["quarantined"] else ""
        yield f"{where}: {found['accepted']:,} rows, {found['version']}{kept}"
        yield f"{found['quarantine']} is {found['state']}"
    yield from (f"  {each['severity']}: {each['what']} {each['mend']}" for each in found["findings"])
