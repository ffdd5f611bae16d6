"""The report of how two releases answer differently: hand-counted on records of a real journal."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import NotFound
from holdtrue.delivery import history
from holdtrue.delivery.differing import (
    Report,
    _quarters,  # pyright: ignore[reportPrivateUsage]
    differing,
)
from holdtrue.delivery.model import Rollout
from tests.delivery.worlds import World, open_world


def shadowed(
    world: World, running: Rollout, n: int = 600, ahead: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Let both releases score n rows; at LGA the challenger is far off. Return origin, both scores and truth."""
    random = np.random.default_rng(2)
    origin = np.array(["EWR", "JFK", "LGA"])[np.arange(n) % 3]
    truth = random.random(n) < 0.3
    first = np.clip(np.where(truth, 0.5, 0.2) + random.normal(0, 0.1, n), 0.01, 0.99)
    second = np.where(origin == "LGA", 0.95 - first, np.clip(first + random.normal(0, 0.02, n), 0, 1))
    writer = world.stores.journal.writer("plane")
    now = microseconds(world.clock.now())
    ids = [f"prd_{row:05d}" for row in range(n)]
    for release, scores, role, time in (
        (running.champion, first, "answer", 2000),
        (running.challenger, second, "shadow", None),
    ):
        record: dict[str, Any] = {
            "id": ids if role == "answer" else [f"{each}~{release}" for each in ids],
            "prediction_id": ids,
            "time": now + round(ahead * 86_400e6),
            "recorded_at": now,
            "key": [f"F{row}" for row in range(n)],
            "entity": "N1",
            "arm": role,
            "role": role,
            "release": release,
            "rollout": running.id,
            "score": scores.tolist(),
            "fallback": False,
            "latency_us": [time] * n,
            "model_us": [100 if role == "answer" else 400] * n,
            "x_origin": origin.tolist(),
            "x_flight": [f"F{row}" for row in range(n)],
            "x_distance": [float(row) for row in range(n)],
        }
        writer.append("prediction", world.project, "delay", record, n)
    world.writer = writer
    world.clock.advance(86_400)
    world.label([f"F{row}" for row in range(n)], truth.tolist())
    return origin, first, second, truth.astype(float)


def test_slices_of_large_numbers_keep_their_names_apart_and_moments_are_told_as_such() -> None:
    numbers = pa.chunked_array([np.arange(100.0) + 1e9])
    names = _quarters(numbers)
    assert names is not None
    assert sorted(set(names), key=str) == [
        "1000000000 to 1000000024.75",
        "1000000024.75 to 1000000049.5",
        "1000000049.5 to 1000000074.25",
        "1000000074.25 to 1000000099",
    ]
    began = 1_767_225_600_000_000
    moments = _quarters(pa.chunked_array([began + np.arange(100) * 60_000_000]), is_moment=True)
    assert moments is not None
    assert moments[0] == "2026-01-01 00:00:00 to 2026-01-01 00:24:45"
    # All of one second are no slices of each other, and what no calendar has is a number.
    assert _quarters(pa.chunked_array([began + np.arange(100)]), is_moment=True) is None
    far = _quarters(pa.chunked_array([np.arange(40.0) + 9e18]), is_moment=True)
    assert far is None or "9" in str(far[0])


@pytest.mark.parametrize("ahead", [-5.0, 5.0])
def test_rows_that_are_predicted_for_another_moment_than_that_of_the_request_count(
    tmp_path: Path, ahead: float
) -> None:
    """A flight is asked about days before it leaves, and a late batch after."""
    world = open_world(tmp_path)
    world.declare()
    running = world.rolling()
    shadowed(world, running, n=60, ahead=ahead)
    world.rollback("enough seen")
    found = report(world, running.id)
    assert found.whole is not None
    assert (found.whole.rows, found.whole.labelled) == (60, 60)
    past = history.history(world.stores, world.project, "delay", running.id)
    assert past.rows == 60


def report(world: World, name: str) -> Report:
    return differing(world.stores, world.project, name)


def test_slices_are_counted_and_the_bad_one_is_found(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    running = world.rolling()
    assert report(world, running.id).whole is None
    origin, first, second, truth = shadowed(world, running)
    found = report(world, running.id)

    assert found.whole is not None
    assert (found.whole.rows, found.whole.labelled) == (600, 600)
    assert found.whole.moved == pytest.approx((second - first).mean())
    assert found.whole.changed == pytest.approx(((first >= 0.5) != (second >= 0.5)).mean())
    by_origin = [each for each in found.slices if each.input == "origin"]
    assert {each.value for each in by_origin} == {"EWR", "JFK", "LGA"}
    quarters = {each.value: each.rows for each in found.slices if each.input == "distance"}
    assert quarters == {"0 to 149.75": 150, "149.75 to 299.5": 150, "299.5 to 449.25": 150, "449.25 to 599": 150}
    worst = found.slices[0]
    mine = origin == "LGA"
    losses = ((second - truth) ** 2 - (first - truth) ** 2)[mine]
    assert (worst.value, worst.rows, worst.worse) == ("LGA", 200, True)
    assert worst.apart == pytest.approx(np.abs(second - first)[mine].mean())
    assert worst.brier == pytest.approx(losses.mean())
    assert worst.lower is not None
    assert worst.lower == pytest.approx(losses.mean() - 1.972 * losses.std(ddof=1) / np.sqrt(200), abs=1e-4)
    assert [each.worse for each in by_origin[1:]] == [False, False]
    assert found.psi is not None
    assert found.psi > 0.2
    assert found.kolmogorov_smirnov is not None
    assert found.times == {
        "champion": {"n": 600, "p50": 2.0, "p99": 2.0, "model_n": 600, "model_p50": 0.1, "model_p99": 0.1},
        "challenger": {"model_n": 600, "model_p50": 0.4, "model_p99": 0.4},
    }


def test_a_rollout_that_is_not_there_is_said(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    with pytest.raises(NotFound):
        report(world, "rol_none")
