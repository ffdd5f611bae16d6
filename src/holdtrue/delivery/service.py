"""Use cases of delivery: declare, submit, promote, roll back, ask for a retrain, look."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog, governance, monitoring, pipelines
from holdtrue.catalog import Manifest
from holdtrue.core.canonical import content_hash
from holdtrue.core.codec import dump
from holdtrue.core.errors import Conflict, InvalidInput, NotFound
from holdtrue.core.ids import check_name, new_id
from holdtrue.core.jobs import JobKind
from holdtrue.delivery import bundles, changing, rules, store
from holdtrue.delivery.model import (
    PRODUCTION,
    TRIGGER_MOVES,
    Deployment,
    NothingEarlier,
    RetrainSpec,
    Rollout,
    RolloutRunning,
    RolloutState,
    Service,
    ServiceSpec,
    Trigger,
    TriggerState,
    move,
)
from holdtrue.delivery.privacy import judging
from holdtrue.governance import Decision, NoPolicy
from holdtrue.storage.ledger import Transaction


@dataclass(frozen=True, slots=True)
class Measurement:
    """Carry evidence about the release that comes with it, or about `subject`, a version it pins."""

    kind: str
    content: Any
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Carry a version to register; `blobs` must be in the store already."""

    kind: str
    name: str
    content: Any
    blobs: tuple[str, ...] = ()
    derived_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewManifest:
    """Carry what a release pins."""

    service: str
    commit: str = ""
    environment_lock: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    config: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Submission:
    """Carry all that a run made: versions, the release that pins them, evidence, and who wrote it.

    `trigger` names the trigger the run answers, `environment` the gate that is asked at once.
    """

    release: NewManifest
    evidence: tuple[Measurement, ...] = ()
    versions: tuple[NewVersion, ...] = ()
    author: str = ""
    run: str | None = None
    trigger: str | None = None
    environment: str = PRODUCTION


@dataclass(frozen=True, slots=True)
class Submitted:
    """Tell what became of a submission: the release's id and what the gate said (None: no policy)."""

    release: str
    versions: tuple[str, ...]
    evidence: tuple[str, ...]
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Promotion:
    """Tell what a promotion brought: a deployment, and the rollout through which it comes, if one is needed."""

    deployment: Deployment
    rollout: Rollout | None


def declare(tx: Transaction, services: Iterable[ServiceSpec] = (), retrains: Iterable[RetrainSpec] = ()) -> list[str]:
    """Set services and retrain declarations; return the names of those that changed.

    Raises ConfigurationError for what could not work. A rollout under way keeps the canary it began with.
    """
    changed: list[str] = []
    for spec in services:
        rules.check_service(spec)
        before = store.service(tx.connection, tx.project, spec.name)
        if before is None or before.spec != spec:
            store.put_service(tx, spec)
            old = None if before is None else content_hash(dump(before.spec))
            tx.emit("service.declared", spec.name, dump(spec), before=old, after=content_hash(dump(spec)))
            changed.append(spec.name)
        monitoring.watch(tx, spec.name)
    known = {spec.model: (spec, seen) for spec, seen in store.list_retrains(tx.connection, tx.project)}
    for spec in retrains:
        rules.check_retrain_spec(spec)
        need_service(tx.connection, tx.project, spec.service)
        before_spec, seen = known.get(spec.model, (None, store.newest_event(tx.connection)))
        if before_spec != spec:
            store.put_retrain(tx, spec, seen)
            tx.emit("retrain.declared", spec.model, dump(spec), after=content_hash(dump(spec)))
            changed.append(spec.model)
    return changed


def check_removable(connection: sa.Connection, project: str, name: str) -> None:
    """Raise Conflict for a service that is deployed: taking it out would end its answers without a decision."""
    for each in store.list_deployments(connection, project):
        if each.service == name:
            raise Conflict(
                f"The service “{name}” cannot be removed: it is deployed.",
                why=f"{each.release} is its release in {each.environment}, and requests may come for it.",
                mend="Keep the service in the project file; what is deployed is only replaced, by another release.",
                facts={"service": name, "environment": each.environment, "release": each.release},
            )


def remove_service(tx: Transaction, name: str, reason: str) -> None:
    """Take the declaration of a service back, which is no longer watched then; Conflict if it is deployed."""
    check_removable(tx.connection, tx.project, name)
    if store.drop_service(tx, name):
        monitoring.unwatch(tx, name)
        tx.emit("service.removed", name, {}, reason=reason)


def remove_retrain(tx: Transaction, model: str, reason: str) -> None:
    """Stop retraining a model; a training that is queued already is finished, and does not roll out by itself."""
    if store.drop_retrain(tx, model):
        tx.emit("retrain.removed", model, {}, reason=reason)


def submit(tx: Transaction, submission: Submission) -> Submitted:
    """Take in a run's result in one transaction: versions, release, evidence, and the gate's answer.

    The same submission again changes nothing. The one who submits, the author and whoever asked for the
    training are noted: none of them may approve.
    """
    actor = tx.context.actor
    versions = [
        catalog.register(tx, each.kind, each.name, each.content, blobs=each.blobs, derived_from=each.derived_from)
        for each in submission.versions
    ]
    given = submission.release
    manifest = Manifest(
        service=given.service,
        commit=given.commit,
        environment_lock=given.environment_lock,
        versions=given.versions,
        config=given.config,
    )
    author = submission.author or actor.owner
    release = catalog.create_release(tx, manifest, author=author, run=submission.run)
    governance.note_contributors(tx, release.id, [author], "author")
    governance.note_contributors(tx, release.id, [actor.id, actor.owner], "trainer")
    for each in submission.evidence:
        governance.check_stated(each.kind)
    evidence = [
        governance.record_evidence(tx, each.kind, each.subject or release.id, each.content, run=submission.run)
        for each in submission.evidence
    ]
    used = judging.judged(tx.connection, tx.project, release)
    if used is not None:
        evidence.append(governance.record_evidence(tx, judging.KIND, release.id, used, run=submission.run))
    if submission.trigger is not None:
        _answer_trigger(tx, submission.trigger, release.id)
    try:
        decision = governance.gate(tx, release.id, submission.environment)
    except NoPolicy:
        decision = None
    return Submitted(release.id, tuple(each.id for each in versions), tuple(each.id for each in evidence), decision)


def _answer_trigger(tx: Transaction, name: str, release: str) -> None:
    trigger = need_trigger(tx.connection, tx.project, name)
    governance.note_contributors(tx, release, [trigger.requester], "requester")
    if trigger.state is TriggerState.DONE and trigger.release == release:
        return
    end_trigger(tx, trigger, TriggerState.DONE, f"It made the release {release}.", release=release)


def promote(tx: Transaction, service: str, release_id: str, environment: str = PRODUCTION) -> Promotion:
    """Bring a release into an environment: at once if it is the first or the service says so, else by a rollout.

    The gate decides again in this transaction. Asking again for what is deployed or under way changes
    nothing. Raises NotAllowed, NoPolicy, ChangeFrozen, NotDeployable, RolloutRunning, NotFound.
    """
    declared = need_service(tx.connection, tx.project, service)
    check_name(environment, "environment name")
    release = catalog.release(tx.connection, tx.project, release_id)
    if release.service != service:
        raise InvalidInput(
            f"The release {release_id} belongs to the service “{release.service}”, not to “{service}”.",
            mend=f"Promote it there, or choose a release of {service}.",
        )
    present = store.deployment(tx.connection, tx.project, service, environment)
    running = store.running_rollout(tx.connection, tx.project, service, environment)
    if running is not None and present is not None:
        if running.challenger == release_id:
            return Promotion(present, running)
        where = "" if environment == PRODUCTION else f" -e {environment}"
        raise RolloutRunning(
            f"The service {service} has a rollout under way in {environment}: {running.challenger}.",
            why="Two challengers at once could not be told apart.",
            mend=f"Wait until it ends, or end it with `holdtrue rollback {service}{where}`.",
            facts={"rollout": running.id},
        )
    if present is not None and present.release == release_id:
        return Promotion(present, None)
    closed = governance.closed(tx.connection, tx.project, environment, tx.now)
    if closed is not None:
        raise closed
    decision = governance.need_allowed(tx, release_id, environment)
    # Without a key there is no telling rows apart, so a model file that is served as it is replaces the one before.
    keyless = declared.spec.kind == "model" and not declared.spec.model
    if present is None or keyless or environment in declared.spec.at_once:
        bundles.check_servable(tx.connection, tx.project, release, None)
        first = changing.set_release(
            tx,
            service=service,
            environment=environment,
            release=release_id,
            decision=decision.id,
            action="deployed",
        )
        return Promotion(first, None)
    champion = catalog.release(tx.connection, tx.project, present.release)
    bundles.check_servable(tx.connection, tx.project, release, champion)
    canary = declared.spec.rollout
    return Promotion(present, changing.start_rollout(tx, release, champion.id, environment, decision.id, canary))


def rollback(tx: Transaction, service: str, reason: str, environment: str = PRODUCTION) -> Promotion:
    """End the rollout under way, or else go back to the release deployed before.

    It needs no gate: what it goes back to was allowed when it came. Raises NothingEarlier, NotFound.
    """
    need_service(tx.connection, tx.project, service)
    present = store.deployment(tx.connection, tx.project, service, environment)
    if present is None:
        raise NotFound.of("deployment", f"{service} in {environment}")
    running = store.running_rollout(tx.connection, tx.project, service, environment)
    if running is not None:
        why = f"{tx.context.actor.name} ended it: {reason or 'no reason given'}."
        ended = changing.end_rollout(tx, running, RolloutState.ROLLED_BACK, why, {})
        return Promotion(present, ended)
    back = rules.earlier(store.list_changes(tx.connection, tx.project, service, environment))
    if back is None:
        raise nothing_earlier(service, environment)
    row = changing.set_release(
        tx,
        service=service,
        environment=environment,
        release=back.release,
        decision=back.decision,
        action="rolled_back",
        reason=reason,
    )
    return Promotion(row, None)


def nothing_earlier(service: str, environment: str) -> NothingEarlier:
    """Return the error of a service that cannot go back."""
    return NothingEarlier(
        f"The service {service} has no earlier release in {environment}.",
        why="What is deployed is the first one that stands, or nothing is.",
        mend="Promote another release.",
    )


def request_retrain(tx: Transaction, model: str, reason: str) -> Trigger:
    """Ask by hand for a retrain; the same limits hold, and a refusal is recorded."""
    for spec, _ in store.list_retrains(tx.connection, tx.project):
        if spec.model == model:
            source = new_id("ask", tx.now)
            return raise_trigger(tx, spec, "manual", source, {"text": reason})
    raise NotFound.of("retrain declaration", model)


def raise_trigger(tx: Transaction, spec: RetrainSpec, reason: Any, source: str, detail: Mapping[str, Any]) -> Trigger:
    """Weigh a reason to retrain: queue the job, or record why not. One source raises one trigger."""
    known = store.trigger_from(tx.connection, tx.project, spec.model, reason, source)
    if known is not None:
        return known
    past = store.list_triggers(tx.connection, tx.project, service=spec.service)
    refused = rules.check_retrain(spec, past, tx.now)
    present = store.deployment(tx.connection, tx.project, spec.service, PRODUCTION)
    name = new_id("trg", tx.now)
    job = None
    if not refused:
        payload = {
            "model": spec.model,
            "service": spec.service,
            "trigger": name,
            "reason": reason,
            "detail": dict(detail),
            "champion": None if present is None else present.release,
        }
        job = pipelines.enqueue(tx, JobKind.RETRAIN, payload, unique_key=f"{JobKind.RETRAIN}:{spec.model}:{name}").id
    trigger = Trigger(
        id=name,
        service=spec.service,
        model=spec.model,
        reason=reason,
        source=source,
        detail=dict(detail),
        state=TriggerState.REFUSED if refused else TriggerState.QUEUED,
        why=refused or f"A retrain of {spec.model} was queued.",
        job=job,
        release=None,
        requester=tx.context.actor.owner,
        raised_at=tx.now,
        ended_at=tx.now if refused else None,
    )
    store.put_trigger(tx, trigger)
    tx.emit(
        "retrain.refused" if refused else "retrain.queued",
        name,
        {"model": spec.model, "service": spec.service, "reason": reason, "source": source, "job": job},
        reason=trigger.why,
    )
    if detail.get("incident"):
        monitoring.note(tx, detail["incident"], trigger.why, {"trigger": name, "job": job})
    return trigger


def end_trigger(
    tx: Transaction, trigger: Trigger, state: TriggerState, why: str, *, release: str | None = None
) -> Trigger:
    """Move a trigger on."""
    row = Trigger(
        id=trigger.id,
        service=trigger.service,
        model=trigger.model,
        reason=trigger.reason,
        source=trigger.source,
        detail=trigger.detail,
        state=move("trigger", TRIGGER_MOVES, trigger.state, state),
        why=why,
        job=trigger.job,
        release=release or trigger.release,
        requester=trigger.requester,
        raised_at=trigger.raised_at,
        ended_at=tx.now,
    )
    store.put_trigger(tx, row)
    tx.emit(f"retrain.{state.value}", trigger.id, {"release": row.release, "job": row.job}, reason=why)
    return row


def need_service(connection: sa.Connection, project: str, name: str) -> Service:
    """Return a declared service; raise NotFound."""
    found = store.service(connection, project, name)
    if found is None:
        raise NotFound.of("service", name)
    return found


def need_trigger(connection: sa.Connection, project: str, name: str) -> Trigger:
    """Return a trigger; raise NotFound."""
    found = store.trigger(connection, project, name)
    if found is None:
        raise NotFound.of("trigger", name)
    return found
