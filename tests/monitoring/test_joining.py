from datetime import timedelta
from typing import Any

from holdtrue import monitoring
from holdtrue.monitoring.joining import SCHEMA
from tests.monitoring.production import PROJECT, SERVICE, Production, day


def rows(production: Production, **limits: Any) -> dict[str, list[Any]]:
    return monitoring.joined(production.stores, PROJECT, SERVICE, **limits).to_pydict()


def test_each_prediction_has_its_label_or_null(production: Production) -> None:
    keys = production.predict([0.9, 0.1, 0.4], shadow="rel_b")
    production.clock.advance(seconds=60)
    production.label(keys[:2], [1, 0])
    found = rows(production)
    by_row = dict(zip(zip(found["key"], found["role"], strict=True), found["label"], strict=True))
    assert by_row == {
        ("key-0", "answer"): 1.0,
        ("key-0", "shadow"): 1.0,
        ("key-1", "answer"): 0.0,
        ("key-1", "shadow"): 0.0,
        ("key-2", "answer"): None,
        ("key-2", "shadow"): None,
    }
    assert {known is None for known in found["known_at"]} == {True, False}


def test_the_label_known_last_wins_by_key_or_by_id(production: Production) -> None:
    keys = production.predict([0.9, 0.1, 0.2])
    later = production.clock.now() + timedelta(hours=1)
    production.label(keys, [1, 1, 1])
    production.label(keys[:1], [0], known_at=later)
    production.label(["x"], [0], known_at=later, key=None, prediction_id=["prd_1"])
    production.label(keys[2:], [0], known_at=later - timedelta(days=1))
    assert rows(production)["label"] == [0.0, 0.0, 1.0]


def test_limits_of_time_and_releases_are_kept(production: Production) -> None:
    for number in range(3):
        production.clock.set(day(number))
        production.predict([0.5], release=f"rel_{number}")
    assert rows(production, since=day(1))["release"] == ["rel_1", "rel_2"]
    assert rows(production, since=day(1), until=day(2))["release"] == ["rel_1"]
    assert rows(production, releases=["rel_0", "rel_2"])["release"] == ["rel_0", "rel_2"]


def test_nothing_recorded_is_an_empty_table_of_the_same_columns(production: Production) -> None:
    assert monitoring.joined(production.stores, PROJECT, SERVICE).schema == SCHEMA
    production.predict([0.5])
    assert monitoring.joined(production.stores, PROJECT, SERVICE).schema == SCHEMA


def test_pairs_are_rows_that_both_releases_scored_in_the_order_of_their_labels(production: Production) -> None:
    keys = production.predict([0.9, 0.1, 0.4], shadow="rel_b")
    alone = production.predict([0.3], release="rel_a")
    fell = production.predict([0.3], release="rel_a", shadow="rel_b", fallback=True)
    production.label([keys[2]], [0])
    production.clock.advance(seconds=60)
    production.label([keys[0], *alone, *fell], [1, 1, 1])
    table = monitoring.joined(production.stores, PROJECT, SERVICE)
    found = monitoring.paired(table, "rel_a", "rel_b")
    assert found.prediction_ids == ("prd_2", "prd_0")
    assert found.labels.tolist() == [0.0, 1.0]
    assert found.first.tolist() == found.second.tolist() == [0.4, 0.9]
    assert found.n == 2
    assert monitoring.paired(table, "rel_a", "rel_x").n == 0
