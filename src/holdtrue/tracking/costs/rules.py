"""Pure rules of what a run cost: from what was recorded of it to figures, each with how it is known."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from holdtrue.tracking.costs.model import Cost, Figure, Samples
from holdtrue.tracking.model import ENDED, LARGEST, Run

_SYSTEM: Final = re.compile(
    r"system/(?:(?P<node>.+)/)?"
    r"(?P<what>cpu_utilization_percentage|system_memory_usage_megabytes"
    r"|gpu_(?P<gpu>\d+)_(?P<of_gpu>utilization_percentage|power_usage_watts|memory_usage_megabytes|memory_usage_gigabytes))"
)
_RECORDED: Final = (
    ("cost/seconds", "seconds", "s", "a clock of the recorder that only runs forward"),
    ("cost/cpu_seconds", "cpu_seconds", "s", "processor time of the run's process, without its children"),
    ("cost/cores", "cores", "processors", "processors that the run's process might use"),
    ("cost/peak_memory_mib", "peak_memory", "MiB", "greatest resident memory of the run's process"),
    ("cost/joules", "joules", "J", "the machine's own counter of its processors; it holds what else ran"),
)
_MIB_OF = {"memory_usage_megabytes": 1e6 / 2**20, "memory_usage_gigabytes": 1e9 / 2**20}


def is_sample(key: str) -> bool:
    """Tell whether a metric of this name holds samples of a machine that tell of cost."""
    return _SYSTEM.fullmatch(key) is not None


def cost_of(run: Run, samples: Mapping[str, Samples]) -> Cost:
    """Return what a run cost, by its newest metrics and by the samples of its machine."""
    kept = {each.key: each.value for each in run.metrics if not each.nan and 0 <= each.value < LARGEST}
    figures = [Figure(name, kept[key], unit, True, how) for key, name, unit, how in _RECORDED if key in kept]
    unknown: dict[str, str] = {}
    if "cost/seconds" not in kept:
        took = _between(run)
        if isinstance(took, str):
            unknown["seconds"] = took
        else:
            figures.insert(0, took)
    seconds = next((each.value for each in figures if each.name == "seconds"), None)
    figures += _sampled(samples, seconds)
    return Cost(tuple(figures), unknown | _missing({each.name for each in figures}, bool(samples)))


def _between(run: Run) -> Figure | str:
    info = run.info
    if info.end_ms is None:
        return "the run has ended without saying when" if info.status in ENDED else "the run has not ended"
    if info.end_ms < info.start_ms:
        return "the run's end lies before its start"
    how = "from the start and the end that the client sent, by its own clock"
    return Figure("seconds", (info.end_ms - info.start_ms) / 1000, "s", True, how)


def _sampled(samples: Mapping[str, Samples], seconds: float | None) -> list[Figure]:
    """Return what the samples of machines come to; those of several machines or GPUs are added up."""
    kinds: dict[str, list[Samples]] = {}
    for key, each in samples.items():
        found = _SYSTEM.fullmatch(key)
        if found is None or each.mean < 0 or each.most >= LARGEST:
            continue
        scale = _MIB_OF.get(found["of_gpu"] or found["what"].removeprefix("system_"), 1.0)
        kind = f"gpu_{found['of_gpu'].partition('_')[0]}" if found["gpu"] else found["what"].partition("_")[0]
        kinds.setdefault(kind, []).append(Samples(each.points, each.mean * scale, each.most * scale))
    figures: list[Figure] = []
    if cpu := kinds.get("cpu"):
        how = f"mean of {_of(cpu, 'machine')}: all processors, and whatever else ran on them"
        figures.append(Figure("machine_load", _mean(cpu), "%", True, how))
    if memory := kinds.get("system"):
        how = f"greatest of {_of(memory, 'machine')}: all memory in use, not the run's alone"
        figures.append(Figure("machine_memory", sum(each.most for each in memory), "MiB", True, how))
    if load := kinds.get("gpu_utilization"):
        figures.append(Figure("gpu_load", _mean(load), "%", True, f"mean of {_of(load, 'GPU')}, whoever used them"))
    if memory := kinds.get("gpu_memory"):
        how = f"greatest of {_of(memory, 'GPU')}, whoever used them"
        figures.append(Figure("gpu_memory", sum(each.most for each in memory), "MiB", True, how))
    if power := kinds.get("gpu_power"):
        watts = sum(each.mean for each in power)
        figures.append(Figure("gpu_power", watts, "W", True, f"mean of {_of(power, 'GPU')}, added up"))
        if seconds is not None:
            how = f"mean power of {_of(power, 'GPU')}, assumed to have held for the whole run"
            figures.append(Figure("gpu_joules", watts * seconds, "J", False, how))
    return figures


def _mean(found: Sequence[Samples]) -> float:
    return sum(each.mean for each in found) / len(found)


def _of(found: Sequence[Samples], what: str) -> str:
    count = sum(each.points for each in found)
    return f"{count:,} sample{'' if count == 1 else 's'} of {len(found)} {what}{'' if len(found) == 1 else 's'}"


def _missing(known: Iterable[str], sampled: bool) -> dict[str, str]:
    """Say of what is not known why."""
    have = set(known)
    off = "the client logged no system metrics (mlflow.enable_system_metrics_logging)"
    unknown: dict[str, str] = {}
    if "cpu_seconds" not in have:
        unknown["cpu_seconds"] = "MLflow's client tells neither the run's processor time nor the number of processors"
    if not have & {"peak_memory", "machine_memory"}:
        unknown["memory"] = "no sample of memory came" if sampled else off
    if not have & {"joules", "gpu_joules"}:
        unknown["joules"] = "nothing that was logged counts energy or power"
    elif "joules" not in have:
        unknown["joules"] = "MLflow's client measures the power of GPUs, not that of processors"
    return unknown
