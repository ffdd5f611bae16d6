"""Files of other versions, files that are no ledgers, and migrations that fail half-way."""

import hashlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import holdtrue.storage.ledger.database as database
import holdtrue.storage.ledger.guards as guards
from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import ConfigurationError, Corrupt, NewerSchema, Unavailable
from holdtrue.storage.ledger import Ledger
from tests.storage.ledger.conftest import OpenLedger
from tests.storage.ledger.toys import CONTEXT, check, keys, put

pytestmark = pytest.mark.usefixtures("migrations_run")


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "ledger.db").read_bytes()).hexdigest()


def set_revision(folder: Path, revision: str) -> None:
    with sqlite3.connect(folder / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    """Opening compares with this list and skips Alembic, so the list must never fall behind."""
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    known = tuple(script.revision for script in reversed(list(scripts.walk_revisions())))
    assert known == database.REVISIONS
    assert scripts.get_current_head() == database.HEAD


@pytest.mark.parametrize("writer", [True, False])
def test_a_newer_ledger_is_refused_and_left_alone(
    ledger: Ledger, open_ledger: OpenLedger, tmp_path: Path, *, writer: bool
) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.close()
    set_revision(tmp_path, "9999")
    before = digest(tmp_path)
    with pytest.raises(NewerSchema, match="newer version") as caught:
        open_ledger(writer=writer)
    assert "pip install" in caught.value.mend
    assert caught.value.facts == {"found": "9999", "known": database.HEAD}
    assert digest(tmp_path) == before
    set_revision(tmp_path, database.HEAD)
    assert keys(open_ledger(writer=writer)) == ["a"]


def test_a_file_that_is_no_database_is_refused_and_left_alone(open_ledger: OpenLedger, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is not a database, but a text that is long enough" * 100)
    before = digest(tmp_path)
    for writer in (True, False):
        with pytest.raises(Corrupt, match="cannot be read") as caught:
            open_ledger(writer=writer)
        assert "backup" in caught.value.mend
    assert digest(tmp_path) == before


def test_another_database_is_refused_and_left_alone(open_ledger: OpenLedger, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("CREATE TABLE holidays (day TEXT)")
    connection.close()
    with pytest.raises(Corrupt, match="not a ledger"):
        open_ledger()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("holidays",)]
    connection.close()


def test_an_empty_file_is_not_yet_a_ledger_to_read(open_ledger: OpenLedger, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(Unavailable, match="older schema"):
        open_ledger(writer=False)


def test_a_migration_that_fails_leaves_nothing(
    open_ledger: OpenLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(connection: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(guards, "create_guards", failing)
    with pytest.raises(KeyboardInterrupt):
        open_ledger()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    monkeypatch.undo()
    open_ledger().close()
    assert check(tmp_path).ok


def test_a_current_ledger_opens_without_alembic(ledger: Ledger, tmp_path: Path) -> None:
    """Importing Alembic takes longer than everything else at start."""
    ledger.close()
    script = (
        "import sys; from pathlib import Path; from holdtrue.core.clock import SystemClock;"
        "from holdtrue.storage.ledger import Ledger; home = Path(sys.argv[1]);"
        "Ledger.open(home / 'ledger.db', clock=SystemClock(), keys=home / 'keys').close();"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_a_backup_is_a_whole_ledger(ledger: Ledger, tmp_path: Path, clock: SimulatedClock) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.checkpoint()
    connection = database.connect_reader(tmp_path / "ledger.db")
    made = database.back_up(connection, tmp_path / "copy" / "ledger.db")
    connection.close()
    assert [path.name for path in made.parent.iterdir()] == ["ledger.db"]
    ledger.write(CONTEXT, put("b"))
    copy = Ledger.open(made, clock=clock, keys=tmp_path / "keys")
    assert keys(copy) == ["a"]
    copy.close()


def test_a_damaged_page_is_reported_as_such(ledger: Ledger, open_ledger: OpenLedger, tmp_path: Path) -> None:
    for number in range(200):
        ledger.write(CONTEXT, put(str(number), "x" * 500))
    ledger.close()
    data = bytearray((tmp_path / "ledger.db").read_bytes())
    root = root_page(tmp_path / "ledger.db", "toys")
    data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    (tmp_path / "ledger.db").write_bytes(data)
    reader = open_ledger(writer=False)
    with pytest.raises(Corrupt, match="cannot be read"):
        keys(reader)


def root_page(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    connection.close()
    return int(found)


def test_settings_of_a_missing_key_name_the_file(ledger: Ledger, open_ledger: OpenLedger, tmp_path: Path) -> None:
    ledger.close()
    (tmp_path / "keys" / "ledger.key").unlink()
    with pytest.raises(ConfigurationError, match=r"keys/ledger\.key is missing"):
        open_ledger()
