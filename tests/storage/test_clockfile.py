import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.core.errors import ConfigurationError
from holdtrue.storage import FileClock

START = datetime(2013, 1, 1, 12, tzinfo=UTC)
READ = """
import sys
from pathlib import Path
from holdtrue.storage import FileClock
clock = FileClock(Path(sys.argv[1]))
for _ in sys.stdin:
    print(clock.now().isoformat(), flush=True)
"""


def test_setting_the_clock_moves_other_processes(tmp_path: Path) -> None:
    clock = FileClock(tmp_path / "clock", START)
    other = subprocess.Popen(
        [sys.executable, "-c", READ, str(tmp_path / "clock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdin is not None
        assert other.stdout is not None
        for days in (0, 40, -40):
            moment = START + timedelta(days=days, microseconds=250_000)
            clock.set(moment)
            other.stdin.write("\n")
            other.stdin.flush()
            assert datetime.fromisoformat(other.stdout.readline().strip()) == moment
        other.stdin.close()
    assert clock.monotonic() == clock.now().timestamp()
    clock.close()


def test_an_existing_clock_keeps_its_time(tmp_path: Path) -> None:
    FileClock(tmp_path / "clock", START).close()
    again = FileClock(tmp_path / "clock", START + timedelta(days=1))
    assert again.now() == START
    again.close()


@pytest.mark.parametrize("data", [None, b"", b"123456789"])
def test_what_is_not_a_clock_is_refused_by_name(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "clock"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=str(path)):
        FileClock(path)
