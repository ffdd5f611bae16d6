"""The ledger in a PostgreSQL database: connecting, what its errors mean, its schema.

The address is a URL as libpq takes it. Its password is in no message: messages are made of single parts of it.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGTypeCompiler
from sqlalchemy.pool import QueuePool, StaticPool

from holdtrue.core.errors import (
    ConfigurationError,
    Corrupt,
    HoldtrueError,
    InvalidInput,
    MissingExtra,
    StorageFull,
    Unavailable,
)
from holdtrue.storage.ledger import database as files
from holdtrue.storage.ledger.tables import to_json

try:
    import psycopg
    from psycopg import conninfo
    from psycopg.types.numeric import Int8Dumper
except ImportError as error:
    raise MissingExtra.of("postgres", "psycopg") from error

if TYPE_CHECKING:
    from psycopg import Connection

_OLDEST = 14
_READERS = 8
_CONNECT_SECONDS = 10
# What a session is told; all of it may be set by whoever owns it. Dead clients are noticed within a minute.
_SESSION = """
    SELECT set_config('idle_session_timeout', '0', false),
           set_config('tcp_keepalives_idle', '20', false),
           set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                      WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false),
           current_setting('server_version_num')::int / 10000,
           current_setting('server_encoding'),
           current_schema()
"""

# Classes and codes of errors (PostgreSQL documentation, appendix A).
_LOST = ("08", "57P01", "57P02", "57P03", "57P05")
_NO_ROOM = ("53100",)
_NO_RESOURCES = ("53",)
_READ_ONLY = ("25006",)
_CANCELLED = ("57014",)
_UNFIT = ("22", "54")
_NOT_ALLOWED = ("42501",)
_DAMAGED = ("XX001", "XX002")


class Address:
    """Hold how a database is reached; only its name for messages is ever shown."""

    def __init__(self, url: str) -> None:
        """Read a URL; raise ConfigurationError, which does not repeat it."""
        parts: dict[str, Any] | None = None
        # Raised outside of the handler: the driver's own error, which repeats the URL, is no part of ours.
        with contextlib.suppress(psycopg.Error):
            parts = dict(conninfo.conninfo_to_dict(url))
        if parts is None:
            raise unusable()
        self._parts = parts
        host = self._parts.get("hostaddr") or self._parts.get("host") or "this machine"
        port = self._parts.get("port")
        self.is_near = str(host).startswith(("/", "127.", "::1", "localhost", "this machine"))
        self.user = str(self._parts.get("user") or "")
        self.database = str(self._parts.get("dbname") or self.user)
        self.name = f"{self.database or 'the default database'} at {host}{f':{port}' if port else ''}"

    def __repr__(self) -> str:
        """Return the name for messages."""
        return f"Address({self.name})"

    def connect(self) -> "Connection[Any]":
        """Open a session that commits each statement by itself; raise what kept it from opening."""
        more = {"client_encoding": "UTF8", "application_name": f"holdtrue {socket.gethostname()} {os.getpid()}"}
        parts: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, **self._parts, **more}
        try:
            connection: Connection[Any] = psycopg.connect(**parts, autocommit=True)
        except psycopg.Error as error:
            raise self._refused(str(error)) from None
        try:
            connection.adapters.register_dumper(int, Int8Dumper)
            row = connection.execute(_SESSION).fetchone()
            assert row is not None
            self._check(*row[-3:])
        except psycopg.Error as error:
            connection.close()
            raise meant(error, self.name) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def environment(self) -> Mapping[str, str]:
        """Return the variables by which PostgreSQL's own programs reach the database, the password among them."""
        names = {"dbname": "PGDATABASE", "user": "PGUSER", "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT",
                 "password": "PGPASSWORD", "passfile": "PGPASSFILE", "sslmode": "PGSSLMODE",
                 "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "options": "PGOPTIONS",
                 "service": "PGSERVICE", "channel_binding": "PGCHANNELBINDING"}  # fmt: skip
        return {names[key]: str(value) for key, value in self._parts.items() if key in names}

    def _check(self, version: int, encoding: str, schema: str | None) -> None:
        if version < _OLDEST:
            raise ConfigurationError(
                f"The PostgreSQL of the database {self.name} is too old.",
                why=f"It is version {version}; {_OLDEST} is the oldest that works.",
                mend="Upgrade it, or use another one.",
            )
        if encoding != "UTF8":
            raise ConfigurationError(
                f"The database {self.name} cannot hold every text.",
                why=f"Its encoding is {encoding}.",
                mend="Make one with the encoding UTF8: createdb --encoding=UTF8 --template=template0 NAME",
            )

        if schema is None:
            raise ConfigurationError(
                f"The user “{self.user}” has no schema in the database {self.name}.",
                why="Its search_path names none that exists and that it may use.",
                mend="CREATE SCHEMA one, or correct it: ALTER ROLE user SET search_path = public",
            )

    def _refused(self, text: str) -> HoldtrueError:
        """Return what kept a session from opening: the driver gives it as text alone."""
        lines = text.strip().splitlines()
        why = next((line for line in lines if "FATAL:" in line), lines[0])
        why = why.partition("FATAL:")[2].strip() or why.rpartition("failed:")[2].strip()
        if any(mark in text for mark in ("authentication failed", "no password supplied", "no pg_hba.conf entry")) or (
            "role " in text and "does not exist" in text
        ):
            return ConfigurationError(
                f"PostgreSQL does not let “{self.user}” into the database {self.name}.",
                why=f"{why}.",
                mend="Correct user and password in the setting “database” (HOLDTRUE_DATABASE), or in ~/.pgpass.",
            )
        if "database " in text and "does not exist" in text:
            return ConfigurationError(
                f"There is no database {self.name}.",
                why=f"{why}.",
                mend=f"Make it: createdb --encoding=UTF8 --template=template0 {self.database}",
            )
        return Unavailable(
            f"The database {self.name} cannot be reached.",
            why=f"{why}.",
            mend="See that PostgreSQL runs there, and that host and port in the setting “database” are right.",
        )


def unusable() -> ConfigurationError:
    """Return the error for an address that is no URL of a PostgreSQL database; it does not repeat it."""
    return ConfigurationError(
        "The setting “database” is not the address of a PostgreSQL database.",
        why="It cannot be read. It is not shown, since there may be a password in it.",
        mend="Write it like postgresql://user:password@host:5432/name, with signs other than letters and digits "
        "in the password as %XX.",
        facts={"key": "database"},
    )


def original(error: BaseException) -> "psycopg.Error | None":
    """Return the driver's error in `error`, or under SQLAlchemy's wrapper; None if there is none."""
    inner = getattr(error, "orig", error)
    return inner if isinstance(inner, psycopg.Error) else None


def is_lost(error: BaseException) -> bool:
    """Tell whether the session of an error is gone."""
    inner = original(error)
    if inner is None:
        return False
    code = inner.sqlstate
    return code.startswith(_LOST) if code else isinstance(inner, psycopg.OperationalError)


def explain(error: BaseException, name: str) -> HoldtrueError | None:
    """Return what a database's error means; None for one that is not about the database, but about a statement."""
    inner = original(error)
    if inner is None:
        return None
    code = inner.sqlstate or ""
    why = f"PostgreSQL says: {inner.diag.message_primary or str(inner).strip().splitlines()[0]}."
    for known, answer in _ANSWERS:
        if code.startswith(known):
            return answer(name, why)
    if is_lost(error):
        return _lost(name, why)
    return _unfit(name, why) if isinstance(inner, psycopg.DataError) else None


def meant(error: "psycopg.Error", name: str) -> Exception:
    """Return what an error means, or the error itself."""
    return explain(error, name) or error


def _full(name: str, why: str) -> HoldtrueError:
    return StorageFull(
        "The database's disk is full: this was not done.",
        why=f"{why} Everything acknowledged before is safe.",
        mend=f"Make room on the disk of {name}, then send the request again.",
    )


def _busy(name: str, why: str) -> HoldtrueError:
    return Unavailable(
        f"The database {name} has no means left for this.",
        why=why,
        mend="Try again in a moment; raise max_connections or memory if it stays so.",
    )


def _read_only(name: str, why: str) -> HoldtrueError:
    return Unavailable(
        f"The database {name} takes no changes.",
        why=f"{why} It is a standby, or default_transaction_read_only is on.",
        mend="Point the setting “database” to the primary server, or turn that off.",
    )


def _cancelled(name: str, why: str) -> HoldtrueError:
    return Unavailable(
        f"The database {name} gave up on this.",
        why=why,
        mend="Try again; raise statement_timeout of the user if it stays so.",
    )


def _lost(name: str, why: str) -> HoldtrueError:
    return Unavailable(
        f"The connection to the database {name} was lost: this was not done.",
        why=why,
        mend="Send the request again in a moment.",
    )


def _unfit(name: str, why: str) -> HoldtrueError:
    return InvalidInput(
        "PostgreSQL cannot hold this value.",
        why=why,
        mend="Send text without the sign U+0000, names of at most 2,000 bytes, and whole numbers of at most 64 bits.",
    )


def _not_allowed(name: str, why: str) -> HoldtrueError:
    return ConfigurationError(
        f"The user of the database {name} may not do what the ledger needs.",
        why=why,
        mend="Make it the database's owner: ALTER DATABASE name OWNER TO user; "
        "or let it create: GRANT CREATE ON SCHEMA public TO user;",
    )


def _damaged(name: str, why: str) -> HoldtrueError:
    return Corrupt(
        f"The database {name} is damaged.",
        why=why,
        mend="Keep it as it is, and restore the newest backup into another one: holdtrue db restore FILE",
    )


_ANSWERS: tuple[tuple[tuple[str, ...], Callable[[str, str], HoldtrueError]], ...] = (
    (_NO_ROOM, _full),
    (_NO_RESOURCES, _busy),
    (_READ_ONLY, _read_only),
    (_CANCELLED, _cancelled),
    (_LOST, _lost),
    (_UNFIT, _unfit),
    (_NOT_ALLOWED, _not_allowed),
    (_DAMAGED, _damaged),
)


class _Types(PGTypeCompiler):
    """Lay columns so that they hold and order what SQLite's do: whole numbers of 64 bits, text by its bytes."""

    def visit_INTEGER(self, type_: Any, **options: Any) -> str:  # the name is SQLAlchemy's
        return "BIGINT"

    def visit_TEXT(self, type_: Any, **options: Any) -> str:  # the name is SQLAlchemy's
        column = options.get("type_expression")
        return 'TEXT COLLATE "C"' if column is not None else "TEXT"


def writer_engine(connection: "Connection[Any]") -> sa.Engine:
    """Wrap the writing connection for SQLAlchemy, which neither begins nor commits on it."""
    return _engine(lambda: connection, poolclass=StaticPool, pool_reset_on_return=None)


def reader_engine(address: Address) -> sa.Engine:
    """Make the pool of reading connections; each use sees one consistent snapshot."""

    def connect() -> "Connection[Any]":
        connection = address.connect()
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        return connection

    return _engine(connect, poolclass=QueuePool, pool_size=_READERS, max_overflow=0, pool_timeout=30)


def _engine(creator: "Callable[[], Connection[Any]]", **options: Any) -> sa.Engine:
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=creator, json_serializer=to_json, use_native_hstore=False, **options
    )
    # After SQLAlchemy has made the dialect its own, and before the first statement.
    engine.dialect.type_compiler_instance = _Types(engine.dialect)
    return engine


def revision(connection: "Connection[Any]", name: str) -> str | None:
    """Return the schema revision of a database; None when it is empty.

    One that holds something else raises Corrupt, one of a newer version raises NewerSchema.
    """
    names = {
        row[0]
        for row in connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        )
    }
    if not names:
        return None
    if not {"alembic_version", "events"} <= names:
        raise Corrupt(
            f"The database {name} is not a ledger.",
            why="It has tables, and not those of a ledger.",
            mend="Name an empty database of its own in the setting “database”.",
        )
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return files.known_revision(str(row[0]) if row else "", name)
