"""Maintenance of a data folder's database: what `holdtrue db` does."""

from pathlib import Path
from typing import Any

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import ConfigurationError
from holdtrue.server.settings import Settings, load_settings
from holdtrue.server.table import room_routes
from holdtrue.storage import BlobStore, FolderLock, open_stores
from holdtrue.storage.ledger.care import care_of
from holdtrue.storage.ledger.conversion import Tell, need_ledger, to_file, to_postgres
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


def convert(home: Path | None, *, into_file: bool, tell: Tell = lambda _table, _rows: None) -> dict[str, Any]:
    """Carry the ledger from the file into the database that the setting names, or (`into_file`) back; all or nothing.

    Returns rows and hash of each table, and where a file that was there before is kept. Locked while a server runs.
    """
    settings = load_settings(home)
    if not settings.database:
        raise ConfigurationError(
            "The setting “database” names no PostgreSQL database.",
            why="It is the one that the ledger is carried into, or from.",
            mend="export HOLDTRUE_DATABASE=postgresql://user:password@host:5432/name, then run the command again.",
        )
    key = need_ledger(settings.home)
    # Tables of every room are known by their routes.
    room_routes()
    file = settings.home / "ledger.db"
    kept = settings.home / "backups" / f"ledger-before-conversion-{SystemClock().now():%Y%m%dT%H%M%S%f}.db"
    lock = FolderLock(settings.home)
    try:
        if into_file:
            carried = to_file(settings.database, file, kept, key, tell)
        else:
            carried = to_postgres(file, settings.database, key, tell)
    finally:
        lock.release()
    return {
        "tables": {name: {"rows": each.rows, "digest": each.digest} for name, each in carried.items()},
        "rows": sum(each.rows for each in carried.values()),
        "kept": str(kept) if kept.exists() else None,
    }


def _place(settings: Settings) -> Path | str:
    """Return where the ledger is: a file, or a database by its URL."""
    return settings.database or settings.home / "ledger.db"
