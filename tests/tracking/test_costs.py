"""What a run cost is what was recorded of it, and what nobody measured is said to be unknown."""

from collections.abc import Mapping

import pytest

from holdtrue.storage.ledger import Ledger, Transaction
from holdtrue.tracking import (
    Batch,
    Metric,
    NewRun,
    Run,
    RunInfo,
    RunStatus,
    create_run,
    find_run,
    log,
    update_run,
)
from holdtrue.tracking.costs import Samples, cost_of, read_costs
from tests.tracking.conftest import CONTEXT


def made(
    end: int | None = 90_000, status: RunStatus = RunStatus.FINISHED, metrics: Mapping[str, float] | None = None
) -> Run:
    """Return a run from moment 0 to `end` with these newest metrics."""
    info = RunInfo("r", 1, 0, "r", "", status, 0, end, "", "active")
    return Run(info, tuple(Metric(key, 0, 0, value, 0) for key, value in (metrics or {}).items()))


def test_a_run_of_mlflows_client_has_its_time_and_nothing_invented() -> None:
    cost = cost_of(made(), {})
    assert [(each.name, each.value, each.measured) for each in cost.figures] == [("seconds", 90.0, True)]
    assert set(cost.unknown) == {"cpu_seconds", "memory", "joules"}
    assert "enable_system_metrics_logging" in cost.unknown["memory"]


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (made(None, RunStatus.RUNNING), "the run has not ended"),
        (made(None), "the run has ended without saying when"),
        (made(-1), "the run's end lies before its start"),
    ],
)
def test_a_time_that_nobody_knows_is_said_to_be_unknown(run: Run, why: str) -> None:
    cost = cost_of(run, {"system/gpu_0_power_usage_watts": Samples(3, 200.0, 210.0)})
    assert cost.unknown["seconds"] == why
    assert cost.figure("seconds") is None
    assert cost.figure("gpu_joules") is None
    assert cost.figure("gpu_power") is not None


def test_energy_of_gpus_is_an_estimate_and_those_of_several_machines_are_added_up() -> None:
    cost = cost_of(
        made(),
        {
            "system/node_0/gpu_0_power_usage_watts": Samples(9, 200.0, 250.0),
            "system/node_1/gpu_0_power_usage_watts": Samples(9, 100.0, 150.0),
            "system/node_0/cpu_utilization_percentage": Samples(9, 80.0, 100.0),
            "system/node_1/cpu_utilization_percentage": Samples(9, 20.0, 30.0),
            "system/node_0/system_memory_usage_megabytes": Samples(9, 1000.0, 1048.576),
            "system/node_1/gpu_0_memory_usage_gigabytes": Samples(9, 1.0, 1.048576),
        },
    )
    got = {each.name: (pytest.approx(each.value), each.unit, each.measured) for each in cost.figures}
    assert got == {
        "seconds": (90.0, "s", True),
        "machine_load": (50.0, "%", True),
        "machine_memory": (1000.0, "MiB", True),
        "gpu_memory": (1000.0, "MiB", True),
        "gpu_power": (300.0, "W", True),
        "gpu_joules": (27_000.0, "J", False),
    }
    energy = cost.figure("gpu_joules")
    assert energy is not None
    assert energy.how == "mean power of 18 samples of 2 GPUs, assumed to have held for the whole run"
    assert "not that of processors" in cost.unknown["joules"]


def test_what_the_recorder_measured_goes_before_what_a_client_sent() -> None:
    recorded = {"cost/seconds": 12.5, "cost/cpu_seconds": 20.0, "cost/peak_memory_mib": 300.0, "cost/joules": 99.0}
    cost = cost_of(made(metrics=recorded), {})
    assert {each.name: each.value for each in cost.figures} == {
        "seconds": 12.5,
        "cpu_seconds": 20.0,
        "peak_memory": 300.0,
        "joules": 99.0,
    }
    assert cost.unknown == {}


def test_a_cost_that_cannot_be_is_no_cost() -> None:
    odd = {"cost/seconds": -1.0, "cost/joules": 1.7976931348623157e308}
    cost = cost_of(
        made(metrics=odd),
        {"system/cpu_utilization_percentage": Samples(1, -5.0, 0.0), "system/other": Samples(1, 1, 1)},
    )
    assert [each.name for each in cost.figures] == ["seconds"]
    assert cost.figures[0].value == 90.0


def test_samples_are_summed_up_where_they_are_kept(ledger: Ledger) -> None:
    def work(tx: Transaction) -> str:
        run = create_run(tx, NewRun(0, start_ms=0)).info.id
        values = {"cpu_utilization_percentage": [0.0, 40.0, 60.0], "gpu_0_power_usage_watts": [100.0, 200.0, 300.0]}
        points = [
            Metric(f"system/{key}", step, 10_000 * step, value, 0)
            for key, each in values.items()
            for step, value in enumerate(each)
        ]
        points.append(Metric("system/gpu_0_power_usage_watts", 3, 40_000, 0.0, 1))
        log(tx, Batch(run, tuple(points)))
        update_run(tx, run, status=RunStatus.FINISHED, end_ms=50_000)
        return run

    own = ledger.write(CONTEXT, work)
    cost = ledger.read(lambda c: read_costs(c, CONTEXT.project, [find_run(c, CONTEXT.project, own)]))[own]
    load, power, energy = (cost.figure(name) for name in ("machine_load", "gpu_power", "gpu_joules"))
    assert load is not None
    assert power is not None
    assert energy is not None
    # The first look at the load of processors tells nothing, and NaN is no power.
    assert (load.value, power.value, energy.value) == (50.0, 200.0, 10_000.0)
    assert load.how.startswith("mean of 2 samples of 1 machine")
