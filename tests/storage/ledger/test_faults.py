"""A full disk and a failing disk: nothing acknowledged is lost, and nothing is promised afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import StorageFull
from holdtrue.storage.ledger import Ledger
from tests.storage.ledger.toys import CONTEXT, check, keys, make_table, put

pytestmark = pytest.mark.usefixtures("migrations_run")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MiB, twice what an empty ledger takes; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: a really full disk needs the right to mount a tmpfs (run as root)")
    yield folder
    # Lazily: a test that fails leaves files open, and must not hide its failure behind this one.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ledger: Ledger, start: int = 0) -> int:
    """Write until the disk is full; return how many rows were acknowledged."""
    for number in range(start, 100_000):
        try:
            ledger.write(CONTEXT, put(str(number), "x" * 2_000))
        except StorageFull:
            return number
    raise AssertionError("the disk never filled up")


def test_a_full_disk_refuses_and_recovers(disk: Path, clock: SimulatedClock) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 60_000)
    ledger = Ledger.open(disk / "ledger.db", clock=clock, keys=disk / "keys")
    make_table(ledger)
    acknowledged = fill(ledger)
    assert acknowledged > 0
    expected = [str(number) for number in range(acknowledged)]
    assert keys(ledger) == expected
    with pytest.raises(StorageFull, match="disk is full") as caught:
        ledger.write(CONTEXT, put("refused", "x" * 2_000))
    assert "room" in caught.value.mend
    assert ledger.failure is None
    ballast.unlink()
    ledger.write(CONTEXT, put("again", "x" * 2_000))
    assert keys(ledger) == [*expected, "again"]
    ledger.close()
    found = check(disk)
    assert (found.ok, found.entries) == (True, acknowledged + 1)
    again = Ledger.open(disk / "ledger.db", clock=clock, keys=disk / "keys")
    assert keys(again) == [*expected, "again"]
    again.close()


def test_a_full_disk_at_the_first_start_says_so(disk: Path, clock: SimulatedClock) -> None:
    ballast = disk / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    os.write(descriptor, b"x" * (free - 40_000))
    os.close(descriptor)
    with pytest.raises(StorageFull):
        Ledger.open(disk / "ledger.db", clock=clock, keys=disk / "keys")
    ballast.unlink()
    Ledger.open(disk / "ledger.db", clock=clock, keys=disk / "keys").close()
    assert check(disk).ok


# A write beyond RLIMIT_FSIZE fails with EFBIG, which SQLite reports as a real I/O error of the disk.
FAILING = """
import json, os, resource, signal, sys
from pathlib import Path
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import Unavailable
from holdtrue.storage.ledger import Ledger
from tests.storage.ledger.toys import CONTEXT, keys, make_table, put

home = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(home / "ledger.db", clock=SystemClock(), keys=home / "keys")
make_table(ledger)
size = (home / "ledger.db-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, resource.RLIM_INFINITY))
acknowledged = []
try:
    for number in range(10_000):
        ledger.write(CONTEXT, put(str(number), "x" * 1000))
        acknowledged.append(str(number))
except Unavailable as error:
    refused = error.what
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    ledger.write(CONTEXT, put("later"))
    later = "accepted"
except Unavailable as error:
    later = error.what
print(json.dumps([acknowledged, refused, later, keys(ledger), str(ledger.failure)]), flush=True)
os._exit(0)
"""


def test_after_an_io_error_nothing_more_is_promised(tmp_path: Path, clock: SimulatedClock) -> None:
    """A second fsync after a failed one reports success for pages the kernel has dropped."""
    run = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path)], capture_output=True, check=True, text=True, timeout=60
    )
    acknowledged, refused, later, seen, failure = json.loads(run.stdout)
    assert len(acknowledged) > 5
    assert "stopped writing" in refused
    assert later == refused
    assert "disk I/O error" in failure
    assert seen == acknowledged, "reads must go on, and show what was promised"
    ledger = Ledger.open(tmp_path / "ledger.db", clock=clock, keys=tmp_path / "keys")
    assert keys(ledger)[: len(acknowledged)] == acknowledged
    assert len(keys(ledger)) <= len(acknowledged) + 1
    assert [event.object for event in ledger.events(limit=10_000)] == keys(ledger)
    ledger.close()
    assert check(tmp_path).ok
