"""Where blobs lie in their folder."""

import fcntl
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from holdtrue.storage.chunks import Parts
from holdtrue.storage.files import make_folder, make_folders, sync_files, sync_folder, write_all
from holdtrue.storage.packs import LEAST, Packs

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
    """Know the files of a folder of blobs: plain ones, lists of parts, packs, temporary and assembled ones."""

    def __init__(self, root: Path, *, packed_from: int = LEAST) -> None:
        """Use folder `root`; from `packed_from` new contents on, those that are put together share a file."""
        self._root = root
        self.packed_from = packed_from
        self._base = f"{root}/"
        self.temporary = make_folder(root / "tmp")
        self.assembled = root / "whole"
        self.packs = Packs(root / "packs", self.temporary, self.gated)
        self._gate = root / "gate"
        os.close(os.open(self._gate, os.O_RDONLY | os.O_CREAT, 0o600))
        # What `path` has verified: digest -> identity of the file at that moment.
        self.verified: dict[str, tuple[int, int, int]] = {}

    def has(self, digest: str) -> bool:
        """Say whether `digest` is stored (its bytes are not checked)."""
        # A version of many files asks of each: without making paths it takes a fifth of the time.
        path = f"{self._base}{check_digest(digest)[:2]}/{digest}"
        return os.path.isfile(path) or os.path.isfile(path + PARTS) or self.packs.find(digest) is not None

    def lacking(self, digests: Iterable[str]) -> set[str]:
        """Return those digests that are not stored; many are looked for at once."""
        with os.scandir(self._root) as entries:
            folders = {entry.name for entry in entries}
        return {digest for digest in self.packs.lacking(digests) if digest[:2] not in folders or not self.has(digest)}

    def size(self, digest: str) -> int:
        """Return the number of bytes of `digest`; NotFound if absent."""
        try:
            return self.file_of(digest).stat().st_size
        except FileNotFoundError:
            packed = self.packs.find(digest)
            if packed is not None:
                return packed[2]
            parts = self.listed(digest)
            if parts is None:
                raise absent(digest) from None
            return parts.size

    def occupied(self, digest: str) -> int:
        """Return how many bytes the store itself has under `digest`: parts count under their own digests."""
        packed = self.packs.find(digest)
        plain = (path for path in (self.file_of(digest), self.list_of(digest)) if path.is_file())
        return sum(path.stat().st_size for path in plain) + (0 if packed is None else packed[2])

    def digests(self) -> Iterator[str]:
        """Yield every stored digest, those of parts among them."""
        packed = {digest for pack in self.packs.all().values() for digest in pack.digests()}
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            for name in sorted({path.name.removesuffix(PARTS) for path in folder.iterdir()}):
                if _DIGEST.fullmatch(name):
                    packed.discard(name)
                    yield name
        yield from sorted(packed)

    def file_of(self, digest: str) -> Path:
        """Return where the bytes of `digest` lie, if they are stored as they are."""
        return self._root / check_digest(digest)[:2] / digest

    def list_of(self, digest: str) -> Path:
        """Return where the list of the parts of `digest` lies, if it is kept in parts."""
        return self._root / check_digest(digest)[:2] / (digest + PARTS)

    def holder(self, digest: str, data: bytes) -> Path | None:
        """Return the file that has these bytes and renew its age; None for none: a damaged one is written anew."""
        target = self.file_of(digest)
        try:
            if target.stat().st_size != len(data) or target.read_bytes() != data:
                return None
        except FileNotFoundError:
            packed = self.packs.find(digest)
            if packed is None or self.packs.read(digest) != data:
                return None
            target = packed[0]
        os.utime(target)
        return target

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


def write_plain(places: Places, contents: Mapping[str, bytes]) -> Iterable[Path]:
    """Store contents by their digests as a file each, waiting for disks once for all; return the folders to sync."""
    folders = {digest[:2]: places.file_of(digest).parent for digest in contents}
    make_folders(folders.values())
    made: list[tuple[int, str, str]] = []
    prefix = f"{places.temporary}/{os.urandom(16).hex()}-"
    try:
        for number, (digest, data) in enumerate(contents.items()):
            temporary = f"{prefix}{number}.tmp"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            made.append((descriptor, temporary, f"{folders[digest[:2]]}/{digest}"))
            write_all(descriptor, data)
        sync_files([descriptor for descriptor, _, _ in made])
        for _, temporary, target in made:
            os.rename(temporary, target)
    except BaseException:
        for _, temporary, _ in made:
            Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        for descriptor, _, _ in made:
            os.close(descriptor)
    return folders.values()


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
