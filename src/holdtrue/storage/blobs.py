"""Content-addressed bytes and trees in a folder: a name is the hash of what it names."""

import fcntl
import os
import re
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
from blake3 import blake3

from holdtrue.core.canonical import bytes_hash, canonical_bytes
from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from holdtrue.storage.files import fresh_file, make_folder, publish, storing, sync_folder, write_all

_DIGEST = re.compile(r"[0-9a-f]{64}")
# "!" sorts before every name, so a tree's canonical form always starts with these bytes.
_TREE_START = b'{"!holdtrue":"tree/1","entries":{'
_CHUNK = 1 << 20
_SWEEP = 100


def check_digest(digest: str) -> str:
    """Return `digest` if it has the form of one (64 hexadecimal digits), else raise InvalidInput."""
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidInput(
            f"{digest[:80]!r} is not a digest.",
            why="A digest is 64 lower-case hexadecimal digits (BLAKE3).",
            mend="Use a digest that the store gave out.",
        )
    return digest


class BlobStore:
    """Keep immutable bytes under their BLAKE3 digest.

    A digest becomes visible only after its bytes are durable. Any number of processes may share the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = make_folder(root / "tmp")
        self._gate = root / "gate"
        os.close(os.open(self._gate, os.O_RDONLY | os.O_CREAT, 0o600))
        # What `path` has verified: digest -> identity of the file at that moment.
        self._verified: dict[str, tuple[int, int, int]] = {}

    def put(self, data: bytes) -> str:
        """Store `data` durably and return its digest; bytes already stored are left as they are.

        Raises StorageFull when the disk has no room.
        """
        digest = bytes_hash(data)
        with storing(f"blob {digest}"), self._gated(fcntl.LOCK_SH):
            target = self._file(digest)
            if self._holds(target, data):
                return digest
            make_folder(target.parent)
            with fresh_file(self._temporary) as (descriptor, temporary):
                write_all(descriptor, data)
                publish(descriptor, temporary, target)
        return digest

    def put_file(self, path: Path) -> str:
        """Store the present content of file `path`, piece by piece, and return its digest."""
        hasher = blake3()
        with (
            storing(f"the content of {path.name}"),
            path.open("rb") as source,
            fresh_file(self._temporary) as (descriptor, temporary),
        ):
            # The hash is of the bytes copied, so a file that changes meanwhile cannot get a wrong name.
            while chunk := source.read(_CHUNK):
                hasher.update(chunk)
                write_all(descriptor, chunk)
            digest = hasher.hexdigest()
            self.keep(descriptor, temporary, digest)
        return digest

    @contextmanager
    def receive(self) -> Generator["Receiver"]:
        """Take bytes as they come; nothing is kept unless `commit` is reached before the block ends."""
        with storing("an artifact"), fresh_file(self._temporary) as (descriptor, temporary):
            yield Receiver(self, descriptor, temporary)

    def keep(self, descriptor: int, temporary: Path, digest: str) -> None:
        """Give a finished temporary file the name of its content, durably."""
        with self._gated(fcntl.LOCK_SH):
            target = self._file(digest)
            if target.exists() and self._hash_file(target) == digest:
                self._keep(target)
                return
            make_folder(target.parent)
            publish(descriptor, temporary, target)

    def put_tree(self, entries: Mapping[str, str]) -> str:
        """Store a manifest of names → digests and return its digest; each entry must be stored already."""
        for name, digest in entries.items():
            if not self.has(digest):
                raise NotFound(
                    f"The tree's entry “{name}” names blob {digest}, which is not stored.",
                    mend="Put every blob before the tree that names it.",
                    facts={"name": name, "digest": digest},
                )
        return self.put(canonical_bytes({"!holdtrue": "tree/1", "entries": dict(entries)}))

    def tree(self, digest: str) -> dict[str, str]:
        """Return the names → digests of a stored tree; InvalidInput if the blob is not a tree."""
        data = self.get(digest)
        if data.startswith(_TREE_START):
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
            data = self._file(digest).read_bytes()
        except FileNotFoundError:
            raise _absent(digest) from None
        found = bytes_hash(data)
        if found != digest:
            raise self._corrupt(digest, found)
        return data

    def path(self, digest: str) -> Path:
        """Return the file that holds `digest`, to be read only.

        Its content is hashed at the first call and whenever the file has changed. Raises NotFound, Corrupt.
        """
        path = self._file(digest)
        try:
            identity = _identity(path)
            if self._verified.get(digest) != identity:
                found = self._hash_file(path)
                if found != digest:
                    raise self._corrupt(digest, found)
                self._verified[digest] = identity
        except FileNotFoundError:
            raise _absent(digest) from None
        return path

    def has(self, digest: str) -> bool:
        """Say whether `digest` is stored (its bytes are not checked)."""
        return self._file(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the number of bytes of `digest`; NotFound if absent."""
        try:
            return self._file(digest).stat().st_size
        except FileNotFoundError:
            raise _absent(digest) from None

    def digests(self) -> Iterator[str]:
        """Yield every stored digest."""
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                if _DIGEST.fullmatch(path.name):
                    yield path.name

    def verify(self) -> Iterator[str]:
        """Read every blob and yield the digests whose bytes are not what was stored."""
        for digest in self.digests():
            try:
                if self._hash_file(self._file(digest)) != digest:
                    yield digest
            except FileNotFoundError:  # collected meanwhile
                continue

    def collect(self, live: set[str], grace_seconds: float) -> int:
        """Remove what is older than `grace_seconds` and not in `live` or a tree there; return how many.

        Age counts from the last put of the same bytes. Left-overs of killed puts go by the same rule.
        """
        kept = self._closure(live)
        # File times are the machine's, whatever clock was injected.
        oldest = time.time() - grace_seconds
        for path in self._temporary.iterdir():
            if _older(path, oldest):
                path.unlink(missing_ok=True)
        doomed = [digest for digest in self.digests() if digest not in kept and _older(self._file(digest), oldest)]
        removed = 0
        for start in range(0, len(doomed), _SWEEP):
            # Behind the gate no put is between finding a blob and answering; finished ones renewed its age.
            with self._gated(fcntl.LOCK_EX):
                for digest in doomed[start : start + _SWEEP]:
                    path = self._file(digest)
                    if _older(path, oldest):
                        path.unlink(missing_ok=True)
                        self._verified.pop(digest, None)
                        removed += 1
        return removed

    def _closure(self, live: set[str]) -> set[str]:
        kept: set[str] = set()
        waiting = list(live)
        while waiting:
            digest = waiting.pop()
            path = self._file(digest)
            if digest in kept or not path.is_file():
                continue
            kept.add(digest)
            with path.open("rb") as file, suppress(InvalidInput):
                if file.read(len(_TREE_START)) == _TREE_START:
                    waiting.extend(self.tree(digest).values())
        return kept

    def _file(self, digest: str) -> Path:
        return self._root / check_digest(digest)[:2] / digest

    def _holds(self, target: Path, data: bytes) -> bool:
        """Say whether `target` already has these bytes; a damaged file does not, and is written anew."""
        try:
            if target.stat().st_size != len(data) or target.read_bytes() != data:
                return False
        except FileNotFoundError:
            return False
        self._keep(target)
        return True

    @staticmethod
    def _keep(target: Path) -> None:
        """Renew the age of a blob put again, and make sure that its name is durable before it is promised."""
        os.utime(target)
        sync_folder(target.parent)

    @staticmethod
    def _hash_file(path: Path) -> str:
        hasher = blake3()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
        return hasher.hexdigest()

    @contextmanager
    def _gated(self, mode: int) -> Generator[None]:
        descriptor = os.open(self._gate, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _corrupt(digest: str, found: str) -> Corrupt:
        return Corrupt(
            f"Blob {digest} is damaged.",
            why=f"Its bytes now hash to {found}: they were changed or lost after they were stored.",
            mend="Store the original bytes again (run the step or command that made them), or restore this "
            "file of the folder blobs from a backup; until then nothing that needs it is served.",
            facts={"digest": digest, "found": found},
        )


class Receiver:
    """Write the bytes of one blob as they come, hashing them on the way."""

    def __init__(self, store: BlobStore, descriptor: int, temporary: Path) -> None:
        self._store = store
        self._descriptor = descriptor
        self._temporary = temporary
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
            self._store.keep(self._descriptor, self._temporary, digest)
        return digest


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime <= moment
    except FileNotFoundError:
        return False


def _absent(digest: str) -> NotFound:
    return NotFound(
        f"There is no blob {digest}.",
        why="It was never stored here, or was collected because nothing referred to it.",
        mend="Run the step that makes it again, or restore it from a backup.",
        facts={"digest": digest},
    )
