"""Runs for the pages, written by the same use cases as those of clients."""

import math

from holdtrue import tracking
from holdtrue.core.clock import microseconds
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import Batch, DatasetInput, Metric, NewRun, Pair, RunStatus
from tests.web.seeding import Seeder

STEPS = 30
EXPERIMENT = "delays"
SETTINGS = {"gbm": (0.05, 0.754, 3), "forest": (0.1, 0.731, 3), "linear": (0.5, 0.748, 1)}
GIGABYTE = 1e3


def seed_runs(seeder: Seeder, text: str = "") -> dict[str, str]:
    """Write runs of three settings, some with several seeds; return their ids by name.

    `text` stands in for every free text that a client could write.
    """
    return seeder.write(lambda tx: _runs(tx, text))


def _runs(tx: Transaction, text: str) -> dict[str, str]:
    experiment = tracking.create_experiment(tx, text or EXPERIMENT).id
    made: dict[str, str] = {}
    for place, (kind, (rate, level, seeds)) in enumerate(SETTINGS.items()):
        for seed in range(seeds):
            name = f"{kind}-{seed}"
            made[name] = _run(tx, experiment, name, place, seed, rate, level, text)
    return made


def _run(
    tx: Transaction, experiment: int, name: str, place: int, seed: int, rate: float, level: float, text: str
) -> str:
    start = microseconds(tx.now) // 1000 - 600_000
    run = tracking.create_run(tx, NewRun(experiment, text or "ada", text or name, start)).info.id
    shift = 0.003 * (seed - 1)
    points = [
        Metric(key, step, start + 1000 * step, value, 0)
        for step in range(STEPS)
        for key, value in (
            ("auc", level + shift - 0.2 * math.exp(-step / 6)),
            ("log_loss", 0.45 + 0.01 * place + shift + 0.3 * math.exp(-step / 5)),
        )
    ]
    # What MLflow's client logs of its machine, and what Holdtrue's recorder measures.
    if place == 0:
        points += [
            Metric(f"system/{key}", step, start + 10_000 * step, value, 0)
            for step in range(6)
            for key, value in (
                ("cpu_utilization_percentage", 0.0 if step == 0 else 62.0),
                ("system_memory_usage_megabytes", 4 * GIGABYTE + step),
                ("gpu_0_power_usage_watts", 250.0),
            )
        ]
    if place == 1:
        recorded = {"seconds": 131.5, "cpu_seconds": 250.25, "cores": 2.0, "peak_memory_mib": 812.0, "joules": 3150.0}
        points += [Metric(f"cost/{key}", 0, start, value, 0) for key, value in recorded.items()]
    params = [("kind", text or list(SETTINGS)[place]), ("rate", str(rate)), ("seed", str(seed)), ("rows", "27000")]
    tags = (Pair("mlflow.source.git.commit", text or f"{4 + (place == 2)}f1c9a7be0d2135"),)
    tracking.log(tx, Batch(run, tuple(points), tuple(Pair(*each) for each in params), tags))
    use = (Pair("mlflow.data.context", text or "training"),)
    tracking.log_inputs(tx, run, [DatasetInput(text or "flights", text or "7e1a9c04", "code", "{}", tags=use)], [])
    tracking.update_run(tx, run, status=RunStatus.FINISHED, end_ms=start + 95_000 + 1000 * seed)
    return run
