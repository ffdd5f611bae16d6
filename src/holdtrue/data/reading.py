"""Read rows from one file, or say which file cannot be read and why."""

import codecs
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from holdtrue.core.errors import InvalidInput
from holdtrue.data.endings import ENDINGS, Reading
from holdtrue.data.strangers import check_texts
from holdtrue.storage import BlobStore
from holdtrue.storage.chunks import LARGE

# https://www.unicode.org/faq/utf_bom.html: the longer ones first, since one begins as another does.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_file(path: Path, how: Reading) -> pa.Table:
    """Return the rows of a Parquet, CSV or JSON file; InvalidInput names the file and what is wrong with it."""
    try:
        table = _reader(path)(path, how)
    except (pa.ArrowException, UnicodeError, LookupError, orjson.JSONDecodeError, OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read.",
            why=_reason(error),
            mend=_mend(path, str(error), how),
            facts={"file": str(path)},
        ) from error
    _check_columns(path, table)
    return table


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet whose bytes depend on the rows alone."""
    out = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(None),
        out,
        compression="zstd",
        store_schema=False,
        use_content_defined_chunking=table.nbytes >= LARGE,
    )
    return out.getvalue()


def put_rows(blobs: BlobStore, table: pa.Table) -> tuple[str, int]:
    """Store a table as Parquet and return its digest and size in bytes.

    A large one is kept in parts, and its pages are cut by content, so that a row more or less moves few of them.
    """
    data = parquet_bytes(table)
    digest = blobs.put(data) if len(data) < LARGE else blobs.put_large(io.BytesIO(data))
    return digest, len(data)


def read_rows(blobs: BlobStore, digest: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a stored table, all columns or some, without putting its parts together in a file."""
    chosen = None if columns is None else list(columns)
    if not blobs.parts(digest):
        return pq.read_table(blobs.path(digest), columns=chosen)
    with blobs.open(digest) as file:
        return pq.read_table(file, columns=chosen)


def _reader(path: Path) -> Callable[[Path, Reading], pa.Table]:
    ending = path.suffix.lower()
    if ending in (".parquet", ".pq"):
        return lambda file, _: pq.ParquetFile(file).read()
    if ending in (".csv", ".tsv"):
        return _csv
    if ending in (".json", ".jsonl", ".ndjson"):
        return _json
    raise InvalidInput(
        f"{path} is not a table that can be read.",
        why=f"Rows are read from files that end with {', '.join(ENDINGS)}.",
        mend="Add the files as they are with --files, or convert them to Parquet.",
    )


def _csv(path: Path, how: Reading) -> pa.Table:
    _check_mark(path, how)
    delimiter = how.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    table = pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(encoding=how.encoding, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(how.texts, pa.string()),
            null_values=[*pa_csv.ConvertOptions().null_values, *how.missing],
        ),
    )
    for column in table.schema:
        if pa.types.is_binary(column.type):
            bad = next(place for place, value in enumerate(table[column.name].to_pylist(), 2) if not _decodes(value))
            raise UnicodeError(f"The column “{column.name}” has bytes in line {bad} that are no {how.encoding}")
    other = next((sign for sign in _DELIMITERS if table.num_columns == 1 and sign in table.column_names[0]), None)
    if other is not None:
        raise InvalidInput(
            f"{path} has one column, {table.column_names[0][:80]!r}.",
            why=f"Its values seem to be separated by {_DELIMITERS[other]}.",
            mend=f"Say so: --delimiter {other!r}",
            facts={"file": str(path)},
        )
    check_texts(path, table, frozenset(how.texts))
    return table


def _check_mark(path: Path, how: Reading) -> None:
    """Raise UnicodeError for a file that begins with the mark of another encoding than it is said to have."""
    with path.open("rb") as file:
        begun = file.read(4)
    found = next((name for mark, name in _MARKS if begun.startswith(mark)), None)
    if found is not None and "".join(how.encoding.lower().replace("_", "-").split("-")[:2]) != found.replace("-", ""):
        raise UnicodeError(f"It begins with the mark of {found}, and is read with the encoding {how.encoding}")


def _decodes(value: bytes | None) -> bool:
    try:
        return value is None or bool(value.decode() or True)
    except UnicodeDecodeError:
        return False


def _json(path: Path, how: Reading) -> pa.Table:
    """Read an array of objects, or one object a line; values of one column have one type."""
    data = path.read_bytes()
    if how.encoding.lower().replace("-", "") != "utf8":
        data = data.decode(how.encoding).encode()
    if data.lstrip()[:1] == b"[":
        rows: Any = orjson.loads(data)
    else:
        rows = [_line(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"Row {number} is a {type(row).__name__}, not an object.")
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _array(name, [row.get(name) for row in rows]) for name in names})
    check_texts(path, table, frozenset(how.texts), typed=True)
    return table


def _line(number: int, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"Line {number} is not JSON: {error}.") from error


def _array(name: str, values: list[Any]) -> "pa.Array[Any]":
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        kinds: dict[str, int] = {}
        for place, value in enumerate(values):
            if value is not None:
                kinds.setdefault(type(value).__name__, place + 1)
        said = ", ".join(f"{kind} (row {row})" for kind, row in kinds.items())
        raise ValueError(f"The column “{name}” has values of several types: {said}.") from error


def _check_columns(path: Path, table: pa.Table) -> None:
    names = table.column_names
    twice = next((name for name in dict.fromkeys(names) if names.count(name) > 1), None) if _any_twice(names) else None
    if twice is not None or not names:
        raise InvalidInput(
            f"{path} has {'no column' if twice is None else f'two columns “{twice}”'}.",
            why="Rows are known by the names of their columns.",
            mend="Give each column one name of its own.",
            facts={"file": str(path)},
        )


def _any_twice(names: list[str]) -> bool:
    return len(set(names)) < len(names)


def _reason(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _mend(path: Path, text: str, how: Reading) -> str:
    ending = path.suffix.lower()
    if ending in (".parquet", ".pq"):
        return "The file is broken or was not finished: write it again."
    if "UTF8" in text or "codec" in text or "encoding" in text or "bytes in line" in text:
        if "the mark of" in text:
            return f"Say so: --encoding {text.partition('the mark of ')[2].partition(',')[0]}."
        return f"It is not {how.encoding}: say what it is, for example --encoding latin-1."
    if "Expected" in text and "columns" in text:
        return "Mend that row, or say how values are separated: --delimiter."
    if "Empty" in text:
        return "Write the file with a header and rows, or leave it out."
    return "Mend that place, so that each column has values of one type."
