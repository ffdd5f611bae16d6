"""Random sources and questions, and the slow obvious answer to them."""

from dataclasses import dataclass
from math import nan
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from holdtrue.features import Latest, Trailing, View, microseconds_of
from holdtrue.features.model import Aggregate

HOUR = 3_600_000_000
MOMENT = pa.timestamp("us", "UTC")
AGGREGATES: tuple[Aggregate, ...] = ("count", "sum", "mean", "min", "max", "last", "distinct")
VIEWS: tuple[View, ...] = (
    Latest("seen", "rows", "place", "at", ("a", "b"), "3h"),
    Latest("long", "rows", "place", "at", ("a",), "90d"),
    Trailing("few", "rows", "place", "at", "a", ("mean", "count", "sum", "min", "max", "last", "distinct"), "3h", "1h"),
    Trailing("many", "rows", "place", "at", "b", ("count", "mean"), "2d", "6h"),
    Trailing("one", "rows", "place", "at", "b", ("sum",), "15m", "15m"),
    Trailing("kinds", "rows", "place", "at", "kind", ("distinct", "count"), "1d", "6h"),
    Latest("told", "rows", "place", "at", ("a", "b"), "3h", created="known"),
    Trailing("heard", "rows", "place", "at", "b", AGGREGATES, "6h", "2h", created="known"),
)


COLUMNS = ("id", "place", "at", "a", "b", "kind", "known")


@dataclass(frozen=True, slots=True)
class World:
    """Hold rows of one source in the order in which they came, and questions."""

    rows: list[dict[str, Any]]
    asked: list[dict[str, Any]]

    def source(self) -> pa.Table:
        """Return the rows as a table."""
        return pa.table(
            {
                "id": pa.array([row["id"] for row in self.rows], pa.string()),
                "place": pa.array([row["place"] for row in self.rows], pa.string()),
                "at": pa.array([row["at"] for row in self.rows], MOMENT),
                "a": pa.array([row["a"] for row in self.rows], pa.float64()),
                "b": pa.array([row["b"] for row in self.rows], pa.int64()),
                "kind": pa.array([row["kind"] for row in self.rows], pa.string()),
                "known": pa.array([row["known"] for row in self.rows], MOMENT),
            }
        )

    def questions(self) -> pa.Table:
        """Return the questions as a table."""
        return pa.table(
            {
                "place": pa.array([row["place"] for row in self.asked], pa.string()),
                "t": pa.array([row["t"] for row in self.asked], MOMENT),
            }
        )

    def columns(self) -> dict[str, list[Any]]:
        """Return the rows as the columns of an event request."""
        return {name: [row[name] for row in self.rows] for name in COLUMNS}


# Few distinct moments, so that ties, tile borders and exact ages are common and not rare.
_moments = st.one_of(
    st.integers(-6, 40).map(lambda quarter: quarter * HOUR // 4),
    st.integers(-2 * HOUR, 60 * HOUR),
)
_places = st.sampled_from(["EWR", "JFK", "", "a\0b", "ü", None])
_rows = st.fixed_dictionaries(
    {
        "place": _places,
        "at": st.one_of(_moments, st.none()),
        "a": st.one_of(st.floats(-1e6, 1e6), st.sampled_from([nan, None, 0.0, -0.0])),
        "b": st.one_of(st.integers(-(2**53), 2**53), st.integers(-2, 2), st.none()),
        "kind": st.sampled_from(["x", "y", "", "ü", None]),
        # Mostly known soon afterwards, sometimes long afterwards, before, or never.
        "known": st.one_of(_moments, st.none()),
    }
)
_asked = st.fixed_dictionaries({"place": st.one_of(_places, st.just("never seen")), "t": _moments})


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a world."""
    rows = draw(st.lists(_rows, max_size=30))
    for number, row in enumerate(rows):
        row["id"] = f"r{number}"
    return World(rows, draw(st.lists(_asked, max_size=10)))


def obvious(world: World, view: View, asked: dict[str, Any]) -> list[float]:
    """Compute a view's features for one question by looking at every row."""
    mine = [
        {**row, "from": row["at"] if view.created is None else row[view.created]}
        for row in world.rows
        if row["place"] is not None and row["at"] is not None and row["place"] == asked["place"]
    ]
    known = [row for row in mine if row["from"] is not None and max(row["at"], row["from"]) <= asked["t"]]
    # Stable: of several with the same moments the last in the source comes last.
    known.sort(key=lambda row: (row["at"], row["from"]))
    if isinstance(view, Latest):
        if not known or asked["t"] - known[-1]["at"] > microseconds_of(view.ttl):
            return [nan] * len(view.columns)
        return [nan if known[-1][name] is None else float(known[-1][name]) for name in view.columns]
    if asked["place"] is None:
        return [nan] * len(view.aggregates)
    tile = microseconds_of(view.tile)
    start = asked["t"] // tile * tile - microseconds_of(view.window)
    found = [row[view.column] for row in known if row["at"] >= start]
    found = [value for value in found if value is not None and value == value]
    values = [0.0 if isinstance(value, str) else float(value) for value in found]
    known_of = {
        "count": float(len(values)),
        "sum": sum(values) if values else nan,
        "mean": sum(values) / len(values) if values else nan,
        "min": min(values, default=nan),
        "max": max(values, default=nan),
        "last": values[-1] if values else nan,
        "distinct": float(len(set(found))),
    }
    return [known_of[name] for name in view.aggregates]
