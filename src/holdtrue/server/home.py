"""What a server keeps in its data folder beside the stores: its address, and the tokens of this machine.

No database is needed to read these: commands and the supervisor do.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import orjson

from holdtrue.core.errors import ConfigurationError, Unauthenticated
from holdtrue.storage import write_atomic

LOCAL_TOKEN = "keys/local-token"  # noqa: S105  # the name of a file
WORKER_TOKEN = "keys/worker-token"  # noqa: S105  # the name of a file
ADDRESS = "server.json"
_QUEUE_MARK = "queue"


@dataclass(frozen=True, slots=True)
class Address:
    """Say where the server of a data folder answers."""

    url: str
    data_url: str
    pid: int


def check_private(home: Path) -> None:
    """Raise ConfigurationError if a file or folder at the top of `home`, or a key, is open to others."""
    for folder in (home, home / "keys", home / "routing"):
        for path in [folder, *folder.iterdir()] if folder.is_dir() else []:
            try:
                found = path.lstat()
            except FileNotFoundError:  # a file on its way to its name
                continue
            mode = stat.S_IMODE(found.st_mode)
            if mode & 0o077 and not stat.S_ISLNK(found.st_mode):
                raise ConfigurationError(
                    f"Others can open {path} (its mode is {mode:o}).",
                    why="The data folder holds keys, tokens and prediction records.",
                    mend=f"chmod -R go-rwx {home}",
                    facts={"mode": f"{mode:o}"},
                )


def read_token(home: Path, name: str = LOCAL_TOKEN) -> str | None:
    """Return a token that this folder keeps, or None."""
    try:
        return (home / name).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def no_token() -> Unauthenticated:
    """Say that neither a variable nor a folder gives a token."""
    return Unauthenticated(
        "There is no token to call the server with.",
        mend=f"Set HOLDTRUE_TOKEN, or name the data folder with {LOCAL_TOKEN} in it: --home DIR",
    )


def write_address(home: Path, address: Address) -> None:
    """Tell commands on this machine where the server answers."""
    data = {"url": address.url, "data_url": address.data_url, "pid": address.pid}
    write_atomic(home / ADDRESS, orjson.dumps(data))


def read_address(home: Path) -> Address | None:
    """Return where the server of this folder says it answers; only its lock says whether it still does."""
    try:
        data = orjson.loads((home / ADDRESS).read_bytes())
        return Address(str(data["url"]), str(data["data_url"]), int(data["pid"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def mark_queue(home: Path) -> None:
    """Tell workers on this machine that a job waits: they look at this file instead of asking again and again."""
    descriptor = os.open(home / _QUEUE_MARK, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        # One write of a few bytes is seen whole or not at all.
        os.pwrite(descriptor, os.urandom(8), 0)
    finally:
        os.close(descriptor)


def queue_mark(home: Path) -> bytes:
    """Return what differs once a job waits that did not wait before; empty while there never was one."""
    try:
        return (home / _QUEUE_MARK).read_bytes()
    except FileNotFoundError:
        return b""


def remove_address(home: Path) -> None:
    """Take the address back when the server stops, if it is still this process's own."""
    address = read_address(home)
    if address is not None and address.pid == os.getpid():
        (home / ADDRESS).unlink(missing_ok=True)
