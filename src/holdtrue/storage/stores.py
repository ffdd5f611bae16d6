"""The three stores of one data folder, opened together."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from holdtrue.core.clock import Clock
from holdtrue.core.errors import ConfigurationError, NotFound
from holdtrue.storage.actions import ActionCache
from holdtrue.storage.blobs import BlobStore
from holdtrue.storage.files import make_folder
from holdtrue.storage.journal import Journal
from holdtrue.storage.ledger import Ledger
from holdtrue.storage.lock import FolderLock

_FOLDERS = ("blobs", "actions", "journal", "online", "routing/acks", "keys", "backups")


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything that persists, and the clock."""

    home: Path
    blobs: BlobStore
    actions: ActionCache
    ledger: Ledger
    journal: Journal
    clock: Clock
    lock: FolderLock | None = field(default=None, repr=False)
    online: str = field(default="", repr=False)
    """The address of the server that keeps online features; empty: they are in the folder."""

    def close(self) -> None:
        """Flush and close all stores, then give the folder's lock back."""
        self.journal.close()
        self.ledger.close()
        if self.lock is not None:
            self.lock.release()


def open_stores(
    home: Path, clock: Clock, *, writer: bool = True, anchors: Path | None = None, database: str = "", online: str = ""
) -> Stores:
    """Open the data folder `home`, creating it if `writer`.

    A writer takes the folder's lock first (Locked if another process has it). Permissions wider than 0700
    raise ConfigurationError; a missing folder raises NotFound for a reader. `anchors` is the file, best kept
    outside the folder, to which the ledger appends its signed checkpoints. `database` is the URL of the
    PostgreSQL database in which the ledger is, empty for a file in the folder, `online` the address of the server of
    online features.
    """
    prepare_home(home, create=writer)
    lock = FolderLock(home) if writer else None
    try:
        for name in _FOLDERS:
            make_folder(home / name)
        journal = Journal(home / "journal", clock)
        where = database or home / "ledger.db"
        ledger = Ledger.open(where, clock=clock, keys=home / "keys", writer=writer, anchors=anchors)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return Stores(home, BlobStore(home / "blobs"), ActionCache(home / "actions"), ledger, journal, clock, lock, online)


def prepare_home(home: Path, *, create: bool) -> Path:
    """Make sure that `home` is a folder only its owner can enter, and return it."""
    if not home.is_dir():
        if not create:
            raise NotFound(
                f"There is no data folder at {home}.",
                mend="Start a server there once (`holdtrue up --home DIR`), or give the right --home.",
                facts={"home": str(home)},
            )
        return make_folder(home)
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        if any(home.iterdir()):
            raise ConfigurationError(
                f"Others can enter the data folder {home} (its mode is {mode:o}).",
                why="It holds keys, tokens and prediction records.",
                mend=f"chmod 700 {home}",
                facts={"home": str(home), "mode": f"{mode:o}"},
            )
        os.chmod(home, 0o700)
    return home
