"""Make a version of a dataset from files as they lie in a folder; what did not change is not read again."""

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from holdtrue.data.profiling import keep_profile, profile_table
from holdtrue.data.reading import ENDINGS, Reading, parquet_bytes, read_file
from holdtrue.storage import ActionCache, BlobStore

_THREADS = 8
# A file written in the moment it was looked at may change once more without another time (as with Git's index).
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold what a file was when it was read: size, time (ns) and number on its disk; and what it became."""

    size: int
    mtime: int
    inode: int
    digest: str
    rows: int = 0
    bytes: int = 0
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Added:
    """Hold the content of a version, and how many of its files had to be read."""

    content: dict[str, Any]
    files: int
    read: int


@dataclass(frozen=True, slots=True)
class Folder:
    """Hold where files are looked for, and which were found: names below `root` in order, with their paths."""

    root: Path
    files: Mapping[str, Path]

    @property
    def tables(self) -> bool:
        """Tell whether every file is one of rows, by its ending."""
        return all(path.suffix.lower() in ENDINGS for path in self.files.values())


@dataclass(slots=True)
class Adding:
    """Read files into `blobs`; what is known of each is kept in `actions` under the dataset's name."""

    blobs: BlobStore
    actions: ActionCache
    name: str
    reading: Reading = field(default_factory=Reading)
    key: str | None = None

    def tables(self, folder: Folder) -> Added:
        """Return the content of a version whose windows are the files; each becomes one fragment."""
        seen, read = self._seen(
            folder, "tables", self._table, [self.reading.delimiter, self.reading.encoding, self.key]
        )
        _check_types(seen)
        if not any(each.rows for each in seen.values()):
            raise InvalidInput(
                f"There is no row in {'the file' if len(seen) == 1 else f'these {len(seen)} files'}.",
                why="A version without rows is most likely a delivery that failed.",
                mend="Look at the files, and add them when they have rows.",
            )
        parts = {name: {"digest": each.digest, "rows": each.rows, "bytes": each.bytes} for name, each in seen.items()}
        content: dict[str, Any] = {"fragments": parts}
        return Added(content if self.key is None else {**content, "key": self.key}, len(seen), read)

    def tree(self, folder: Folder) -> Added:
        """Return the content of a version that keeps the files as they are."""
        seen, read = self._seen(folder, "tree", self._blob, [])
        digest = self.blobs.put_tree({name: each.digest for name, each in seen.items()})
        size = sum(each.size for each in seen.values())
        return Added({"tree": digest, "files": len(seen), "bytes": size}, len(seen), read)

    def _seen(
        self, folder: Folder, form: str, read: Callable[[Path], Seen], how: list[Any]
    ) -> tuple[dict[str, Seen], int]:
        key = content_hash({"files": 1, "form": form, "dataset": self.name, "root": str(folder.root), "how": how})
        known = self._known(key)
        with ThreadPoolExecutor(_THREADS) as pool:
            looked = pool.map(lambda name: self._look(folder.files[name], known.get(name), read), folder.files)
            found = dict(zip(folder.files, looked, strict=True))
        fresh = sum(found[name] is not known.get(name) for name in found)
        if fresh or found.keys() != known.keys():
            settled = time.time_ns() - _SETTLED_NS  # file times are the machine's, whatever clock was injected
            kept = {name: _plain(each) for name, each in found.items() if each.mtime < settled}
            self.actions.put(key, self.blobs.put(orjson.dumps(kept)))
        return found, fresh

    def _known(self, key: str) -> dict[str, Seen]:
        digest = self.actions.get(key)
        if digest is None:
            return {}
        try:
            stored = orjson.loads(self.blobs.get(digest))
        except (Corrupt, NotFound):
            return {}
        return {name: _seen_again(each) for name, each in stored.items()}

    def _look(self, path: Path, last: Seen | None, read: Callable[[Path], Seen]) -> Seen:
        before = path.stat()
        same = last is not None and (last.size, last.mtime, last.inode) == _identity(before)
        if last is not None and same and self.blobs.has(last.digest):
            return last
        made = read(path)
        if _identity(path.stat()) != _identity(before):
            raise Conflict(
                f"The file {path} changed while it was read.",
                why="Somebody is still writing it; nothing of it was taken.",
                mend="Add it when it is finished.",
                facts={"file": str(path)},
            )
        return made

    def _blob(self, path: Path) -> Seen:
        status = path.stat()
        digest = self.blobs.put(path.read_bytes()) if status.st_size < 1 << 20 else self.blobs.put_file(path)
        return Seen(status.st_size, status.st_mtime_ns, status.st_ino, digest)

    def _table(self, path: Path) -> Seen:
        status = path.stat()
        table = read_file(path, self.reading)
        if self.key is not None:
            _check_key(path, table, self.key)
        if path.suffix.lower() in (".parquet", ".pq"):
            digest, size = self.blobs.put_file(path), status.st_size
        else:
            data = parquet_bytes(table)
            digest, size = self.blobs.put(data), len(data)
        keep_profile(self.blobs, self.actions, digest, profile_table(table))
        columns = tuple((column.name, str(column.type)) for column in table.schema)
        return Seen(
            status.st_size, status.st_mtime_ns, status.st_ino, digest, rows=table.num_rows, bytes=size, columns=columns
        )


def find_files(patterns: Sequence[str]) -> Folder:
    """Return the files that paths, folders and globs name, by their names below the folder that holds them all.

    Raises NotFound for a pattern without a file, InvalidInput for what is no regular file.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        there = Path(pattern).exists()
        found = [Path(pattern)] if there else sorted(Path(each) for each in glob(pattern, recursive=True))
        files = [file for path in found for file in _below(path)]
        if not files:
            raise NotFound(
                f"{pattern!r} names no file.",
                why="The folder is empty." if there else "There is nothing of that name.",
                mend="Name a file, a folder, or a glob in quotes: 'deliveries/*.parquet'.",
            )
        paths.update(dict.fromkeys(files))
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    if len(patterns) == 1 and Path(patterns[0]).is_dir():
        root = Path(patterns[0]).absolute()
    named = {path.absolute().relative_to(root).as_posix(): path for path in paths}
    return Folder(root, dict(sorted(named.items())))


def _below(path: Path) -> Iterable[Path]:
    """Yield a file, or all files in a folder and below; links and other things are refused by name."""
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        for each in sorted(os.scandir(path), key=lambda entry: entry.name):
            yield from _below(Path(each.path))
    elif stat.S_ISREG(mode):
        yield path
    else:
        raise InvalidInput(
            f"{path} is {'a link' if stat.S_ISLNK(mode) else 'no regular file'}.",
            why="A version holds files; what a link points to may change, or lie anywhere.",
            mend="Put the file itself there, or leave the link out.",
            facts={"file": str(path)},
        )


def _check_key(path: Path, table: pa.Table, key: str) -> None:
    if key not in table.column_names:
        raise InvalidInput(
            f"{path} has no column “{key}”, which shall be the key.",
            why=f"Its columns: {', '.join(table.column_names[:20])}.",
            mend="Name another column with --key, or none.",
        )
    column = table[key]
    if column.null_count:
        raise InvalidInput(
            f"The key “{key}” is missing in {column.null_count} rows of {path}.",
            why="A key names its row.",
            mend="Mend these rows, or name another column with --key.",
        )
    counts = column.value_counts()
    twice = [each["values"] for each in counts.to_pylist() if each["counts"] > 1] if len(counts) < len(column) else []
    if twice:
        raise InvalidInput(
            f"The key “{key}” is doubled in {path}: {len(twice)} keys, such as {', '.join(map(str, twice[:3]))}.",
            why="A key names one row.",
            mend="Remove the doubled rows, or name another column with --key.",
        )


def _check_types(seen: Mapping[str, Seen]) -> None:
    """Raise InvalidInput if a column has types in two files that do not go together."""
    first: dict[str, tuple[str, str]] = {}
    for name, each in seen.items():
        for column, kind in each.columns:
            before, where = first.setdefault(column, (kind, name))
            if "null" in (before, kind):
                first[column] = (kind, name) if before == "null" else (before, where)
            elif before != kind and not {before, kind} <= _NUMBERS:
                raise InvalidInput(
                    f"The column “{column}” is {before} in {where} and {kind} in {name}.",
                    why="The windows of a version are read as one table.",
                    mend="Write both files with one type.",
                    facts={"column": column, "files": [where, name]},
                )


_NUMBERS = frozenset(
    {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"float", "double", "halffloat"}
)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _plain(each: Seen) -> list[Any]:
    return [each.size, each.mtime, each.inode, each.digest, each.rows, each.bytes, each.columns]


def _seen_again(each: list[Any]) -> Seen:
    size, mtime, inode, digest, rows, size_kept, columns = each
    return Seen(size, mtime, inode, digest, rows, size_kept, tuple((name, kind) for name, kind in columns))
