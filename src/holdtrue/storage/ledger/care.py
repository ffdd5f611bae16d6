"""Care for a ledger's file: check it, back it up, put a backup in its place, compact it."""

import os
import sqlite3
from pathlib import Path

from holdtrue.core.errors import Corrupt, NotFound
from holdtrue.storage.files import sync_folder
from holdtrue.storage.ledger import database as files

_COMPANIONS = ("-wal", "-shm")


def check_file(path: Path) -> dict[str, str]:
    """Return what SQLite says of a ledger's pages and foreign keys, and its schema; nothing is changed."""
    files.must_exist(path)
    reader = files.connect_reader(path)
    try:
        pages = [str(row[0]) for row in reader.execute("PRAGMA integrity_check(20)")]
        keys = reader.execute("PRAGMA foreign_key_check").fetchall()
        found = files.revision(reader, path)
    except sqlite3.DatabaseError as error:
        raise files.unreadable(path, error) from error
    finally:
        reader.close()
    return {
        "schema": f"{found} (this version's is {files.HEAD})",
        "pages": "; ".join(pages),
        "foreign keys": "ok" if not keys else f"{len(keys)} rows point to nothing",
    }


def copy_to(path: Path, target: Path) -> Path:
    """Copy a ledger to `target` while it may be in use, and check the copy; a copy that fails is removed."""
    files.must_exist(path)
    reader = files.connect_reader(path)
    try:
        made = files.back_up(reader, target)
    finally:
        reader.close()
    if check_file(made)["pages"] != "ok":
        made.unlink()
        raise Corrupt(f"The copy of {path} is damaged.", mend="Check the disk, then the ledger: holdtrue db check")
    return made


def put_back(path: Path, source: Path, kept: Path) -> None:
    """Put the backup `source` in the place of the ledger `path`, which is renamed to `kept` with all that is in it.

    Nobody may have the ledger open. A crash leaves the old file, the new one, or none beside the kept one.
    """
    if not source.is_file():
        raise NotFound(f"There is no backup at {source}.", mend="Name a file of the folder backups.")
    if check_file(source)["pages"] != "ok":
        raise Corrupt(f"The backup {source} is damaged.", mend="Use another one.")
    reader = files.connect_reader(source)
    part = path.with_name(path.name + ".restoring")
    try:
        files.back_up(reader, part)
    finally:
        reader.close()
    if path.exists():
        fold(path)
        os.rename(path, kept)
        for companion in _COMPANIONS:
            path.with_name(path.name + companion).unlink(missing_ok=True)
    os.rename(part, path)
    sync_folder(path.parent)


def compact(path: Path) -> tuple[int, int]:
    """Rewrite a ledger that nobody else has open without its empty pages; return its size before and after."""
    files.must_exist(path)
    fold(path)
    before = path.stat().st_size
    writer = files.connect_writer(path)
    try:
        writer.execute("VACUUM")
        writer.execute("ANALYZE")
    finally:
        writer.close()
    fold(path)
    return before, path.stat().st_size


def fold(path: Path) -> None:
    """Move everything out of the write-ahead log into the file itself."""
    writer = files.connect_writer(path)
    try:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        writer.close()
