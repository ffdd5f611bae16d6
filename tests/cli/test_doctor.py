"""`holdtrue doctor` over a journal that was really damaged, and what its repair tells and leaves."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.serving import read_snapshot
from holdtrue.storage import Journal
from tests.cli.test_commands import holdtrue
from tests.delivery.worlds import open_world

_DAY = 86_400_000_000


def _records(*ids: str) -> dict[str, Any]:
    return {"id": list(ids), "time": [_DAY] * len(ids), "note": "x" * 200}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder with a project and 40 predictions: 20 sealed in two files, 20 in two closed segments."""
    (tmp_path / ".holdtrue").mkdir(mode=0o700)
    assert holdtrue("init", "--name", "toy", cwd=tmp_path).returncode == 0
    assert holdtrue("apply", cwd=tmp_path).returncode == 0
    journal = Journal(tmp_path / ".holdtrue" / "journal", SystemClock())
    for name, seal in (("first", True), ("second", True), ("third", False), ("fourth", False)):
        writer = journal.writer(name)
        for number in range(5):
            row = f"prd_{name}_{number}"
            writer.append("prediction", "toy", "happens", _records(f"{row}a", f"{row}b"), 2)
        writer.close()
        if seal:
            journal.seal(roll=False)
    journal.close()
    return tmp_path / ".holdtrue"


def _ids(home: Path) -> set[str]:
    journal = Journal(home / "journal", SystemClock())
    try:
        return set(journal.table("prediction", "toy")["id"].to_pylist())
    finally:
        journal.close()


def _damage(home: Path) -> tuple[Path, Path]:
    """Cut the segment of the writer third in its middle, flip bytes in the Parquet file of the writer first."""
    segment = home / "journal" / "live" / "third-000001.seg"
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])
    (parquet,) = home.glob("journal/sealed/kind=prediction/**/first-000001.parquet")
    data = bytearray(parquet.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(each ^ 0xFF for each in data[middle : middle + 8])
    parquet.write_bytes(data)
    return segment, parquet


def test_damage_is_named_set_aside_and_counted_and_all_else_is_read_again(home: Path) -> None:
    whole = _ids(home)
    assert len(whole) == 40
    assert "every byte is as it was written" in holdtrue("doctor", cwd=home.parent).stdout
    segment, parquet = _damage(home)

    # What a user meets first: a command that reads the records.
    refused = holdtrue("why", "prd_second_0a", cwd=home.parent)
    assert refused.returncode != 0
    assert "third-000001.seg is damaged at byte" in refused.stderr or "first-000001.parquet" in refused.stderr
    assert "holdtrue doctor --repair" in refused.stderr
    assert "Traceback" not in refused.stderr
    looked = holdtrue("doctor", "--json", cwd=home.parent)
    assert looked.returncode == 1
    (found,) = [each for each in json.loads(looked.stdout) if each["state"] == "bad"]
    assert found["check"] == "journal"
    assert found["what"].startswith("journal/live/third-000001.seg is damaged at byte ")
    assert found["what"].endswith(", and 1 more")
    assert "holdtrue doctor --repair" in found["mend"]

    mended = holdtrue("doctor", "--repair", cwd=home.parent)

    assert mended.returncode == 0, mended.stdout + mended.stderr
    cut, moved, rest = mended.stdout.splitlines()[:3]
    assert re.fullmatch(
        r"! [\d,]+ bytes of journal/live/third-000001\.seg, from byte [\d,]+ on, are left out; the file moves to "
        r"journal/damaged when it is sealed\. Restore the file from a backup\.",
        cut,
    )
    where = parquet.relative_to(home)
    assert moved == f"! {where} was moved to journal/damaged: it held 10 records. Restore the file from a backup."
    assert rest == "✓ every other record can be read again."
    assert not parquet.exists()
    assert [each.name for each in (home / "journal" / "damaged").iterdir()] == [
        str(parquet.relative_to(home / "journal" / "sealed")).replace("/", "~")
    ]
    assert segment.exists()
    kept = _ids(home)
    assert {each for each in whole if each.startswith(("prd_second", "prd_fourth"))} <= kept
    assert {each for each in kept if each.startswith("prd_first")} == set()
    # Two rows an append: half of the file holds two of its five whole.
    assert {each for each in kept if each.startswith("prd_third")} == {
        f"prd_third_{number}{row}" for number in range(2) for row in "ab"
    }

    again = holdtrue("doctor", "--repair", "--json", cwd=home.parent)
    assert again.returncode == 0
    assert json.loads(again.stdout)[0] == {
        "check": "repair",
        "state": "ok",
        "what": "the journal is whole: nothing had to be set aside",
        "mend": "",
    }


def test_a_segment_with_a_hole_loses_the_hole_alone(home: Path) -> None:
    segment = home / "journal" / "live" / "fourth-000001.seg"
    data = bytearray(segment.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    segment.write_bytes(data)
    assert holdtrue("doctor", cwd=home.parent).returncode == 1
    assert holdtrue("doctor", "--repair", cwd=home.parent).returncode == 0
    lost = {f"prd_fourth_2{row}" for row in "ab"}
    kept = _ids(home)
    assert len(kept) == 38
    assert kept & lost == set()


def test_a_folder_that_is_not_there_is_not_repaired(tmp_path: Path) -> None:
    done = holdtrue("doctor", "--repair", "--home", str(tmp_path / "nothing"), cwd=tmp_path)
    assert done.returncode == 1
    assert "There is no data folder at" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_a_server_uses_is_not_repaired(home: Path) -> None:
    from holdtrue.storage import FolderLock

    lock = FolderLock(home)
    try:
        done = holdtrue("doctor", "--repair", cwd=home.parent)
    finally:
        lock.release()
    assert done.returncode != 0
    assert "is in use by process" in done.stderr
    assert "Traceback" not in done.stderr


def _findings(home: Path, *arguments: str) -> list[tuple[str, str, str]]:
    told = json.loads(holdtrue("doctor", "--json", *arguments, "--home", str(home), cwd=home.parent).stdout)
    return [(each["state"], each["what"], each["mend"]) for each in told if each["check"] == "deployed releases"]


def test_files_of_deployed_releases_are_looked_for_and_read(tmp_path: Path) -> None:
    world = open_world(tmp_path / "home")
    world.declare()
    home = world.stores.home
    assert _findings(home) == [("ok", "nothing is deployed", "")]
    release = world.live("one")
    (bundle,) = read_snapshot(home / "routing" / "current.json").releases.values()
    world.stores.close()
    assert _findings(home) == [("ok", "1 with 1 files, whole", "")]

    file = home / "blobs" / bundle.model.digest[:2] / bundle.model.digest
    good = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    ((state, what, mend),) = _findings(home)
    assert (state, what.startswith(f"{release} of delay: the model is not what was approved: ")) == ("bad", True)
    assert bundle.model.digest[:16] in mend
    file.unlink()
    ((state, what, _),) = _findings(home)
    assert (state, what) == ("bad", f"{release} of delay: the model is not there")

    # One that is large is looked for, and read when that is asked for.
    with file.open("wb") as sparse:
        sparse.truncate((64 << 20) + 1)
    ((state, what, _),) = _findings(home)
    assert (state, what) == ("ok", "1 with 1 files, whole, but for 1 of more than 64 MiB, which --whole reads")
    ((state, what, _),) = _findings(home, "--whole")
    assert (state, "not what was approved" in what) == ("bad", True)

    (home / "routing" / "current.json").write_text("{")
    ((state, _, mend),) = _findings(home)
    assert (state, "writes the file anew" in mend) == ("bad", True)
