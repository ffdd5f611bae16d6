"""What is known of a column without its rows: a profile that can be merged with those of other fragments."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import nan
from typing import Any, Literal

import numpy as np

from holdtrue.core.clock import from_microseconds
from holdtrue.core.errors import Corrupt
from holdtrue.stats import (
    DISTINCT_ERROR,
    Center,
    Distinct,
    Frequent,
    Moments,
    Quantiles,
    jensen_shannon,
    wasserstein_counts,
)

Kind = Literal["number", "whole", "time", "bool", "text", "vector", "empty", "other"]
MEASURED: frozenset[str] = frozenset({"number", "whole", "time", "bool", "text", "vector"})
FORM = 2
"""The form in which profiles are stored; one of another form is computed again."""
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 20
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """Hold how numbers are spread: the smallest and largest, moments, quantiles."""

    low: float
    high: float
    moments: Moments
    quantiles: Quantiles

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form in which it is stored."""
        weights = self.quantiles.weights
        even = bool(len(weights)) and float(weights.min()) == float(weights.max())
        return {
            "low": self.low,
            "high": self.high,
            "moments": [self.moments.n, self.moments.mean, self.moments.squares],
            "points": self.quantiles.points.tolist(),
            "weights": float(weights[0]) if even else weights.tolist(),
            "error": self.quantiles.error,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Spread":
        """Return what `to_json` wrote."""
        points = np.array(data["points"], np.float64)
        weights = data["weights"]
        each = np.full(len(points), weights) if isinstance(weights, float) else np.array(weights, np.float64)
        # What is too large for a double has no form in JSON, and comes back as no number.
        mean, squares = (nan if value is None else value for value in data["moments"][1:])
        moments = Moments(data["moments"][0], mean, squares)
        return cls(data["low"], data["high"], moments, Quantiles(points, each, data["error"]))

    @classmethod
    def merged(cls, parts: "Sequence[Spread]") -> "Spread":
        """Return the spread of all parts, of which there is one at least, together."""
        moments = parts[0].moments
        for part in parts[1:]:
            moments = moments.merged(part.moments)
        quantiles = Quantiles.merged(part.quantiles for part in parts)
        return cls(min(part.low for part in parts), max(part.high for part in parts), moments, quantiles)


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """Hold what is known of one column.

    `spread` is of the values: of texts it is of their lengths in characters, of moments of their microseconds, of
    vectors (embeddings) of their norms; None if there are none. `tokens` is of the number of tokens of each text,
    `center` of the vectors. Infinite values, and vectors with a part that is no finite number, are only counted, and so
    is everything in a column of another kind.
    """

    name: str
    kind: Kind
    rows: int
    missing: int
    infinite: int = 0
    spread: Spread | None = None
    distinct: Distinct = field(default_factory=Distinct)
    frequent: Frequent = field(default_factory=Frequent)
    tokens: Spread | None = None
    center: Center | None = None

    @property
    def low(self) -> float | None:
        """Return the smallest value."""
        return None if self.spread is None else self.spread.low

    @property
    def high(self) -> float | None:
        """Return the largest value."""
        return None if self.spread is None else self.spread.high

    @property
    def moments(self) -> Moments:
        """Return the moments of the values."""
        return Moments() if self.spread is None else self.spread.moments

    @property
    def quantiles(self) -> Quantiles:
        """Return the quantiles of the values."""
        return Quantiles() if self.spread is None else self.spread.quantiles

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form in which a profile is stored."""
        plain: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "rows": self.rows,
            "missing": self.missing,
            "infinite": self.infinite,
        }
        if self.center is not None:
            plain["center"] = [self.center.n, self.center.mean.tolist(), self.center.squares]
        if self.tokens is not None:
            plain["tokens"] = self.tokens.to_json()
        if self.spread is None:
            return plain
        return {
            **plain,
            **self.spread.to_json(),
            "distinct": self.distinct.packed(),
            "frequent": [[value, count] for value, count in self.frequent.counts.items()],
            "frequent_error": self.frequent.error,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ColumnProfile":
        """Return the profile of a column that `to_json` wrote."""
        head = (data["name"], data["kind"], data["rows"], data["missing"], data["infinite"])
        center = None
        if "center" in data:
            n, mean, squares = data["center"]
            center = Center(n, np.array(mean, np.float64), squares)
        if "low" not in data:
            return cls(*head, center=center)
        return cls(
            *head,
            spread=Spread.from_json(data),
            distinct=Distinct.unpacked(data["distinct"]),
            frequent=Frequent(dict(data["frequent"]), data["frequent_error"]),
            tokens=Spread.from_json(data["tokens"]) if "tokens" in data else None,
            center=center,
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """Hold the profiles of a table's columns, in its order."""

    rows: int
    columns: tuple[ColumnProfile, ...]

    def column(self, name: str) -> ColumnProfile | None:
        """Return the profile of one column, None if there is no such column."""
        return next((each for each in self.columns if each.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form in which a profile is stored."""
        return {"profile": FORM, "rows": self.rows, "columns": [each.to_json() for each in self.columns]}

    @classmethod
    def from_json(cls, data: Any) -> "Profile":
        """Return the profile that `to_json` wrote; raise Corrupt for anything else."""
        try:
            if data["profile"] != FORM:
                raise ValueError(data["profile"])
            return cls(data["rows"], tuple(ColumnProfile.from_json(each) for each in data["columns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(
                "A stored profile cannot be read.",
                why=f"{type(error).__name__}: {error}",
                mend="It was written by another version of Holdtrue; it will be computed again.",
            ) from error


def merge_profiles(parts: Sequence[Profile]) -> Profile:
    """Return the profile of all parts together; a column that a part does not have is missing in its rows."""
    names = list(dict.fromkeys(column.name for part in parts for column in part.columns))
    rows = sum(part.rows for part in parts)
    return Profile(rows, tuple(_merged(name, parts) for name in names))


def _merged(name: str, parts: Sequence[Profile]) -> ColumnProfile:
    found = [part.column(name) or ColumnProfile(name, "empty", part.rows, part.rows) for part in parts]
    rows, missing = sum(each.rows for each in found), sum(each.missing for each in found)
    infinite = sum(each.infinite for each in found)
    kind = _common(each.kind for each in found)
    held = [each for each in found if each.kind == kind or (kind == "number" and each.kind == "whole")]
    centers = [each.center for each in held if each.center is not None]
    if kind not in MEASURED or len({len(center.mean) for center in centers}) > 1:
        # Lists of different lengths are no vectors of one space, in one part or in two.
        return ColumnProfile(name, "other" if kind in MEASURED else kind, rows, missing)
    spreads = [each.spread for each in held if each.spread is not None]
    center = reduce(Center.merged, centers) if centers else None
    if not spreads:
        return ColumnProfile(name, kind, rows, missing, infinite, center=center)
    distinct = held[0].distinct
    for each in held[1:]:
        distinct = distinct.merged(each.distinct)
    tokens = [each.tokens for each in held if each.tokens is not None]
    return ColumnProfile(
        name,
        kind,
        rows,
        missing,
        infinite,
        Spread.merged(spreads),
        distinct,
        Frequent.merged(each.frequent for each in held),
        Spread.merged(tokens) if tokens else None,
        center,
    )


def _common(kinds: Iterable[Kind]) -> Kind:
    """Return the kind of which all are: numbers hold whole ones, an empty column is of any kind."""
    seen = set(kinds) - {"empty"}
    if seen == {"number", "whole"}:
        return "number"
    if len(seen) > 1:
        return "other"
    return seen.pop() if seen else "empty"


def told(column: ColumnProfile) -> dict[str, Any]:
    """Return what a person reads of a column's profile, as JSON."""
    plain = {"name": column.name, "kind": column.kind, "rows": column.rows, "missing": column.missing}
    if column.kind not in MEASURED:
        return plain
    center, tokens = column.center, column.tokens
    found: dict[str, Any] = {
        **plain,
        "infinite": column.infinite,
        "of": {"text": "length", "vector": "norm"}.get(column.kind, "value"),
        **_spread(column, column.spread),
    }
    if column.kind == "vector":
        return {
            **found,
            "dimensions": 0 if center is None else len(center.mean),
            "distance": None if center is None or not center.n else center.distance,
        }
    found |= {
        # An estimate, of what cannot be more than there is.
        "distinct": min(column.distinct.count, column.rows - column.missing),
        "distinct_error": DISTINCT_ERROR,
        "frequent": [
            {"value": _said(column, value) if column.kind != "text" else value, "count": count}
            for value, count in list(column.frequent.counts.items())[:_SHOWN]
            if count > column.frequent.error or len(column.frequent.counts) <= _SHOWN
        ],
        "frequent_error": column.frequent.error,
    }
    return found if tokens is None else {**found, "tokens": _spread(column, tokens)}


def _spread(column: ColumnProfile, spread: Spread | None) -> dict[str, Any]:
    quantiles = Quantiles() if spread is None else spread.quantiles
    values = quantiles.at(SHARES)
    return {
        "low": _said(column, None if spread is None else spread.low),
        "high": _said(column, None if spread is None else spread.high),
        "mean": None if spread is None else _said(column, spread.moments.mean),
        "deviation": None if spread is None else spread.moments.deviation,
        "quantiles": {
            f"p{round(share * 100):02d}": _said(column, value) for share, value in zip(SHARES, values, strict=True)
        },
        "quantiles_error": quantiles.error,
    }


def shift(before: ColumnProfile, after: ColumnProfile) -> dict[str, Any]:
    """Return how one column differs between two profiles, with effect sizes.

    `distance` is the Jensen-Shannon distance (0 equal, 1 disjoint) over bins of equal shares of `before`, or over
    values of texts and truths; `standardised` the difference of means in pooled standard deviations (Cohen's d);
    `moved` the earth mover's distance in the column's own unit; `centers` the distance between the means of vectors, in
    units of how far vectors of `before` are from theirs. Of vectors the others are of their norms. Each is None where
    it does not exist.
    """
    found: dict[str, Any] = {
        "column": before.name,
        "kind": [before.kind, after.kind],
        "missing": [_share(before), _share(after)],
        "mean": [_mean(before), _mean(after)],
        "distinct": [_distinct(before), _distinct(after)],
        "distance": None,
        "standardised": None,
        "moved": None,
        "centers": _centers(before.center, after.center),
    }
    both = {before.kind, after.kind}
    if not both <= MEASURED or (len(both) > 1 and both != {"number", "whole"}):
        return found
    if not before.moments.n or not after.moments.n:
        return found
    found["standardised"] = _standardised(before.moments, after.moments)
    if before.kind in ("text", "bool"):
        found["distance"] = _categories(before.frequent, after.frequent, before.moments.n, after.moments.n)
        return found
    edges = np.unique(np.array(before.quantiles.at([part / _BINS for part in range(1, _BINS)]), np.float64))
    first, second = before.quantiles.histogram(edges), after.quantiles.histogram(edges)
    found["distance"] = jensen_shannon(first, second)
    points = np.union1d(before.quantiles.points, after.quantiles.points)
    steps = [np.diff(np.concatenate([[0.0], each.quantiles.below(points)])) for each in (before, after)]
    found["moved"] = wasserstein_counts(steps[0], steps[1], points)
    return found


def _centers(before: Center | None, after: Center | None) -> float | None:
    if before is None or after is None or len(before.mean) != len(after.mean) or not before.n or not after.n:
        return None
    away = float(np.linalg.norm(after.mean - before.mean))
    return away / before.distance if before.distance else (None if away else 0.0)


def _standardised(before: Moments, after: Moments) -> float | None:
    spread = before.n + after.n - 2
    pooled = ((before.squares + after.squares) / spread) ** 0.5 if spread > 0 else 0.0
    difference = after.mean - before.mean
    if not pooled:
        return 0.0 if not difference else None
    return difference / pooled


def _categories(before: Frequent, after: Frequent, n: int, m: int) -> float | None:
    """Return the distance of counts of values; what neither keeps is one value of its own.

    None if the kept values are less than half of the rows of either side: of names of rows each is another.
    """
    if sum(before.counts.values()) * 2 < n or sum(after.counts.values()) * 2 < m:
        return None
    values = sorted({*before.counts, *after.counts}, key=str)
    sides: list[list[int]] = []
    for side, total in ((before, n), (after, m)):
        counts = [side.counts.get(value, 0) for value in values]
        sides.append([*counts, max(total - sum(counts), 0)])
    return jensen_shannon(sides[0], sides[1])


def _share(column: ColumnProfile) -> float | None:
    return column.missing / column.rows if column.rows else None


def _mean(column: ColumnProfile) -> Any:
    return _said(column, column.moments.mean) if column.moments.n else None


def _distinct(column: ColumnProfile) -> int | None:
    return column.distinct.count if column.kind in MEASURED and column.kind != "vector" else None


def _said(column: ColumnProfile, value: float | None) -> Any:
    """Return a value of a column as JSON: moments as text, whole numbers without a fraction."""
    if value is None or column.kind != "time":
        whole = value is not None and column.kind in ("whole", "bool", "text") and value == int(value)
        return int(value) if whole and value is not None else value
    try:
        return from_microseconds(int(value)).isoformat()
    except (OverflowError, ValueError):
        return int(value)
