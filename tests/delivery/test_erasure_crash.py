"""Kill the process that erases an entity at any moment: the same request goes on, and nothing else is lost."""

import os
import random
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.features import OnlineStore
from holdtrue.server.client import Client
from holdtrue.storage import Journal
from holdtrue.storage.ledger.verify import verify
from tests.crash.harness import History, nursery
from tests.delivery.erasing import OTHER, RECORDS, VIEW, prepare

CLIENT = "tests.delivery.erasing:erase"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder


def kill(prepared: Path, base: Path, kills: int) -> None:
    """Kill so many processes, each in a copy of the folder, and go on after each."""
    seed = int(os.environ.get("CRASH_SEED", secrets.randbits(32)))
    print(f"{kills} kills, CRASH_SEED={seed}")
    rng = random.Random(seed)
    cut = 0
    with nursery("tests.delivery.erasing") as home:
        for number in range(kills):
            folder = base / f"run-{number}"
            shutil.copytree(prepared, folder)
            pid = home.start(CLIENT, folder, rng.getrandbits(32))
            # The erasure begins when that is written down; from there on the moment is arbitrary.
            while "0" not in History.read(folder / "notes").intended:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.5))
            home.kill(pid)
            cut += "0" not in History.read(folder / "notes").acknowledged
            check(folder)
            shutil.rmtree(folder)
    assert cut, "no process was killed before its first erasure was done: the test saw nothing"


def check(folder: Path) -> None:
    """Ask again until it is done, and hold everything that is kept against what it must be."""
    home, tail = folder / ".holdtrue", (folder / "tail").read_text()
    asked = {"column": "tailnum", "value": tail, "reason": "request 17"}
    assert list(Journal(home / "journal", SystemClock()).verify()) == []
    with Client.open(home) as client:
        while (found := client.post("/api/projects/tails/erasures", asked))["state"] != "done":
            pass
        assert len(client.get("/api/projects/tails/erasures")["items"]) == 1
        versions = client.get("/api/projects/tails/datasets/flights/versions")["items"]
        assert [each["number"] for each in versions if each["current"]] == [3]
        assert [each["label"] for each in found["found"]["models"]] == ["delay@1"]
        fragments = client.get("/api/projects/tails/datasets/flights")["fragments"]
    check_journal(home, tail)
    check_datasets(home, fragments, tail)
    store = OnlineStore(home / "online" / "tails")
    now = time.time_ns() // 1000
    counts = store.lookup([VIEW], {"tailnum": [tail, OTHER]}, [now, now])["tail_count"].tolist()
    store.close()
    assert counts == [0.0, 1.0]
    assert verify(home / "ledger.db", (home / "keys" / "ledger.pub").read_text()).ok


def check_journal(home: Path, tail: str) -> None:
    journal = Journal(home / "journal", SystemClock())
    kept = [str(number) for number in range(RECORDS) if number % 2 == 0]
    for kind, sign in (("prediction", "p"), ("label", "l"), ("event", "e")):
        assert journal.table(kind, "tails")["id"].to_pylist() == [f"{sign}{number}" for number in kept]
    assert list(journal.verify()) == []
    listed = sum(journal.counts().values())
    files: list[Any] = [
        pq.ParquetFile(path).read() for path in (home / "journal" / "sealed").glob("kind=*/**/*.parquet")
    ]
    assert sum(table.num_rows for table in files) == listed == 3 * len(kept)
    assert not any(tail in str(table.to_pydict()) for table in files)


def check_datasets(home: Path, fragments: dict[str, Any], tail: str) -> None:
    rows = 0
    for part in fragments.values():
        table = pq.read_table(home / "blobs" / part["digest"][:2] / part["digest"])
        rows += table.num_rows
        assert tail not in table["tailnum"].to_pylist()
    assert rows == 6000 - 18


def test_an_erasure_survives_kills(prepared: Path, tmp_path: Path) -> None:
    kill(prepared, tmp_path, 3)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_an_erasure_survives_many_more_kills(prepared: Path, tmp_path: Path) -> None:
    kill(prepared, tmp_path, 150)
