"""Answering requests loads no code, starts nothing, connects nowhere, opens only the data folder's files."""

import json
import subprocess
import sys
from pathlib import Path


def test_no_request_makes_the_server_load_spawn_or_open_what_it_must_not(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.server.watched", str(tmp_path / "home")],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    report = json.loads(run.stdout)
    assert report["found"] == []
    assert report["requests"] > 200
