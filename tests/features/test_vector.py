"""Feature sets: their JSON, and one matrix from a request and from a table."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.features import (
    FeatureSet,
    Latest,
    OnDemand,
    Trailing,
    category,
    day_of_week,
    hour_of_day,
    month,
    numeric,
)

VIEWS = (
    Latest("weather", "weather", "origin", "at", ("temp", "wind"), "6h"),
    Trailing("delay", "arrivals", "carrier", "at", "minutes", ("mean", "count"), "3h", "1h"),
)
EXPRESSIONS = (
    numeric("distance"),
    category("carrier"),
    hour_of_day("departure", zone_hours=-5),
    day_of_week("departure"),
    month("departure"),
)
TRAINING = pa.table({"carrier": ["UA", "AA", None, "UA"]})

_names = st.text(st.sampled_from("abcxyz"), min_size=1, max_size=8)
_spans = st.sampled_from(["1h", "3h", "2d"])
_latest = st.builds(
    Latest, _names, _names, _names, _names, st.lists(_names, min_size=1, unique=True).map(tuple), _spans
)
_trailing = st.builds(
    Trailing,
    *[_names] * 5,
    st.lists(st.sampled_from(["mean", "count", "sum", "min", "max", "last", "distinct"]), min_size=1, unique=True).map(
        tuple
    ),
    _spans,
    st.sampled_from(["30m", "1h"]),
)
_on_demand = st.builds(
    OnDemand,
    st.sampled_from(["numeric", "category", "hour_of_day", "day_of_week", "month"]),
    _names,
    st.integers(-12, 14),
)


def _fitted() -> FeatureSet:
    return FeatureSet.fit(VIEWS, EXPRESSIONS, TRAINING)


@settings(deadline=None)
@given(
    views=st.lists(st.one_of(_latest, _trailing), max_size=4, unique_by=lambda view: view.features),
    expressions=st.lists(_on_demand, max_size=5),
    words=st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True),
)
def test_the_json_form_gives_the_set_back(views: Any, expressions: Any, words: list[str]) -> None:
    vocabularies = {each.column: tuple(sorted(words)) for each in expressions if each.kind == "category"}
    names = [name for view in views for name in view.features] + [each.feature for each in expressions]
    assume(len(set(names)) == len(names))
    features = FeatureSet(tuple(views), tuple(expressions), vocabularies)
    assert FeatureSet.from_json(features.to_json()) == features
    assert FeatureSet.from_json(features.to_json()).names == features.names


def test_what_a_view_leaves_open_is_not_in_its_json_and_what_it_says_is() -> None:
    plain = FeatureSet((VIEWS[0],), (), {}).to_json()["views"][0]
    assert not {"created", "freshness"} & plain.keys()
    view = Latest("weather", "weather", "origin", "at", ("temp",), "6h", created="published", freshness="2h")
    content = FeatureSet((view,), (), {}).to_json()
    assert (content["views"][0]["created"], content["views"][0]["freshness"]) == ("published", "2h")
    assert FeatureSet.from_json(content).views == (view,)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="vocabulary"):
        FeatureSet.from_json({**_fitted().to_json(), "vocabulary": {}})


_requests = st.lists(
    st.fixed_dictionaries(
        {
            "distance": st.one_of(st.integers(-(2**62), 2**62), st.none()),
            "carrier": st.sampled_from(["UA", "AA", "new", "", None]),
            "departure": st.one_of(st.integers(-(10**15), 4 * 10**15), st.none()),
            **{name: st.floats() for view in VIEWS for name in view.features},
        }
    ),
    max_size=6,
)


@settings(deadline=None)
@given(rows=_requests)
def test_a_request_and_a_table_give_the_same_bits(rows: list[dict[str, Any]]) -> None:
    features = _fitted()
    looked_up = [name for view in VIEWS for name in view.features]
    request = {name: [row[name] for row in rows] for name in ("distance", "carrier", "departure")}
    online = {name: np.array([row[name] for row in rows], float) for name in looked_up}
    table = pa.table(
        {
            "distance": pa.array(request["distance"], pa.int64()),
            "carrier": pa.array(request["carrier"], pa.string()),
            "departure": pa.array(request["departure"], pa.timestamp("us", "America/New_York")),
            **online,
        }
    )
    offline = features.assemble_table(table)
    assert offline.dtype == np.float32
    assert offline.shape == (len(rows), len(features.names))
    assert features.assemble(request, online).tobytes() == offline.tobytes()
    for place in range(len(rows)):
        one = features.assemble(
            {name: values[place : place + 1] for name, values in request.items()},
            {name: values[place : place + 1] for name, values in online.items()},
        )
        assert one.tobytes() == offline[place : place + 1].tobytes()


def test_each_kind_of_feature_has_the_value_it_is_named_for() -> None:
    # Sunday 2013-03-10, 02:30 UTC is Saturday 21:30 five hours west.
    departure = 1_362_882_600_000_000
    online = {name: np.array([0.5]) for view in VIEWS for name in view.features}
    row = _fitted().assemble({"distance": [700], "carrier": ["UA"], "departure": [departure]}, online)
    assert _fitted().names[:5] == (
        "distance",
        "carrier",
        "departure_hour_of_day",
        "departure_day_of_week",
        "departure_month",
    )
    assert row.tolist() == [[700, 1, 21, 6, 3, 0.5, 0.5, 0.5, 0.5]]


def test_new_and_missing_values_are_told_apart() -> None:
    online = {name: np.array([np.nan, np.nan]) for view in VIEWS for name in view.features}
    rows = _fitted().assemble({"distance": [None, True], "carrier": ["new", None], "departure": [None, 0]}, online)
    np.testing.assert_array_equal(rows[:, 1], [-1, np.nan])
    np.testing.assert_array_equal(rows[:, 0], [np.nan, 1])
    assert np.isnan(rows[0, 2:]).all()


@pytest.mark.parametrize(("name", "value"), [("distance", "far"), ("departure", "soon"), ("carrier", ["UA"])])
def test_a_value_of_the_wrong_kind_names_its_column(name: str, value: Any) -> None:
    online = {each: np.array([0.0]) for view in VIEWS for each in view.features}
    with pytest.raises(InvalidInput, match=name):
        _fitted().assemble({"distance": [1], "carrier": ["UA"], "departure": [0], name: [value]}, online)


def test_a_table_without_a_needed_column_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="departure"):
        _fitted().assemble_table(pa.table({"distance": [1], "carrier": ["UA"]}))


def test_moments_without_a_zone_are_refused() -> None:
    table = pa.table(
        {
            "distance": [1],
            "carrier": ["UA"],
            "departure": pa.array([0], pa.timestamp("us")),
            **{name: [0.0] for view in VIEWS for name in view.features},
        }
    )
    with pytest.raises(InvalidInput, match="no time zone"):
        _fitted().assemble_table(table)


def test_two_features_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="weather_temp"):
        FeatureSet((VIEWS[0], VIEWS[0]), (), {})


def test_a_category_needs_a_vocabulary() -> None:
    with pytest.raises(ConfigurationError, match="carrier"):
        FeatureSet((), (category("carrier"),), {})
