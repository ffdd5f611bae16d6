"""Files that are either wholly there or not at all, and disk errors with a remedy."""

import errno
import os
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from holdtrue.core.errors import HoldtrueError, StorageFull, Unavailable

_TOGETHER = 8
_TELLS_ERRORS = (5, 8)
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def storage_error(error: OSError, what: str) -> HoldtrueError | OSError:
    """Return what a failed write means to its caller; `what` names the thing that was being written.

    A full disk is StorageFull, an input/output error or read-only disk Unavailable; others stay as they are.
    """
    facts = {"what": what, "errno": errno.errorcode.get(error.errno or 0, "")}
    if error.errno in FULL:
        return StorageFull(
            f"There is no room to store {what}.",
            why=f"The disk answered: {error.strerror}.",
            mend="Free space on the disk of the data folder and try again; what was acknowledged is intact.",
            facts=facts,
        )
    if error.errno in {errno.EIO, errno.EROFS}:
        return Unavailable(
            f"The disk failed while storing {what}; whether it was stored is not known.",
            why=f"The disk answered: {error.strerror}.",
            mend="Check the disk (dmesg, mount options), restart, then send the same request again.",
            facts=facts,
        )
    return error


@contextmanager
def storing(what: str) -> Generator[None]:
    """Raise OSErrors of the block as StorageFull or Unavailable where they mean that."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


def make_folder(path: Path) -> Path:
    """Create `path` and its missing parents, each 0700 and durable in its parent; return it."""
    make_folders([path])
    return path


def make_folders(paths: Iterable[Path]) -> None:
    """Create folders as `make_folder` does; the parent of many is synced once."""
    changed: dict[Path, None] = {}
    for path in paths:
        missing: list[Path] = []
        folder = path
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                continue
            changed[folder.parent] = None
    for folder in changed:
        sync_folder(folder)


def sync_folder(path: Path) -> None:
    """Make the names in folder `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(descriptors: Sequence[int]) -> None:
    """Make what was written to open files of one file system durable; of many, by one call for all of them.

    Each fsync makes the disk empty its cache: of 64 small files it took 5 ms each on a busy machine, and together 0.2.
    """
    if len(descriptors) < _TOGETHER or not _sync_file_system(descriptors[0]):
        for descriptor in descriptors:
            os.fsync(descriptor)


def sync_folders(paths: Sequence[Path]) -> None:
    """Make the names in folders of one file system durable; of many, by one call for all of them."""
    if paths and len(paths) >= _TOGETHER:
        descriptor = os.open(paths[0], os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _sync_file_system(descriptor):
                return
        finally:
            os.close(descriptor)
    for path in paths:
        sync_folder(path)


def _sync_file_system(descriptor: int) -> bool:
    """Make all of a file's file system durable (syncfs(2)); tell whether that is possible here.

    Linux tells of failed writes by this call since 5.8: before, it could not be relied on.
    """
    # Imported here: only where many files are stored one by one is it called.
    import ctypes
    import platform

    version = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None or platform.system() != "Linux" or version < _TELLS_ERRORS:
        return False
    if call(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`; a short write (a disk nearly full) goes on until done or an OSError."""
    written = os.write(descriptor, data)
    if written < len(data):
        rest = memoryview(data)
        while written < len(data):
            written += os.write(descriptor, rest[written:])


@contextmanager
def fresh_file(folder: Path) -> Generator[tuple[int, Path]]:
    """Open a new private (0600) file of random name in `folder`; remove it if still there at the end."""
    path = folder / f"{os.urandom(16).hex()}.tmp"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor, path
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def publish(descriptor: int, temporary: Path, target: Path) -> None:
    """Give a finished temporary file its name: fsync, rename, fsync of the target's folder."""
    os.fsync(descriptor)
    os.rename(temporary, target)
    sync_folder(target.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, and a crash, sees the old or the new bytes and nothing else."""
    with storing(f"the file {path.name}"), fresh_file(path.parent) as (descriptor, temporary):
        write_all(descriptor, data)
        publish(descriptor, temporary, path)
