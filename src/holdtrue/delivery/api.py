"""HTTP routes of delivery."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from holdtrue import pipelines
from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.delivery import service, store
from holdtrue.delivery.differing import differing
from holdtrue.delivery.drilling import drill
from holdtrue.delivery.estimating import estimate
from holdtrue.delivery.explaining import why
from holdtrue.delivery.history import history
from holdtrue.delivery.measuring import dora
from holdtrue.delivery.model import PRODUCTION
from holdtrue.delivery.readying import accept, readiness
from holdtrue.delivery.service import Promotion, Submission
from holdtrue.delivery.standing import describe, status, summary
from holdtrue.delivery.stopping import resume, stop
from holdtrue.door import Call, Routes
from holdtrue.storage.ledger import Transaction, WriteContext

routes = Routes("delivery")
_PROJECT = "/api/projects/{project}"
_SERVICE = _PROJECT + "/services/{service}"


@dataclass(frozen=True, slots=True)
class PromoteBody:
    """Name the release and where it shall go; `stale` is why it may although its features are not ready."""

    release: str
    environment: str = PRODUCTION
    stale: str = ""


@dataclass(frozen=True, slots=True)
class RollbackBody:
    """Say where, and why."""

    reason: str = ""
    environment: str = PRODUCTION


@dataclass(frozen=True, slots=True)
class StopBody:
    """Say why, where, and what is answered meanwhile (None: the declared constant)."""

    reason: str
    environment: str = PRODUCTION
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class TriggerBody:
    """Ask for a retrain."""

    model: str
    reason: str = ""


@routes.get(_PROJECT + "/status", Permission.STATUS_READ, summary="Show how a project stands.")
def get_status(call: Call) -> Any:
    """Return services, deployments, rollouts, and what waits for somebody."""
    return call.read(lambda connection: status(connection, call.project))


@routes.get(_PROJECT + "/services", Permission.DEPLOYMENTS_READ, summary="List services.")
def list_services(call: Call) -> Any:
    """Return the declared services."""
    found = call.read(lambda connection: store.list_services(connection, call.project))
    return _listing([dump(each) for each in found])


@routes.get(_SERVICE, Permission.DEPLOYMENTS_READ, summary="Show a service.")
def get_service(call: Call) -> Any:
    """Return a service with its deployments, their history and its rollouts."""
    name = call.path["service"]

    def look(connection: sa.Connection) -> Any:
        declared = service.need_service(connection, call.project, name)
        deployed = store.list_deployments(connection, call.project)
        return {
            **dump(declared),
            "deployments": [describe(each) for each in deployed if each.service == name],
            "changes": [dump(each) for each in store.list_changes(connection, call.project, name)],
            "rollouts": [summary(each) for each in store.list_rollouts(connection, call.project, service=name)],
            "stops": [dump(each) for each in store.list_stops(connection, call.project) if each.service == name],
        }

    return call.read(look)


@routes.post(_SERVICE + "/promote", Permission.DEPLOYMENTS_WRITE, summary="Bring a release in.")
def post_promote(call: Call, body: PromoteBody) -> Any:
    """Deploy a release, or start the rollout through which it takes over.

    A release that brings views whose newest rows are older than they may be is refused in production, unless `stale`
    says why it may go; `notes` name new views that have no rows.
    """
    name = call.path["service"]
    ready = readiness(call.stores, call.project, name, body.release, body.environment)

    def work(tx: Transaction) -> Any:
        promotion = service.promote(tx, name, body.release, body.environment)
        accept(tx, name, body.release, body.environment, ready, body.stale)
        return {**_promotion(promotion), "notes": ready.notes}

    done = call.write(work)
    if done["rollout"] is not None:
        done["estimate"] = _estimate(call, name, body.environment)
    return done


@routes.post(_SERVICE + "/rollback", Permission.DEPLOYMENTS_WRITE, summary="Go back to the release before.")
def post_rollback(call: Call, body: RollbackBody) -> Any:
    """End the rollout under way, or go back to the release deployed before."""
    name = call.path["service"]
    return call.write(lambda tx: _promotion(service.rollback(tx, name, body.reason, body.environment)))


@routes.post(_SERVICE + "/stop", Permission.SERVICES_STOP, summary="Switch a service off.")
def post_stop(call: Call, body: StopBody) -> Any:
    """Let no model of a service answer any more; its safe default does, until it is resumed."""
    name = call.path["service"]
    return call.write(lambda tx: dump(stop(tx, name, body.reason, body.environment, body.answer)))


@routes.post(_SERVICE + "/resume", Permission.DEPLOYMENTS_WRITE, summary="Let a service answer again.")
def post_resume(call: Call, body: RollbackBody) -> Any:
    """Take a stop back: what is deployed answers again."""
    name = call.path["service"]
    return call.write(lambda tx: describe(resume(tx, name, body.reason, body.environment)))


@routes.post(_SERVICE + "/drill", Permission.DEPLOYMENTS_WRITE, summary="Try whether one could go back.")
def post_drill(call: Call, body: RollbackBody) -> Any:
    """Make the earlier release ready without serving it, and record how long that took."""
    context = WriteContext(call.actor, call.project)
    return dump(drill(call.stores, call.project, call.path["service"], body.environment, context=context))


@routes.get(_PROJECT + "/deployments", Permission.DEPLOYMENTS_READ, summary="List deployments.")
def list_deployments(call: Call) -> Any:
    """Return what is deployed where, and how far it is."""
    found = call.read(lambda connection: store.list_deployments(connection, call.project))
    return _listing([describe(each) for each in found])


@routes.get(_PROJECT + "/rollouts", Permission.ROLLOUTS_READ, summary="List rollouts, newest first.")
def list_rollouts(call: Call) -> Any:
    """Return rollouts; the query may name a `service`."""
    wanted = call.query.get("service")
    found = call.read(lambda connection: store.list_rollouts(connection, call.project, service=wanted))
    return _listing([summary(each) for each in found])


@routes.get(_PROJECT + "/rollouts/{rollout}", Permission.ROLLOUTS_READ, summary="Show a rollout.")
def get_rollout(call: Call) -> Any:
    """Return a rollout with its recorded steps."""
    name = call.path["rollout"]

    def look(connection: sa.Connection) -> Any:
        found = store.rollout(connection, call.project, name)
        recorded = store.list_steps(connection, call.project, name)
        return {**summary(found), "history": [dump(each) for each in recorded]}

    return call.read(look)


@routes.get(
    _PROJECT + "/rollouts/{rollout}/differences",
    Permission.PREDICTIONS_READ,
    summary="Show how a rollout's two releases answer differently.",
)
def get_differences(call: Call) -> Any:
    """Return how the answers of both releases differ, on the whole, by slice, and in time taken."""
    return dump(differing(call.stores, call.project, call.path["rollout"]))


@routes.get(_SERVICE + "/estimate", Permission.ROLLOUTS_READ, summary="Say how long a rollout would take.")
def get_estimate(call: Call) -> Any:
    """Return about how long a rollout of an equal release would take at the present traffic of an `environment`."""
    return _estimate(call, call.path["service"], call.query.get("environment", PRODUCTION))


def _estimate(call: Call, name: str, environment: str) -> Any:
    now = call.stores.clock.now()
    return dump(call.read(lambda connection: estimate(connection, call.project, name, now, environment)))


@routes.get(_SERVICE + "/losses", Permission.PREDICTIONS_READ, summary="Return a rollout's paired losses by day.")
def get_losses(call: Call) -> Any:
    """Return how the losses of both releases differed; the query may name a `rollout` (the newest is taken)."""
    return dump(history(call.stores, call.project, call.path["service"], call.query.get("rollout")))


@routes.get(_PROJECT + "/dora", Permission.STATUS_READ, summary="Measure how changes reach production.")
def get_dora(call: Call) -> Any:
    """Return DORA's five measures, of all changes and by kind; the query may name `days`, `service`, `environment`."""
    text = call.query.get("days", "90")
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= 36_500):
        raise InvalidInput(f"The days {text[:20]!r} cannot be used.", mend="Give a whole number from 1 to 36500.")
    until = call.stores.clock.now()
    since = until - timedelta(days=int(text))
    where = call.query.get("environment", PRODUCTION)
    wanted = call.query.get("service")
    found = call.read(
        lambda connection: dora(connection, call.project, since, until, service=wanted, environment=where)
    )
    return {"since": since.isoformat(), "until": until.isoformat(), **_listing([dump(each) for each in found])}


@routes.get(_PROJECT + "/triggers", Permission.STATUS_READ, summary="List triggers, newest first.")
def list_triggers(call: Call) -> Any:
    """Return reasons to retrain and what became of them; the query may name a `service`."""
    wanted = call.query.get("service")
    found = call.read(lambda connection: store.list_triggers(connection, call.project, service=wanted, limit=500))
    return _listing([dump(each) for each in found])


@routes.post(_PROJECT + "/triggers", Permission.JOBS_WRITE, summary="Ask for a retrain.")
def post_trigger(call: Call, body: TriggerBody) -> Any:
    """Ask for a retrain by hand; the answer tells if it was refused, and why."""
    return call.write(lambda tx: dump(service.request_retrain(tx, body.model, body.reason)))


@routes.post(_PROJECT + "/submissions", Permission.JOBS_LEASE, summary="Submit what a run made.")
def post_submission(call: Call, body: Submission) -> Any:
    """Take in versions, a release and its evidence, and ask the gate, in one transaction."""
    missing = [digest for version in body.versions for digest in version.blobs if not call.stores.blobs.has(digest)]
    if missing:
        raise InvalidInput(
            "The submission names bytes that are not in the store.",
            why=f"There is no blob {missing[0]}.",
            mend="Put the blobs into the store first, then submit again.",
            facts={"missing": missing[:10]},
        )

    def work(tx: Transaction) -> Any:
        # A program submits what a leased job made, and nothing else.
        if call.actor.kind == "service":
            pipelines.need_leased(tx.connection, call.project, body.run or "")
        return dump(service.submit(tx, body))

    return call.write(work)


@routes.get(_PROJECT + "/why/{prediction}", Permission.PREDICTIONS_READ, summary="Explain a prediction.")
def get_why(call: Call) -> Any:
    """Return everything that made one prediction what it was; `contributions=true` adds what each feature did."""
    wanted = call.query.get("contributions", "false")
    if wanted not in ("true", "false"):
        raise InvalidInput("The query's `contributions` is true or false.")
    return why(call.stores, call.project, call.path["prediction"], contributions=wanted == "true")


def _promotion(found: Promotion) -> dict[str, Any]:
    return {
        "deployment": describe(found.deployment),
        "rollout": None if found.rollout is None else summary(found.rollout),
    }


def _listing(items: list[Any]) -> dict[str, Any]:
    return {"items": items, "next": None}
