"""Maintenance of a data folder's database: what `holdtrue db` does."""

from pathlib import Path
from typing import Any

from holdtrue.core.clock import SystemClock
from holdtrue.server.settings import load_settings
from holdtrue.server.table import room_routes
from holdtrue.storage import BlobStore, FolderLock, open_stores
from holdtrue.storage.ledger import care
from holdtrue.storage.ledger.verify import verify


def check(home: Path | None) -> dict[str, str]:
    """Check pages, keys, the event log and its signatures, and the bytes of every blob; nothing is changed."""
    folder = load_settings(home).home
    found = care.check_file(folder / "ledger.db")
    log = verify(folder / "ledger.db", (folder / "keys" / "ledger.pub").read_text("ascii"))
    damaged = list(BlobStore(folder / "blobs").verify())
    return {
        **found,
        "event log": "ok" if log.ok else f"exit code {log.exit_code}: run holdtrue audit verify",
        "blobs": "ok" if not damaged else f"{len(damaged)} damaged, the first is {damaged[0]}",
        "bytes": str((folder / "ledger.db").stat().st_size),
    }


def backup(home: Path | None, target: Path | None) -> Path:
    """Copy the database while it may be in use, and check the copy."""
    folder = load_settings(home).home
    moment = SystemClock().now()
    return care.copy_to(folder / "ledger.db", target or folder / "backups" / f"ledger-{moment:%Y%m%dT%H%M%S}.db")


def restore(home: Path | None, source: Path) -> Path:
    """Put a backup in the database's place; return where what was there is kept. Locked while a server runs."""
    folder = load_settings(home).home
    lock = FolderLock(folder)
    try:
        kept = folder / "backups" / f"ledger-before-restore-{SystemClock().now():%Y%m%dT%H%M%S%f}.db"
        care.put_back(folder / "ledger.db", source, kept)
    finally:
        lock.release()
    return kept


def vacuum(home: Path | None) -> tuple[int, int]:
    """Rewrite the database without its empty pages; return its size before and after. Locked while a server runs."""
    folder = load_settings(home).home
    lock = FolderLock(folder)
    try:
        return care.compact(folder / "ledger.db")
    finally:
        lock.release()


def upgrade(home: Path | None) -> dict[str, Any]:
    """Check the database, back it up, and bring it to this version's schema. Locked while a server runs."""
    folder = load_settings(home).home
    path = folder / "ledger.db"
    before = care.check_file(path)["schema"].split()[0]
    copy = backup(home, None)
    # Tables of every room are known by their routes; opening as a writer migrates.
    room_routes()
    open_stores(folder, SystemClock()).close()
    return {"from": before, "to": care.check_file(path)["schema"].split()[0], "backup": str(copy)}
