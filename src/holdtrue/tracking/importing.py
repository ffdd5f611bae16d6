"""Bring runs over as they were: ids, moments and status are kept; bringing one again changes nothing twice."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from holdtrue.core.errors import Conflict
from holdtrue.storage.ledger import Transaction, WriteContext
from holdtrue.storage.stores import Stores
from holdtrue.tracking import artifacts, registry, rules, service, store
from holdtrue.tracking.model import Batch, NoExperiment, RunInfo, RunStatus
from holdtrue.tracking.registry import NewVersion, NoModel


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """Carry a run of another system, without its metrics; `tags` overwrite, parameters must agree."""

    id: str
    experiment: str
    name: str
    status: RunStatus
    start_ms: int
    user: str = ""
    end_ms: int | None = None
    deleted: bool = False
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Points:
    """Carry up to 1,000 points of a run's metrics: key, value (or "NaN"), timestamp, step."""

    points: tuple[tuple[str, float | str, int, int], ...]


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """Carry a model version: its number, the run it came from, and where its files stood there."""

    number: int
    run: str = ""
    source: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """Carry a registered model of another system."""

    name: str
    description: str = ""
    versions: tuple[ImportedVersion, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict[str, int])


def bring_run(tx: Transaction, wish: ImportedRun) -> dict[str, Any]:
    """Write a run down under its own id, in an experiment of its name, unless it is there already."""
    rules.check_run_id(wish.id)
    try:
        place = service.find_experiment(tx.connection, tx.project, name=wish.experiment)
        service.ensure_default(tx)
    except NoExperiment:
        place = service.create_experiment(tx, wish.experiment)
    known = store.run_by_id(tx.connection, tx.project, wish.id)
    if known is None:
        uri = f"{place.artifact_location}/{wish.id}/artifacts"
        row = RunInfo(
            wish.id, 0, place.id, wish.name, wish.user, wish.status, wish.start_ms, wish.end_ms, uri, "active"
        )
        known = store.insert_run(tx, row)
        tx.emit("run.imported", wish.id, {"experiment": place.id, "name": wish.name})
    elif known.experiment != place.id:
        raise Conflict(f"The run {wish.id} is here already, in another experiment.", mend="Import into a new project.")
    if known.lifecycle == "active":
        params = tuple(rules.param(*each) for each in wish.params.items())
        tags = tuple(rules.pair(key, value, 100_000, "tag") for key, value in wish.tags.items())
        for start in range(0, max(len(params), len(tags), 1), 100):
            batch = Batch(wish.id, params=params[start : start + 100], tags=tags[start : start + 100])
            service.log(tx, batch)
    return {"id": wish.id, "artifact_uri": known.artifact_uri}


def bring_points(tx: Transaction, run: str, wish: Points) -> int:
    """Add points to a run's history; those that are there already are not doubled."""
    rules.check_batch(len(wish.points), 0, 0)
    metrics = tuple(rules.metric(key, value, timestamp, step) for key, value, timestamp, step in wish.points)
    service.log(tx, Batch(run, metrics))
    return len(metrics)


def count_run(connection: sa.Connection, project: str, run: str) -> dict[str, int]:
    """Count what a run holds: points of all metrics, parameters, tags."""
    info = service.find_run_info(connection, project, run)
    params = store.pairs_of(connection, project, store.run_params, [info.number])[info.number]
    tags = store.pairs_of(connection, project, store.run_tags, [info.number])[info.number]
    return {"points": store.count_points(connection, project, info.number), "params": len(params), "tags": len(tags)}


def bring_model(stores: Stores, context: WriteContext, wish: ImportedModel) -> int:
    """Register the versions of a model whose files came with their runs, under the numbers they had.

    Versions whose source is no folder of a run are left out, as are those here already. Returns how many came.
    """
    plain = replace(context, idempotency_key=None, request_digest=None)
    ledger, project = stores.ledger, context.project
    came = 0
    for each in wish.versions:
        inside = each.source.partition("/artifacts/")[2] if each.run else ""
        if not inside:
            continue
        new = NewVersion(wish.name, f"runs:/{each.run}/{inside}", each.run, description=each.description)
        folder = ledger.read(lambda c, new=new: registry.resolve_source(c, project, new))
        files = ledger.read(lambda c, folder=folder: artifacts.files_below(c, project, folder))
        scanned = registry.scan(stores.blobs, [(name, one.digest, one.size) for name, one in files])
        came += ledger.write(
            plain,
            lambda tx, new=new, folder=folder, scanned=scanned, each=each: _version(
                tx, wish, each, new, folder, scanned
            ),
        )
    for alias, number in wish.aliases.items():
        if alias.lower() != registry.PRODUCTION:
            ledger.write(plain, lambda tx, alias=alias, number=number: _alias(tx, wish.name, alias, number))
    return came


def _version(
    tx: Transaction, wish: ImportedModel, each: ImportedVersion, new: NewVersion, folder: str, scanned: registry.Scan
) -> int:
    try:
        registry.need_registered_model(tx.connection, tx.project, wish.name)
    except NoModel:
        registry.create_registered_model(tx, wish.name, wish.description, ())
    try:
        registry.need_version(tx.connection, tx.project, wish.name, each.number)
    except NoModel:
        registry.create_version(tx, new, folder, scanned, number=each.number)
        return 1
    return 0


def _alias(tx: Transaction, name: str, alias: str, number: int) -> None:
    try:
        registry.set_alias(tx, name, alias, number)
    except NoModel:
        return
