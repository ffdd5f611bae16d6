"""Bring runs over as they were: ids, moments and status are kept; bringing one again changes nothing twice."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import sqlalchemy as sa

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Conflict, NotFound
from holdtrue.storage.ledger import Transaction, WriteContext
from holdtrue.storage.stores import Stores
from holdtrue.tracking import artifacts, registry, rules, service, store
from holdtrue.tracking.model import Batch, DatasetInput, Metric, ModelLink, NoExperiment, Pair, RunInfo, RunStatus
from holdtrue.tracking.registry import LoggedModel, ModelVersion, NewVersion, NoModel

Note: TypeAlias = Callable[[Transaction, ModelVersion, registry.Scan], None]
"""Keep what the scan of a version's bytes found."""


@dataclass(frozen=True, slots=True)
class ImportedExperiment:
    """Carry an experiment's name, tags, and whether it was deleted, which is said once its runs are here."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class ImportedDataset:
    """Carry a dataset that a run used, and for what (its tags)."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str = ""
    profile: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ImportedLink:
    """Carry that a run used (“input”) or made (“output”) a logged model."""

    model: str
    direction: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class ImportedLoggedModel:
    """Carry a model that a run logged, under its own id; `metrics` are [key, value, timestamp, step, name, digest]."""

    id: str
    experiment: str
    name: str
    created_ms: int
    updated_ms: int
    status: str = "LOGGED_MODEL_READY"
    model_type: str = ""
    source_run: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    metrics: tuple[tuple[str, float | str, int, int, str, str], ...] = ()


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
    datasets: tuple[ImportedDataset, ...] = ()
    models: tuple[ImportedLink, ...] = ()


@dataclass(frozen=True, slots=True)
class Points:
    """Carry up to 1,000 points of a run's metrics: key, value (or "NaN"), timestamp, step."""

    points: tuple[tuple[str, float | str, int, int], ...]


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """Carry a model version: its number, the run or logged model it came from, and where its files stood there."""

    number: int
    run: str = ""
    source: str = ""
    description: str = ""
    model: str = ""
    stage: str = "None"
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """Carry a registered model of another system."""

    name: str
    description: str = ""
    versions: tuple[ImportedVersion, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict[str, int])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


def bring_experiment(tx: Transaction, wish: ImportedExperiment) -> dict[str, Any]:
    """Make sure of an experiment of this name with its tags; delete it if it was deleted. Returns id and state."""
    try:
        place = service.find_experiment(tx.connection, tx.project, name=wish.name)
        service.ensure_default(tx)
    except NoExperiment:
        place = service.create_experiment(tx, wish.name)
    if place.lifecycle == "active":
        for key, value in wish.tags.items():
            service.set_experiment_tag(tx, place.id, key, value)
        if wish.deleted:
            service.change_experiment_lifecycle(tx, place.id, "deleted")
    return {"id": place.id, "deleted": wish.deleted or place.lifecycle != "active"}


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
    elif (known.status, known.end_ms) != (wish.status, wish.end_ms) and known.lifecycle == "active":
        # It was still going on when it came over before.
        store.change_run(tx, known.number, status=wish.status.value, end_ms=wish.end_ms)
    if known.lifecycle == "active":
        params = tuple(rules.param(*each) for each in wish.params.items())
        tags = tuple(rules.pair(key, value, 100_000, "tag") for key, value in wish.tags.items())
        for start in range(0, max(len(params), len(tags), 1), 100):
            batch = Batch(wish.id, params=params[start : start + 100], tags=tags[start : start + 100])
            service.log(tx, batch)
        datasets = [
            DatasetInput(
                each.name, each.digest, each.source_type, each.source, each.schema, each.profile, _pairs(each.tags)
            )
            for each in wish.datasets
        ]
        links = [
            ModelLink(each.model, "input" if each.direction == "input" else "output", each.step) for each in wish.models
        ]
        service.log_inputs(tx, wish.id, datasets, links)
    return {"id": wish.id, "artifact_uri": known.artifact_uri}


def bring_points(tx: Transaction, run: str, wish: Points) -> int:
    """Add points to a run's history; those that are there already are not doubled."""
    rules.check_batch(len(wish.points), 0, 0)
    metrics = tuple(rules.metric(key, value, timestamp, step) for key, value, timestamp, step in wish.points)
    service.log(tx, Batch(run, metrics))
    return len(metrics)


def _pairs(values: Mapping[str, str]) -> tuple[Pair, ...]:
    return tuple(Pair(*each) for each in values.items())


def count_run(connection: sa.Connection, project: str, run: str) -> dict[str, Any]:
    """Count what a run holds, with a digest of it, and each of its artifacts by path."""
    info = service.find_run_info(connection, project, run)
    params = store.pairs_of(connection, project, store.run_params, [info.number])[info.number]
    tags = store.pairs_of(connection, project, store.run_tags, [info.number])[info.number]
    datasets = store.datasets_of(connection, project, [info.number]).get(info.number, [])
    points = store.points_of(connection, project, info.number)
    return {
        "points": len(points),
        "params": len(params),
        "tags": len(tags),
        "datasets": len(datasets),
        "deleted": info.lifecycle == "deleted",
        "status": info.status.value,
        "digest": digest_of(points, params, tags, [(each.name, each.digest) for each in datasets]),
        "artifacts": _files(connection, project, info.artifact_uri),
    }


def count_logged_model(connection: sa.Connection, project: str, model: str) -> dict[str, Any]:
    """Count what a logged model holds, with each of its artifacts by path."""
    found = registry.need_logged_model(connection, project, model)
    return {
        "params": len(found.params),
        "tags": len(found.tags),
        "artifacts": _files(connection, project, found.artifact_uri),
    }


def _files(connection: sa.Connection, project: str, uri: str) -> dict[str, str]:
    folder = registry.folder_of(uri)
    return {name: each.digest for name, each in artifacts.files_below(connection, project, folder)}


def digest_of(
    points: Iterable[Metric],
    params: Iterable[tuple[str, str]],
    tags: Iterable[tuple[str, str]],
    datasets: Iterable[tuple[str, str]],
) -> str:
    """Return the hash of everything logged to a run, in whatever order it comes; a repeated point counts once."""
    parts: list[bytes] = []
    for kind, rows in (("point", points), ("param", params), ("tag", tags), ("dataset", datasets)):
        parts += sorted({repr((kind, *row)).encode() for row in rows})
    return bytes_hash(b"\n".join(parts))


def bring_logged_model(tx: Transaction, wish: ImportedLoggedModel) -> dict[str, Any]:
    """Write a logged model down under its own id, unless it is there already; its files come after it."""
    registry.check_logged_model_id(wish.id)
    place = service.find_experiment(tx.connection, tx.project, name=wish.experiment)
    try:
        known = registry.need_logged_model(tx.connection, tx.project, wish.id)
    except NoModel:
        uri = f"{place.artifact_location}/models/{wish.id}/artifacts"
        known = LoggedModel(
            wish.id, place.id, wish.name, wish.created_ms, wish.updated_ms, uri, wish.status, wish.model_type,
            wish.source_run, _pairs(wish.params), _pairs(wish.tags),
        )  # fmt: skip
        registry.insert_logged_model(tx, known)
        tx.emit("model.imported", wish.id, {"name": wish.name, "run": wish.source_run})
    metrics = [
        (wish.id, rules.metric(key, value, timestamp, step), name, digest)
        for key, value, timestamp, step, name, digest in wish.metrics
    ]
    store.add_model_metrics(tx, wish.source_run, metrics)
    return {"id": wish.id, "artifact_uri": known.artifact_uri}


def bring_model(stores: Stores, context: WriteContext, wish: ImportedModel, note: Note) -> int:
    """Register the versions of a model whose files came with their runs, under the numbers they had.

    Versions whose files are nobody's here are left out: their source is no folder of a run and no logged model, or
    these are gone. So are those here already. `note` keeps the scan of each version, in the transaction that registers
    it. Returns how many came.
    """
    plain = replace(context, idempotency_key=None, request_digest=None)
    ledger, project = stores.ledger, context.project
    prompt = wish.tags.get(registry.PROMPT_TAG, "").lower() == "true"
    ledger.write(plain, lambda tx: _model(tx, wish))
    came = 0
    for each in wish.versions:
        new = _new_version(wish.name, each, prompt)
        if new is None:
            continue
        folder, scanned = "", registry.Scan("clean", "prompt", 0, 0, "", "")
        if not prompt:
            try:
                folder = ledger.read(lambda c, new=new: registry.resolve_source(c, project, new))
            except NotFound:
                # The run or logged model it came from is gone for good.
                continue
            files = ledger.read(lambda c, folder=folder: artifacts.files_below(c, project, folder))
            scanned = registry.scan(stores.blobs, [(name, one.digest, one.size) for name, one in files])
        came += ledger.write(
            plain,
            lambda tx, new=new, folder=folder, scanned=scanned, each=each: _version(
                tx, each, new, folder, scanned, note
            ),
        )
    for alias, number in wish.aliases.items():
        if alias.lower() != registry.PRODUCTION:
            ledger.write(plain, lambda tx, alias=alias, number=number: _alias(tx, wish.name, alias, number))
    return came


def _model(tx: Transaction, wish: ImportedModel) -> None:
    try:
        registry.need_registered_model(tx.connection, tx.project, wish.name)
    except NoModel:
        registry.create_registered_model(tx, wish.name, wish.description, _pairs(wish.tags))


def _new_version(name: str, each: ImportedVersion, prompt: bool) -> NewVersion | None:
    """Return the version to register, with a source of ours; None if its files are nobody's here."""
    tags = _pairs(each.tags)
    if prompt:
        return NewVersion(name, "dummy-source", description=each.description, tags=tags)
    if each.model:
        return NewVersion(name, f"models:/{each.model}", each.run, each.model, each.description, tags=tags)
    inside = each.source.partition("/artifacts/")[2] if each.run else ""
    if not inside and each.run and each.source.startswith(f"runs:/{each.run}/"):
        inside = each.source.removeprefix(f"runs:/{each.run}/")
    if not inside:
        return None
    return NewVersion(name, f"runs:/{each.run}/{inside}", each.run, description=each.description, tags=tags)


def _version(
    tx: Transaction, each: ImportedVersion, new: NewVersion, folder: str, scanned: registry.Scan, note: Note
) -> int:
    try:
        registry.need_version(tx.connection, tx.project, new.name, each.number)
    except NoModel:
        note(tx, registry.create_version(tx, new, folder, scanned, number=each.number), scanned)
        # The stage of production is given here by an approved release only, as its alias is.
        if each.stage in ("Staging", "Archived"):
            registry.move_stage(tx, new.name, each.number, registry.check_stage(each.stage), archive=False)
        return 1
    return 0


def _alias(tx: Transaction, name: str, alias: str, number: int) -> None:
    try:
        registry.set_alias(tx, name, alias, number)
    except NoModel:
        return
