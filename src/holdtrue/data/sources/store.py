"""Read rows out of another SQL database; nothing of ours is in it, and nothing is written to it."""

import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

from holdtrue.core.errors import ConfigurationError, HoldtrueError, InvalidInput, MissingExtra, NotFound, Unavailable
from holdtrue.data.sources.values import Gathered

_ROWS = 20_000
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_FORMS = "Write sqlite:///FILE or postgresql://USER@HOST/DATABASE, or env:VARIABLE for where such an address is."


def read_sql(address: str, query: str, parameters: Mapping[str, Any] | None = None, *, rows: int = _ROWS) -> pa.Table:
    """Return the rows of a query to another database, all of one state of it.

    `address` is one of SQLAlchemy's, or `env:VARIABLE`, so that no password is in a project file; `query` names its
    `parameters` as in `:window`. The rows come `rows` at a time. SQLite and PostgreSQL are opened for reading only.
    A database that goes away in the middle raises Unavailable, and nothing of what it gave before is returned.
    """
    url, where = _url(address)
    gathered: list[Gathered] = []
    names: list[str] = []
    with _understood(where, gathered), _connected(url) as connection, ExitStack() as opened:
        # Partitions are told their size: by `yield_per` alone all rows after the first are fetched at once.
        options: dict[str, Any] = {"stream_results": True, "max_row_buffer": rows}
        result = connection.execute(sa.text(query), dict(parameters or {}), execution_options=options)
        opened.enter_context(closing(result))
        if not result.returns_rows:
            raise InvalidInput(
                "The query gives no rows.", why="It is not one that selects.", mend="Write a SELECT, or WITH … SELECT."
            )
        names += result.keys()
        _check_names(names)
        gathered += [Gathered(name) for name in names]
        for part in result.partitions(rows):
            for column, values in zip(gathered, zip(*part, strict=True), strict=True):
                column.add(values)
    return pa.table([column.column() for column in gathered], names=names)


@contextmanager
def _connected(url: sa.URL) -> Generator[sa.Connection]:
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            if url.get_backend_name() == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection
    finally:
        engine.dispose()


def _engine(url: sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url, poolclass=sa.NullPool)
    except NoSuchModuleError as error:
        raise ConfigurationError(
            f"Databases of the kind “{url.drivername}” are not known here.", why=f"{error}.", mend=_FORMS
        ) from error
    except ModuleNotFoundError as error:
        if url.get_backend_name() == "postgresql":
            raise MissingExtra.of("postgres", "psycopg") from error
        raise ConfigurationError(
            f"The driver of “{url.drivername}” is not installed.",
            why=f"{error}.",
            mend=f"pip install {error.name}",
        ) from error


def _url(address: str) -> tuple[sa.URL, str]:
    """Return the address, made to open for reading where that is said by it, and how it may be shown."""
    kind, _, name = address.partition(":")
    if kind == "env":
        text = os.environ.get(name, "")
        if not text:
            raise ConfigurationError(
                f"There is no address of a database in the variable {name[:80]!r}.",
                why=f"The source is said to be where {address[:80]} says.",
                mend=f"Set it: export {name}=postgresql://USER:PASSWORD@HOST/DATABASE",
            )
        address = text
    url = None
    # Its own error repeats the address, with the password.
    with suppress(ArgumentError, ValueError):
        url = sa.make_url(address)
    if url is None:
        raise ConfigurationError("That is not the address of a database.", why="It has another form.", mend=_FORMS)
    where = url.render_as_string(hide_password=True)
    if url.drivername in _POSTGRES:
        return url.set(drivername="postgresql+psycopg"), where
    if url.get_backend_name() == "sqlite" and url.database and "uri" not in url.query:
        file = Path(url.database)
        if not file.is_file():
            raise NotFound(f"There is no file {file}.", why="A database of SQLite is a file.", mend="Name one.")
        opened = f"file:{quote(str(file.absolute()))}"
        return url.set(database=opened, query={"mode": "ro", "uri": "true"}), where
    return url, where


@contextmanager
def _understood(where: str, gathered: list[Gathered]) -> Generator[None]:
    """Raise the errors of a database as what they mean to whoever reads from it."""
    try:
        yield
    except DBAPIError as error:
        raise _meaning(error, where, gathered[0].rows if gathered else 0) from None
    except SQLAlchemyError as error:
        raise InvalidInput(
            "The query cannot be run.", why=_first(error), mend="Correct the query, or give its parameters."
        ) from None


def _meaning(error: DBAPIError, where: str, rows: int) -> HoldtrueError:
    said = _first(error.orig or error)
    lost = error.connection_invalidated or (isinstance(error, OperationalError) and not where.startswith("sqlite"))
    if lost:
        return Unavailable(
            f"The database {where} gave up after {rows:,} rows." if rows else f"The database {where} does not answer.",
            why=said,
            mend="Nothing of it was taken in. See that the database runs, then do the same again.",
            facts={"rows": rows},
        )
    after = f" after {rows:,} rows" if rows else ""
    return InvalidInput(
        f"The database {where} refused the query{after}.", why=said, mend="Correct the query, or mend the database."
    )


def _first(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), type(error).__name__).strip()
    return text if text.endswith(".") else f"{text}."


def _check_names(names: list[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InvalidInput(
            f"The query gives two columns “{twice[0]}”.",
            why="Rows are known by the names of their columns.",
            mend="Name one of them otherwise: SELECT a AS b.",
        )
