"""What joining requests brings: callers of a model in a process of its own, joined as measured, and one by one.

One engine in this process, records fast, 32 callers that ask again as soon as they are answered; turn by turn. Not
comparable with `inference`: there is no HTTP here, so that only the joining differs.
"""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import lane_models
from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.features import FeatureSet, numeric
from holdtrue.serving import Arm, Bundle, Engine, Input, Model, ModelFile, PythonModel, Route, Snapshot, load_model
from holdtrue.serving.assembly import compile_assembly
from holdtrue.serving.lanes import MOST_ROWS, Pace
from holdtrue.serving.plan import Loaded
from holdtrue.serving.table import Loaders, Table, build_table
from holdtrue.storage import Journal, make_folder

CALLERS, SECONDS, ROUNDS = 32, 1.0, 5
NAMES = [f"x{place}" for place in range(8)]


class _Never(Pace):
    """Never join."""

    __slots__ = ()

    @property
    def requests(self) -> int:
        return 1


class _Always(Pace):
    """Always join."""

    __slots__ = ()

    @property
    def requests(self) -> int:
        return MOST_ROWS


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in (
            ("a fixed cost a call, 2 ms", {"fixed": 0.002}),
            ("a cost a row, 2 ms", {"row": 0.002}),
        ):
            rows += _model(Path(folder), name, arguments)
        rows.append(_overhead())
    return rows


def _loaded(arguments: dict[str, float]) -> Model:
    data = PythonModel(lane_models.Works, arguments=arguments, seconds=20.0).packed(NAMES)
    return load_model(data, bytes_hash(data), "python")


def _model(folder: Path, name: str, arguments: dict[str, float]) -> list[dict[str, Any]]:
    model = _loaded(arguments)
    home = make_folder(folder / bytes_hash(name.encode())[:8])
    journal = Journal(home / "journal", SystemClock())
    writer = journal.writer("bench", "fast")
    kinds: dict[str, Callable[[], Pace]] = {"as measured": Pace, "one by one": _Never, "always joined": _Always}
    engines = {each: _engine(writer, model, pace()) for each, pace in kinds.items()}
    rates: dict[str, list[float]] = {each: [] for each in kinds}
    for turn in range(ROUNDS + 1):
        for each, engine in engines.items():
            rate = asyncio.run(_drive(engine))
            if turn:  # the first turn warms up, and measures what joining brings
                rates[each].append(rate)
    writer.close()
    journal.close()
    ours = median(rates["as measured"])
    return [
        {
            "topic": "lanes",
            "work": f"model with {name}, {CALLERS} callers, one row",
            "unit": "requests/s",
            "ours": ours,
            "peer": peer,
            "peer_version": "",
            "theirs": median(rates[peer]),
            "ratio": ours / median(rates[peer]),
            "goal": 0.9,
            "met": ours / median(rates[peer]) >= 0.9,
        }
        for peer in ("one by one", "always joined")
    ]


def _engine(writer: Any, model: Model, pace: Pace) -> Engine:
    bundle = Bundle(
        release="rel_bench",
        project="bench",
        service="works",
        inputs=tuple(Input(name, "FP32") for name in NAMES),
        contract=None,
        features=FeatureSet((), tuple(numeric(name) for name in NAMES), {}).to_json(),
        model=ModelFile("python", "0" * 64),
        output="score",
    )
    loaded = Loaded(bundle, model, compile_assembly(bundle, model.features), None, frozenset())

    def none(_application: Any) -> Any:
        raise AssertionError

    engine = Engine(SystemClock(), writer, lambda _: lambda *_: {}, strict=False)
    route = Route("bench", "works", None, None, (Arm("champion", "rel_bench", 100.0),))
    snapshot = Snapshot(1, datetime.now(UTC), {"bench/works": route}, {"rel_bench": bundle})
    table = build_table(snapshot, Table(), Loaders(lambda _: loaded, none))
    plan = table.plans["bench", "works"]
    plan.lane.pace = pace
    engine.table = replace(table, plans={("bench", "works"): plan})
    return engine


async def _drive(engine: Engine) -> float:
    """Return the requests answered in a second."""
    plan = engine.plan("bench", "works")
    columns = {name: [0.5] for name in NAMES}
    began = engine.stopwatch()
    count = 0

    async def caller() -> None:
        nonlocal count
        while engine.stopwatch() - began < SECONDS:
            await engine.predict(plan, columns, 1, None, engine.stopwatch())
            count += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return count / (engine.stopwatch() - began)


def _overhead() -> dict[str, Any]:
    """Return what a call of another process adds to a row, median in microseconds."""
    model = _loaded({})
    row = np.zeros((1, len(NAMES)), np.float32)
    stopwatch = SystemClock().monotonic
    times: list[float] = []
    for _ in range(2000):
        began = stopwatch()
        model.score(row)
        times.append(stopwatch() - began)
    added = median(times) * 1e6
    return {
        "topic": "lanes",
        "work": "one row to a confined process and back, p50",
        "unit": "µs",
        "ours": added,
        "peer": "goal",
        "peer_version": "",
        "theirs": 500.0,
        "ratio": 500.0 / added,
        "goal": 1.0,
        "met": added <= 500.0,
    }
