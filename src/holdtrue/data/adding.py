"""Make a version of a dataset from files as they lie in a folder; what did not change is not read again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import InvalidInput
from holdtrue.data.endings import Reading
from holdtrue.data.folders import Folder, Looks, changed, identity, look, look_at, read_whole, unreadable
from holdtrue.storage import ActionCache, BlobStore
from holdtrue.storage.packs import MOST, MOST_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

# What reads rows is imported where rows are read: a folder of files needs none of it, and its loading takes longer than
# looking at ten thousand files.

_THREADS = 2
_ANY = "0" * 64
# Smaller files are stored together: as many as a pack holds, with one wait for the disk.
_SMALL = 1 << 20
# A file written in the moment it was looked at may change once more without another time (as with Git's index).
_SETTLED_NS = 2_000_000_000


class Seen(NamedTuple):
    """Hold what a file was when it was read: size, time (ns) and number on its disk; and what it became."""

    size: int
    time: int
    number: int
    digest: str
    rows: int = 0
    bytes: int = 0
    columns: Sequence[Sequence[str]] = ()


class Known(NamedTuple):
    """Hold what is known of many files, by their place: what each was when it was read, and what it became.

    `made` are rows, bytes and columns of each, empty where files are kept as they are. A file without a digest is read
    again. Columns, not a record for each file: ten thousand are compared at every start.
    """

    names: Sequence[str] = ()
    sizes: Sequence[int] = ()
    times: Sequence[int] = ()
    numbers: Sequence[int] = ()
    digests: Sequence[str] = ()
    made: Sequence[Sequence[Any]] = ()

    def of(self, names: Sequence[str], looks: Looks) -> tuple[list[str], list[Sequence[Any]]]:
        """Return digests and `made` of files; the digest of one that is new, or not what it was, is empty."""
        made = self.made or [()] * len(self.names)
        if names == self.names:
            same = zip(
                self.sizes, self.times, self.numbers, self.digests, looks.sizes, looks.times, looks.numbers, strict=True
            )
            return [e if a == x and b == y and c == z else "" for a, b, c, e, x, y, z in same], list(made)
        rows = zip(self.sizes, self.times, self.numbers, self.digests, made, strict=True)
        found = dict(zip(self.names, rows, strict=True))
        now = zip(
            map(found.get, names, repeat((-1, 0, 0, "", ()))), looks.sizes, looks.times, looks.numbers, strict=True
        )
        pairs = [(e, m) if a == x and b == y and c == z else ("", ()) for (a, b, c, e, m), x, y, z in now]
        return [digest for digest, _ in pairs], [each for _, each in pairs]


def known_digests(note: bytes | None) -> set[str]:
    """Return what the files that a note knows became, nothing of a note that is damaged or of another form."""
    try:
        return set() if note is None else set(Known(*orjson.loads(note)).digests) - {""}
    except (orjson.JSONDecodeError, TypeError):
        return set()


@dataclass(frozen=True, slots=True)
class Added:
    """Hold the content of a version, and how many of its files had to be read."""

    content: dict[str, Any]
    files: int
    read: int


@dataclass(slots=True)
class Adding:
    """Read files into `blobs`; what is known of each is noted in `actions` under the dataset's name."""

    blobs: BlobStore
    actions: ActionCache
    name: str
    reading: Reading = field(default_factory=Reading)
    key: str | None = None
    _ready: dict[str, Known] = field(default_factory=dict[str, "Known"])

    def prepare(self, root: str) -> None:
        """Load what is known of the files below `root`, to be kept as they are, while they are still looked for."""
        key = self._note("tree", root, [])
        self._ready[key] = self._known(key)
        # Whatever is asked for, the store then knows what its packs list.
        self.blobs.lacking([_ANY])

    def tables(self, folder: Folder) -> Added:
        """Return the content of a version whose windows are the files; each becomes one fragment."""
        how = [
            self.reading.delimiter,
            self.reading.encoding,
            self.key,
            *([self.reading.texts, self.reading.missing] if self.reading.texts or self.reading.missing else []),
        ]
        seen, read = self._seen(folder, "tables", lambda paths: [_unchanged(path, self._table) for path in paths], how)
        _check_types({name: columns for name, (_, _, columns) in zip(seen.names, seen.made, strict=True)})
        if not any(rows for rows, _, _ in seen.made):
            raise InvalidInput(
                f"There is no row in {'the file' if len(seen.names) == 1 else f'these {len(seen.names)} files'}.",
                why="A version without rows is most likely a delivery that failed.",
                mend="Look at the files, and add them when they have rows.",
            )
        if self.key is not None and read:
            from holdtrue.data.keys import check_keys

            check_keys(self.blobs, dict(zip(seen.names, seen.digests, strict=True)), self.key)
        made = zip(seen.names, seen.digests, seen.made, strict=True)
        parts = {name: {"digest": digest, "rows": rows, "bytes": size} for name, digest, (rows, size, _) in made}
        content: dict[str, Any] = {"fragments": parts}
        return Added(content if self.key is None else {**content, "key": self.key}, len(seen.names), read)

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
        entries = dict(zip(seen.names, seen.digests, strict=True))
        # All of them were looked for, or stored, a moment ago.
        digest = self.blobs.put_tree(entries, stored=frozenset(seen.digests))
        return Added({"tree": digest, "files": len(entries), "bytes": sum(seen.sizes)}, len(entries), read)

    def _seen(
        self, folder: Folder, form: str, read: Callable[[Sequence[str]], list[Seen]], how: list[Any]
    ) -> tuple[Known, int]:
        """Return what the files of a folder are, and how many were read for it."""
        names, paths = folder.names, folder.paths
        key = self._note(form, str(folder.root), how)
        known = self._ready.pop(key, None) or self._known(key)
        looks = folder.looks or look_at(paths)
        digests, made = known.of(names, looks)
        gone = self.blobs.lacking(set(digests) - {""})
        fresh = [place for place, digest in enumerate(digests) if not digest or digest in gone]
        batches = [[place] for place in fresh] if form == "tables" else list(_batches(fresh, looks.sizes))
        results = _side_by_side(lambda places: read([paths[place] for place in places]), batches)
        for batch, each in zip(batches, results, strict=True):
            for place, file in zip(batch, each, strict=True):
                looks.sizes[place], looks.times[place], looks.numbers[place] = file[:3]
                digests[place], made[place] = file.digest, file[4:]
        found = Known(names, looks.sizes, looks.times, looks.numbers, digests, made if form == "tables" else ())
        if fresh or names != known.names:
            self.actions.note(key, orjson.dumps([*_settled(found, looks.since)], default=list))
        return found, len(fresh)

    def _note(self, form: str, root: str, how: list[Any]) -> str:
        return content_hash({"files": 2, "form": form, "dataset": self.name, "root": root, "how": how})

    def _known(self, key: str) -> Known:
        kept = self.actions.noted(key)
        return Known() if kept is None else Known(*orjson.loads(kept))

    def _kept(self, paths: Sequence[str]) -> list[Seen]:
        """Store files as they are: small ones together, a large one in parts."""
        if len(paths) == 1 and look(paths[0]).st_size >= _SMALL:
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


def _batches(places: Iterable[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield which files are read and stored together: some thousands of small ones, each large one alone."""
    batch: list[int] = []
    size = 0
    for place in places:
        more = sizes[place]
        if more >= _SMALL:
            yield [place]
            continue
        if batch and (len(batch) == MOST or size + more > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += more
    if batch:
        yield batch


def _settled(found: Known, since: int) -> Known:
    """Return what is known for sure: of a file that was written just now, nothing, however often that happens."""
    unsure = [place for place, time in enumerate(found.times) if time >= since - _SETTLED_NS]
    if not unsure:
        return found
    sizes, times, numbers, digests = [*found.sizes], [*found.times], [*found.numbers], [*found.digests]
    for place in unsure:
        sizes[place], times[place], numbers[place], digests[place] = -1, 0, 0, ""
    return Known(found.names, sizes, times, numbers, digests, found.made)


def _side_by_side(work: Callable[[list[int]], list[Seen]], batches: Sequence[list[int]]) -> list[list[Seen]]:
    if len(batches) < 2:
        return [work(places) for places in batches]
    # Imported here: a folder in which nothing, or one file, changed does not wait for it.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, batches))


def _unchanged(path: str, read: Callable[[Path], Seen]) -> Seen:
    """Return what a file became; Conflict if it is not the same one afterwards."""
    before = identity(look(path))
    try:
        made = read(Path(path))
    except OSError as error:
        raise unreadable(path, error) from error
    if identity(look(path)) != before:
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
