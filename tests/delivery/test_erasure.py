"""An aircraft of 2013, standing for a person, is erased from everything that real processes know of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.features import FeatureSet, OnlineStore
from holdtrue.server.client import Client
from holdtrue.server.exchange.rest import API3, MlflowServer
from holdtrue.storage import Journal
from holdtrue.storage.ledger.verify import verify
from tests.cli.test_commands import holdtrue
from tests.cli.toys import succeed
from tests.delivery.tails import busiest, tail_folder

SECONDS = 60.0
OTHER = "N14228"


@dataclass
class Production:
    """A running house that answers about aircraft, and the one that is to be erased."""

    folder: Path
    url: str
    token: str
    tail: str
    release: str

    @property
    def home(self) -> Path:
        """Return the data folder."""
        return self.folder / ".holdtrue"

    def post(self, path: str, body: Any) -> Any:
        """Ask the data plane."""
        headers = {"authorization": f"Bearer {self.token}"}
        answer = httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def command(self, *arguments: str) -> Any:
        """Run a command that has to work, and return its JSON."""
        return json.loads(succeed(*arguments, "--json", cwd=self.folder))


def until(true: Callable[[], bool]) -> None:
    """Look again and again until something outside of this process is so."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    folder = tail_folder(tmp_path_factory.mktemp("tails"))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "holdtrue.server.up", "--home", ".holdtrue", "--port", "0", "--file", "project.py"],
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = next(line for line in process.stdout if line.startswith("ready "))
        port = int(ready.split()[1].rsplit(":", 1)[1])
        yield began(folder, f"http://127.0.0.1:{port + 1}")
    finally:
        process.terminate()
        process.wait(SECONDS)
        process.stdout.close()


def began(folder: Path, url: str) -> Production:
    """Train, promote, and let requests, events and labels come for the busiest aircraft and another one."""
    spoil(folder)
    succeed("apply", cwd=folder)
    made = json.loads(succeed("run", "-w", "2013-01", "-w", "2013-02", "--json", cwd=folder))
    succeed("promote", "delay", made["release"], cwd=folder)
    token = json.loads(succeed("token", "create", "--role", "service", "--project", "tails", "--json", cwd=folder))[
        "token"
    ]
    world = Production(folder, url, token, busiest(folder), made["release"])
    headers = {"authorization": f"Bearer {token}"}
    until(lambda: httpx.get(f"{url}/v2/models/delay/ready", headers=headers).status_code == 200)
    now = time.time_ns() // 1000
    for number, tail in enumerate((world.tail, OTHER, world.tail, OTHER)):
        event = {"id": [f"e{number}"], "tailnum": [tail], "arrived_at": [now - 1000 + number], "late_by": [20.0]}
        world.post("/events/arrivals", {"columns": event})
        asked = {"flight_id": f"f{number}", "tailnum": tail, "distance": 500.0, "scheduled": now + number}
        answer = world.post("/predict/delay", asked)
        world.post("/labels", {"service": "delay", "labels": [{"key": f"f{number}", "value": 1}]})
        said = {"prediction_id": answer["prediction_id"], "name": "helpful", "value": True}
        world.post("/feedback", said)
    return world


def spoil(folder: Path) -> None:
    """Let a row of the busiest aircraft be one that its contract keeps out, and gives as an example."""
    file = folder / "flights-2013-02.parquet"
    table = pq.read_table(file)
    row = table["tailnum"].to_pylist().index(busiest(folder))
    distances = [4999.5 if number == row else each for number, each in enumerate(table["distance"].to_pylist())]
    pq.write_table(table.set_column(table.column_names.index("distance"), "distance", pa.array(distances)), file)


def columns(world: Production, kind: str, column: str) -> list[Any]:
    """Return a column of all records of a kind."""
    table = Journal(world.home / "journal", SystemClock()).table(kind, "tails")
    return table[column].to_pylist() if column in table.column_names else []


def known_online(world: Production, tail: str) -> float:
    """Return how many arrivals of an aircraft the online store knows of now."""
    with Client.open(world.home) as client:
        page = client.get("/api/projects/tails/versions", kind="feature_view")
        views = FeatureSet.from_json(page["items"][0]["content"]).views
    store = OnlineStore(world.home / "online" / "tails")
    try:
        return float(store.lookup(views, {"tailnum": [tail]}, [time.time_ns() // 1000])["tail_count"][0])
    finally:
        store.close()


def cases(world: Production) -> list[Any]:
    """Return the inputs of all records of evaluation datasets."""
    with Client.open(world.home) as client, closing(MlflowServer(client.speaking("tails"))) as server:
        return [record["inputs"] for row in server.case_sets() for record in server.cases(row)]


def keep_cases(world: Production) -> None:
    """Keep an evaluation dataset whose records name aircraft in inputs, expectations and tags."""
    inputs = ({"flight": {"tailnum": world.tail}}, {"flight": {"tailnum": OTHER}}, {"question": "a"}, {"question": "b"})
    records: list[dict[str, Any]] = [{"inputs": each} for each in (*inputs, {"question": f"Is {OTHER} late?"})]
    records[2]["expectations"] = {"found": [{"tailnum": [OTHER, world.tail]}]}
    records[3]["tags"] = {"tailnum": world.tail}
    with Client.open(world.home) as client, closing(MlflowServer(client.speaking("tails"))) as server:
        made = server.ask("POST", f"{API3}/datasets/create", name="asked")["dataset"]["dataset_id"]
        server.ask("POST", f"{API3}/datasets/{made}/records", records=json.dumps(records))


def test_an_entity_is_erased_everywhere_and_its_models_are_listed(production: Production) -> None:
    world = production
    keep_cases(world)
    used = world.command("data", "used", "--entity", f"tailnum={world.tail}")
    assert [(each["label"], each["windows"]) for each in used] == [("delay@1", ["2013-01", "2013-02"])]
    assert used[0]["answers"] == ["delay in production"]
    assert known_online(world, world.tail) == 2.0
    assert columns(world, "prediction", "x_tailnum").count(world.tail) == 2
    before = sum(pq.read_table(world.folder / f"flights-2013-0{month}.parquet").num_rows for month in (1, 2))

    found = world.command("data", "erase", f"tailnum={world.tail}", "--reason", "request 17")

    done = found["found"]
    assert found["state"] == "done"
    assert done["records"] == {"events": 2, "predictions": 2}
    assert done["said"] == {"labels": 2, "feedback": 2, "spans": 0, "traces": 0}
    assert done["cases"] == {"records": 3}
    assert cases(world) == [{"flight": {"tailnum": OTHER}}, {"question": f"Is {OTHER} late?"}]
    assert done["online"]["keys"] >= 1
    assert done["datasets"]["versions"] == ["flights@3"]
    assert [each["label"] for each in done["models"]] == ["delay@1"]
    assert done["left"]["blobs"] == []
    assert done["datasets"]["examples"] == 3  # of two events and a quarantine
    assert columns(world, "prediction", "x_tailnum") == [OTHER] * 2
    assert columns(world, "event", "tailnum") == [OTHER] * 2
    assert columns(world, "label", "key") == ["f1", "f3"]
    assert len(columns(world, "feedback", "id")) == 2
    assert known_online(world, world.tail) == 0.0
    assert known_online(world, OTHER) == 2.0
    assert list(Journal(world.home / "journal", SystemClock()).verify()) == []
    succeed("data", "export", "flights", "now.parquet", cwd=world.folder)
    rows = pq.read_table(world.folder / "now.parquet")
    assert world.tail not in rows["tailnum"].to_pylist()
    assert rows.num_rows == before - done["datasets"]["rows"]


def test_a_gate_learns_that_a_release_knew_somebody_who_was_erased(production: Production) -> None:
    world = production
    with Client.open(world.home) as client:
        found = client.get("/api/projects/tails/evidence", subject=world.release)["items"]
    assert [each["content"]["erased"] for each in found if each["kind"] == "privacy"] == [0, 1]


def _told(world: Production) -> list[Any]:
    """Return the log without the jobs that fill views from the rewritten data meanwhile."""
    told = world.command("activity", "--limit", "500")
    return [each for each in told if not each["action"].startswith("job.")]


def test_the_same_again_changes_nothing(production: Production) -> None:
    world = production
    first = world.command("data", "erase", f"tailnum={world.tail}", "--reason", "request 17")
    events = _told(world)
    assert world.command("data", "erase", f"tailnum={world.tail}", "--reason", "another") == first
    assert _told(world) == events
    assert [each["id"] for each in world.command("data", "erasures")] == [first["id"]]


def test_a_delivery_does_not_bring_it_back(production: Production) -> None:
    world = production
    taken = world.command("run", "--ingest", "-w", "2013-01")
    assert taken[0]["erased"] > 0
    assert [each["number"] for each in world.command("data", "ls", "flights")] == [3, 2, 1]
    # So it is with a record of an evaluation dataset.
    with Client.open(world.home) as client, closing(MlflowServer(client.speaking("tails"))) as server:
        [kept] = server.case_sets()
        sent = json.dumps([{"inputs": {"tailnum": each, "again": True}} for each in (world.tail, OTHER)])
        answer = server.ask("POST", f"{API3}/datasets/{kept.id}/records", records=sent)
    assert answer == {"inserted_count": 1, "updated_count": 0, "erased_count": 1}
    # A file that is added by hand passes the same door.
    world.command("data", "add", "copies", "flights-2013-02.parquet", "--key", "flight_id")
    succeed("data", "export", "copies", "copies.parquet", cwd=world.folder)
    assert world.tail not in pq.read_table(world.folder / "copies.parquet")["tailnum"].to_pylist()


def test_old_versions_say_what_became_of_their_rows_and_their_bytes_are_collected(production: Production) -> None:
    world = production
    done = holdtrue("data", "show", "flights@2", cwd=world.folder)
    assert done.returncode == 1
    assert "erased" in done.stderr
    assert "flights@3" in done.stderr
    tables = [path for path in (world.home / "blobs").glob("??/*") if path.read_bytes()[:4] == b"PAR1"]
    held = [path for path in tables if holds(path, world.tail)]
    assert held
    for path in held:
        os.utime(path, (0, 0))
    removed = world.command("data", "gc")["removed"]
    assert removed >= len(held)
    assert not any(path.exists() for path in held)
    assert world.command("data", "show", "flights@3")["rows"] > 0
    assert world.command("data", "erase", f"tailnum={world.tail}", "--reason", "17", "--again")["found"]["models"]


def holds(path: Path, tail: str) -> bool:
    """Tell whether a table has a row of an aircraft."""
    table = pq.ParquetFile(path).read()
    return "tailnum" in table.column_names and tail in table["tailnum"].to_pylist()


def test_nothing_that_is_kept_of_it_holds_its_name(production: Production) -> None:
    """Neither the ledger with its log, nor any file of the journal, has the value; the log verifies."""
    world = production
    name = world.tail.encode()
    kept = [world.home / "ledger.db", world.home / "ledger.db-wal", *(world.home / "journal").rglob("*")]
    assert [path for path in kept if path.is_file() and name in path.read_bytes()] == []
    for path in (world.home / "journal").rglob("*.parquet"):  # what is compressed shows no name as it lies there
        assert world.tail not in str(pq.ParquetFile(path).read().to_pydict())
    assert verify(world.home / "ledger.db", (world.home / "keys" / "ledger.pub").read_text()).ok
    with Client.open(world.home) as client:
        actions = [each["action"] for each in client.get("/api/projects/tails/events", limit=500)["items"]]
    assert actions.count("erasure.done") == 2


def test_whoever_may_not_is_refused(production: Production) -> None:
    world = production
    for role, status in (("developer", 403), ("viewer", 403), ("service", 403), ("operator", 400)):
        made = succeed("token", "create", "--role", role, "--project", "tails", "--json", cwd=world.folder)
        with Client.open(world.home) as client:
            answer = httpx.post(
                f"{client.url}/api/projects/tails/erasures",
                json={"column": "tailnum", "value": "N1"},
                headers={"authorization": f"Bearer {json.loads(made)['token']}"},
            )
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("tailnum",), "No entity is named"),
        (("tailnum=",), "No entity is named"),
        (("tailnum=N14228", "--reason", " "), "for a reason"),
        (("tailnum=N14228", "--reason", "the owner of N14228 asked"), "names the entity"),
    ],
)
def test_what_cannot_be_meant_is_refused(production: Production, wrong: tuple[str, ...], said: str) -> None:
    more = () if "--reason" in wrong else ("--reason", "request 18")
    done = holdtrue("data", "erase", *wrong, *more, cwd=production.folder)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert columns(production, "prediction", "x_tailnum") == [OTHER] * 2
