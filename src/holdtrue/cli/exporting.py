"""A version of a dataset into files that are there whole or not at all."""

import contextlib
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from holdtrue.core.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from holdtrue.data.splits import part_of
from holdtrue.server.client import Client
from holdtrue.storage.files import storing

_FORMATS = (".parquet", ".csv")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Say which part of a recorded split is wanted."""

    split: Any
    part: str


def split_of(client: Client, dataset: str, split: str | None, part: str | None) -> Chosen | None:
    """Return the part of a recorded split that was asked for, None if all rows were."""
    if split is None and part is None:
        return None
    if split is None or part is None:
        raise ConfigurationError(
            "A part is one of a split.",
            why=f"{'--split' if split is None else '--part'} is missing.",
            mend="Name both: --split NAME --part NAME",
        )
    return Chosen(client.get(f"{dataset}/splits/{split}"), part)


def export(
    client: Client, address: str, target: Path, windows: Sequence[str], chosen: Chosen | None = None
) -> dict[str, Any]:
    """Fetch the version's fragments one by one and write them to `target`; return what was written."""
    shown = client.get(address)
    if chosen is not None and chosen.split["version"] != shown["version"]:
        raise Conflict(
            f"{chosen.split['label']} divides another version than {shown['label']}.",
            why=f"It is of {chosen.split['version']}.",
            mend=f"Export that one: {shown['name']}@{chosen.split['version']}",
        )
    if shown["tree"]:
        return _export_tree(client, address, shown, target)
    if target.suffix not in _FORMATS:
        raise ConfigurationError(
            f"{target.name!r} does not say in which format rows are wanted.",
            why=f"The ending of the file says it: {' or '.join(_FORMATS)}.",
            mend=f"Name it {target.stem or 'rows'}.parquet, for example.",
        )
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
    wanted = [parts[name] for name in parts if not windows or name in windows]
    rows = 0
    with (
        storing(f"the rows of {shown['label']} in {target.name}"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".holdtrue-") as scratch,
    ):
        folder = Path(scratch)
        files = [_fetched(client, f"{address}/fragments/{part['digest']}", folder) for part in wanted]
        schema = _schema(files)
        finished = folder / "finished"
        with _writer(finished, target.suffix, schema) as write:
            for file in files:
                table = pq.read_table(file)
                # As it is stored: in another type a value may have another hash.
                table = _as(table if chosen is None else part_of(table, chosen.split, chosen.part), schema)
                write(table)
                rows += table.num_rows
        finished.replace(target)
    names = [part["window"] for part in wanted]
    return {"label": shown["label"], "version": shown["version"], "windows": names, "rows": rows, "file": str(target)}


def _export_tree(client: Client, address: str, shown: Any, target: Path) -> dict[str, Any]:
    """Write the files of a tree into a new folder."""
    if target.exists():
        raise Conflict(f"{target} is there already.", mend="Name a folder that is not there yet.")
    if not target.parent.is_dir():
        raise NotFound(f"There is no folder {target.parent}.", mend="Make it first, or name another one.")
    with (
        storing(f"the files of {shown['label']} in {target.name}"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".holdtrue-") as scratch,
    ):
        finished = Path(scratch) / "finished"
        for each in shown["files"]:
            place = PurePosixPath(each["file"])
            if place.is_absolute() or ".." in place.parts:
                raise InvalidInput(
                    f"The file {each['file']!r} would lie outside of {target}.", mend="Write no such tree."
                )
            file = finished / place
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                client.download(f"{address}/fragments/{each['digest']}", out)
        finished.replace(target)
    files = [each["file"] for each in shown["files"]]
    return {"label": shown["label"], "version": shown["version"], "windows": files, "rows": 0, "file": str(target)}


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
