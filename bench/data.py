"""Data: forty rules and a profile of a million rows of twenty columns, and what an appended part costs.

Peers, each in an environment of its own under `.bench/`, made on demand (BENCH_PEERS=0 leaves them out): Great
Expectations on pandas, Pandera on Polars (one validation of all checks, lazily collected), whylogs on pandas. Each
reads the same Parquet file into its own frame first, which is not measured, and is asked in turn with our side.

Not comparable: the rows keep all rules, which is what a checked delivery mostly does; for rows that break some, ours
also collects their numbers and examples. Great Expectations and Pandera are given the rules as their own checks of one
column each; our check also refuses unknown and missing columns. The profile of whylogs has other sketches of about the
same errors. Great Expectations' progress bars and analytics are switched off.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.rows import own_row
from bench.tables import ROWS, forty_rules, make_table
from holdtrue.data import Contract, DatasetSpec, check_table, ingest, profile_table
from holdtrue.data.online import compile_request
from holdtrue.data.profiling import fragment_profile
from holdtrue.storage import ActionCache, BlobStore

ENVIRONMENTS = Path(__file__).parents[1] / ".bench"
ROUNDS = 3
_PEERS = {
    "great-expectations": ("great_expectations", ("great_expectations", "pyarrow")),
    "pandera": ("pandera", ("pandera[polars]", "pyarrow")),
    "whylogs": ("whylogs", ("whylogs==1.6.4", "pandas<3", "numpy<2", "pyarrow<20", "setuptools")),
}
# A peer prints its version, then the seconds of one round for each line that it reads.
_TURNS = """
import sys, time
def turns(version, work):
    print(version, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        print(time.perf_counter() - start, flush=True)
"""
_SCRIPTS = {
    "great-expectations": """
import json, os, logging, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL); os.environ["GX_ANALYTICS_ENABLED"] = "false"
import great_expectations as gx, pandas as pd
from great_expectations import expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig
path, rules = sys.argv[1], json.loads(sys.argv[2])
frame = pd.read_parquet(path)
context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = ProgressBarsConfig(globally=False)
batch = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
suite = context.suites.add(gx.ExpectationSuite(name="s"))
for column, rule, value in rules:
    if rule == "null": each = gxe.ExpectColumnValuesToNotBeNull(column=column)
    elif rule == "ge": each = gxe.ExpectColumnValuesToBeBetween(column=column, min_value=value)
    elif rule == "le": each = gxe.ExpectColumnValuesToBeBetween(column=column, max_value=value)
    elif rule == "isin": each = gxe.ExpectColumnValuesToBeInSet(column=column, value_set=value)
    else: each = gxe.ExpectColumnValuesToBeUnique(column=column)
    suite.add_expectation(each)
definition = context.validation_definitions.add(gx.ValidationDefinition(name="v", data=batch, suite=suite))
def work():
    assert definition.run(batch_parameters={"dataframe": frame}).success
turns(gx.__version__, work)
""",
    "pandera": """
import json
import pandera, pandera.polars as pap, polars as pl
path, rules = sys.argv[1], json.loads(sys.argv[2])
frame = pl.read_parquet(path)
columns = {}
for name in frame.columns:
    mine = [(rule, value) for column, rule, value in rules if column == name]
    checks = [{"ge": pap.Check.ge, "le": pap.Check.le, "isin": pap.Check.isin}[rule](value)
              for rule, value in mine if rule in ("ge", "le", "isin")]
    columns[name] = pap.Column(frame.schema[name], checks=checks, nullable=("null", None) not in mine,
                               unique=("unique", None) in mine)
schema = pap.DataFrameSchema(columns, strict=True)
turns(pandera.__version__, lambda: schema.validate(frame, lazy=True))
""",
    "whylogs": """
import logging, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
import importlib.metadata, pandas as pd, whylogs
frame = pd.read_parquet(sys.argv[1])
turns(importlib.metadata.version("whylogs"), lambda: whylogs.log(frame).view())
""",
}


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    table, contract = make_table(), Contract(forty_rules())
    with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(table, path)
        rules = json.dumps(_rules())
        assert check_table(contract, table).findings == ()
        checked = _against(lambda: check_table(contract, table), ("great-expectations", "pandera"), path, rules)
        profiled = _against(lambda: profile_table(table), ("whylogs",), path, rules)
        return [
            *_rows("40 rules on 1M × 20", checked, {"great-expectations": 10.0, "pandera": 1.0}),
            *_rows("profile of 1M × 20", profiled, {"whylogs": 15.0}),
            _one_request(table, contract),
            *_append(Path(folder) / "home", table),
        ]


def _rules() -> list[tuple[str, str, Any]]:
    found: list[tuple[str, str, Any]] = []
    for column in forty_rules():
        found += [(column.name, "null", None)] if not column.nullable else []
        found += [(column.name, end, getattr(column, end)) for end in ("ge", "le") if getattr(column, end) is not None]
        found += [(column.name, "isin", list(column.isin))] if column.isin else []
        found += [(column.name, "unique", None)] if column.unique else []
    assert len(found) == 40
    return found


def _against(
    ours: Callable[[], Any], names: tuple[str, ...], path: Path, rules: str
) -> tuple[float, dict[str, tuple[str, float]]]:
    """Return our seconds and, by peer, its version and seconds: medians of rounds taken in turn."""
    peers = {name: _start(name, path, rules) for name in names if _ready(name)}
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    try:
        versions = {name: _line(process) for name, process in peers.items()}
        for _ in range(ROUNDS):
            start = time.perf_counter()
            ours()
            mine.append(time.perf_counter() - start)
            for name, process in peers.items():
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                theirs[name].append(float(_line(process)))
    finally:
        for process in peers.values():
            process.kill()
            process.communicate()
    return median(mine), {name: (versions[name], median(found)) for name, found in theirs.items()}


def _ready(name: str) -> bool:
    """Make a peer's environment if it is not there; without it, or with BENCH_PEERS=0, only our side runs."""
    if os.environ.get("BENCH_PEERS", "1") == "0":
        return False
    folder, (module, packages) = ENVIRONMENTS / name, _PEERS[name]
    python = folder / "bin" / "python"
    if (
        python.exists()
        and subprocess.run([python, "-c", f"import {module}, pyarrow"], capture_output=True, check=False).returncode
        == 0
    ):
        return True
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    made = subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=False)
    return made.returncode == 0


def _start(name: str, path: Path, rules: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [ENVIRONMENTS / name / "bin" / "python", "-c", _TURNS + _SCRIPTS[name], path, rules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"The peer ended: {process.args}"
    return line


def _rows(
    work: str, measured: tuple[float, dict[str, tuple[str, float]]], goals: dict[str, float]
) -> list[dict[str, Any]]:
    ours, theirs = measured
    if not theirs:
        return [own_row("data", work, "s", ours)]
    return [
        {
            "topic": "data",
            "work": work,
            "unit": "s",
            "ours": ours,
            "peer": name,
            "peer_version": version,
            "theirs": seconds,
            "ratio": seconds / ours,
            "goal": f"≥ {goals[name]:g}×",
            "met": seconds / ours >= goals[name],
        }
        for name, (version, seconds) in theirs.items()
    ]


def _one_request(table: pa.Table, contract: Contract) -> dict[str, Any]:
    """Measure the check of one row of twenty columns, as a request has it."""
    row = table.slice(7, 1)
    row = row.set_column(row.column_names.index("at"), "at", row["at"].cast(pa.int64()))
    columns, check = row.to_pydict(), compile_request(contract)
    assert check(columns) == []
    found: list[float] = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(1000):
            check(columns)
        found.append((time.perf_counter() - start) * 1000)
    return own_row("data", "check of one request, 20 columns", "µs", min(found), 20)


def _append(home: Path, table: pa.Table) -> list[dict[str, Any]]:
    """Store a year of equal months, then one hundredth of the rows more: how many bytes come to how many."""
    home.mkdir()
    blobs, actions = BlobStore(home / "blobs"), ActionCache(home / "actions")
    spec = DatasetSpec("rows", "id", "at", Contract(forty_rules()))
    part, most = ROWS // 12, 12 * (ROWS // 12)
    for month in range(12):
        _take(blobs, actions, spec, f"2020-{month + 1:02d}", table.slice(month * part, part))
    before = _bytes(home)
    _take(blobs, actions, spec, "2021-01", table.slice(most - ROWS // 100, ROWS // 100))
    added = _bytes(home) - before
    return [own_row("data", "bytes for 1 % more rows, profile included", "%", 100 * added / before, 1.5)]


def _take(blobs: BlobStore, actions: ActionCache, spec: DatasetSpec, window: str, rows: pa.Table) -> None:
    taken = ingest(blobs, spec, window, rows)
    assert taken.digest is not None
    fragment_profile(blobs, actions, taken.digest)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
