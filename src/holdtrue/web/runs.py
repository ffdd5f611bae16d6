"""Read what the page of runs and the page of one run show."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from holdtrue import tracking
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.tracking import Run
from holdtrue.tracking import rules as names
from holdtrue.tracking.artifacts import files_below
from holdtrue.tracking.comparing import MOST_RUNS
from holdtrue.tracking.costs import Cost, Figure, read_costs
from holdtrue.tracking.model import DATASET_CONTEXT, LARGEST
from holdtrue.tracking.registry import folder_of
from holdtrue.tracking.search import Search, search_experiments, search_runs
from holdtrue.web import curves, texts, urls
from holdtrue.web.model import RunPage, RunRow, RunsPage

PAGE: Final = 40
FIELDS: Final = ("experiment", "filter", "order")
PICK: Final = "pick."
COMMIT: Final = "mlflow.source.git.commit"
_NOTE: Final = "mlflow.note.content"
_MOST_FILES: Final = 100
_FEW: Final = 4
_MOST_EXPERIMENTS: Final = 1000
_OWN: Final = ("system/", "cost/")
_EXAMPLE: Final = "export MLFLOW_TRACKING_URI=$HOLDTRUE_URL MLFLOW_TRACKING_TOKEN=$HOLDTRUE_TOKEN\npython train.py"
UNKNOWN: Final = "not known"
COST_COLUMNS: Final = ("Took", "Processor", "Memory", "Energy")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES: Final[Mapping[str, str]] = {
    "seconds": "Took",
    "cpu_seconds": "Processor time",
    "cores": "Processors",
    "peak_memory": "Memory",
    "joules": "Energy",
    "machine_load": "Load of the machine",
    "machine_memory": "Memory of the machine",
    "gpu_load": "Load of GPUs",
    "gpu_memory": "Memory of GPUs",
    "gpu_power": "Power of GPUs",
    "gpu_joules": "Energy of GPUs",
    "memory": "Memory",
}


def listing(connection: sa.Connection, project: str, query: Mapping[str, str]) -> RunsPage:
    """Return one page of runs, the newest first; a filter that cannot be used is told on the page."""
    asked = {name: query[name] for name in FIELDS if query.get(name)}
    after = query.get("after") or None
    picked = picks(query, "picked")
    if len(picked) > MOST_RUNS:
        raise InvalidInput(f"At most {MOST_RUNS} runs are compared.", mend="Pick fewer.")
    every, _ = search_experiments(connection, project, limit=_MOST_EXPERIMENTS)
    called = {each.id: each.name for each in every}
    found: list[Run] = []
    token, wrong = None, None
    try:
        if query.get("experiment_id"):
            # As in the links that MLflow's client prints.
            own = names.experiment_id(query["experiment_id"])
            asked["experiment"] = tracking.find_experiment(connection, project, id=own).name
        where = [*called]
        if "experiment" in asked:
            where = [tracking.find_experiment(connection, project, name=asked["experiment"]).id]
        order = [asked["order"]] if "order" in asked else []
        wish = Search(where, asked.get("filter", ""), "active", PAGE, order, after)
        found, token = search_runs(connection, project, wish)
    except HoldtrueError as error:
        wrong = error
    rows = tuple(_row(project, each, called, each.info.id in picked) for each in found)
    shown = {each.run.info.id for each in rows}
    others = [each for each in picked if each not in shown]
    elsewhere = tuple(
        (
            tracking.find_run_info(connection, project, each).name,
            urls.runs(project, **asked, after=after, picked=",".join(other for other in picked if other != each)),
        )
        for each in others
    )
    experiments = tuple(each.name for each in every)
    return RunsPage(
        rows, asked, experiments, elsewhere, ",".join(others), token, after is None, wrong, _EXAMPLE,
    )  # fmt: skip


def picks(query: Mapping[str, str], field: str) -> list[str]:
    """Return the ids that a query names in `field` (commas between) and by the names of the boxes that are ticked."""
    ticked = [name.removeprefix(PICK) for name in query if name.startswith(PICK)]
    return list(dict.fromkeys(each for each in (*query.get(field, "").split(","), *ticked) if each))


def one(connection: sa.Connection, project: str, run_id: str, metric: str | None) -> RunPage:
    """Return one run with what was logged to it, its cost, and the curve of one metric."""
    run = tracking.find_run(connection, project, run_id)
    info = run.info
    keys = [each.key for each in run.metrics]
    chosen = names.check_key(metric, "metric") if metric else next(iter(plain_metrics([run])), "")
    cost = read_costs(connection, project, [run])[info.id]
    curve = curves.of_runs(connection, project, chosen, [(info.name, [info.id])]) if chosen in keys else None
    files = files_below(connection, project, folder_of(info.artifact_uri), limit=_MOST_FILES + 1)
    return RunPage(
        run=run,
        experiment=experiment_names(connection, project, [run])[info.experiment],
        started=started(run),
        cards=tuple(zip(COST_COLUMNS, cost_words(cost), strict=True)),
        costs=told(cost),
        datasets=tuple((each.name, each.digest, dict(each.tags).get(DATASET_CONTEXT, "")) for each in run.datasets),
        commit=tag(run, COMMIT),
        metric=chosen,
        metrics=tuple(
            (each.key, value_text(each.value, each.nan), urls.run(project, info.id, each.key)) for each in run.metrics
        ),
        curve=curve,
        note=tag(run, _NOTE),
        tags=tuple((each.key, each.value) for each in run.tags if not each.key.startswith("mlflow.")),
        files=tuple((path, texts.size(each.size)) for path, each in files[:_MOST_FILES]),
        more_files=len(files) > _MOST_FILES,
    )


def _row(project: str, run: Run, experiments: Mapping[int, str], picked: bool) -> RunRow:
    info = run.info
    ended = None if info.end_ms is None or info.end_ms < info.start_ms else (info.end_ms - info.start_ms) / 1000
    metrics = [each for each in run.metrics if not each.key.startswith(_OWN)]
    return RunRow(
        run,
        urls.run(project, info.id),
        started(run),
        ended,
        experiments.get(info.experiment, str(info.experiment)),
        tuple((each.key, value_text(each.value, each.nan)) for each in metrics[:_FEW]),
        tuple((each.key, texts.plain(each.value)) for each in run.params[:_FEW]),
        picked,
    )


def started(run: Run) -> datetime:
    """Return when a run began; what lies beyond the calendar is its last moment."""
    try:
        return _EPOCH + timedelta(milliseconds=run.info.start_ms)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def value_text(value: float, nan: int) -> str:
    """Write a metric's value; what is no number is called so."""
    if nan:
        return "NaN"
    if abs(value) >= LARGEST:
        return "∞" if value > 0 else "−∞"
    return texts.number(value)


def tag(run: Run, key: str) -> str:
    """Return a tag's value, or nothing."""
    return next((each.value for each in run.tags if each.key == key), "")


def experiment_names(connection: sa.Connection, project: str, runs: Iterable[Run]) -> dict[int, str]:
    """Return how the experiments of runs are called."""
    wanted = {run.info.experiment for run in runs}
    return {each: tracking.find_experiment(connection, project, id=each).name for each in wanted}


def plain_metrics(runs: Sequence[Run]) -> list[str]:
    """Return the metrics that people logged, those that most runs have first; costs and samples are left out."""
    count: dict[str, int] = {}
    for run in runs:
        for each in run.metrics:
            if not each.key.startswith(_OWN):
                count[each.key] = count.get(each.key, 0) + 1
    return sorted(count, key=lambda key: (-count[key], key))


def told(cost: Cost) -> tuple[tuple[str, str, str], ...]:
    """Return what a run cost as name, value and how it is known, then what is not known and why."""
    known = [
        (_NAMES[each.name], figure_text(each.name, each.value), each.how if each.measured else f"estimate: {each.how}")
        for each in cost.figures
    ]
    return (*known, *((_NAMES[name], UNKNOWN, why) for name, why in cost.unknown.items()))


def figure_text(name: str, value: float) -> str:
    """Write one figure of a run's cost."""
    match name:
        case "seconds" | "cpu_seconds":
            return texts.took(value)
        case "peak_memory" | "machine_memory" | "gpu_memory":
            return texts.memory(value)
        case "joules" | "gpu_joules":
            return texts.energy(value)
        case "machine_load" | "gpu_load":
            return f"{value:.0f} %"
        case "gpu_power":
            return f"{value:.3g} W"
        case _:
            return texts.number(value)


def cost_words(cost: Cost) -> tuple[str, str, str, str]:
    """Return time, processor, memory and energy of a run; what is of the machine and not of the run is marked so."""

    def first(*wanted: str) -> str:
        found = [each for name in wanted if (each := cost.figure(name)) is not None]
        return " + ".join(_marked(each) for each in found) or texts.MISSING

    return (
        first("seconds"),
        first("cpu_seconds" if cost.figure("cpu_seconds") else "machine_load", "gpu_load"),
        first("peak_memory" if cost.figure("peak_memory") else "machine_memory", "gpu_memory"),
        first("joules", "gpu_joules"),
    )


def _marked(figure: Figure) -> str:
    text = figure_text(figure.name, figure.value)
    text = text if figure.measured else f"≈ {text}"
    if figure.name.startswith("machine"):
        return f"{text} of the machine"
    return f"{text} (GPU)" if figure.name.startswith("gpu") else text
