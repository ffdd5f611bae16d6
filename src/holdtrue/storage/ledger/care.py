"""Care for a ledger: check it, back it up, put a backup in its place, compact it."""

import os
import sqlite3
from pathlib import Path
from typing import Protocol

from holdtrue.core.errors import Corrupt, NotFound
from holdtrue.storage.files import sync_folder
from holdtrue.storage.ledger import database as files

_COMPANIONS = ("-wal", "-shm")


class Care(Protocol):
    """Care for one ledger, wherever it is."""

    @property
    def suffix(self) -> str:
        """Return how names of its backups end."""
        ...

    def check(self) -> dict[str, str]:
        """Return what the database says of its own state, and the ledger's schema; nothing is changed."""
        ...

    def size(self) -> int:
        """Return how many bytes it takes."""
        ...

    def copy_to(self, target: Path) -> Path:
        """Back it up to `target` while it may be in use, and check the copy."""
        ...

    def put_back(self, source: Path, kept: Path) -> None:
        """Put a backup in its place; what was there is kept at `kept`."""
        ...

    def compact(self) -> tuple[int, int]:
        """Rewrite it without empty pages; return its size before and after."""
        ...


def care_of(where: Path | str) -> Care:
    """Return the care for a ledger in a file, or (by its URL) in a PostgreSQL database."""
    if isinstance(where, Path):
        return FileCare(where)
    # Imported here: a ledger in a file needs no driver.
    from holdtrue.storage.ledger.postgres import Address
    from holdtrue.storage.ledger.postgres_care import PostgresCare

    return PostgresCare(Address(where))


class FileCare:
    """Care for the ledger in a SQLite file."""

    suffix = ".db"

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> dict[str, str]:
        """Return what SQLite says of the pages and foreign keys, and the schema; nothing is changed."""
        return check_file(self.path)

    def size(self) -> int:
        """Return how many bytes the file takes."""
        return self.path.stat().st_size

    def copy_to(self, target: Path) -> Path:
        """Copy the file to `target` while it may be in use, and check the copy; a copy that fails is removed."""
        files.must_exist(self.path)
        reader = files.connect_reader(self.path)
        try:
            made = files.back_up(reader, target)
        finally:
            reader.close()
        if check_file(made)["pages"] != "ok":
            made.unlink()
            raise Corrupt(
                f"The copy of {self.path} is damaged.", mend="Check the disk, then the ledger: holdtrue db check"
            )
        return made

    def put_back(self, source: Path, kept: Path) -> None:
        """Put the backup `source` in the file's place, which is renamed to `kept` with all that is in it.

        Nobody may have the ledger open. A crash leaves the old file, the new one, or none beside the kept one.
        """
        if not source.is_file():
            raise NotFound(f"There is no backup at {source}.", mend="Name a file of the folder backups.")
        if check_file(source)["pages"] != "ok":
            raise Corrupt(f"The backup {source} is damaged.", mend="Use another one.")
        path = self.path
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

    def compact(self) -> tuple[int, int]:
        """Rewrite a file that nobody else has open without its empty pages; return its size before and after."""
        files.must_exist(self.path)
        fold(self.path)
        before = self.size()
        writer = files.connect_writer(self.path)
        try:
            writer.execute("VACUUM")
            writer.execute("ANALYZE")
        finally:
            writer.close()
        fold(self.path)
        return before, self.size()


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


def fold(path: Path) -> None:
    """Move everything out of the write-ahead log into the file itself."""
    writer = files.connect_writer(path)
    try:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        writer.close()
