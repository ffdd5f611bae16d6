"""The demo on real data and real processes: a shorter year, then the same again from the cache."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import holdtrue

pytestmark = pytest.mark.timeout(900)


def _jobs(folder: Path) -> list[Any]:
    done = holdtrue("jobs", "--json", "--project", "flight-delays", "--home", str(folder / "demo" / "home"), cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def _demo(folder: Path, months: int, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "holdtrue", "demo", "--folder", str(folder / "demo"), "--months", str(months), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    log = folder / "demo" / "up.log"
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + (log.read_text() if log.exists() else "")
    return done.stdout


def test_a_short_year_and_the_same_again(tmp_path: Path) -> None:
    """Training, approval, serving, labels, retraining and a canary; then equal ids and no step run again."""
    told = _demo(tmp_path, 4, "--no-assistant")
    assert "2013-03 was taken in" in told
    assert "begins its canary" in told
    assert "frozen model" in told
    assert "policy pol_" in told  # the explanation of the last prediction reaches the decision
    report = (tmp_path / "demo" / "report.html").read_text()
    assert "<table" in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    first = [each for each in _jobs(tmp_path) if each["kind"] == "train"]
    releases = holdtrue(
        "releases", "--json", "--project", "flight-delays", "--home", str(tmp_path / "demo" / "home"), cwd=tmp_path
    )
    assert len(json.loads(releases.stdout)) == 2

    verified = holdtrue("audit", "verify", "--home", str(tmp_path / "demo" / "home"), cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout

    _demo(tmp_path, 3, "--no-assistant")
    again = [each for each in _jobs(tmp_path) if each["kind"] == "train"]
    assert [each["result"]["release"] for each in again] == [each["result"]["release"] for each in first]
    assert all(step["cached"] for each in again for step in each["result"]["steps"])


@pytest.mark.long  # embedding the whole documentation takes two minutes
def test_the_assistants_story(tmp_path: Path) -> None:
    """Released, evaluated, gated; a careless prompt refused, a worse index rolled back; an answer explained."""
    told = _demo(tmp_path, 3)
    assert "Ada makes an assistant over the documentation" in told
    assert re.search(r"The gate refuses rel_\w+: answers", told)
    assert re.search(r"rel_\w+ rolled back\. It is worse than the champion", told)
    assert "The assistant: one release after the other" in told
    assert "Why did the assistant answer" in told
