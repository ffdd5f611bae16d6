"""Will this flight arrive more than 15 minutes late? Departures from New York in 2013.

The whole system is specified here: where data comes from and what it must look like, what is known
when a prediction is made, how the model is trained and judged, and what has to be shown before a
release answers anybody.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from sklearn.ensemble import HistGradientBoostingClassifier

import holdtrue as ht

DELIVERIES = Path(os.environ.get("FLIGHTS_DELIVERIES", "deliveries"))
AIRPORTS = ["EWR", "JFK", "LGA"]

project = ht.Project("flight-delays", owner="dispatch", risk="limited")


# Data: a month at a time, stopped at the door when it is not what was agreed. Who flies, and where to, is known from
# two registers, into which flights have keys.


def register(name: str, window: str) -> pa.Table:
    """Read a register as it stands, as the one of a month."""
    query = """SELECT code || '-' || $window AS entry_id, *, ($window || '-01')::TIMESTAMPTZ AS valid_from
               FROM read_csv($file)"""
    return ht.read_query(query, {"window": window, "file": str(DELIVERIES / f"{name}.csv")})


@project.dataset(
    key="entry_id",
    time="valid_from",
    tags=ht.Tags(licence="CC0-1.0", source="Bureau of Transportation Statistics"),
    contract=ht.Contract(
        columns=(
            ht.column("entry_id", "string"),
            ht.column("code", "string", pattern="[A-Z0-9]{2}", unique=True),
            ht.column("name", "string"),
            ht.column("valid_from", "timestamp"),
        ),
        rules=(ht.RowCount(ge=10),),
    ),
)
def carriers(window: str) -> pa.Table:
    """Read the register of carriers."""
    return register("carriers", window)


@project.dataset(
    key="entry_id",
    time="valid_from",
    tags=ht.Tags(licence="CC0-1.0", source="OpenFlights"),
    contract=ht.Contract(
        columns=(
            ht.column("entry_id", "string"),
            ht.column("code", "string", pattern="[A-Z0-9]{3}", unique=True),
            ht.column("name", "string"),
            ht.column("latitude", "float64", ge=-90, le=90),
            ht.column("longitude", "float64", ge=-180, le=180),
            ht.column("valid_from", "timestamp"),
        ),
        rules=(ht.RowCount(ge=1000),),
    ),
)
def airports(window: str) -> pa.Table:
    """Read the register of airports."""
    return register("airports", window)


@project.dataset(
    key="flight_id",
    time="scheduled_departure",
    tags=ht.Tags(purposes=("operations", "research"), licence="CC0-1.0", source="Bureau of Transportation Statistics"),
    contract=ht.Contract(
        columns=(
            ht.column("flight_id", "string", unique=True),
            ht.column("carrier", "string", pattern="[A-Z0-9]{2}"),
            ht.column("number", "string"),
            ht.column("origin", "string", isin=AIRPORTS),
            ht.column("dest", "string", pattern="[A-Z]{3}"),
            ht.column("distance", "int64", ge=1, le=6000),
            ht.column("scheduled_departure", "timestamp"),
            ht.column("scheduled_hour", "timestamp"),
            ht.column("departed_at", "timestamp", nullable=True),
            ht.column("arrived_at", "timestamp", nullable=True),
            ht.column("departure_delay", "int64", nullable=True, ge=-180, le=3000),
            ht.column("arrival_delay", "int64", nullable=True, ge=-180, le=3000),
        ),
        rules=(
            ht.Expect("arrives after it departs", "arrived_at >= departed_at", severity="warn"),
            ht.Expect("in its hour", "scheduled_hour <= scheduled_departure < scheduled_hour + hours(1)"),
            ht.Unique(("carrier", "number", "origin", "scheduled_departure"), severity="quarantine"),
            ht.KeyInto("carrier", dataset="carriers", of="code"),
            # The register leaves out four airports in Puerto Rico and the Virgin Islands.
            ht.KeyInto("dest", dataset="airports", of="code", severity="warn"),
            ht.RowCount(ge=10_000),
            ht.Fresh("scheduled_departure", within="2d"),
            ht.Distribution("distance", within=0.3, severity="warn"),
        ),
    ),
)
def flights(window: str) -> pa.Table:
    """Read a month of flights as the airport delivered it."""
    return ht.read_files(DELIVERIES / f"flights-{window}.parquet")


@project.dataset(
    key="reading_id",
    time="observed_at",
    tags=ht.Tags(licence="CC0-1.0", source="ASOS"),
    contract=ht.Contract(
        columns=(
            ht.column("reading_id", "string", unique=True),
            ht.column("origin", "string", isin=AIRPORTS),
            ht.column("observed_at", "timestamp"),
            ht.column("published_at", "timestamp"),
            ht.column("temperature", "float64", nullable=True, ge=-40, le=130, severity="warn"),
            ht.column("humidity", "float64", nullable=True, ge=0, le=100),
            ht.column("pressure", "float64", nullable=True, ge=900, le=1100),
            ht.column("wind_speed", "float64", nullable=True, ge=0, le=150, severity="warn"),
            ht.column("precipitation", "float64", nullable=True, ge=0),
            ht.column("visibility", "float64", nullable=True, ge=0, le=50),
        )
    ),
)
def weather(window: str) -> pa.Table:
    """Read a month of hourly readings at the three airports."""
    return ht.read_files(DELIVERIES / f"weather-{window}.parquet")


# Features: only what was known at the scheduled hour. A reading counts from when it was published,
# a delay from when the aircraft had really left or really arrived. How old the newest row may be leaves room for the
# night: from one to five in the morning nobody departs.


@project.source(of=flights)
def departures(rows: duckdb.DuckDBPyRelation) -> str:
    """Select flights that have left, in SQL."""
    return """SELECT flight_id, carrier, origin, dest, scheduled_hour, departed_at, departure_delay
              FROM rows WHERE departed_at IS NOT NULL"""


@project.source(of=flights)
def arrivals(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Select flights that have arrived."""
    return rows.filter("arrived_at IS NOT NULL").select("flight_id, carrier, origin, dest, arrived_at, arrival_delay")


@project.source(of=weather)
def readings(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Select all readings."""
    return rows


origin_weather = ht.Latest(
    name="weather",
    source="readings",
    entity="origin",
    time="published_at",
    columns=("temperature", "humidity", "pressure", "wind_speed", "precipitation", "visibility"),
    ttl="6h",
    freshness="3h",
)
origin_departures = ht.Trailing(
    name="origin_departures",
    source="departures",
    entity="origin",
    time="departed_at",
    column="departure_delay",
    aggregates=("mean", "count"),
    window="2h",
    freshness="8h",
)
origin_arrivals = ht.Trailing(
    name="origin_arrivals",
    source="arrivals",
    entity="origin",
    time="arrived_at",
    column="arrival_delay",
    aggregates=("mean", "count"),
    window="3h",
    freshness="6h",
)
carrier_arrivals = ht.Trailing(
    name="carrier_arrivals",
    source="arrivals",
    entity="carrier",
    time="arrived_at",
    column="arrival_delay",
    aggregates=("mean",),
    window="6h",
    freshness="6h",
)

schedule = [
    ht.category("carrier"),
    ht.category("origin"),
    ht.category("dest"),
    ht.numeric("distance"),
    ht.hour_of_day("scheduled_departure"),
    ht.day_of_week("scheduled_departure"),
]
known_then = [origin_weather, origin_departures, origin_arrivals, carrier_arrivals]


# Model: fitted, compiled, and judged on the last two weeks of its data.


@project.model(
    dataset=flights,
    label="late",
    outcome="arrival_delay > 15",
    time="scheduled_hour",
    features=[*schedule, *known_then],
    params={"max_iter": 150, "learning_rate": 0.08, "max_leaf_nodes": 31},
    purpose="operations",
)
def delay(train: ht.Training, params: Mapping[str, Any]) -> HistGradientBoostingClassifier:
    """Fit gradient boosted trees, which take missing values as they are."""
    return HistGradientBoostingClassifier(**params, random_state=0).fit(train.X, train.y)


project.evaluation(delay, metric="roc_auc", slices=["origin", "carrier"], holdout_days=14)


# Decisions: what a release must show, how it is rolled out, what is watched, when to train again.

project.gate(
    "production",
    require={
        "good enough": "metric.roc_auc.lower >= 0.65",
        "better than guessing": "metric.brier.value < baseline.brier.value",
        "no weak slice": "slices.all(s, s.upper >= 0.6)",
        "better than what is live": "comparison.champion.p_better >= 0.95",
        "only for its purpose": "privacy.allowed",
        "nothing leaks": "data.leakage.suspects == 0 && data.overlap.keys == 0",
        "every feature is there": "data.empty.features == 0 && data.constant.features == 0",
        "compiled faithfully": "parity.max_difference <= 0.001 && parity.changed_decisions <= 0.001",
    },
    approvals=1,
)
project.service(
    delay,
    key="flight_id",
    entity="number",
    inputs={
        "flight_id": "BYTES",
        "carrier": "BYTES",
        "number": "BYTES",
        "origin": "BYTES",
        "dest": "BYTES",
        "distance": "INT64",
        "scheduled_departure": "INT64",
        "scheduled_hour": "INT64",
    },
    rollout=ht.Canary(steps=(5, 25, 50), margin=0.01),
    fallback=0.24,
    replay_days=180,
    replay_most=0.01,
)
project.monitor(delay, metric="roc_auc", alarms_per_quarter=1.0)
project.retrain(delay, on=("quality",), budget_per_year=8, cooldown_days=20)
