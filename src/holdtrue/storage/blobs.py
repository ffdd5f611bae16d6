"""Content-addressed bytes and trees in a folder: a name is the hash of what it names.

Large content may be kept in parts: then the folder has, under the digest of the whole, only the list of its parts
(`DIGEST.parts`), each of which is a blob of its own. Whoever asks for the digest gets the whole, and the same checks.
"""

import fcntl
import io
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import orjson
from blake3 import blake3

from holdtrue.core.canonical import bytes_hash, canonical_texts
from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from holdtrue.storage.chunks import LARGE, Parts, PartsReader, cut
from holdtrue.storage.files import (
    fresh_file,
    make_folder,
    publish,
    storing,
    sync_folder,
    sync_folders,
    write_all,
)
from holdtrue.storage.places import (
    PARTS,
    Places,
    absent,
    check_digest,
    corrupt,
    hash_file,
    identity_of,
    keep,
    older,
    write_plain,
)
from holdtrue.storage.sweeping import Merged, merge, sweep

if TYPE_CHECKING:
    from concurrent.futures import Future

# "!" sorts before every name, so a tree's canonical form always starts with these bytes.
TREE_START = b'{"!holdtrue":"tree/1","entries":{'
_CHUNK = 1 << 20
_THREADS = 4
# An assembled file that is used says so by its age, at most this often.
_RENEWED = 600.0


class BlobStore(Places):
    """Keep immutable bytes under their BLAKE3 digest.

    A digest becomes visible only after its bytes are durable. Any number of processes may share the folder.
    """

    def put(self, data: bytes) -> str:
        """Store `data` durably and return its digest; bytes already stored are left as they are.

        Raises StorageFull when the disk has no room.
        """
        digest = bytes_hash(data)
        with storing(f"blob {digest}"), self.gated(fcntl.LOCK_SH):
            target = self.file_of(digest)
            if (held := self.holder(digest, data)) is not None:
                sync_folder(held.parent)
                return digest
            make_folder(target.parent)
            with fresh_file(self.temporary) as (descriptor, temporary):
                write_all(descriptor, data)
                publish(descriptor, temporary, target)
        return digest

    def put_file(self, path: Path) -> str:
        """Store the present content of file `path`, piece by piece, and return its digest."""
        hasher = blake3()
        with (
            storing(f"the content of {path.name}"),
            path.open("rb") as source,
            fresh_file(self.temporary) as (descriptor, temporary),
        ):
            # The hash is of the bytes copied, so a file that changes meanwhile cannot get a wrong name.
            while chunk := source.read(_CHUNK):
                hasher.update(chunk)
                write_all(descriptor, chunk)
            digest = hasher.hexdigest()
            self.keep(descriptor, temporary, digest)
        return digest

    def put_many(self, contents: Sequence[bytes]) -> list[str]:
        """Store several contents as `put` does and return their digests; disks are waited for once for all of them.

        Many new ones share one file.
        """
        digests = [bytes_hash(data) for data in contents]
        with storing(f"{len(contents)} blobs"), self.gated(fcntl.LOCK_SH):
            absent = self.lacking(digests)
            fresh: dict[str, bytes] = {}
            mended: dict[str, bytes] = {}
            # Names that were there may not be durable yet: another process may be about to sync them.
            folders: set[Path] = set()
            for name, data in zip(digests, contents, strict=True):
                if name in absent:
                    fresh[name] = data
                elif (held := self.holder(name, data)) is not None:
                    folders.add(held.parent)
                else:
                    mended[name] = data
            if len(fresh) >= self.packed_from:
                self.packs.put(fresh)
            else:
                mended |= fresh
            # A file of its own is what is read first: so a damaged content is written, wherever it was.
            folders.update(write_plain(self, mended))
            sync_folders(sorted(folders))
        return digests

    def put_large(self, source: "Path | BinaryIO") -> str:
        """Store what `source` holds and return its digest; from LARGE bytes on it is kept in parts.

        Parts are cut by content: of a version in which one place differs, only what is there is stored again.
        """
        if isinstance(source, Path):
            if source.stat().st_size < LARGE:
                return self.put_file(source)
            with storing(f"the content of {source.name}"), source.open("rb") as file:
                return self.put_large(file)
        hasher = blake3()
        with storing("a large content"):
            parts = list(self._put_parts(cut(source, hasher.update)))
            digest = hasher.hexdigest()
            with self.gated(fcntl.LOCK_SH):
                plain = self.file_of(digest)
                if plain.exists() and hash_file(plain) == digest:
                    keep(plain)
                    return digest
                target = self.list_of(digest)
                data = Parts(*map(tuple, zip(*parts, strict=True)) if parts else ((), ())).to_bytes()
                if target.exists() and target.read_bytes() == data:
                    keep(target)
                    return digest
                make_folder(target.parent)
                with fresh_file(self.temporary) as (descriptor, temporary):
                    write_all(descriptor, data)
                    publish(descriptor, temporary, target)
        return digest

    @contextmanager
    def receive(self) -> Generator["Receiver"]:
        """Take bytes as they come; nothing is kept unless `commit` is reached before the block ends."""
        with storing("an artifact"), fresh_file(self.temporary) as (descriptor, temporary):
            yield Receiver(self, descriptor, temporary)

    def keep(self, descriptor: int, temporary: Path, digest: str) -> None:
        """Give a finished temporary file the name of its content, durably."""
        with self.gated(fcntl.LOCK_SH):
            target = self.file_of(digest)
            if target.exists() and hash_file(target) == digest:
                keep(target)
                return
            make_folder(target.parent)
            publish(descriptor, temporary, target)

    def put_tree(self, entries: Mapping[str, str], *, stored: AbstractSet[str] = frozenset()) -> str:
        """Store a manifest of names → digests and return its digest; each entry must be stored already.

        Digests that were just found, or put, need not be looked for again: those in `stored`.
        """
        absent = self.lacking(map(check_digest, set(entries.values()) - stored))
        for name, digest in entries.items() if absent else ():
            if digest in absent:
                raise NotFound(
                    f"The tree's entry “{name}” names blob {digest}, which is not stored.",
                    mend="Put every blob before the tree that names it.",
                    facts={"name": name, "digest": digest},
                )
        return self.put(TREE_START[:-1] + canonical_texts(entries) + b"}")

    def tree(self, digest: str) -> dict[str, str]:
        """Return the names → digests of a stored tree; InvalidInput if the blob is not a tree."""
        data = self.get(digest)
        if data.startswith(TREE_START):
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(data)["entries"]
        raise InvalidInput(
            f"Blob {digest} is not a tree.",
            why="Its bytes are not a tree manifest.",
            mend="Use `get` for plain bytes.",
            facts={"digest": digest},
        )

    def get(self, digest: str) -> bytes:
        """Return the bytes of `digest`; NotFound if absent, Corrupt if they are not what was stored."""
        try:
            data = self.file_of(digest).read_bytes()
        except FileNotFoundError:
            with self.open(digest) as file:
                data = file.read()
        found = bytes_hash(data)
        if found != digest:
            raise corrupt(digest, f"Its bytes now hash to {found}", found)
        return data

    def path(self, digest: str) -> Path:
        """Return the file that holds `digest`, to be read only.

        Its content is hashed at the first call and whenever the file has changed. Content in parts or in a pack is
        put in a file of its own first, which a collection removes: `open` reads it as it lies. NotFound, Corrupt.
        """
        path = self.file_of(digest)
        if not path.is_file() and (self.list_of(digest).is_file() or self.packs.find(digest)):
            path = self._whole(digest)
        try:
            identity = identity_of(path)
            if self.verified.get(digest) != identity:
                found = hash_file(path)
                if found != digest:
                    raise corrupt(digest, f"Its bytes now hash to {found}", found)
                self.verified[digest] = identity
        except FileNotFoundError:
            raise absent(digest) from None
        return path

    def open(self, digest: str) -> BinaryIO:
        """Return a reader of the bytes of `digest`, which are checked as `path` does; NotFound, Corrupt."""
        if self.file_of(digest).is_file():
            return self.path(digest).open("rb")
        packed = self._packed(digest)
        if packed is not None:
            return io.BytesIO(packed)
        parts = self.listed(digest)
        if parts is None:
            return self.path(digest).open("rb")
        files = self._checked(digest, parts)
        return io.BufferedReader(PartsReader(files, parts.sizes), _CHUNK)

    def parts(self, digest: str) -> tuple[str, ...]:
        """Return the digests of the parts in which `digest` is kept, none for one that is not; Corrupt."""
        found = self.listed(digest)
        return () if found is None else found.digests

    def verify(self) -> Iterator[str]:
        """Read every blob and yield the digests whose bytes are not what was stored."""
        for digest in self.digests():
            try:
                if self.file_of(digest).is_file() and hash_file(self.file_of(digest)) != digest:
                    yield digest
                elif not self.file_of(digest).is_file():
                    self.verified.pop(digest + PARTS, None)
                    self.open(digest).close()
            except (FileNotFoundError, NotFound):  # collected meanwhile
                continue
            except Corrupt:
                yield digest
        yield from self.packs.damaged()

    def collect(self, live: set[str], grace_seconds: float) -> int:
        """Remove what is older than `grace_seconds` and not in `live`, or in a tree or list of parts there.

        Return how many were removed. Age counts from the last put of the same bytes. Left-overs of killed puts, and
        files that were put together of parts, go by the same rule.
        """
        # File times are the machine's, whatever clock was injected.
        return sweep(self, self._closure(live), time.time() - grace_seconds)

    def merge(self, grace_seconds: float, *, dry: bool = False) -> Merged:
        """Write packs that are less than half full, and older than `grace_seconds`, together; `dry` only counts."""
        return merge(self, time.time() - grace_seconds, dry=dry)

    def _closure(self, live: set[str]) -> set[str]:
        kept: set[str] = set()
        waiting = list(live)
        while waiting:
            digest = waiting.pop()
            path = self.file_of(digest)
            if digest in kept:
                continue
            if self.list_of(digest).is_file():
                kept.update((digest, *self.parts(digest)))
            try:
                with path.open("rb") as file:
                    head = file.read(len(TREE_START))
            except FileNotFoundError:
                head = self.packs.read(digest)
                if head is None:
                    continue
            kept.add(digest)
            with suppress(InvalidInput):
                if head.startswith(TREE_START):
                    waiting.extend(self.tree(digest).values())
        return kept

    def _put_parts(self, chunks: Iterable[bytes]) -> Iterator[tuple[str, int]]:
        """Store chunks side by side, a few at a time, and yield digest and size of each in order."""
        # Imported here: it brings logging, for which a process that only reads would wait.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[tuple[Future[str], int]] = deque()
            for chunk in chunks:
                waiting.append((pool.submit(self.put, chunk), len(chunk)))
                if len(waiting) > 2 * _THREADS:
                    future, size = waiting.popleft()
                    yield future.result(), size
            for future, size in waiting:
                yield future.result(), size

    def _checked(self, digest: str, parts: Parts) -> tuple[Path, ...]:
        """Return the files of the parts, each of which is what was stored, and so is the whole."""
        try:
            files = tuple(self.path(part) for part in parts.digests)
            identity = identity_of(self.list_of(digest))
            if self.verified.get(digest + PARTS) != identity:
                hasher = blake3()
                for file in files:
                    hasher.update(file.read_bytes())
                if hasher.hexdigest() != digest or tuple(file.stat().st_size for file in files) != parts.sizes:
                    raise corrupt(digest, "Its parts together are not what was stored", hasher.hexdigest())
                self.verified[digest + PARTS] = identity
        except (NotFound, FileNotFoundError) as error:
            raise corrupt(digest, f"A part of it is gone: {error}") from error
        except Corrupt as error:
            if error.facts["digest"] == digest:
                raise
            raise corrupt(digest, f"Its part {error.facts['digest']} is damaged") from error
        return files

    def _packed(self, digest: str) -> bytes | None:
        """Return the bytes of `digest` out of a pack, None if none has it; Corrupt."""
        data = self.packs.read(digest)
        if data is not None and (found := bytes_hash(data)) != digest:
            raise corrupt(digest, f"Its bytes now hash to {found}", found)
        return data

    def _whole(self, digest: str) -> Path:
        """Return a file of its own that holds what is kept in parts or in a pack."""
        path = make_folder(self.assembled) / digest
        if path.is_file():
            if older(path, time.time() - _RENEWED):
                trusted = self.verified.get(digest) == identity_of(path)
                os.utime(path)
                if trusted:
                    self.verified[digest] = identity_of(path)
            return path
        with self.open(digest) as file, storing(f"blob {digest}"), fresh_file(self.temporary) as (descriptor, name):
            while chunk := file.read(_CHUNK):
                write_all(descriptor, chunk)
            publish(descriptor, name, path)
        return path


class Receiver:
    """Write the bytes of one blob as they come, hashing them on the way."""

    def __init__(self, store: BlobStore, descriptor: int, temporary: Path) -> None:
        self._store = store
        self._descriptor = descriptor
        self.temporary = temporary
        self._hasher = blake3()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes; raises StorageFull when the disk has no room."""
        self._hasher.update(chunk)
        write_all(self._descriptor, chunk)
        self.size += len(chunk)

    def commit(self) -> str:
        """Store what came, durably, and return its digest."""
        digest = self._hasher.hexdigest()
        with storing(f"blob {digest}"):
            self._store.keep(self._descriptor, self.temporary, digest)
        return digest
