from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdtrue.serving import (
    Arm,
    BadSnapshot,
    Bundle,
    Input,
    ModelFile,
    Route,
    Snapshot,
    read_snapshot,
    write_snapshot,
)

BUNDLE = Bundle(
    release="rel_a",
    project="flights",
    service="delay",
    inputs=(Input("origin", "BYTES"), Input("distance", "FP64")),
    contract=None,
    features={"views": [], "expressions": [], "vocabularies": {}},
    model=ModelFile("onnx", "0" * 64),
    output="late",
)
ROUTE = Route("flights", "delay", None, "origin", (Arm("champion", "rel_a", 100.0),), fallback=0.5)
SNAPSHOT = Snapshot(3, datetime(2013, 3, 1, tzinfo=UTC), {"flights/delay": ROUTE}, {"rel_a": BUNDLE})


def with_route(**changes: Any) -> Snapshot:
    return replace(SNAPSHOT, services={"flights/delay": replace(ROUTE, **changes)})


def with_bundle(**changes: Any) -> Snapshot:
    return replace(SNAPSHOT, releases={"rel_a": replace(BUNDLE, **changes)})


def test_a_snapshot_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "current.json"
    write_snapshot(path, SNAPSHOT)
    assert read_snapshot(path) == SNAPSHOT
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_route_names_each_release_once() -> None:
    arms = (Arm("champion", "rel_a", 95.0), Arm("canary", "rel_b", 5.0))
    assert replace(ROUTE, arms=arms, shadows=("rel_b", "rel_c")).releases == ("rel_a", "rel_b", "rel_c")


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (with_route(arms=()), "no arm"),
        (with_route(arms=(Arm("champion", "rel_a", 99.0),)), "100 percent"),
        (with_route(arms=(Arm("a", "rel_a", 110.0), Arm("b", "rel_a", -10.0))), "100 percent"),
        (with_route(arms=(Arm("a", "rel_a", 50.0), Arm("a", "rel_a", 50.0))), "an arm twice"),
        (with_route(arms=(Arm("champion", "rel_z", 100.0),)), "rel_z"),
        (with_route(shadows=("rel_z",)), "rel_z"),
        (with_route(entity=None, arms=(Arm("a", "rel_a", 50.0), Arm("b", "rel_a", 50.0))), "no entity"),
        (with_route(key="tail"), "tail"),
        (replace(SNAPSHOT, services={"flights/other": ROUTE}), "listed as flights/other"),
        (replace(SNAPSHOT, releases={"rel_b": BUNDLE}), "listed as rel_b"),
        (with_bundle(service="other"), "another service"),
        (with_bundle(project="../x"), "project name"),
        (with_bundle(inputs=(Input("origin", "BYTES"), Input("origin", "BYTES"))), "twice"),
        (with_bundle(inputs=(Input("origin", "STRING"),)), "STRING"),
        (with_bundle(prediction_time="scheduled"), "scheduled"),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(tmp_path: Path, snapshot: Snapshot, said: str) -> None:
    with pytest.raises(BadSnapshot) as refused:
        write_snapshot(tmp_path / "current.json", snapshot)
    assert said in f"{refused.value.what} {refused.value.why}"
    assert not (tmp_path / "current.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"sequence": 1}', '{"sequence": "x", "issued_at": 0}'])
def test_an_unreadable_snapshot_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "current.json"
    path.write_text(text)
    with pytest.raises(BadSnapshot):
        read_snapshot(path)
    with pytest.raises(BadSnapshot):
        read_snapshot(tmp_path / "missing.json")


def test_an_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "current.json"
    write_snapshot(path, SNAPSHOT)
    path.write_text(path.read_text().replace('"sequence"', '"sequense"'))
    with pytest.raises(BadSnapshot, match="sequense"):
        read_snapshot(path)
