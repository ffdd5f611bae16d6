"""The retrain loop: reasons to train become jobs, jobs become releases, allowed releases become rollouts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from holdtrue import catalog, data, governance, pipelines
from holdtrue.core.actor import SYSTEM
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import Conflict
from holdtrue.delivery import rules, service, store
from holdtrue.delivery.model import PRODUCTION, RetrainSpec, Trigger, TriggerState
from holdtrue.delivery.readying import readiness
from holdtrue.governance import Outcome
from holdtrue.pipelines import JobState
from holdtrue.storage import Stores
from holdtrue.storage.ledger import EventFilter, Transaction, WriteContext, select_events

RAISED: Final = "trigger.raised"
_EVENTS: Final = 1000


def run_due(stores: Stores, project: str) -> list[dict[str, Any]]:
    """Do what the retrain loop owes now; return the triggers that moved.

    In one transaction a model: take in finished jobs, weigh new reasons (alarms about quality, new months of
    data), and start rollouts of challengers that their gate allows.
    """

    def look(connection: Any) -> list[tuple[RetrainSpec, int]]:
        return store.list_retrains(connection, project)

    moved: list[Trigger] = []
    for spec, seen in stores.ledger.read(look):
        unready = _unready(stores, project, spec)

        def work(tx: Transaction, spec: RetrainSpec = spec, seen: int = seen, unready: Any = unready) -> list[Trigger]:
            return [*_settle(tx, spec), *_weigh(tx, spec, seen), *_roll_out(tx, spec, unready)]

        if _is_due(stores, project, spec, seen):
            moved += stores.ledger.write(WriteContext(SYSTEM, project), work)
    return [dump(each) for each in moved]


def _is_due(stores: Stores, project: str, spec: RetrainSpec, seen: int) -> bool:
    """Tell whether there may be anything to do, so that an idle pass writes nothing."""

    def look(connection: Any) -> bool:
        open_ones = store.list_triggers(
            connection, project, service=spec.service, states=(TriggerState.QUEUED, TriggerState.DONE)
        )
        raised = EventFilter(project, after=seen, limit=1, action=RAISED)
        return (
            bool(open_ones)
            or bool(select_events(connection, raised))
            or _new_window(connection, project, spec) is not None
        )

    return stores.ledger.read(look)


def _settle(tx: Transaction, spec: RetrainSpec) -> list[Trigger]:
    """Take in the jobs of queued triggers that have ended."""
    moved: list[Trigger] = []
    queued = store.list_triggers(tx.connection, tx.project, service=spec.service, states=(TriggerState.QUEUED,))
    for trigger in queued:
        assert trigger.job is not None
        job = pipelines.job(tx.connection, tx.project, trigger.job)
        if job.state is JobState.DEAD:
            moved.append(service.end_trigger(tx, trigger, TriggerState.FAILED, job.reason or "The job died."))
        elif job.state is JobState.DONE:
            moved.append(_take_in(tx, trigger, job.result))
    return moved


def _take_in(tx: Transaction, trigger: Trigger, result: Any) -> Trigger:
    """Submit a job's result if the worker has not done so itself."""
    if not isinstance(result, dict) or not isinstance(result.get("release"), dict):
        why = "The job ended without a release."
        return service.end_trigger(tx, trigger, TriggerState.FAILED, why)
    submission = load(service.Submission, {**result, "trigger": trigger.id}, "The result of a retrain")
    service.submit(tx, submission)
    return service.need_trigger(tx.connection, tx.project, trigger.id)


def _weigh(tx: Transaction, spec: RetrainSpec, seen: int) -> list[Trigger]:
    """Raise a trigger for each new reason."""
    moved: list[Trigger] = []
    raised = select_events(tx.connection, EventFilter(tx.project, after=seen, limit=_EVENTS, action=RAISED))
    for event in raised:
        detail: dict[str, Any] = event.payload if isinstance(event.payload, dict) else {}
        if "quality" in spec.on and detail.get("service") == spec.service:
            moved.append(service.raise_trigger(tx, spec, "quality", event.object, detail))
    if raised:
        store.put_retrain(tx, spec, raised[-1].seq)
    window = _new_window(tx.connection, tx.project, spec)
    if window is not None:
        dataset, name = window
        moved.append(
            service.raise_trigger(tx, spec, "monthly", f"{dataset}:{name}", {"dataset": dataset, "window": name})
        )
    return moved


def _new_window(connection: Any, project: str, spec: RetrainSpec) -> tuple[str, str] | None:
    """Return (dataset, window) of data that came since the last look, or None.

    The first look compares with what the deployed release was trained on, the later ones with the window of
    the last monthly trigger.
    """
    if "monthly" not in spec.on:
        return None
    present = store.deployment(connection, project, spec.service, PRODUCTION)
    if present is None:
        return None
    pinned = catalog.release(connection, project, present.release).manifest.versions.get("dataset")
    if spec.dataset is None and pinned is None:
        return None
    version = None if pinned is None else catalog.get(connection, project, pinned)
    dataset = spec.dataset or (version.name if version else "")
    after = _last_window(connection, project, spec, dataset)
    if after is None and version is not None and version.name == dataset:
        after = max(version.content.get("fragments", {}), default=None)
    fresh = rules.new_windows(list(data.fragments(connection, project, dataset)), after)
    return (dataset, fresh[-1]) if fresh else None


def _last_window(connection: Any, project: str, spec: RetrainSpec, dataset: str) -> str | None:
    found = [
        each.detail["window"]
        for each in store.list_triggers(connection, project, service=spec.service)
        if each.model == spec.model and each.reason == "monthly" and each.detail.get("dataset") == dataset
    ]
    return max(found, default=None)


def _unready(stores: Stores, project: str, spec: RetrainSpec) -> dict[str, str]:
    """Return what is wrong with the features of challengers that may be rolled out, by release."""

    def look(connection: Any) -> list[Trigger]:
        return store.list_triggers(connection, project, service=spec.service, states=(TriggerState.DONE,))

    releases = [each.release for each in stores.ledger.read(look) if each.release is not None] if spec.promote else []
    found = {each: readiness(stores, project, spec.service, each).sentence for each in releases}
    return {release: sentence for release, sentence in found.items() if sentence}


def _roll_out(tx: Transaction, spec: RetrainSpec, unready: Mapping[str, str]) -> list[Trigger]:
    """Start the rollout of the newest challenger that its gate allows, unless another one is under way.

    One whose features are `unready` waits for them; its trigger says so.
    """
    if not spec.promote:
        return []
    done = store.list_triggers(tx.connection, tx.project, service=spec.service, states=(TriggerState.DONE,))
    for trigger in done:
        assert trigger.release is not None
        decision = governance.latest_decision(tx.connection, tx.project, trigger.release, PRODUCTION)
        if decision is None or decision.outcome is not Outcome.ALLOWED:
            continue
        if trigger.release in unready:
            why = f"It waits for its features. {unready[trigger.release]} To fill them: holdtrue features materialize"
            if trigger.why != why:
                store.put_trigger(tx, replace(trigger, why=why))
            continue
        try:
            promotion = service.promote(tx, spec.service, trigger.release)
        except Conflict:
            # Another rollout is under way, or the gate has changed its mind: the next pass looks again.
            continue
        why = "Its rollout began." if promotion.rollout else "It is deployed."
        return [service.end_trigger(tx, trigger, TriggerState.ROLLED_OUT, why)]
    return []
