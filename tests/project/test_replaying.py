"""Replay of a service's recorded answers against accepted windows, from a real journal and real blobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import holdtrue as ht
from holdtrue import data
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.features import FeatureSet, Trailing, point_in_time
from holdtrue.project.replaying import Replay, replayed
from holdtrue.project.work import Workshop
from holdtrue.storage import BlobStore
from holdtrue.storage.journal import Journal

MOMENT = pa.timestamp("us", "UTC")
HOUR = 3_600_000_000
JANUARY = 1_704_067_200_000_000
PAST = Trailing("past", "endings", "place", "ended_at", "delay", ("mean", "count"), "3h")
FEATURES = FeatureSet((PAST,), (ht.numeric("distance"),), {})
N = 60


def _project() -> ht.Project:
    project = ht.Project("toy", owner="me")

    @project.dataset(
        key="id",
        time="at",
        contract=ht.Contract(
            (
                ht.column("id", "string", unique=True),
                ht.column("at", "timestamp"),
                ht.column("place", "string"),
                ht.column("ended_at", "timestamp"),
                ht.column("delay", "float64"),
            )
        ),
    )
    def rows(window: str) -> pa.Table:
        raise NotImplementedError(window)

    @project.source(of=rows)
    def endings(given: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
        return given.select("id, place, ended_at, delay")

    return project


def _rows() -> pa.Table:
    numbers = np.random.default_rng(1)
    at = JANUARY + np.sort(numbers.integers(0, 48 * HOUR, 500))
    return pa.table(
        {
            "id": [f"r{each}" for each in range(500)],
            "at": pa.array(at, MOMENT),
            "place": numbers.choice(["x", "y"], 500),
            "ended_at": pa.array(at + HOUR, MOMENT),
            "delay": numbers.normal(size=500),
        }
    )


class _World:
    """A journal with answers of one release, and the window they lie in."""

    def __init__(self, folder: Path) -> None:
        self.project = _project()
        self.journal = Journal(folder / "journal", SystemClock())
        self.writer = self.journal.writer("plane")
        self.blobs = BlobStore(folder / "blobs")
        self.fragments: dict[str, Any] = {}

    def accept(self) -> None:
        spec = self.project.datasets["rows"].spec
        taken = data.ingest(self.blobs, spec, "2024-01", _rows())
        self.fragments["2024-01"] = {"digest": taken.digest}

    def answer(self, *, wrong: int = 0, first: int = JANUARY, release: str = "rel_1") -> None:
        times = first + HOUR * np.arange(N) // 2
        asked = pa.table({"place": ["x", "y"] * (N // 2), "distance": list(range(N)), "t": pa.array(times)})
        source = _rows().select(["id", "place", "ended_at", "delay"])
        found = point_in_time(asked, FEATURES.views, {"endings": source}, time="t")
        matrix = FEATURES.assemble_table(found)
        matrix[:wrong, FEATURES.names.index("past_count")] += 1
        record: dict[str, Any] = {
            "id": [f"prd_{release}_{first}_{each}" for each in range(N)],
            "time": times.tolist(),
            "recorded_at": JANUARY,
            "release": release,
            "x_place": asked["place"].to_pylist(),
            "x_distance": asked["distance"].to_pylist(),
        }
        record |= {f"f_{name}": matrix[:, place].tolist() for place, name in enumerate(FEATURES.names)}
        self.writer.append("prediction", "toy", "late", record, N)

    def replay(self, most: int = 1000) -> list[dict[str, Any]]:
        asked = Replay(
            self.project, "late", self.journal, self.blobs, lambda _name: self.fragments, lambda _release: FEATURES
        )
        return replayed(asked, most=most)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    made = _World(tmp_path)
    yield made
    made.journal.close()


def test_answers_are_those_that_history_gives(world: _World) -> None:
    world.accept()
    world.answer()
    (found,) = world.replay()
    assert (found["release"], found["rows"], found["mismatched"], found["features"]) == ("rel_1", N, 0, {})
    assert (found["windows"], found["not_accepted_yet"]) == (["2024-01"], 0)


def test_what_differs_is_told_by_release_and_feature(world: _World) -> None:
    world.accept()
    world.answer()
    world.answer(wrong=6, release="rel_2", first=JANUARY + 5 * HOUR)
    second, first = world.replay()
    assert (first["release"], first["mismatched"]) == ("rel_1", 0)
    assert (second["release"], second["mismatched"]) == ("rel_2", 6)
    assert second["features"]["past_count"]["mismatched"] == 6
    assert second["features"]["past_count"]["largest"] == 1.0
    assert [each["rows"] for each in world.replay(most=10)] == [10, 10]


def test_answers_of_windows_that_were_not_accepted_are_counted(world: _World) -> None:
    world.accept()
    world.answer()
    world.answer(first=JANUARY + 40 * 24 * HOUR)
    (found,) = world.replay()
    assert (found["rows"], found["not_accepted_yet"]) == (N, N)


def test_nothing_answered_and_nothing_accepted_are_said(world: _World) -> None:
    with pytest.raises(NotFound, match="has not answered"):
        world.replay()
    world.answer()
    with pytest.raises(InvalidInput, match="can be replayed yet") as raised:
        world.replay()
    assert "--ingest" in raised.value.mend


class _Api:
    """What the control plane knows of the world's one release."""

    def __init__(self, world: _World) -> None:
        self._world = world

    def get(self, path: str, **query: Any) -> Any:
        if "/releases/" in path:
            return {"manifest": {"versions": {"features": "fv_1"}}}
        return {"content": FEATURES.to_json(), "fragments": self._world.fragments}

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        raise AssertionError(path)


def test_a_worker_replays_a_service_and_says_why_it_cannot(world: _World, tmp_path: Path) -> None:
    workshop = Workshop(world.project, tmp_path, _Api(world))
    job = ("replay", {"service": "late"}, "usr_1")
    assert "has not answered" in workshop.execute(*job)["why"]
    world.answer(wrong=3)
    assert "can be replayed yet" in workshop.execute(*job)["why"]
    world.accept()
    (report,) = workshop.execute(*job)["reports"]
    assert (report["release"], report["rows"], report["mismatched"]) == ("rel_1", N, 3)
