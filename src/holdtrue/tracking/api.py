"""HTTP routes of tracking in the house's own form: what the SDK and the commands use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.door import Call, Routes
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import artifacts, comparing, costs, importing, registry, retention, rules, search, service
from holdtrue.tracking.model import Batch, NewRun, NoExperiment, Run, RunStatus, View

routes = Routes("tracking")

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
_MOST = 1000


@dataclass(frozen=True, slots=True)
class NewRunBody:
    """Ask for a run in an experiment, which is made if there is none of this name."""

    experiment: str = "Default"
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Logged:
    """Carry what is logged to a run at once."""

    metrics: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    step: int = 0
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Say how a run ended."""

    status: RunStatus = RunStatus.FINISHED


@dataclass(frozen=True, slots=True)
class Retention:
    """Say from how many days after their deletion runs are removed for good, and how many points at most now."""

    days: int = 30
    points: int = 1_000_000


def run_json(run: Run) -> dict[str, Any]:
    """Return a run as this API shows it."""
    info = run.info
    return {
        "id": info.id,
        "experiment": info.experiment,
        "name": info.name,
        "status": info.status.value,
        "started_ms": info.start_ms,
        "ended_ms": info.end_ms,
        "artifact_uri": info.artifact_uri,
        "lifecycle": info.lifecycle,
        "metrics": {each.key: None if each.nan else each.value for each in run.metrics},
        "params": dict(run.params),
        "tags": dict(run.tags),
        "datasets": [{"name": each.name, "digest": each.digest} for each in run.datasets],
        "models": [each.model for each in run.models],
    }


@routes.get("/api/projects/{project}/experiments", READ, summary="List experiments")
def list_experiments(call: Call) -> Any:
    """Return a page of experiments, the newest first; query: limit, after."""
    found, token = call.read(
        lambda c: search.search_experiments(c, call.project, limit=_limit(call), page=call.query.get("after"))
    )
    return {"items": [dump(each) for each in found], "next": token}


@routes.get("/api/projects/{project}/runs", READ, summary="List runs")
def list_runs(call: Call) -> Any:
    """Return a page of runs; query: experiment (a name), filter, order, view, limit, after."""
    name, order = call.query.get("experiment"), call.query.get("order")
    views: Mapping[str, View] = {"active": "active", "deleted": "deleted", "all": "all"}
    view = views.get(call.query.get("view", "active"))
    if view is None:
        raise InvalidInput("A view is active, deleted or all.")

    def work(connection: Any) -> tuple[list[Run], str | None]:
        if name is None:
            every, _ = search.search_experiments(connection, call.project, limit=_MOST)
            wanted = [each.id for each in every]
        else:
            wanted = [service.find_experiment(connection, call.project, name=name).id]
        wish = search.Search(
            wanted, call.query.get("filter", ""), view, _limit(call), [order] if order else [], call.query.get("after")
        )
        return search.search_runs(connection, call.project, wish)

    found, token = call.read(work)
    return {"items": [run_json(each) for each in found], "next": token}


@routes.get("/api/projects/{project}/runs/{run}", READ, summary="Show a run")
def show_run(call: Call) -> Any:
    """Return a run with everything logged to it, and what it cost as far as that was measured."""

    def work(connection: Any) -> tuple[Run, costs.Cost]:
        run = service.find_run(connection, call.project, call.path["run"])
        return run, costs.read_costs(connection, call.project, [run])[run.info.id]

    run, cost = call.read(work)
    return {**run_json(run), "cost": dump(cost)}


@routes.get("/api/projects/{project}/run-comparison", READ, summary="Compare runs with seeds and intervals")
def compare_runs(call: Call) -> Any:
    """Compare runs; query: runs (ids, comma between), metric, best (highest or lowest)."""
    ids = comparing.named_runs(call.query.get("runs", ""))
    metric = rules.check_key(call.query.get("metric"), "metric")
    lowest = comparing.lowest_is_best(call.query.get("best", ""))

    def work(connection: Any) -> list[Run]:
        infos = [service.find_run_info(connection, call.project, each) for each in ids]
        return service.whole_runs(connection, call.project, infos)

    return dump(comparing.compare(call.read(work), metric, lowest=lowest))


@routes.post("/api/projects/{project}/runs", WRITE, summary="Begin a run")
def begin_run(call: Call, body: NewRunBody) -> Any:
    """Begin a run in the caller's name."""
    tags = tuple(rules.tag(*each) for each in body.tags.items())

    def work(tx: Transaction) -> dict[str, Any]:
        try:
            experiment = service.find_experiment(tx.connection, tx.project, name=body.experiment).id
        except NoExperiment:
            experiment = service.create_experiment(tx, body.experiment).id
        return run_json(service.create_run(tx, NewRun(experiment, call.actor.name, body.name, tags=tags)))

    return call.write(work)


@routes.post("/api/projects/{project}/runs/{run}/log", WRITE, summary="Log metrics, parameters and tags")
def log(call: Call, body: Logged) -> Any:
    """Log all of it, or nothing."""
    rules.check_batch(len(body.metrics), len(body.params), len(body.tags))

    def work(tx: Transaction) -> None:
        moment = service.milliseconds(tx) if body.timestamp is None else body.timestamp
        batch = Batch(
            call.path["run"],
            tuple(rules.metric(key, value, moment, body.step) for key, value in body.metrics.items()),
            tuple(rules.param(*each) for each in body.params.items()),
            tuple(rules.tag(*each) for each in body.tags.items()),
        )
        service.log(tx, batch)

    call.write(work)
    return {}


@routes.post("/api/projects/{project}/runs/{run}/end", WRITE, summary="End a run")
def end_run(call: Call, body: Ending) -> Any:
    """End a run."""

    def work(tx: Transaction) -> str:
        now = service.milliseconds(tx)
        return service.update_run(tx, call.path["run"], status=body.status, end_ms=now).status.value

    return {"status": call.write(work)}


@routes.add(
    "PUT", "/api/projects/{project}/runs/{run}/artifact", WRITE, summary="Store a file with a run", kind="stream"
)
async def put_artifact(call: Call) -> Any:
    """Store the body under the name that the query's `path` says."""
    info = await call.stores.ledger.read_async(lambda c: service.find_run_info(c, call.project, call.path["run"]))
    return await _put(call, info.artifact_uri)


async def _put(call: Call, uri: str) -> Any:
    path = rules.artifact_path(call.query.get("path", ""))
    whole = f"{registry.folder_of(uri)}/{path}"
    assert call.stream is not None
    digest, size = await artifacts.receive(call.stores.blobs, call.stream)
    await call.write_async(lambda tx: artifacts.keep(tx, whole, digest, size))
    return {"path": path, "digest": digest, "size": size}


@routes.get("/api/projects/{project}/model-version", Permission.VERSIONS_READ, summary="Show a registered version")
def show_version(call: Call) -> Any:
    """Return a version of a registered model; query: name (name/3, name@alias, name/latest)."""
    name = call.query.get("name", "")
    if not name:
        raise NotFound.of("registered model", name)
    return dump(call.read(lambda c: registry.find_version(c, call.project, name)))


@routes.post("/api/projects/{project}/imported-experiments", WRITE, summary="Bring an experiment over")
def bring_experiment(call: Call, body: importing.ImportedExperiment) -> Any:
    """Make sure of an experiment with its tags."""
    return call.write(lambda tx: importing.bring_experiment(tx, body))


@routes.post("/api/projects/{project}/imported-logged-models", WRITE, summary="Bring a logged model over")
def bring_logged_model(call: Call, body: importing.ImportedLoggedModel) -> Any:
    """Write a logged model of another system down under its own id."""
    return call.write(lambda tx: importing.bring_logged_model(tx, body))


@routes.get("/api/projects/{project}/imported-logged-models/{model}", READ, summary="Count what a logged model holds")
def count_logged_model(call: Call) -> Any:
    """Return its artifacts with their digests, for an importer to compare."""
    return call.read(lambda c: importing.count_logged_model(c, call.project, call.path["model"]))


@routes.add(
    "PUT",
    "/api/projects/{project}/imported-logged-models/{model}/artifact",
    WRITE,
    summary="Store a file with a logged model",
    kind="stream",
)
async def put_model_artifact(call: Call) -> Any:
    """Store the body under the name that the query's `path` says."""
    named = call.path["model"]
    found = await call.stores.ledger.read_async(lambda c: registry.need_logged_model(c, call.project, named))
    return await _put(call, found.artifact_uri)


@routes.post("/api/projects/{project}/imported-runs", WRITE, summary="Bring a run over as it was")
def bring_run(call: Call, body: importing.ImportedRun) -> Any:
    """Write a run of another system down under its own id."""
    return call.write(lambda tx: importing.bring_run(tx, body))


@routes.get("/api/projects/{project}/imported-runs/{run}", READ, summary="Count what a run holds")
def count_run(call: Call) -> Any:
    """Return numbers of points, parameters and tags, for an importer to compare."""
    return call.read(lambda c: importing.count_run(c, call.project, call.path["run"]))


@routes.post("/api/projects/{project}/imported-runs/{run}/points", WRITE, summary="Bring points of a run over")
def bring_points(call: Call, body: importing.Points) -> Any:
    """Add up to 1,000 points; those that are there already are not doubled."""
    return {"points": call.write(lambda tx: importing.bring_points(tx, call.path["run"], body))}


@routes.post("/api/projects/{project}/imported-runs/{run}/deleted", WRITE, summary="Delete a run brought over")
def bring_deletion(call: Call) -> Any:
    """Delete a run that was deleted where it came from."""
    call.write(lambda tx: service.change_run_lifecycle(tx, call.path["run"], "deleted"))
    return {}


@routes.post("/api/projects/{project}/run-retention", Permission.OPERATIONS_RUN, summary="Remove deleted runs for good")
def remove_deleted(call: Call, body: Retention) -> Any:
    """Remove runs that were deleted long enough ago, in batches of one transaction each."""
    return dump(retention.remove_deleted(call.stores.ledger, call.context(), body.days, body.points))


def _limit(call: Call) -> int:
    text = call.query.get("limit", "100")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise InvalidInput(f"{text[:80]!r} is not a page size.", mend=f"Use a whole number from 1 to {_MOST}.")
    return int(text)
