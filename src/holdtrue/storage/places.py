"""Where blobs lie in their folder."""

import fcntl
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from holdtrue.storage.chunks import Parts
from holdtrue.storage.files import make_folder, sync_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")
PARTS = ".parts"
_CHUNK = 1 << 20


def check_digest(digest: str) -> str:
    """Return `digest` if it has the form of one (64 hexadecimal digits), else raise InvalidInput."""
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidInput(
            f"{digest[:80]!r} is not a digest.",
            why="A digest is 64 lower-case hexadecimal digits (BLAKE3).",
            mend="Use a digest that the store gave out.",
        )
    return digest


class Places:
    """Know the files of a folder of blobs: plain ones, lists of parts, temporary and assembled ones."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._base = f"{root}/"
        self.temporary = make_folder(root / "tmp")
        self.assembled = root / "whole"
        self._gate = root / "gate"
        os.close(os.open(self._gate, os.O_RDONLY | os.O_CREAT, 0o600))
        # What `path` has verified: digest -> identity of the file at that moment.
        self.verified: dict[str, tuple[int, int, int]] = {}

    def has(self, digest: str) -> bool:
        """Say whether `digest` is stored (its bytes are not checked)."""
        # A version of many files asks of each: without making paths it takes a fifth of the time.
        path = f"{self._base}{check_digest(digest)[:2]}/{digest}"
        return os.path.isfile(path) or os.path.isfile(path + PARTS)

    def size(self, digest: str) -> int:
        """Return the number of bytes of `digest`; NotFound if absent."""
        try:
            return self.file_of(digest).stat().st_size
        except FileNotFoundError:
            parts = self.listed(digest)
            if parts is None:
                raise absent(digest) from None
            return parts.size

    def occupied(self, digest: str) -> int:
        """Return how many bytes the store itself has under `digest`: parts count under their own digests."""
        return sum(path.stat().st_size for path in (self.file_of(digest), self.list_of(digest)) if path.is_file())

    def digests(self) -> Iterator[str]:
        """Yield every stored digest, those of parts among them."""
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            for name in sorted({path.name.removesuffix(PARTS) for path in folder.iterdir()}):
                if _DIGEST.fullmatch(name):
                    yield name

    def file_of(self, digest: str) -> Path:
        """Return where the bytes of `digest` lie, if they are stored as they are."""
        return self._root / check_digest(digest)[:2] / digest

    def list_of(self, digest: str) -> Path:
        """Return where the list of the parts of `digest` lies, if it is kept in parts."""
        return self._root / check_digest(digest)[:2] / (digest + PARTS)

    def holds(self, digest: str, data: bytes) -> bool:
        """Say whether these bytes are stored, and renew their age; a damaged file is written anew."""
        target = self.file_of(digest)
        try:
            if target.stat().st_size != len(data) or target.read_bytes() != data:
                return False
        except FileNotFoundError:
            return False
        os.utime(target)
        return True

    def listed(self, digest: str) -> Parts | None:
        """Return the list of the parts of `digest`, None if it has none; Corrupt if it cannot be read."""
        try:
            return Parts.from_bytes(self.list_of(digest).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise corrupt(digest, f"The list of its parts cannot be read: {error}") from error

    @contextmanager
    def gated(self, mode: int) -> Generator[None]:
        """Hold the gate of the folder, shared for a put and alone for a removal."""
        descriptor = os.open(self._gate, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)


def keep(target: Path) -> None:
    """Renew the age of a blob put again, and make sure that its name is durable before it is promised."""
    os.utime(target)
    sync_folder(target.parent)


def hash_file(path: Path) -> str:
    """Return the digest of a file's bytes."""
    hasher = blake3()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def corrupt(digest: str, why: str, found: str = "") -> Corrupt:
    """Say that what is stored under `digest` is not what was; `found` is the hash of what is there."""
    return Corrupt(
        f"Blob {digest} is damaged.",
        why=f"{why.rstrip('.')}: they were changed or lost after they were stored." if found else f"{why.rstrip('.')}.",
        mend="Store the original bytes again (run the step or command that made them), or restore this "
        "file of the folder blobs from a backup; until then nothing that needs it is served.",
        facts={"digest": digest, "found": found},
    )


def identity_of(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def older(path: Path, moment: float) -> bool:
    """Tell whether a file is there and was last written, or put again, before a moment."""
    try:
        return path.stat().st_mtime <= moment
    except FileNotFoundError:
        return False


def absent(digest: str) -> NotFound:
    """Say that `digest` is not stored."""
    return NotFound(
        f"There is no blob {digest}.",
        why="It was never stored here, or was collected because nothing referred to it.",
        mend="Run the step that makes it again, or restore it from a backup.",
        facts={"digest": digest},
    )
