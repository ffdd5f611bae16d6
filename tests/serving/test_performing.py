"""A load test of a release on its real runtime: what counts as a regression, and real data planes under load."""

import sys
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.errors import ConfigurationError, Unavailable
from holdtrue.serving import Candidate, LoadTest, check_load_test, measure
from holdtrue.serving.performing import MEASURES, Measured, evidence_of
from tests.serving.plane_home import Home, flight, infer_body

PLANE = (sys.executable, "-m", "holdtrue.server.dataplane")
WOBBLE = (1.0, 1.02, 0.98, 1.01, 0.99, 1.0)


def measured(**times: float) -> Measured:
    """Return what six rounds might say, each measure this many times the usual, with a little noise."""
    found = Measured(rate=500.0, sent=6000)
    for place, name in enumerate(MEASURES):
        usual = 100.0 * times.get(name, 1.0)
        found.values[name] = [usual * WOBBLE[(round_ + place) % 6] for round_ in range(6)]
    return found


def names(found: dict[str, Any]) -> list[str]:
    return [each["what"] for each in found["failures"]]


def test_what_is_surely_beyond_the_margin_is_a_regression_and_says_by_how_much() -> None:
    slow = measured(p99_ms=1.6, throughput=0.7, memory_mib=1.1)
    found = evidence_of(LoadTest(margin=0.25), slow, ("rel_live", measured()))
    assert names(found) == ["throughput", "p99_ms"]
    assert found["regressions"] == 2
    assert found["times"]["throughput"]["value"] == pytest.approx(1 / 0.7, rel=0.01)
    assert found["times"]["p99_ms"]["lower"] < 1.6 < found["times"]["p99_ms"]["upper"]
    assert "1.60 times worse than rel_live" in found["failures"][1]["why"]
    assert found["memory_mib"]["value"] == pytest.approx(110.0, rel=0.01)
    assert found["live"]["memory_mib"]["value"] == pytest.approx(100.0, rel=0.01)
    assert evidence_of(LoadTest(margin=0.7), slow, ("rel_live", measured()))["regressions"] == 0


def test_better_or_equal_is_none_and_so_is_worse_within_what_rounds_differ() -> None:
    better = measured(p50_ms=0.5, throughput=2.0, memory_mib=0.5, start_seconds=0.5)
    assert evidence_of(LoadTest(), better, ("rel_live", measured()))["regressions"] == 0
    noisy = measured()
    noisy.values["p99_ms"] = [50.0, 400.0, 60.0, 500.0, 70.0, 300.0]
    found = evidence_of(LoadTest(), noisy, ("rel_live", measured()))
    assert (found["regressions"], found["times"]["p99_ms"]["value"] > 1.25) == (0, True)


def test_the_first_release_has_nothing_to_be_compared_with_and_failed_requests_fail_it() -> None:
    found = evidence_of(LoadTest(), measured(), None)
    assert (found["regressions"], "times" in found, "against" in found) == (0, False, False)
    broken = measured()
    broken.failed = 3
    found = evidence_of(LoadTest(), broken, None)
    assert (found["regressions"], found["failed"], names(found)) == (1, 3, ["requests that fail"])


def test_a_measure_that_the_machine_does_not_tell_is_left_out() -> None:
    unknown = measured()
    unknown.values["memory_mib"] = []
    found = evidence_of(LoadTest(), unknown, ("rel_live", measured()))
    assert "memory_mib" not in found
    assert "memory_mib" not in found["times"]
    assert found["regressions"] == 0


@pytest.mark.parametrize(
    "changes", [{"rounds": 1}, {"seconds": 0.0}, {"connections": 0}, {"rows": 0}, {"margin": -0.1}, {"starts": 1}]
)
def test_a_load_test_that_cannot_be_run_is_refused(changes: dict[str, Any]) -> None:
    check_load_test(LoadTest())
    with pytest.raises(ConfigurationError, match=f"cannot have {next(iter(changes))}"):
        check_load_test(LoadTest(**changes))


def candidate(home: Home, model: str, **changes: Any) -> Candidate:
    import orjson

    bodies = [orjson.dumps(infer_body([flight(number)])) for number in range(5)]
    return Candidate(home.bundle(f"rel_{model}", model, **changes), home.models[model], bodies)


def test_a_release_is_measured_on_a_data_plane_of_its_own(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "trials"
    folder.mkdir()
    plan = LoadTest(seconds=0.05, rounds=2, starts=2)
    found = measure(plan, candidate(home, "champion"), None, folder, PLANE)
    assert (found["failed"], found["regressions"], found["n"]) == (0, 0, 2)
    assert set(MEASURES) <= set(found)
    assert all(found[name]["value"] > 0.0 for name in MEASURES)
    assert found["load"]["requests"] > 0


def test_a_release_that_cannot_answer_ends_the_test_with_its_reason(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "trials"
    folder.mkdir()
    with pytest.raises(Unavailable, match="could not be brought to answer"):
        measure(LoadTest(), candidate(home, "champion"), None, folder, (sys.executable, "-c", "exit('no')"))


@pytest.mark.long
def test_a_heavier_model_is_found_to_be_slower_and_an_equal_one_is_not(home: Home, tmp_path: Path) -> None:
    """Real processes: the same model against itself, and one of two hundred times the trees against it."""
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    from holdtrue.serving import compile_model
    from tests.serving.plane_home import FEATURES

    random = np.random.default_rng(1)
    matrix = random.normal(size=(3000, 6)).astype(np.float32)
    label = (matrix[:, 0] + random.normal(size=3000) > 0).astype(int)
    forest = RandomForestClassifier(1000, random_state=0, n_jobs=2).fit(matrix, label)
    heavy = compile_model(forest, list(FEATURES.names), matrix).onnx
    home.models = {**home.models, "heavy": heavy}
    plan = LoadTest(seconds=0.5, rounds=8, starts=2)
    for folder in ("equal", "heavy"):
        (tmp_path / folder).mkdir()
    live = candidate(home, "champion")
    equal = measure(plan, candidate(home, "champion"), live, tmp_path / "equal", PLANE)
    worse = measure(plan, candidate(home, "heavy"), live, tmp_path / "heavy", PLANE)
    assert equal["regressions"] == 0, equal["failures"]
    assert "throughput" in names(worse)
    assert worse["times"]["throughput"]["lower"] > 1.25
