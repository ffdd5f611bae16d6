"""The types hold: checked here, beside other tests, since the checker uses one processor for a minute."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_the_types_hold() -> None:
    checker = Path(sys.executable).with_name("basedpyright")
    # Larger young generations spare Node a sixth of its time, which goes into collecting garbage.
    environment = {**os.environ, "NODE_OPTIONS": "--max-semi-space-size=128"}
    done = subprocess.run([checker], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
