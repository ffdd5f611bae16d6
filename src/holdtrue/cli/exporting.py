"""Write the rows of a dataset's version to a file that is there whole or not at all."""

import contextlib
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from holdtrue.core.errors import ConfigurationError, InvalidInput, NotFound
from holdtrue.server.client import Client
from holdtrue.storage.files import storing

_FORMATS = (".parquet", ".csv")


def export(client: Client, address: str, target: Path, windows: Sequence[str]) -> dict[str, Any]:
    """Fetch the version's fragments one by one and write them to `target`; return what was written."""
    if target.suffix not in _FORMATS:
        raise ConfigurationError(
            f"{target.name!r} does not say in which format rows are wanted.",
            why=f"The ending of the file says it: {' or '.join(_FORMATS)}.",
            mend=f"Name it {target.stem or 'rows'}.parquet, for example.",
        )
    shown = client.get(address)
    parts = {each["window"]: each for each in shown["windows"]}
    absent = [name for name in windows if name not in parts]
    if absent or not parts:
        raise NotFound(
            f"{shown['label']} has no window {absent[0]!r}." if absent else f"{shown['label']} has no rows to write.",
            why=f"Its windows: {', '.join(parts) or 'none'}.",
            mend="Name one of them.",
        )
    if not target.parent.is_dir():
        raise NotFound(f"There is no folder {target.parent}.", mend="Make it first, or name another file.")
    chosen = [parts[name] for name in parts if not windows or name in windows]
    rows = 0
    with (
        storing(f"the rows of {shown['label']} in {target.name}"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".holdtrue-") as scratch,
    ):
        folder = Path(scratch)
        files = [_fetched(client, f"{address}/fragments/{part['digest']}", folder) for part in chosen]
        schema = _schema(files)
        finished = folder / "finished"
        with _writer(finished, target.suffix, schema) as write:
            for file in files:
                table = _as(pq.read_table(file), schema)
                write(table)
                rows += table.num_rows
        finished.replace(target)
    names = [part["window"] for part in chosen]
    return {"label": shown["label"], "version": shown["version"], "windows": names, "rows": rows, "file": str(target)}


def _fetched(client: Client, address: str, folder: Path) -> Path:
    file = folder / address.rpartition("/")[2]
    with file.open("wb") as out:
        client.download(address, out)
    return file


def _schema(files: Sequence[Path]) -> pa.Schema:
    """Return the columns of all fragments; a column that an older one does not have is null there."""
    try:
        return pa.unify_schemas(
            [pq.read_schema(file).remove_metadata() for file in files], promote_options="permissive"
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidInput(
            "The windows of this version cannot be written to one file.",
            why=f"A column has types that do not go together: {str(error).splitlines()[0]}",
            mend="Write them one by one: --window NAME.",
        ) from error


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@contextlib.contextmanager
def _writer(file: Path, suffix: str, schema: pa.Schema) -> Generator[Any]:
    if suffix == ".parquet":
        with pq.ParquetWriter(file, schema, compression="zstd") as out:
            yield out.write_table
    else:
        with pa_csv.CSVWriter(file, schema) as out:
            yield out.write_table
