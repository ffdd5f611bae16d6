"""Maintenance of a data folder's database: what `holdtrue db` does."""

from pathlib import Path
from typing import Any

from holdtrue.core.clock import SystemClock
from holdtrue.server.settings import Settings, load_settings
from holdtrue.server.table import room_routes
from holdtrue.storage import BlobStore, FolderLock, open_stores
from holdtrue.storage.ledger.care import care_of
from holdtrue.storage.ledger.verify import verify


def check(home: Path | None) -> dict[str, str]:
    """Check the database, the event log and its signatures, and the bytes of every blob; nothing is changed."""
    settings = load_settings(home)
    folder, place = settings.home, _place(settings)
    care = care_of(place)
    found = care.check()
    log = verify(place, (folder / "keys" / "ledger.pub").read_text("ascii"))
    damaged = list(BlobStore(folder / "blobs").verify())
    return {
        **found,
        "event log": "ok" if log.ok else f"exit code {log.exit_code}: run holdtrue audit verify",
        "blobs": "ok" if not damaged else f"{len(damaged)} damaged, the first is {damaged[0]}",
        "bytes": str(care.size()),
    }


def backup(home: Path | None, target: Path | None) -> Path:
    """Copy the database while it may be in use, and check the copy."""
    settings = load_settings(home)
    care = care_of(_place(settings))
    name = f"ledger-{SystemClock().now():%Y%m%dT%H%M%S}{care.suffix}"
    return care.copy_to(target or settings.home / "backups" / name)


def restore(home: Path | None, source: Path) -> Path:
    """Put a backup in the database's place; return where what was there is kept. Locked while a server runs."""
    settings = load_settings(home)
    care = care_of(_place(settings))
    lock = FolderLock(settings.home)
    try:
        name = f"ledger-before-restore-{SystemClock().now():%Y%m%dT%H%M%S%f}{care.suffix}"
        kept = settings.home / "backups" / name
        care.put_back(source, kept)
    finally:
        lock.release()
    return kept


def vacuum(home: Path | None) -> tuple[int, int]:
    """Rewrite the database without its empty pages; return its size before and after. Locked while a server runs."""
    settings = load_settings(home)
    care = care_of(_place(settings))
    lock = FolderLock(settings.home)
    try:
        return care.compact()
    finally:
        lock.release()


def upgrade(home: Path | None) -> dict[str, Any]:
    """Check the database, back it up, and bring it to this version's schema. Locked while a server runs."""
    settings = load_settings(home)
    care = care_of(_place(settings))
    before = care.check()["schema"].split()[0]
    copy = backup(home, None)
    # Tables of every room are known by their routes; opening as a writer migrates.
    room_routes()
    open_stores(settings.home, SystemClock(), database=settings.database).close()
    return {"from": before, "to": care.check()["schema"].split()[0], "backup": str(copy)}


def _place(settings: Settings) -> Path | str:
    """Return where the ledger is: a file, or a database by its URL."""
    return settings.database or settings.home / "ledger.db"
