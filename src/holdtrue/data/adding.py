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
import pyarrow.parquet as pq

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from holdtrue.data.keys import check_key, check_keys
from holdtrue.data.profiling import keep_profile, profile_table
from holdtrue.data.reading import ENDINGS, Reading, put_rows, read_file
from holdtrue.storage import ActionCache, BlobStore

_THREADS = 2
# Small files are stored so many at a time, with one wait for the disk; so many are open at once in each thread.
_BATCH = 256
_SMALL = 1 << 20
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
    files: Mapping[str, str]

    @property
    def tables(self) -> bool:
        """Tell whether every file is one of rows, by its ending."""
        return all(path.lower().endswith(ENDINGS) for path in self.files.values())


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
        how = [
            self.reading.delimiter,
            self.reading.encoding,
            self.key,
            *([self.reading.texts, self.reading.missing] if self.reading.texts or self.reading.missing else []),
        ]
        seen, read = self._seen(folder, "tables", lambda paths: [self._table(path) for path in paths], how)
        _check_types({name: each.columns for name, each in seen.items()})
        if not any(each.rows for each in seen.values()):
            raise InvalidInput(
                f"There is no row in {'the file' if len(seen) == 1 else f'these {len(seen)} files'}.",
                why="A version without rows is most likely a delivery that failed.",
                mend="Look at the files, and add them when they have rows.",
            )
        if self.key is not None and read:
            check_keys(self.blobs, {name: each.digest for name, each in seen.items()}, self.key)
        parts = {name: {"digest": each.digest, "rows": each.rows, "bytes": each.bytes} for name, each in seen.items()}
        content: dict[str, Any] = {"fragments": parts}
        return Added(content if self.key is None else {**content, "key": self.key}, len(seen), read)

    def rows(self, table: pa.Table, window: str, others: Mapping[str, Any]) -> Added:
        """Return the content of a version that has `table` as its `window`, beside the `others` that it had before."""
        place = f"the window {window}"
        if self.key is not None:
            check_key(place, table, self.key)
        if not table.num_rows:
            raise InvalidInput(
                "The source gave no row.",
                why="A version without rows is most likely a delivery that failed.",
                mend="Look at the query, and add it when it gives rows.",
            )
        kept = {name: part for name, part in others.items() if name != window}
        columns = {name: _columns(pq.read_schema(self.blobs.open(part["digest"]))) for name, part in kept.items()}
        _check_types({**columns, window: _columns(table.schema)})
        digest, size = put_rows(self.blobs, table)
        keep_profile(self.blobs, self.actions, digest, profile_table(table))
        if self.key is not None:
            digests = {name: part["digest"] for name, part in kept.items()}
            check_keys(self.blobs, {**digests, window: digest}, self.key)
        kept[window] = {"digest": digest, "rows": table.num_rows, "bytes": size}
        content: dict[str, Any] = {"fragments": dict(sorted(kept.items()))}
        return Added(content if self.key is None else {**content, "key": self.key}, 1, 1)

    def tree(self, folder: Folder) -> Added:
        """Return the content of a version that keeps the files as they are."""
        seen, read = self._seen(folder, "tree", self._kept, [])
        digest = self.blobs.put_tree({name: each.digest for name, each in seen.items()})
        size = sum(each.size for each in seen.values())
        return Added({"tree": digest, "files": len(seen), "bytes": size}, len(seen), read)

    def _seen(
        self, folder: Folder, form: str, read: Callable[[Sequence[Path]], list[Seen]], how: list[Any]
    ) -> tuple[dict[str, Seen], int]:
        key = content_hash({"files": 1, "form": form, "dataset": self.name, "root": str(folder.root), "how": how})
        known = self._known(key)
        before = {name: os.stat(path) for name, path in folder.files.items()}
        found = {name: last for name in before if (last := self._unchanged(known.get(name), before[name])) is not None}
        changed = [name for name in before if name not in found]
        batches = [changed[start : start + _BATCH] for start in range(0, len(changed), _BATCH)]
        if form == "tables":
            batches = [[name] for name in changed]
        with ThreadPoolExecutor(_THREADS) as pool:
            made = pool.map(lambda names: self._read([Path(folder.files[name]) for name in names], read), batches)
            for names, each in zip(batches, made, strict=True):
                found.update(zip(names, each, strict=True))
        found = {name: found[name] for name in folder.files}
        fresh = len(changed)
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

    def _unchanged(self, last: Seen | None, now: os.stat_result) -> Seen | None:
        """Return what is known of a file if it is as it was when it was read, and its bytes are still stored."""
        if last is None or (last.size, last.mtime, last.inode) != _identity(now) or not self.blobs.has(last.digest):
            return None
        return last

    def _read(self, paths: Sequence[Path], read: Callable[[Sequence[Path]], list[Seen]]) -> list[Seen]:
        before = [_identity(path.stat()) for path in paths]
        made = read(paths)
        for path, one in zip(paths, before, strict=True):
            if _identity(path.stat()) != one:
                raise Conflict(
                    f"The file {path} changed while it was read.",
                    why="Somebody is still writing it; nothing of it was taken.",
                    mend="Add it when it is finished.",
                    facts={"file": str(path)},
                )
        return made

    def _kept(self, paths: Sequence[Path]) -> list[Seen]:
        """Store files as they are: small ones together, large ones in parts."""
        found = [path.stat() for path in paths]
        small = [path for path, status in zip(paths, found, strict=True) if status.st_size < _SMALL]
        digests = dict(zip(small, self.blobs.put_many([path.read_bytes() for path in small]), strict=True))
        for path in paths:
            if path not in digests:
                digests[path] = self.blobs.put_large(path)
        return [Seen(*_identity(status), digests[path]) for path, status in zip(paths, found, strict=True)]

    def _table(self, path: Path) -> Seen:
        status = path.stat()
        table = read_file(path, self.reading)
        if self.key is not None:
            check_key(str(path), table, self.key)
        if path.suffix.lower() in (".parquet", ".pq"):
            digest, size = self.blobs.put_large(path), status.st_size
        else:
            digest, size = put_rows(self.blobs, table)
        keep_profile(self.blobs, self.actions, digest, profile_table(table))
        return Seen(*_identity(status), digest, rows=table.num_rows, bytes=size, columns=_columns(table.schema))


def find_files(patterns: Sequence[str]) -> Folder:
    """Return the files that paths, folders and globs name, by their names below the folder that holds them all.

    Raises NotFound for a pattern without a file, InvalidInput for what is no regular file.
    """
    # Texts, not paths: of ten thousand files, making paths took longer than asking the disk about them.
    paths: dict[str, str] = {}
    for pattern in patterns:
        there = os.path.exists(pattern)
        files = [
            file for path in ([pattern] if there else sorted(glob(pattern, recursive=True))) for file in _below(path)
        ]
        if not files:
            raise NotFound(
                f"{pattern!r} names no file.",
                why="The folder is empty." if there else "There is nothing of that name.",
                mend="Name a file, a folder, or a glob in quotes: 'deliveries/*.parquet'.",
            )
        paths.update((os.path.abspath(file), file) for file in files)
    root = os.path.commonpath({os.path.dirname(path) for path in paths})
    if len(patterns) == 1 and os.path.isdir(patterns[0]):
        root = os.path.abspath(patterns[0])
    start = len(root.rstrip("/")) + 1
    return Folder(Path(root), {path[start:]: paths[path] for path in sorted(paths)})


def _below(path: str) -> Iterable[str]:
    """Yield a file, or all files in a folder and below; links and other things are refused by name."""
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode):
        yield path
    elif stat.S_ISDIR(mode):
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.is_file(follow_symlinks=False):
                    yield entry.path
                else:
                    yield from _below(entry.path)
    else:
        raise InvalidInput(
            f"{path} is {'a link' if stat.S_ISLNK(mode) else 'no regular file'}.",
            why="A version holds files; what a link points to may change, or lie anywhere.",
            mend="Put the file itself there, or leave the link out.",
            facts={"file": path},
        )


def _columns(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    return tuple((column.name, str(column.type)) for column in schema)


def _check_types(seen: Mapping[str, tuple[tuple[str, str], ...]]) -> None:
    """Raise InvalidInput if a column has types in two files that do not go together."""
    first: dict[str, tuple[str, str]] = {}
    for name, columns in seen.items():
        for column, kind in columns:
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
