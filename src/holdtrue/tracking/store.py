"""SQL of experiments, runs and what is logged to them.

A run is known by its number in everything that is written often. A list reads summary rows (`run_metrics`: the
newest value of each metric of each run) and never the points. Moments are in milliseconds, as clients send them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from holdtrue.storage.ledger import (
    Insert,
    Transaction,
    any_of,
    insert,
    key_of,
    prepare,
    prepare_insert,
    project_table,
    scoped,
)
from holdtrue.tracking.model import (
    DatasetInput,
    Experiment,
    HistoryPage,
    Lifecycle,
    Metric,
    ModelLink,
    ModelMetric,
    Pair,
    RunInfo,
    RunStatus,
    View,
)

_IN_ONE_QUERY = 500
_STATUSES: Mapping[str, RunStatus] = MappingProxyType({each.value: each for each in RunStatus})

experiments = project_table(
    "experiments",
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("artifact_location", sa.Text, nullable=False),
    sa.Column("lifecycle", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("project", "name"),
    clustered=True,
)

experiment_tags = project_table(
    "experiment_tags",
    sa.Column("experiment", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    clustered=True,
)

runs = project_table(
    "runs",
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("experiment", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("start_ms", sa.BigInteger, nullable=False),
    sa.Column("end_ms", sa.BigInteger),
    sa.Column("artifact_uri", sa.Text, nullable=False),
    sa.Column("lifecycle", sa.Text, nullable=False),
    sa.Column("deleted_ms", sa.BigInteger),
    sa.UniqueConstraint("project", "id"),
    sa.Index(None, "project", "experiment", "lifecycle", "start_ms"),
    clustered=True,
)

# The newest value of each metric; searches walk its index in order of value.
run_metrics = project_table(
    "run_metrics",
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("experiment", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("nan", sa.SmallInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Index(None, "project", "experiment", "key", "nan", "value"),
    clustered=True,
)

# The whole point is the key: one that is sent again is there already.
metric_points = project_table(
    "metric_points",
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("timestamp", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Float, primary_key=True),
    sa.Column("nan", sa.SmallInteger, primary_key=True, autoincrement=False),
    clustered=True,
)

run_params = project_table(
    "run_params",
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    clustered=True,
)

run_tags = project_table(
    "run_tags",
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    clustered=True,
)

run_datasets = project_table(
    "run_datasets",
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("experiment", sa.BigInteger, nullable=False),
    sa.Column("source_type", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("schema", sa.Text, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Index(None, "project", "experiment", "name", "digest"),
)

run_models = project_table(
    "run_models",
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("direction", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, nullable=False),
    clustered=True,
)

model_metrics = project_table(
    "model_metrics",
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("dataset_name", sa.Text, primary_key=True),
    sa.Column("dataset_digest", sa.Text, primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("nan", sa.SmallInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    clustered=True,
)


def _newer(keys: Sequence[str]) -> Callable[[Insert], Insert]:
    """Let a row be replaced only by one of a later (or the same) step and moment."""

    def finish(statement: Insert) -> Insert:
        new, old = statement.excluded, statement.table.c
        return statement.on_conflict_do_update(
            index_elements=["project", *keys],
            set_={each.name: new[each.name] for each in old if each.name not in ("project", *keys)},
            where=sa.tuple_(new["step"], new["timestamp"]) >= sa.tuple_(old["step"], old["timestamp"]),
        )

    return finish


def _replacing(statement: Insert) -> Insert:
    return statement.on_conflict_do_update(
        index_elements=["project", "run", "key"], set_={"value": statement.excluded["value"]}
    )


_BY_KEY: Callable[[Metric], Any] = itemgetter(0)
_BY_MOMENT: Callable[[Metric], Any] = itemgetter(1, 2)

_RUN = prepare(
    sa.select(runs.c.number, runs.c.experiment, runs.c.lifecycle).where(
        runs.c.project == sa.bindparam("project"), runs.c.id == sa.bindparam("id")
    )
)
_POINT = prepare_insert(metric_points, lambda statement: statement.on_conflict_do_nothing())
_LATEST = prepare_insert(run_metrics, _newer(["run", "key"]))
_MODEL_METRIC = prepare_insert(model_metrics, _newer(["model", "key", "dataset_name", "dataset_digest"]))
_TAG = prepare_insert(run_tags, _replacing)
_PARAM = prepare_insert(run_params, _replacing)
_PARAM_VALUE = prepare(
    sa.select(run_params.c.value).where(
        run_params.c.project == sa.bindparam("project"),
        run_params.c.run == sa.bindparam("run"),
        run_params.c.key == sa.bindparam("key"),
    )
)
_NEW_RUN = prepare_insert(runs, lambda statement: statement)
_LAST_NUMBER = prepare(sa.select(sa.func.max(runs.c.number)).where(runs.c.project == sa.bindparam("project")))
_EXPERIMENT = prepare(
    sa.select(experiments.c.artifact_location, experiments.c.lifecycle).where(
        experiments.c.project == sa.bindparam("project"), experiments.c.id == sa.bindparam("id")
    )
)


def run_key(tx: Transaction, id: str) -> tuple[int, int, Lifecycle] | None:
    """Return a run's number, experiment and lifecycle; None if there is no such run."""
    found = tx.rows(_RUN, tx.project, id)
    return (found[0][0], found[0][1], found[0][2]) if found else None


def add_metrics(tx: Transaction, project: str, points: Iterable[tuple[int, int, Sequence[Metric]]]) -> None:
    """Add points to the histories of runs (number, experiment) and bring the newest values up to date."""
    of_runs: dict[int, tuple[int, list[Metric]]] = {}
    for run, experiment, metrics in points:
        of_runs.setdefault(run, (experiment, []))[1].extend(metrics)
    rows: list[tuple[Any, ...]] = []
    latest: list[tuple[Any, ...]] = []
    for run, (experiment, metrics) in of_runs.items():
        # In the order of the trees, so that the next row is beside the last one.
        metrics.sort(key=_BY_KEY)
        rows += [(project, run, *each) for each in metrics]
        # Of equal ones the last to come stays, as sorting keeps their order.
        newest = {each[0]: each for each in sorted(metrics, key=_BY_MOMENT)}
        latest += [
            (project, run, key, experiment, value, nan, timestamp, step)
            for key, step, timestamp, value, nan in map(newest.__getitem__, sorted(newest))
        ]
    tx.many(_POINT, rows)
    tx.many(_LATEST, latest)


def add_model_metrics(tx: Transaction, run: str, metrics: Iterable[tuple[str, Metric, str, str]]) -> None:
    """Bring the newest values of logged models' metrics up to date."""
    tx.many(
        _MODEL_METRIC,
        [
            (tx.project, model, each.key, name, digest, run, each.value, each.nan, each.timestamp, each.step)
            for model, each, name, digest in metrics
        ],
    )


def param_value(tx: Transaction, run: int, key: str) -> str | None:
    """Return what a parameter was set to."""
    found = tx.rows(_PARAM_VALUE, tx.project, run, key)
    return found[0][0] if found else None


def add_params(tx: Transaction, run: int, params: Iterable[Pair]) -> None:
    """Set parameters."""
    tx.many(_PARAM, [(tx.project, run, each.key, each.value) for each in params])


def put_tags(tx: Transaction, run: int, tags: Iterable[Pair]) -> None:
    """Set tags."""
    tx.many(_TAG, [(tx.project, run, each.key, each.value) for each in tags])


def delete_tag(tx: Transaction, run: int, key: str) -> bool:
    """Remove a tag; tell whether it was there."""
    mine = (run_tags.c.project == tx.project) & (run_tags.c.run == run) & (run_tags.c.key == key)
    return tx.execute(sa.delete(run_tags).where(mine)).rowcount > 0


def insert_run(tx: Transaction, run: RunInfo) -> RunInfo:
    """Insert a run under the next number of its project."""
    last = tx.rows(_LAST_NUMBER, tx.project)[0][0] or 0
    row = (tx.project, last + 1, run.id, run.experiment, run.name, run.user, run.status.value, run.start_ms, run.end_ms)
    tx.many(_NEW_RUN, [(*row, run.artifact_uri, run.lifecycle, None)])
    return RunInfo(run.id, last + 1, *_after_number(run))


def _after_number(run: RunInfo) -> tuple[int, str, str, RunStatus, int, int | None, str, Lifecycle]:
    return (
        run.experiment, run.name, run.user, run.status, run.start_ms, run.end_ms, run.artifact_uri, run.lifecycle,
    )  # fmt: skip


def change_run(tx: Transaction, number: int, **values: Any) -> None:
    """Change columns of a run."""
    mine = (runs.c.project == tx.project) & (runs.c.number == number)
    tx.execute(sa.update(runs).where(mine).values(**values))


def place_of(tx: Transaction, experiment: int) -> tuple[str, Lifecycle] | None:
    """Return an experiment's artifact location and lifecycle."""
    found = tx.rows(_EXPERIMENT, tx.project, experiment)
    return (found[0][0], found[0][1]) if found else None


def insert_experiment(tx: Transaction, row: Experiment) -> None:
    """Insert an experiment with its tags."""
    tx.execute(
        sa.insert(experiments).values(
            project=tx.project,
            id=row.id,
            name=row.name,
            artifact_location=row.artifact_location,
            lifecycle=row.lifecycle,
            created_ms=row.created_ms,
            updated_ms=row.updated_ms,
        )
    )
    for each in row.tags:
        put_experiment_tag(tx, row.id, each)


def next_experiment(connection: sa.Connection, project: str) -> int:
    """Return the id of the project's next experiment."""
    query = sa.select(sa.func.max(experiments.c.id)).where(experiments.c.project == project)
    return (connection.execute(query).scalar() or 0) + 1


def change_experiment(tx: Transaction, id: int, **values: Any) -> None:
    """Change columns of an experiment."""
    mine = (experiments.c.project == tx.project) & (experiments.c.id == id)
    tx.execute(sa.update(experiments).where(mine).values(**values))


def change_runs_of(tx: Transaction, experiment: int, lifecycle: Lifecycle, at_ms: int | None) -> None:
    """Delete or restore the runs of an experiment with it."""
    mine = (runs.c.project == tx.project) & (runs.c.experiment == experiment)
    tx.execute(sa.update(runs).where(mine).values(lifecycle=lifecycle, deleted_ms=at_ms))


def put_experiment_tag(tx: Transaction, experiment: int, tag: Pair) -> None:
    """Set a tag of an experiment."""
    statement = insert(experiment_tags).values(project=tx.project, experiment=experiment, key=tag.key, value=tag.value)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "experiment", "key"], set_={"value": statement.excluded.value}
        )
    )


def delete_experiment_tag(tx: Transaction, experiment: int, key: str) -> bool:
    """Remove a tag of an experiment; tell whether it was there."""
    table = experiment_tags
    mine = (table.c.project == tx.project) & (table.c.experiment == experiment) & (table.c.key == key)
    return tx.execute(sa.delete(table).where(mine)).rowcount > 0


def experiment_by(connection: sa.Connection, project: str, *, id: int | None = None, name: str = "") -> Any:
    """Return an experiment by id or by name, or None."""
    query = scoped(experiments, project)
    query = query.where(experiments.c.name == name) if id is None else query.where(experiments.c.id == id)
    row = connection.execute(query).first()
    return None if row is None else with_tags(connection, project, [row])[0]


def with_tags(connection: sa.Connection, project: str, rows: Sequence[sa.Row[Any]]) -> list[Experiment]:
    """Return experiments with their tags, in the order of `rows`."""
    tags: dict[int, list[Pair]] = {row.id: [] for row in rows}
    for part in _parts(list(tags)):
        query = scoped(experiment_tags, project).where(experiment_tags.c.experiment.in_(part))
        for each in connection.execute(query.order_by(*key_of(experiment_tags))):
            tags[each.experiment].append(Pair(each.key, each.value))
    return [
        Experiment(
            row.id, row.name, row.artifact_location, row.lifecycle, row.created_ms, row.updated_ms, tuple(tags[row.id])
        )
        for row in rows
    ]


def run_info(row: Any) -> RunInfo:
    """Return a row that begins with the columns of runs as the value it is."""
    _, number, own, experiment, name, user, status, start_ms, end_ms, artifact_uri, lifecycle = row[:11]
    return RunInfo(own, number, experiment, name, user, _STATUSES[status], start_ms, end_ms, artifact_uri, lifecycle)


def run_by_id(connection: sa.Connection, project: str, id: str) -> RunInfo | None:
    """Return a run, without its data, or None."""
    row = connection.execute(scoped(runs, project).where(runs.c.id == id)).first()
    return None if row is None else run_info(row)


def _of_runs(table: sa.Table, *columns: str) -> sa.Select[Any]:
    """Return the query of what was logged to runs, made once: `project` and `runs` are given when it is executed."""
    mine = table.c.project == sa.bindparam("project"), any_of(table.c.run, "runs")
    chosen = [table.c[name] for name in columns or table.c.keys()]
    return sa.select(*chosen).where(*mine).order_by(*key_of(table))


_METRICS = _of_runs(run_metrics, "run", "key", "step", "timestamp", "value", "nan")
_PAIRS = MappingProxyType({each.name: _of_runs(each, "run", "key", "value") for each in (run_params, run_tags)})
_DATASETS, _MODELS = _of_runs(run_datasets), _of_runs(run_models)


def metrics_of(connection: sa.Connection, project: str, numbers: Sequence[int]) -> dict[int, list[Metric]]:
    """Return the newest values of the metrics of runs."""
    found: dict[int, list[Metric]] = {number: [] for number in numbers}
    new = tuple.__new__
    for row in raw(connection, _METRICS, {"project": project, "runs": numbers}):
        found[row[0]].append(new(Metric, row[1:]))
    return found


def pairs_of(connection: sa.Connection, project: str, table: sa.Table, numbers: Sequence[int]) -> dict[int, list[Pair]]:
    """Return the parameters or tags of runs, as `table` says."""
    found: dict[int, list[Pair]] = {number: [] for number in numbers}
    new = tuple.__new__
    for row in raw(connection, _PAIRS[table.name], {"project": project, "runs": numbers}):
        found[row[0]].append(new(Pair, row[1:]))
    return found


def datasets_of(connection: sa.Connection, project: str, numbers: Sequence[int]) -> dict[int, list[DatasetInput]]:
    """Return the datasets that runs used."""
    found: dict[int, list[DatasetInput]] = {}
    for row in connection.execute(_DATASETS, {"project": project, "runs": numbers}):
        tags = tuple(Pair(*each) for each in row.tags)
        one = DatasetInput(row.name, row.digest, row.source_type, row.source, row.schema, row.profile, tags)
        found.setdefault(row.run, []).append(one)
    return found


def put_dataset(tx: Transaction, run: int, experiment: int, row: DatasetInput) -> None:
    """Note that a run used a dataset; noting it again adds tags and changes those of the same name."""
    table = run_datasets
    mine = sa.and_(
        table.c.project == tx.project, table.c.run == run, table.c.name == row.name, table.c.digest == row.digest
    )
    tags = dict(tx.execute(sa.select(table.c.tags).where(mine)).scalar() or ()) | dict(row.tags)
    statement = insert(run_datasets).values(
        project=tx.project,
        run=run,
        experiment=experiment,
        name=row.name,
        digest=row.digest,
        source_type=row.source_type,
        source=row.source,
        schema=row.schema,
        profile=row.profile,
        tags=[list(each) for each in tags.items()],
    )
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "run", "name", "digest"], set_={"tags": statement.excluded.tags}
        )
    )


def select_datasets(connection: sa.Connection, project: str, numbers: Sequence[int], limit: int) -> list[Any]:
    """Return the names and digests of datasets used in experiments, each once."""
    table = run_datasets
    query = (
        sa.select(
            table.c.experiment, table.c.name, table.c.digest, sa.func.max(table.c.tags.cast(sa.Text)).label("tags")
        )
        .where(table.c.project == project, table.c.experiment.in_(numbers))
        .group_by(table.c.experiment, table.c.name, table.c.digest)
        .order_by(table.c.experiment, table.c.name, table.c.digest)
    )
    return list(connection.execute(query.limit(limit)))


def put_model_link(tx: Transaction, run: int, link: ModelLink) -> None:
    """Note that a run used or made a logged model."""
    statement = insert(run_models).values(
        project=tx.project, run=run, model=link.model, direction=link.direction, step=link.step
    )
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "run", "model", "direction"], set_={"step": statement.excluded.step}
        )
    )


def model_links_of(connection: sa.Connection, project: str, numbers: Sequence[int]) -> dict[int, list[ModelLink]]:
    """Return the logged models that runs used and made."""
    found: dict[int, list[ModelLink]] = {}
    for row in connection.execute(_MODELS, {"project": project, "runs": numbers}):
        found.setdefault(row.run, []).append(ModelLink(row.model, row.direction, row.step))
    return found


def model_metrics_of(connection: sa.Connection, project: str, models: Sequence[str]) -> dict[str, list[ModelMetric]]:
    """Return the newest values of the metrics of logged models."""
    found: dict[str, list[ModelMetric]] = {model: [] for model in models}
    for part in _parts(models):
        query = scoped(model_metrics, project).where(model_metrics.c.model.in_(part))
        for row in connection.execute(query.order_by(*key_of(model_metrics))):
            found[row.model].append(
                ModelMetric(
                    row.key, row.value, row.nan, row.timestamp, row.step, row.dataset_name, row.dataset_digest, row.run
                )
            )
    return found


def history(
    connection: sa.Connection,
    project: str,
    run: int,
    key: str,
    *,
    limit: int,
    after: tuple[int, int, float, int] | None = None,
    steps: tuple[int | None, int | None] = (None, None),
) -> HistoryPage:
    """Return points of one metric in order of step, moment and value, from where `after` ended."""
    table = metric_points
    columns = (table.c.step, table.c.timestamp, table.c.value, table.c.nan)
    query = sa.select(*columns).where(table.c.project == project, table.c.run == run, table.c.key == key)
    if after is not None:
        query = query.where(sa.tuple_(*columns) > sa.tuple_(*(sa.literal(each) for each in after)))
    if steps[0] is not None:
        query = query.where(table.c.step >= steps[0])
    if steps[1] is not None:
        query = query.where(table.c.step <= steps[1])
    points = raw(connection, query.order_by(*columns).limit(limit + 1))
    more = len(points) > limit
    return HistoryPage(points[:limit], tuple(points[limit - 1]) if more else None)


def steps_of(connection: sa.Connection, project: str, run: int, key: str) -> list[int]:
    """Return the distinct steps at which a metric was logged, in order."""
    table = metric_points
    query = sa.select(table.c.step).where(table.c.project == project, table.c.run == run, table.c.key == key)
    return list(connection.execute(query.distinct().order_by(table.c.step)).scalars())


def points_at(
    connection: sa.Connection, project: str, run: int, key: str, steps: Sequence[int]
) -> list[tuple[int, int, float, int]]:
    """Return the points of one metric at these steps, which are in order, and no other of its history."""
    table = metric_points
    columns = (table.c.step, table.c.timestamp, table.c.value, table.c.nan)
    mine = sa.select(*columns).where(table.c.project == project, table.c.run == run, table.c.key == key)
    found: list[tuple[int, int, float, int]] = []
    for part in _parts(steps):
        found += raw(connection, mine.where(table.c.step.in_(part)).order_by(*columns))
    return found


def points_of(connection: sa.Connection, project: str, run: int) -> list[Metric]:
    """Return every point of every metric of a run."""
    table = metric_points
    query = sa.select(table.c.key, table.c.step, table.c.timestamp, table.c.value, table.c.nan)
    rows = connection.execute(query.where(table.c.project == project, table.c.run == run))
    return [Metric(*row) for row in rows]


def deleted_runs(connection: sa.Connection, project: str, before_ms: int, limit: int) -> list[RunInfo]:
    """Return runs that were deleted before a moment, the oldest first."""
    query = scoped(runs, project).where(runs.c.lifecycle == "deleted", runs.c.deleted_ms <= before_ms)
    return [run_info(row) for row in connection.execute(query.order_by(runs.c.deleted_ms, runs.c.number).limit(limit))]


def erase_points(tx: Transaction, run: int, limit: int) -> int:
    """Remove up to `limit` points of a run for good; return how many."""
    table = metric_points
    keys = (table.c.key, table.c.step, table.c.timestamp, table.c.value, table.c.nan)
    mine = (table.c.project == tx.project) & (table.c.run == run)
    some = sa.select(*keys).where(mine).limit(limit)
    return tx.execute(sa.delete(table).where(mine, sa.tuple_(*keys).in_(some))).rowcount


def erase_run(tx: Transaction, run: int) -> None:
    """Remove a run whose points are gone, and all that was logged to it."""
    for table in (run_metrics, run_params, run_tags, run_datasets, run_models):
        tx.execute(sa.delete(table).where(table.c.project == tx.project, table.c.run == run))
    tx.execute(sa.delete(runs).where(runs.c.project == tx.project, runs.c.number == run))


def raw(connection: sa.Connection, query: sa.Executable, values: Mapping[str, Any] | None = None) -> list[Any]:
    """Return the driver's own rows: a page has 10⁴ of them, a history 10⁵, and wrapping each doubles the time."""
    cursor = connection.execute(query, values).cursor
    assert cursor is not None
    rows = list(cursor.fetchall())
    cursor.close()
    return rows


def in_view(column: sa.ColumnElement[str], view: View) -> sa.ColumnElement[bool]:
    """Return the condition under which a lifecycle is in view."""
    return sa.true() if view == "all" else column == view


def _parts(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """Cut a long list into what one query takes."""
    return (values[start : start + _IN_ONE_QUERY] for start in range(0, len(values), _IN_ONE_QUERY))
