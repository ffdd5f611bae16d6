"""Stores in temporary folders, on a simulated clock; a small disk that fills up."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import BlobStore, Journal


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def journal(tmp_path: Path, clock: SimulatedClock) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal", clock)
    yield opened
    opened.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 512 KiB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: a really full disk needs the right to mount a tmpfs (run as root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
