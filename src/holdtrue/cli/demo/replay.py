"""The year's records in the order in which the world learned of them, hour by hour."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdtrue.cli.demo.deliveries import MONTHS

HOUR = timedelta(hours=1)
LATE_MINUTES = 15
_INPUTS = ("flight_id", "carrier", "number", "origin", "dest", "distance", "scheduled_departure", "scheduled_hour")
_DEPARTED = ("flight_id", "carrier", "origin", "dest", "scheduled_hour", "departed_at", "departure_delay")
_ARRIVED = ("flight_id", "carrier", "origin", "dest", "arrived_at", "arrival_delay")

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Hour:
    """Hold what became known up to a full hour, and which flights ask for a prediction at it."""

    moment: datetime
    readings: Columns
    departures: Columns
    arrivals: Columns
    labels: Columns
    requests: Columns


@dataclass(frozen=True, slots=True)
class _Stream:
    """Hold rows sorted by when they became known, and where each hour begins."""

    columns: dict[str, list[Any]]
    known: np.ndarray

    def any(self, after: int, until: int) -> bool:
        low, high = np.searchsorted(self.known, [after, until], side="right")
        return bool(low < high)

    def between(self, after: int, until: int) -> Columns:
        low, high = np.searchsorted(self.known, [after, until], side="right")
        return {name: values[low:high] for name, values in self.columns.items()}


class Year:
    """Read all deliveries once and give them out by the hour."""

    def __init__(self, folder: Path) -> None:
        flights = _months(folder, "flights")
        weather = _months(folder, "weather")
        left = flights.filter(pc.field("departed_at").is_valid())
        landed = flights.filter(pc.field("arrived_at").is_valid())
        self._readings = _stream(weather, weather.column_names, "published_at", "reading_id")
        self._departures = _stream(left, _DEPARTED, "departed_at", "flight_id")
        self._arrivals = _stream(landed, _ARRIVED, "arrived_at", "flight_id")
        late = pa.array([int(delay > LATE_MINUTES) for delay in landed["arrival_delay"].to_pylist()], pa.int8())
        truth = pa.table({"key": landed["flight_id"], "value": late, "time": landed["arrived_at"]})
        self._labels = _stream(truth, ("key", "value", "time"), "time")
        self._requests = _stream(flights, _INPUTS, "scheduled_hour")

    def hours(self, start: datetime, end: datetime, *, warm_up: timedelta, nightly: int) -> Iterator[Hour]:
        """Yield the full hours from `start` to `end` at which a flight asks for a prediction, or that are `nightly`.

        With each comes all that became known since the one before, and with `start` what did so within `warm_up`
        before it. In the small hours nobody asks, so nobody has to be told of every aircraft that lands.
        """
        yield self._hour(start - warm_up, start)
        since, moment = start, start + HOUR
        while moment <= end:
            asked = self._requests.any(_us(moment - HOUR), _us(moment))
            if asked or moment.hour == nightly or moment == end:
                yield self._hour(since, moment)
                since = moment
            moment += HOUR

    def _hour(self, since: datetime, moment: datetime) -> Hour:
        after, until = _us(since), _us(moment)
        return Hour(
            moment,
            self._readings.between(after, until),
            self._departures.between(after, until),
            self._arrivals.between(after, until),
            self._labels.between(after, until),
            self._requests.between(after, until),
        )


def _months(folder: Path, name: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(folder / f"{name}-{month}.parquet") for month in MONTHS])


def _stream(table: pa.Table, names: Any, time: str, id: str | None = None) -> _Stream:
    rows = table.sort_by([(time, "ascending")])
    columns = {name: _plain(rows[name]) for name in names}
    if id is not None:
        columns["id"] = columns[id]
    return _Stream(columns, rows[time].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())


def _plain(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return [None if value != value else value for value in column.to_pylist()]


def _us(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * 1_000_000
