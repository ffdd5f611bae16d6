"""Care for a ledger in PostgreSQL: what the server can say and do itself, and its own programs for backups.

The password goes to these programs in their environment, never on a command line, which everybody can read.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from holdtrue.core.errors import ConfigurationError, Corrupt, NotFound, StorageFull, Unavailable
from holdtrue.storage.files import sync_folder
from holdtrue.storage.ledger import database as files
from holdtrue.storage.ledger import postgres
from holdtrue.storage.ledger.postgres_writer import PostgresWriter

if TYPE_CHECKING:
    from psycopg import Connection

# Whatever lies open to an unprivileged user of the ledger's database: each table read whole tells of broken pages.
_TABLES = """
    SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace ORDER BY relname
"""
_FAILURES = "SELECT COALESCE(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()"
_INVALID = """
    SELECT COUNT(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid AND c.relnamespace = current_schema()::regnamespace
"""
_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
# What a ledger consists of; the schema itself and what a database's owner put beside it stay.
_DROPS = """
    SELECT format('DROP TABLE %I.%I CASCADE;', current_schema(), relname)
    FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
    UNION ALL
    SELECT format('DROP FUNCTION %s CASCADE;', p.oid::regprocedure) FROM pg_proc p
    WHERE pronamespace = current_schema()::regnamespace
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PGPASSFILE", "PGSERVICEFILE")


class PostgresCare:
    """Care for the ledger in the database at an address."""

    suffix = ".dump"

    def __init__(self, address: postgres.Address) -> None:
        self._address = address

    def posture(self) -> dict[str, str]:
        """Return which server it is, and what it promises; nothing is read but its settings."""
        connection = self._address.connect()
        try:
            found = postgres.revision(connection, self._address.name)
            off = [name for name in ("fsync", "full_page_writes") if _setting(connection, name) == "off"]
            version = _setting(connection, "server_version")
            summed = "with" if _setting(connection, "data_checksums") == "on" else "without"
            (encrypted,) = connection.execute(_ENCRYPTED).fetchone() or (False,)
        except psycopg.Error as error:
            raise postgres.meant(error, self._address.name) from None
        finally:
            connection.close()
        near = "on this machine" if self._address.is_near else "not encrypted"
        return {
            "database": f"{self._address.name}, PostgreSQL {version} {summed} checksums of pages",
            "schema": f"{found or 'none yet'} (this version's is {files.HEAD})",
            "durability": f"not safe: {', '.join(off)} is off" if off else "ok",
            "transport": "TLS" if encrypted else near,
        }

    def check(self) -> dict[str, str]:
        """Return what the server says of pages, indexes and its promises, and the schema; nothing is changed."""
        found = self.posture()
        connection = self._address.connect()
        try:
            broken = self._broken(connection)
        except psycopg.Error as error:
            raise postgres.meant(error, self._address.name) from None
        finally:
            connection.close()
        return {**found, "pages": "; ".join(broken) or "ok"}

    def size(self) -> int:
        """Return how many bytes the database takes."""
        connection = self._address.connect()
        try:
            return _size(connection)
        finally:
            connection.close()

    def copy_to(self, target: Path) -> Path:
        """Back the database up to `target` (0600) while it is in use; whole or absent after a crash."""
        program = _program("pg_dump")
        connection = self._address.connect()
        try:
            if postgres.revision(connection, self._address.name) is None:
                raise NotFound(f"There is no ledger in the database {self._address.name}.", mend="holdtrue up")
            schema = _schema(connection)
        finally:
            connection.close()
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            self._run(program, "--format=custom", "--no-owner", "--no-privileges", f"--schema={schema}",
                      f"--file={part}")  # fmt: skip
            self._run(_program("pg_restore"), "--list", str(part))
            descriptor = os.open(part, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(target.parent)
        return target

    def put_back(self, source: Path, kept: Path) -> None:
        """Put the backup `source` in the database's place, in one transaction; what was there is kept at `kept`.

        Locked while another process writes to it.
        """
        if not source.is_file():
            raise NotFound(f"There is no backup at {source}.", mend="Name a file of the folder backups.")
        programs = {name: _program(name) for name in ("pg_dump", "pg_restore", "psql")}
        writer = PostgresWriter(self._address)
        try:
            if _is_empty(writer.raw):
                drops: list[str] = []
            else:
                self.copy_to(kept)
                drops = [str(row[0]) for row in writer.raw.execute(_DROPS)]
            schema = _schema(writer.raw)
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            script = kept.with_name(kept.name + ".sql.part")
            script.touch(mode=0o600)
            try:
                self._run(programs["pg_restore"], "--no-owner", "--no-privileges", f"--schema={schema}",
                          f"--file={script}", str(source))  # fmt: skip
                before = script.with_name(script.name + ".first")
                before.touch(mode=0o600)
                try:
                    before.write_text("\n".join(drops) + "\n", "utf-8")
                    self._run(programs["psql"], "--no-psqlrc", "--quiet", "--single-transaction",
                              "--set=ON_ERROR_STOP=1", f"--file={before}", f"--file={script}")  # fmt: skip
                finally:
                    before.unlink()
            finally:
                script.unlink()
        finally:
            writer.close()

    def compact(self) -> tuple[int, int]:
        """Rewrite the tables without what was deleted; return the database's size before and after.

        Locked while another process writes to it.
        """
        writer = PostgresWriter(self._address)
        try:
            before = _size(writer.raw)
            writer.raw.execute("VACUUM (FULL, ANALYZE)")
            return before, _size(writer.raw)
        except psycopg.Error as error:
            raise postgres.meant(error, self._address.name) from None
        finally:
            writer.close()

    def _broken(self, connection: "Connection[Any]") -> list[str]:
        """Read every table whole; return what the server found broken."""
        found: list[str] = []
        for (table,) in connection.execute(_TABLES).fetchall():
            try:
                everything = sql.SQL("SELECT COUNT(t.*::text) FROM {} t").format(sql.Identifier(table))
                connection.execute(everything)
            except (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted) as error:
                found.append(f"{table}: {error.diag.message_primary}")
        (failures,) = connection.execute(_FAILURES).fetchone() or (0,)
        (invalid,) = connection.execute(_INVALID).fetchone() or (0,)
        found += [f"{failures} pages failed their checksum"] if failures else []
        return found + ([f"{invalid} indexes are not valid"] if invalid else [])

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs; raise with the last line it said when it fails."""
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment: Mapping[str, str] = {**kept, **self._address.environment(), "PGCLIENTENCODING": "UTF8"}
        done = subprocess.run(  # noqa: S603  # a program by its full path, no shell
            [program, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode == 0:
            return
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        why = next((line for line in lines if "error:" in line), lines[-1])
        name = Path(program).name
        if "No space left on device" in why:
            raise StorageFull(f"{name} found no room.", why=f"{why}.", mend="Make room, or name another file.")
        if "server version mismatch" in done.stderr.decode("utf-8", "replace"):
            raise ConfigurationError(
                f"{name} is older than the server.",
                why=f"{lines[-1]}.",
                mend="Install the server's version of it: apt-get install postgresql-client",
            )
        if name == "pg_restore" and ("input file" in why or "could not read" in why):
            raise Corrupt("The backup cannot be read.", why=f"{why}.", mend="Use another one.")
        raise Unavailable(
            f"{name} did not succeed on the database {self._address.name}; nothing was changed.",
            why=f"{why}.",
            mend="Mend what it says, then run the command again.",
        )


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigurationError(
            f"PostgreSQL's program {name} is not installed.",
            why="Backups of a ledger in PostgreSQL are made and read by PostgreSQL's own programs.",
            mend="apt-get install postgresql-client (its version must not be older than the server's)",
        )
    return found


def _is_empty(connection: "Connection[Any]") -> bool:
    return not connection.execute(_TABLES).fetchall()


def _schema(connection: "Connection[Any]") -> str:
    return str((connection.execute("SELECT current_schema()").fetchone() or ("public",))[0])


def _setting(connection: "Connection[Any]", name: str) -> str:
    return str((connection.execute("SELECT current_setting(%s)", (name,)).fetchone() or ("",))[0])


def _size(connection: "Connection[Any]") -> int:
    return int((connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,))[0])
