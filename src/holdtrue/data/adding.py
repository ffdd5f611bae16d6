"""Make a version of a dataset from files as they lie in a folder; what did not change is not read again."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from holdtrue.data.endings import Reading
from holdtrue.data.folders import Folder, changed, identity, read_whole, unreadable
from holdtrue.storage import ActionCache, BlobStore
from holdtrue.storage.packs import MOST, MOST_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

# What reads rows is imported where rows are read: a folder of files needs none of it, and its loading takes longer than
# looking at ten thousand files.

_THREADS = 2
# Smaller files are stored together: as many as a pack holds, with one wait for the disk.
_SMALL = 1 << 20
# A file written in the moment it was looked at may change once more without another time (as with Git's index).
_SETTLED_NS = 2_000_000_000


class Seen(NamedTuple):
    """Hold what a file was when it was read: size, time (ns) and number on its disk; and what it became.

    Ten thousand are read from one document at every start: as a tuple each takes a third of a dataclass's time.
    """

    size: int
    mtime: int
    inode: int
    digest: str
    rows: int = 0
    bytes: int = 0
    columns: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class Added:
    """Hold the content of a version, and how many of its files had to be read."""

    content: dict[str, Any]
    files: int
    read: int


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
        seen, read = self._seen(folder, "tables", lambda paths: [_unchanged(path, self._table) for path in paths], how)
        _check_types({name: each.columns for name, each in seen.items()})
        if not any(each.rows for each in seen.values()):
            raise InvalidInput(
                f"There is no row in {'the file' if len(seen) == 1 else f'these {len(seen)} files'}.",
                why="A version without rows is most likely a delivery that failed.",
                mend="Look at the files, and add them when they have rows.",
            )
        if self.key is not None and read:
            from holdtrue.data.keys import check_keys

            check_keys(self.blobs, {name: each.digest for name, each in seen.items()}, self.key)
        parts = {name: {"digest": each.digest, "rows": each.rows, "bytes": each.bytes} for name, each in seen.items()}
        content: dict[str, Any] = {"fragments": parts}
        return Added(content if self.key is None else {**content, "key": self.key}, len(seen), read)

    def rows(self, table: "pa.Table", window: str, others: Mapping[str, Any]) -> Added:
        """Return the content of a version that has `table` as its `window`, beside the `others` that it had before."""
        import pyarrow.parquet as pq

        from holdtrue.data.keys import check_key, check_keys
        from holdtrue.data.profiling import keep_profile, profile_table
        from holdtrue.data.reading import put_rows

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
        entries = {name: each.digest for name, each in seen.items()}
        # All of them were looked for, or stored, a moment ago.
        digest = self.blobs.put_tree(entries, stored=frozenset(entries.values()))
        size = sum(each.size for each in seen.values())
        return Added({"tree": digest, "files": len(seen), "bytes": size}, len(seen), read)

    def _seen(
        self, folder: Folder, form: str, read: Callable[[Sequence[str]], list[Seen]], how: list[Any]
    ) -> tuple[dict[str, Seen], int]:
        key = content_hash({"files": 1, "form": form, "dataset": self.name, "root": str(folder.root), "how": how})
        known = self._known(key)
        now = _looked(folder.files)
        same = {name: last for name, each in now.items() if (last := known.get(name)) and last[:3] == each}
        gone = self.blobs.lacking(last.digest for last in same.values())
        found = {name: last for name, last in same.items() if last.digest not in gone} if gone else same
        fresh = [name for name in now if name not in found]
        batches = [[name] for name in fresh] if form == "tables" else list(_batches(fresh, now))
        made = _side_by_side(lambda names: read([folder.files[name] for name in names]), batches)
        for names, each in zip(batches, made, strict=True):
            found.update(zip(names, each, strict=True))
        if fresh or found.keys() != known.keys():
            found = {name: found[name] for name in now}
            settled = time.time_ns() - _SETTLED_NS  # file times are the machine's, whatever clock was injected
            kept = {name: each for name, each in found.items() if each.mtime < settled}
            self.actions.put(key, self.blobs.put(orjson.dumps(kept, default=list)))
        return found, len(fresh)

    def _known(self, key: str) -> dict[str, Seen]:
        digest = self.actions.get(key)
        if digest is None:
            return {}
        try:
            stored = orjson.loads(self.blobs.get(digest))
        except (Corrupt, NotFound):
            return {}
        return dict(zip(stored, map(Seen._make, stored.values()), strict=True))

    def _kept(self, paths: Sequence[str]) -> list[Seen]:
        """Store files as they are: small ones together, a large one in parts."""
        if len(paths) == 1 and _look(paths[0]).st_size >= _SMALL:
            return [_unchanged(paths[0], lambda path: Seen(*identity(path.stat()), self.blobs.put_large(path)))]
        contents, found = zip(*map(read_whole, paths), strict=True)
        digests = self.blobs.put_many(contents)
        return [Seen(*identity(status), digest) for status, digest in zip(found, digests, strict=True)]

    def _table(self, path: Path) -> Seen:
        from holdtrue.data.keys import check_key
        from holdtrue.data.profiling import keep_profile, profile_table
        from holdtrue.data.reading import put_rows, read_file

        status = path.stat()
        table = read_file(path, self.reading)
        if self.key is not None:
            check_key(str(path), table, self.key)
        if path.suffix.lower() in (".parquet", ".pq"):
            digest, size = self.blobs.put_large(path), status.st_size
        else:
            digest, size = put_rows(self.blobs, table)
        keep_profile(self.blobs, self.actions, digest, profile_table(table))
        return Seen(*identity(status), digest, rows=table.num_rows, bytes=size, columns=_columns(table.schema))


def _batches(names: Iterable[str], now: Mapping[str, tuple[int, int, int]]) -> Iterator[list[str]]:
    """Yield which files are read and stored together: some thousands of small ones, each large one alone."""
    batch: list[str] = []
    size = 0
    for name in names:
        more = now[name][0]
        if more >= _SMALL:
            yield [name]
            continue
        if batch and (len(batch) == MOST or size + more > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += more
    if batch:
        yield batch


def _side_by_side(work: Callable[[list[str]], list[Seen]], batches: Sequence[list[str]]) -> list[list[Seen]]:
    if len(batches) < 2:
        return [work(names) for names in batches]
    # Imported here: a folder in which nothing, or one file, changed does not wait for it.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, batches))


def _looked(files: Mapping[str, str]) -> dict[str, tuple[int, int, int]]:
    """Return the identity of each file: ten thousand are looked at, so that nothing else is called for each."""
    try:
        return {
            name: (status.st_size, status.st_mtime_ns, status.st_ino)
            for name, status in zip(files, map(os.lstat, files.values()), strict=True)
        }
    except OSError:
        return {name: identity(_look(path)) for name, path in files.items()}


def _look(path: str) -> os.stat_result:
    try:
        return os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise unreadable(path, error) from error


def _unchanged(path: str, read: Callable[[Path], Seen]) -> Seen:
    """Return what a file became; Conflict if it is not the same one afterwards."""
    before = identity(_look(path))
    try:
        made = read(Path(path))
    except OSError as error:
        raise unreadable(path, error) from error
    if identity(_look(path)) != before:
        raise changed(path)
    return made


def _columns(schema: "pa.Schema") -> tuple[tuple[str, str], ...]:
    return tuple((column.name, str(column.type)) for column in schema)


def _check_types(seen: Mapping[str, Sequence[Sequence[str]]]) -> None:
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
