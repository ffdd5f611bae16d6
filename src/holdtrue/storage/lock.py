"""One writing process per data folder."""

import fcntl
import os
from pathlib import Path

import orjson

from holdtrue.core.errors import ConfigurationError, Locked

_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
)


class FolderLock:
    """Hold the exclusive lock of a data folder until `release` or the end of the process."""

    def __init__(self, home: Path) -> None:
        """Take the lock; Locked (naming the holder) if another process has it."""
        refuse_remote(home)
        self.instance = os.urandom(8).hex()
        self._path = home / "lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read()
            os.close(self._descriptor)
            raise _locked(home, holder) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, orjson.dumps({"pid": os.getpid(), "instance": self.instance}), 0)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> dict[str, object]:
        try:
            return orjson.loads(os.pread(self._descriptor, 4096, 0))
        except orjson.JSONDecodeError:  # the holder has not written its name yet
            return {}


def refuse_remote(home: Path) -> None:
    """Raise ConfigurationError if `home` lies on a network file system, whose locks cannot be relied on."""
    kind = _file_system(home)
    if kind in _REMOTE:
        raise ConfigurationError(
            f"The data folder {home} is on a network file system ({kind}).",
            why="Locks and fsync do not hold there, so two servers could write at once.",
            mend="Put the data folder on a local disk: --home DIR or HOLDTRUE_HOME.",
            facts={"home": str(home), "file_system": kind},
        )


def _file_system(path: Path) -> str:
    """Return the type of the mount that holds `path` (proc_pid_mountinfo(5)), "" where that is not told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    real = str(path.resolve())
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind


def _locked(home: Path, holder: dict[str, object]) -> Locked:
    pid = holder.get("pid", "unknown")
    return Locked(
        f"The data folder {home} is in use by process {pid}.",
        why="Only one process may write to a data folder.",
        mend=f"Use the running server (`holdtrue status`), or stop it: kill {pid}",
        facts={"home": str(home), **holder},
    )
