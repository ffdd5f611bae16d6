"""Hold the migrations to the tables that the rooms declare."""

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from holdtrue.core.clock import SystemClock
from holdtrue.server import store as server_tables
from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import Ledger, metadata


def test_migrating_an_empty_database_gives_the_declared_tables(tmp_path: Path) -> None:
    """Prevent a table that exists for new users only, or a column that only old ones lack."""
    room_routes()
    assert "tokens" in metadata.tables, server_tables
    path = tmp_path / "ledger.db"
    Ledger.open(path, clock=SystemClock(), keys=tmp_path / "keys").close()
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    # What the migrations lay beside the tables of the rooms is Alembic's own note of the version.
    assert [each for each in found if "alembic_version" not in str(each)] == []


def test_a_migration_names_its_tables_itself() -> None:
    """Prevent a migration that creates whatever the code of the day declares: it would change under its users."""
    folder = Path(__file__).parents[2] / "src" / "holdtrue" / "storage" / "ledger" / "migrations" / "versions"
    texts = [path.read_text() for path in sorted(folder.glob("*.py"))]
    assert texts
    assert [text for text in texts if "create_all" in text] == []


def test_the_database_is_a_plain_sqlite_file(tmp_path: Path) -> None:
    """Prevent a store that only this program can read."""
    room_routes()
    path = tmp_path / "ledger.db"
    Ledger.open(path, clock=SystemClock(), keys=tmp_path / "keys").close()
    with sqlite3.connect(path) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"events", "versions", "releases", "jobs", "deployments", "windows", "tokens"} <= names
