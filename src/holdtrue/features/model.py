"""Feature views and on-demand expressions: one definition for training and for serving."""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeAlias

from holdtrue.core.errors import ConfigurationError
from holdtrue.core.ids import check_name

Aggregate = Literal["mean", "count", "sum", "min", "max", "last", "distinct"]
Kind = Literal["numeric", "category", "hour_of_day", "day_of_week", "month"]

_SPAN = re.compile(r"([1-9][0-9]*)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Latest:
    """Describe a view that gives the last values known of an entity, unless they are older than `ttl`.

    A row of `source` counts from its `time` on: choose the column that says when the value was known. Where that is
    another column than the one that says which value is the newest, name it `created`: a row then counts from `created`
    on, and its age and place are those of `time`. `freshness` is how old the newest row of all entities may be.
    """

    name: str
    source: str
    entity: str
    time: str
    columns: tuple[str, ...]
    ttl: str
    created: str | None = None
    freshness: str | None = None
    view: Literal["latest"] = "latest"

    def __post_init__(self) -> None:
        check_name(self.name, "feature view name")
        microseconds_of(self.ttl)
        _check_freshness(self.freshness)
        _check_distinct(self.name, "column", self.columns)

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the columns whose values become features."""
        return self.columns

    @property
    def moments(self) -> tuple[str, ...]:
        """Return the columns that are moments of a row."""
        return (self.time,) if self.created is None else (self.time, self.created)

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of this view's features, in order."""
        return tuple(f"{self.name}_{column}" for column in self.columns)


@dataclass(frozen=True, slots=True)
class Trailing:
    """Describe a view that aggregates an entity's recent rows.

    At the moment t it covers the rows whose `time` lies in [floor(t) - window, t], where floor(t) is the
    start of the tile that holds t. Both sides compute it so; rows without a value are left out. With `created`, a row
    counts from that moment on only. `freshness` is how old the newest row of all entities may be. Of texts there are
    `count` and `distinct` alone.
    """

    name: str
    source: str
    entity: str
    time: str
    column: str
    aggregates: tuple[Aggregate, ...] = ("mean", "count")
    window: str = "3h"
    tile: str = "1h"
    created: str | None = None
    freshness: str | None = None
    view: Literal["trailing"] = "trailing"

    def __post_init__(self) -> None:
        check_name(self.name, "feature view name")
        _check_freshness(self.freshness)
        _check_distinct(self.name, "aggregate", self.aggregates)
        if microseconds_of(self.window) % microseconds_of(self.tile):
            raise ConfigurationError(
                f"The window of “{self.name}”, {self.window}, is not a whole number of tiles of {self.tile}.",
                why="Trailing values are merged from whole tiles.",
                mend="Choose a window that is a multiple of the tile.",
            )

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of this view's features, in order."""
        return tuple(f"{self.name}_{aggregate}" for aggregate in self.aggregates)

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the column whose values are aggregated."""
        return (self.column,)

    @property
    def moments(self) -> tuple[str, ...]:
        """Return the columns that are moments of a row."""
        return (self.time,) if self.created is None else (self.time, self.created)

    @property
    def takes_texts(self) -> bool:
        """Tell whether the values may be texts: they are only counted."""
        return set(self.aggregates) <= {"count", "distinct"}


View: TypeAlias = Latest | Trailing


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Describe a feature computed from one column of the request itself.

    `zone_hours` shifts UTC for the parts of a day. Categories become their place in a vocabulary fitted on
    the training rows, and -1 where it has none.
    """

    kind: Kind
    column: str
    zone_hours: int = 0

    @property
    def feature(self) -> str:
        """Return the feature's name."""
        return self.column if self.kind in ("numeric", "category") else f"{self.column}_{self.kind}"


@dataclass(frozen=True, slots=True)
class Computed:
    """Describe a feature computed from columns of the request by a function, which `source` is the text of.

    Make one with `on_demand`.
    """

    name: str
    inputs: tuple[str, ...]
    source: str

    @property
    def feature(self) -> str:
        """Return the feature's name."""
        return self.name


def numeric(column: str) -> OnDemand:
    """Use a number of the request as it is."""
    return OnDemand("numeric", column)


def category(column: str) -> OnDemand:
    """Use a text of the request as its place in the training vocabulary, -1 if it is new."""
    return OnDemand("category", column)


def hour_of_day(column: str, *, zone_hours: int = 0) -> OnDemand:
    """Use the hour, 0 to 23, of a moment of the request."""
    return OnDemand("hour_of_day", column, zone_hours)


def day_of_week(column: str, *, zone_hours: int = 0) -> OnDemand:
    """Use the day of the week, 0 for Monday to 6, of a moment of the request."""
    return OnDemand("day_of_week", column, zone_hours)


def month(column: str, *, zone_hours: int = 0) -> OnDemand:
    """Use the month, 1 to 12, of a moment of the request."""
    return OnDemand("month", column, zone_hours)


def number_of_text(text: str) -> float:
    """Return the whole number below 2**53 that stands for a text where texts are only counted.

    Of n texts two have the same number with a probability of about n**2 / 2**54.
    """
    return float(int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 11)


def _check_freshness(span: str | None) -> None:
    if span is not None:
        microseconds_of(span)


def _check_distinct(name: str, what: str, values: tuple[str, ...]) -> None:
    if not values or len(set(values)) < len(values):
        raise ConfigurationError(
            f"The feature view “{name}” names {f'one {what} twice' if values else f'no {what}'}.",
            why="Each gives one feature.",
            mend=f"Name at least one {what}, and each once.",
        )


def microseconds_of(span: str) -> int:
    """Return the microseconds of a span such as “90s”, “15m”, “6h” or “7d”."""
    match = _SPAN.fullmatch(span)
    if match is None:
        raise ConfigurationError(
            f"“{span}” is not a span of time.",
            why="A span is a whole number and one of s, m, h, d.",
            mend="Write, for example, 6h or 7d.",
        )
    return int(match[1]) * _SECONDS[match[2]] * 1_000_000
