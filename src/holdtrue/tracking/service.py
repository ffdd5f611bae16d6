"""Use cases of tracking: experiments, runs, and what is logged to them.

Runs beginning, ending, being deleted and restored are events of the log. What is logged between (metrics,
parameters, tags) is not: a run logs thousands of values a second, and they would bury the decisions.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.storage.ledger import Joint, Transaction
from holdtrue.tracking import kept, rules, store
from holdtrue.tracking.model import (
    DATASET_CONTEXT,
    DEFAULT,
    ENDED,
    EXPERIMENT_TAG_LENGTH,
    KEPT_WHOLE,
    MODEL_HISTORY,
    PAGE_LIMIT,
    RUN_NAME,
    Batch,
    DatasetInput,
    Experiment,
    HistoryPage,
    Lifecycle,
    Metric,
    ModelLink,
    NameTaken,
    NewRun,
    NoExperiment,
    NoRun,
    NotActive,
    Pair,
    ParamChanged,
    Run,
    RunInfo,
    RunStatus,
)

_MOST_DATASETS = 1000


def default_experiment() -> Experiment:
    """Return the experiment that every project has."""
    return Experiment(DEFAULT, "Default", location_of(DEFAULT), "active", 0, 0)


def location_of(experiment: int) -> str:
    """Return where the artifacts of an experiment stand if nobody said otherwise."""
    return f"mlflow-artifacts:/{experiment}"


def milliseconds(tx: Transaction) -> int:
    """Return the transaction's moment in milliseconds."""
    return int(tx.now.timestamp() * 1000)


def create_experiment(tx: Transaction, name: str, artifact_location: str = "", tags: Sequence[Pair] = ()) -> Experiment:
    """Make an experiment; raise NameTaken if there is one of this name, deleted ones included."""
    rules.experiment_name(name)
    _refuse_taken(tx, name)
    ensure_default(tx)
    own = store.next_experiment(tx.connection, tx.project)
    location = rules.artifact_location(artifact_location, location_of(own))
    now = milliseconds(tx)
    made = Experiment(own, name, location, "active", now, now, tuple(tags))
    store.insert_experiment(tx, made)
    tx.emit("experiment.created", f"experiment:{own}", {"name": name})
    return made


def ensure_default(tx: Transaction) -> None:
    """Write the default experiment down, now that something is kept beside or in it."""
    if store.place_of(tx, DEFAULT) is None:
        store.insert_experiment(tx, default_experiment())


def find_experiment(connection: sa.Connection, project: str, *, id: int | None = None, name: str = "") -> Experiment:
    """Return an experiment by id or name, deleted ones too; raise NoExperiment."""
    found: Experiment | None = store.experiment_by(connection, project, id=id, name=name)
    if found is not None:
        return found
    if (id == DEFAULT or (id is None and name == "Default")) and _untouched(connection, project):
        return default_experiment()
    raise no_experiment(id, name)


def no_experiment(id: int | None, name: str = "") -> NoExperiment:
    """Return the error for an experiment that is not there."""
    if id is None:
        return NoExperiment(f"Could not find experiment with name '{name[:200]}'.")
    return NoExperiment(f"No Experiment with id={id} exists.", mend="List experiments, or leave the id out.")


def _untouched(connection: sa.Connection, project: str) -> bool:
    """Tell whether the default experiment is not written down yet."""
    return store.experiment_by(connection, project, id=DEFAULT) is None


def rename_experiment(tx: Transaction, id: int, name: str) -> None:
    """Give an active experiment another name."""
    rules.experiment_name(name)
    before = _need_active_experiment(tx, id)
    if name != before.name:
        _refuse_taken(tx, name)
        store.change_experiment(tx, id, name=name, updated_ms=milliseconds(tx))
        tx.emit("experiment.renamed", f"experiment:{id}", {"from": before.name, "to": name})


def change_experiment_lifecycle(tx: Transaction, id: int, lifecycle: Lifecycle) -> None:
    """Delete an experiment with its runs, or restore both; doing it again changes nothing."""
    ensure_default(tx)
    found = find_experiment(tx.connection, tx.project, id=id)
    if found.lifecycle == lifecycle:
        raise NoExperiment(f"No Experiment with id={id} exists that is not {lifecycle} already.")
    now = milliseconds(tx)
    store.change_experiment(tx, id, lifecycle=lifecycle, updated_ms=now)
    store.change_runs_of(tx, id, lifecycle, now if lifecycle == "deleted" else None)
    if lifecycle == "deleted":
        tx.emit("experiment.deleted", f"experiment:{id}", {"name": found.name})
    else:
        tx.emit("experiment.restored", f"experiment:{id}", {"name": found.name})


def set_experiment_tag(tx: Transaction, id: int, key: str, value: Any) -> None:
    """Set a tag of an active experiment."""
    tag = rules.pair(key, value, EXPERIMENT_TAG_LENGTH, "tag")
    ensure_default(tx)
    _need_active_experiment(tx, id)
    store.put_experiment_tag(tx, id, tag)
    store.change_experiment(tx, id, updated_ms=milliseconds(tx))


def delete_experiment_tag(tx: Transaction, id: int, key: str) -> None:
    """Remove a tag of an active experiment."""
    _need_active_experiment(tx, id)
    if not store.delete_experiment_tag(tx, id, key):
        raise NoExperiment(f"No tag with name: {key} in experiment with id {id}.")


def _need_active_experiment(tx: Transaction, id: int) -> Experiment:
    found = find_experiment(tx.connection, tx.project, id=id)
    if found.lifecycle != "active":
        raise NotActive(
            f"The experiment {id} must be in the 'active' state. Current state is deleted.",
            mend="Restore it, or use another one.",
        )
    return found


def _refuse_taken(tx: Transaction, name: str) -> None:
    try:
        find_experiment(tx.connection, tx.project, name=name)
    except NoExperiment:
        return
    raise NameTaken(
        f"Experiment(name={name}) already exists.",
        mend="Use the existing experiment, restore it if it is deleted, or choose another name.",
    )


def create_run(tx: Transaction, wish: NewRun) -> Run:
    """Begin a run in an active experiment; its name is also its tag mlflow.runName."""
    place = store.place_of(tx, wish.experiment)
    if place is None and wish.experiment == DEFAULT:
        ensure_default(tx)
        place = store.place_of(tx, DEFAULT)
    if place is None:
        raise no_experiment(wish.experiment)
    if place[1] != "active":
        _need_active_experiment(tx, wish.experiment)
    own = secrets.token_hex(16)
    tags = {each.key: each.value for each in wish.tags}
    named = tags.get(RUN_NAME, "")
    if wish.name and named and wish.name != named:
        raise InvalidInput(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{wish.name}', mlflow.runName='{named}')."
        )
    name = wish.name or named or rules.random_name()
    tags[RUN_NAME] = name
    start = milliseconds(tx) if wish.start_ms is None else wish.start_ms
    info = store.insert_run(
        tx,
        RunInfo(
            own,
            0,
            wish.experiment,
            name,
            wish.user,
            RunStatus.RUNNING,
            start,
            None,
            f"{place[0]}/{own}/artifacts",
            "active",
        ),
    )
    pairs = tuple(Pair(*each) for each in tags.items())
    store.put_tags(tx, info.number, pairs)
    tx.emit("run.created", own, {"experiment": wish.experiment, "name": name})
    return Run(info, tags=pairs)


def update_run(
    tx: Transaction, id: str, *, status: RunStatus | None = None, end_ms: int | None = None, name: str = ""
) -> RunInfo:
    """Change how far a run is, when it ended, or its name."""
    info = _need_active(tx, id)
    values: dict[str, Any] = {}
    if status is not None:
        values["status"] = status.value
    if end_ms is not None:
        values["end_ms"] = end_ms
    if name:
        values["name"] = rules.check_text(name, "run name")
        store.put_tags(tx, info.number, [Pair(RUN_NAME, name)])
    if values:
        store.change_run(tx, info.number, **values)
    if status in ENDED and info.status not in ENDED:
        tx.emit("run.ended", id, {"status": values["status"]})
    after = store.run_by_id(tx.connection, tx.project, id)
    assert after is not None
    return after


def change_run_lifecycle(tx: Transaction, id: str, lifecycle: Lifecycle) -> None:
    """Delete a run, or restore it; doing it again changes nothing."""
    info = find_run_info(tx.connection, tx.project, id)
    if info.lifecycle == lifecycle:
        return
    deleted = lifecycle == "deleted"
    store.change_run(tx, info.number, lifecycle=lifecycle, deleted_ms=milliseconds(tx) if deleted else None)
    if deleted:
        tx.emit("run.deleted", id, {"experiment": info.experiment})
    else:
        tx.emit("run.restored", id, {"experiment": info.experiment})


def log(tx: Transaction, batch: Batch) -> None:
    """Log metrics, parameters and tags to an active run, all or none; what is there already is not doubled."""
    number, experiment = _place(tx, batch.run)
    if batch.params:
        rules.check_distinct(batch.params)
        new: list[Pair] = []
        for each in batch.params:
            known = store.param_value(tx, number, each.key)
            if known is None:
                new.append(each)
            elif known != each.value:
                raise ParamChanged(
                    f"Changing param values is not allowed. Param with key='{each.key}' was already logged with "
                    f"value='{known}' for run ID='{batch.run}'. Attempted logging new value '{each.value}'.",
                    mend="Begin a nested run for each setting, or log the value under another name.",
                )
        store.add_params(tx, number, new)
    if batch.tags:
        store.put_tags(tx, number, batch.tags)
        for each in batch.tags:
            if each.key == RUN_NAME:
                store.change_run(tx, number, name=each.value)
    if batch.metrics:
        store.add_metrics(tx, tx.project, [(number, experiment, batch.metrics)])
    if batch.of_models:
        store.add_model_metrics(tx, batch.run, batch.of_models)


def logging(batch: Batch) -> Callable[[Transaction], None]:
    """Return the work that logs a batch: metrics alone are logged with those of all other batches that wait.

    Many of them are kept as they came, as durable, and are brought into their tables before anybody looks.
    """
    if batch.metrics and not (batch.params or batch.tags or batch.of_models):
        if len(batch.metrics) >= KEPT_WHOLE:
            return Joint(batch, _keep_together, owes=True)
        return Joint(batch, _log_together)
    return lambda tx: log(tx, batch)


def _log_together(tx: Transaction, batches: Sequence[Batch]) -> list[Exception | None]:
    """Log the metrics of many batches at once; tell for each what refuses it."""
    refused, points = _placed(tx, batches)
    store.add_metrics(tx, tx.project, points)
    return refused


def _keep_together(tx: Transaction, batches: Sequence[Batch]) -> list[Exception | None]:
    """Keep many batches of metrics as they came; tell for each what refuses it."""
    refused, points = _placed(tx, batches)
    kept.keep(tx, points)
    return refused


def _placed(
    tx: Transaction, batches: Sequence[Batch]
) -> tuple[list[Exception | None], list[tuple[int, int, Sequence[Metric]]]]:
    """Return for each batch what refuses it, and of the others the run, its experiment and the metrics."""
    refused: list[Exception | None] = []
    points: list[tuple[int, int, Sequence[Metric]]] = []
    for batch in batches:
        place = tx.memory.get((tx.project, batch.run))
        if place is None:
            try:
                place = tx.memory[tx.project, batch.run] = _place(tx, batch.run)
            except HoldtrueError as error:
                refused.append(error)
                continue
        refused.append(None)
        number, experiment = place
        points.append((number, experiment, batch.metrics))
    return refused, points


def delete_tag(tx: Transaction, run: str, key: str) -> None:
    """Remove a tag of an active run."""
    number, _ = _place(tx, run)
    if not store.delete_tag(tx, number, key):
        raise NoRun(f"No tag with name: {key} in run with id {run}.")


def log_inputs(tx: Transaction, run: str, datasets: Sequence[DatasetInput], models: Sequence[ModelLink]) -> None:
    """Note which datasets and logged models an active run used, or made."""
    number, experiment = _place(tx, run)
    for each in datasets:
        store.put_dataset(tx, number, experiment, each)
    for link in models:
        store.put_model_link(tx, number, link)


def note_model(tx: Transaction, run: str, model: Any) -> None:
    """Add a model's description to the list that a run's tag holds."""
    number, _ = _place(tx, run)
    known = {
        each.key: each.value for each in store.pairs_of(tx.connection, tx.project, store.run_tags, [number])[number]
    }
    try:
        described = orjson.loads(known.get(MODEL_HISTORY, "[]"))
    except orjson.JSONDecodeError:
        described = []
    store.put_tags(tx, number, [Pair(MODEL_HISTORY, orjson.dumps([*described, model]).decode())])


def datasets_used(
    connection: sa.Connection, project: str, experiments: Sequence[int]
) -> list[tuple[int, str, str, str]]:
    """Return experiment, name, digest and context of each dataset that runs of these experiments used."""
    rows = store.select_datasets(connection, project, experiments, _MOST_DATASETS)
    return [
        (row.experiment, row.name, row.digest, dict(orjson.loads(row.tags)).get(DATASET_CONTEXT, "")) for row in rows
    ]


def _place(tx: Transaction, run: str) -> tuple[int, int]:
    """Return an active run's number and experiment."""
    found = store.run_key(tx, rules.check_run_id(run))
    if found is None:
        raise no_run(run)
    if found[2] != "active":
        raise _not_active(run)
    return found[0], found[1]


def _need_active(tx: Transaction, id: str) -> RunInfo:
    info = find_run_info(tx.connection, tx.project, id)
    if info.lifecycle != "active":
        raise _not_active(id)
    return info


def _not_active(run: str) -> NotActive:
    return NotActive(
        f"The run {run} must be in the 'active' state. Current state is deleted.",
        mend="Restore the run, then log to it.",
    )


def no_run(id: str) -> NoRun:
    """Return the error for a run that is not there."""
    return NoRun(f"Run with id={id} not found.", mend="Check the id, and the project your token is for.")


def find_run_info(connection: sa.Connection, project: str, id: str) -> RunInfo:
    """Return a run without its data; raise NoRun."""
    info = store.run_by_id(connection, project, rules.check_run_id(id))
    if info is None:
        raise no_run(id)
    return info


def find_run(connection: sa.Connection, project: str, id: str) -> Run:
    """Return a run with everything logged to it; raise NoRun."""
    return whole_runs(connection, project, [find_run_info(connection, project, id)])[0]


def whole_runs(connection: sa.Connection, project: str, infos: Sequence[RunInfo]) -> list[Run]:
    """Return runs with everything logged to them, in the order given."""
    numbers = [info.number for info in infos]
    metrics = store.metrics_of(connection, project, numbers)
    params = store.pairs_of(connection, project, store.run_params, numbers)
    tags = store.pairs_of(connection, project, store.run_tags, numbers)
    datasets = store.datasets_of(connection, project, numbers)
    models = store.model_links_of(connection, project, numbers)
    return [
        Run(
            info,
            tuple(metrics[info.number]),
            tuple(params[info.number]),
            tuple(tags[info.number]),
            tuple(datasets.get(info.number, ())),
            tuple(models.get(info.number, ())),
        )
        for info in infos
    ]


def history(
    connection: sa.Connection,
    project: str,
    run: str,
    key: str,
    *,
    limit: int = PAGE_LIMIT,
    after: tuple[int, int, float, int] | None = None,
    steps: tuple[int | None, int | None] = (None, None),
) -> HistoryPage:
    """Return a part of a metric's history, in order of step, moment and value."""
    info = find_run_info(connection, project, run)
    return store.history(connection, project, info.number, key, limit=limit, after=after, steps=steps)


def sampled(
    connection: sa.Connection,
    project: str,
    runs: Sequence[str],
    key: str,
    most: int,
    steps: tuple[int | None, int | None] = (None, None),
) -> dict[str, list[tuple[int, int, float, int]]]:
    """Return each run's points at the same, evenly chosen steps: at most about `most` a run, the ends included."""
    infos = [find_run_info(connection, project, run) for run in runs]
    every: set[int] = set()
    ends: set[int] = set()
    for info in infos:
        own = [step for step in store.steps_of(connection, project, info.number, key) if _within(step, steps)]
        every.update(own)
        ends.update(own[:1] + own[-1:])
    ordered = sorted(every)
    stride = max(1, -(-len(ordered) // max(1, most)))
    chosen = set(ordered[::stride]) | ends
    wanted = sorted(chosen)
    return {info.id: store.points_at(connection, project, info.number, key, wanted) for info in infos}


def _within(step: int, steps: tuple[int | None, int | None]) -> bool:
    return (steps[0] is None or step >= steps[0]) and (steps[1] is None or step <= steps[1])
