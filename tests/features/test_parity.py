"""Parity by replay: nothing differs where both sides computed the same, and planted causes are named."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from holdtrue.features import FeatureSet, Latest, OnlineStore, Trailing, category, hour_of_day, numeric
from holdtrue.features.parity import History, Logged, replay

HOUR = 3_600_000_000
MINUTE = 60_000_000
START = 1_360_000_800_000_000 // HOUR * HOUR
WEATHER = Latest("weather", "readings", "origin", "published_at", ("temp",), "6h")
PAST = Trailing("past", "arrivals", "origin", "arrived_at", "delay", ("mean", "count"), "3h")
FEATURES = FeatureSet(
    (WEATHER, PAST), (numeric("distance"), category("origin"), hour_of_day("at")), {"origin": ("EWR", "JFK")}
)
NUMBERS = np.random.default_rng(5)
N = 300


def _sources() -> dict[str, pa.Table]:
    places = np.arange(240)
    return {
        "readings": pa.table(
            {
                "id": [f"r{each}" for each in places],
                "origin": ["EWR", "JFK"] * 120,
                "published_at": START - 24 * HOUR + places // 2 * HOUR,
                "temp": NUMBERS.normal(size=240),
            }
        ),
        "arrivals": pa.table(
            {
                "id": [f"a{each}" for each in range(4000)],
                "origin": NUMBERS.choice(["EWR", "JFK"], 4000),
                "arrived_at": START - 24 * HOUR + np.sort(NUMBERS.integers(0, 96 * HOUR, 4000)),
                "delay": NUMBERS.normal(size=4000),
            }
        ),
    }


def _requests() -> tuple[pa.Table, np.ndarray]:
    times = START + np.sort(NUMBERS.integers(0, 70 * HOUR, N))
    columns = {"origin": NUMBERS.choice(["EWR", "JFK"], N), "distance": NUMBERS.integers(1, 900, N), "at": times}
    return pa.table(columns), times


def _answered(tmp_path: Any, sources: dict[str, pa.Table], *, shift: int = 0) -> Logged:
    """Return what a data plane records that took these rows, and looks features up `shift` µs off."""
    requests, times = _requests()
    store = OnlineStore(tmp_path / "online")
    for source, table in sources.items():
        store.ingest(FEATURES.views, source, table.to_pydict())
    found = store.lookup(FEATURES.views, {"origin": requests["origin"].to_pylist()}, (times + shift).tolist())
    store.close()
    matrix = FEATURES.assemble(requests.to_pydict(), found).astype(np.float64)
    return Logged(
        [f"prd_{place}" for place in range(N)],
        requests,
        times,
        times + MINUTE,
        {name: matrix[:, place] for place, name in enumerate(FEATURES.names)},
    )


@pytest.fixture
def sources() -> dict[str, pa.Table]:
    return _sources()


def _main_cause(report: dict[str, Any], name: str) -> str:
    return next(iter(report["features"][name]["causes"]))


def test_nothing_differs_where_both_sides_saw_the_same_rows(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    report = replay(FEATURES, _answered(tmp_path, sources), History(sources, sources))
    assert (report["rows"], report["mismatched"], report["rate"], report["features"]) == (N, 0, 0.0, {})
    assert report["compared"] == 6


def test_rows_that_came_after_the_answer_are_late(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    arrivals = sources["arrivals"]
    early = arrivals.filter(pa.array(np.arange(4000) % 5 > 0))
    logged = _answered(tmp_path, {**sources, "arrivals": early})
    report = replay(FEATURES, logged, History(sources, sources))
    assert set(report["features"]) == {"past_mean", "past_count"}
    assert _main_cause(report, "past_count") == "late"
    example = report["features"]["past_count"]["examples"][0]
    assert example["online"] < example["offline"]
    assert report["rate"] == report["mismatched"] / N > 0.5


def test_moments_of_arrival_show_what_was_late(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    arrivals = sources["arrivals"]
    late = np.arange(4000) % 5 == 0
    known = np.where(late, START + 1000 * HOUR, START - 100 * HOUR).astype(np.int64)
    logged = _answered(tmp_path, {**sources, "arrivals": arrivals.filter(pa.array(~late))})
    report = replay(FEATURES, logged, History(sources, sources, {"arrivals": known}))
    assert set(report["features"]["past_mean"]["causes"]) == {"late"}


def test_rows_that_were_never_sent_are_told(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    sent = {**sources, "readings": sources["readings"].filter(pa.array(np.arange(240) % 7 > 0))}
    report = replay(FEATURES, _answered(tmp_path, sent), History(sources, sent))
    assert list(report["features"]) == ["weather_temp"]
    assert set(report["features"]["weather_temp"]["causes"]) == {"not sent"}
    nothing = {**sources, "readings": sources["readings"].slice(0, 0)}
    (tmp_path / "empty").mkdir()
    report = replay(FEATURES, _answered(tmp_path / "empty", nothing), History(sources, nothing))
    assert set(report["features"]["weather_temp"]["causes"]) == {"not sent"}
    assert report["features"]["weather_temp"]["examples"][0]["online"] is None


def test_numbers_that_lost_their_fractions_are_of_another_type(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    arrivals = sources["arrivals"]
    whole = pa.array(np.trunc(arrivals["delay"].to_numpy() * 10).astype(np.int64))
    longer = arrivals.set_column(3, "delay", pa.array(arrivals["delay"].to_numpy() * 10))
    sent = {**sources, "arrivals": arrivals.set_column(3, "delay", whole)}
    accepted = {**sources, "arrivals": longer}
    report = replay(FEATURES, _answered(tmp_path, sent), History(accepted, sent))
    assert list(report["features"]) == ["past_mean"]
    assert set(report["features"]["past_mean"]["causes"]) == {"type"}


def test_entities_sent_as_texts_that_are_asked_for_as_numbers_are_of_another_type(tmp_path: Any) -> None:
    places = np.arange(200)
    view = Latest("weather", "readings", "station", "at", ("temp",), "900h")
    features = FeatureSet((view,), (), {})
    rows = pa.table({"station": places % 5, "at": START + places * MINUTE, "temp": NUMBERS.normal(size=200)})
    sent = rows.set_column(0, "station", rows["station"].cast(pa.string()))
    store = OnlineStore(tmp_path)
    store.ingest([view], "readings", sent.to_pydict())
    requests, times = pa.table({"station": [0, 1, 2]}), START + np.array([500, 600, 700]) * MINUTE
    online = store.lookup([view], requests.to_pydict(), times.tolist())
    store.close()
    logged = Logged(["a", "b", "c"], requests, times, times, {"weather_temp": online["weather_temp"]})
    report = replay(features, logged, History({"readings": rows}, {"readings": sent}))
    assert report["features"]["weather_temp"]["causes"] == {"type": 3}


def test_a_shift_of_whole_hours_is_a_time_zone(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    report = replay(FEATURES, _answered(tmp_path, sources, shift=-5 * HOUR), History(sources, sources))
    assert _main_cause(report, "weather_temp") == _main_cause(report, "past_mean") == "time zone"
    assert set(report["features"]["weather_temp"]["causes"]) == {"time zone"}


def test_the_value_of_some_minutes_ago_is_stale(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    report = replay(FEATURES, _answered(tmp_path, sources, shift=-15 * MINUTE), History(sources, sources))
    assert _main_cause(report, "past_mean") == "stale"
    assert report["features"]["past_mean"]["causes"]["stale"] > 0.9 * report["features"]["past_mean"]["mismatched"]


def test_a_feature_of_the_request_is_a_matter_of_the_request(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    logged = _answered(tmp_path, sources)
    logged.features["distance"][:10] += 1
    logged.features["at_hour_of_day"][:] = (logged.features["at_hour_of_day"] + 5) % 24
    report = replay(FEATURES, logged, History(sources, sources))
    assert report["features"]["distance"]["causes"] == {"request": 10}
    assert report["features"]["distance"]["largest"] == 1.0
    assert report["features"]["at_hour_of_day"]["rate"] == 1.0


def test_what_nothing_explains_is_unknown(tmp_path: Any, sources: dict[str, pa.Table]) -> None:
    logged = _answered(tmp_path, sources)
    logged.features["weather_temp"][3] = 12345.0
    known = {name: np.full(table.num_rows, START - 100 * HOUR) for name, table in sources.items()}
    report = replay(FEATURES, logged, History(sources, sources, known))
    assert report["features"]["weather_temp"]["causes"] == {"unknown": 1}
    assert report["features"]["weather_temp"]["examples"] == [
        {
            "prediction": "prd_3",
            "online": 12345.0,
            "offline": report["features"]["weather_temp"]["examples"][0]["offline"],
            "cause": "unknown",
        }
    ]


def test_no_answers_are_no_mismatch(sources: dict[str, pa.Table]) -> None:
    requests, times = _requests()
    empty = Logged([], requests.slice(0, 0), times[:0], times[:0], {name: np.empty(0) for name in FEATURES.names})
    assert replay(FEATURES, empty, History(sources))["rate"] == 0.0
