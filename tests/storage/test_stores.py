import stat
import subprocess
import sys
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import ConfigurationError, Locked, NotFound
from holdtrue.storage import open_stores


def test_opening_creates_a_private_layout_and_closing_gives_the_lock_back(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    home = tmp_path / "deep" / "home"
    stores = open_stores(home, clock)
    digest = stores.blobs.put(b"x")
    with pytest.raises(Locked):
        open_stores(home, clock)
    reader = open_stores(home, clock, writer=False)
    assert reader.blobs.get(digest) == b"x"
    reader.close()
    stores.close()
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in (
        "blobs",
        "actions",
        "journal/live",
        "journal/sealed",
        "online",
        "routing/acks",
        "keys",
        "backups",
    ):
        assert (home / name).is_dir()
    open_stores(home, clock).close()


def test_a_folder_that_others_can_enter_is_refused_unless_it_is_empty(tmp_path: Path, clock: SimulatedClock) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    open_stores(home, clock).close()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    home.chmod(0o750)
    with pytest.raises(ConfigurationError, match=str(home)) as caught:
        open_stores(home, clock)
    assert caught.value.mend == f"chmod 700 {home}"


def test_a_reader_does_not_create_a_folder(tmp_path: Path, clock: SimulatedClock) -> None:
    with pytest.raises(NotFound, match="home"):
        open_stores(tmp_path / "home", clock, writer=False)
    assert not (tmp_path / "home").exists()


def test_the_lock_is_free_again_when_opening_fails(tmp_path: Path, clock: SimulatedClock) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "ledger.db").write_bytes(b"this is not a database, and long enough to be read as one" * 100)
    for _ in range(2):
        with pytest.raises(Exception, match=r"ledger|database") as caught:
            open_stores(home, clock)
        assert not isinstance(caught.value, Locked)


def test_appending_to_the_journal_loads_no_database_and_no_arrow(tmp_path: Path) -> None:
    script = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import Journal
journal = Journal(Path(sys.argv[1]), SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
journal.writer("w").append("label", "p", "s", {"id": ["1"], "time": 0}, 1)
journal.close()
heavy = {"sqlalchemy", "pyarrow", "duckdb", "numpy", "fastapi", "pydantic"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "journal")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
