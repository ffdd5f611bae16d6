"""The kill switch: what answers while a service is switched off is its safe default, and no model is asked."""

import math

import sqlalchemy as sa

from holdtrue import catalog, monitoring
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.core.ids import check_name
from holdtrue.delivery import bundles, store
from holdtrue.delivery.model import PRODUCTION, Deployment, Stop
from holdtrue.storage.ledger import Transaction

KIND = "stop"
_REASON = 500
_WORDS = 4000


def stop(tx: Transaction, service: str, reason: str, environment: str = PRODUCTION, answer: str | None = None) -> Stop:
    """Switch a service off in an environment, whatever is rolling out there; it stays so until it is resumed.

    `answer` is the safe default for that time: a number in place of the declared constant, or the words of an
    application. Needs no gate. Again with another reason or answer, it replaces them. Raises NotFound, InvalidInput.
    """
    present = _deployed(tx.connection, tx.project, service, environment)
    reason = reason.strip()
    if not 0 < len(reason) <= _REASON or "\n" in reason:
        raise InvalidInput("Say in one line why it is switched off.", why="Whoever is refused is told.")
    _check_answer(tx.connection, tx.project, present, answer)
    before = store.stop(tx.connection, tx.project, service, environment)
    actor = tx.context.actor
    row = Stop(service, environment, reason, answer, actor.id, actor.name, tx.now)
    if before is not None and (before.reason, before.answer) == (reason, answer):
        return before
    store.put_stop(tx, row)
    facts = {"environment": environment, "release": present.release, "answer": answer}
    tx.emit("service.stopped", service, facts, before="stopped" if before else "answering", reason=reason)
    monitoring.open_incident(
        tx,
        service=service,
        kind=KIND,
        title=f"{service} was switched off in {environment}",
        release=present.release,
        text=reason,
        data={"environment": environment},
    )
    tx.seal()
    return row


def resume(tx: Transaction, service: str, reason: str = "", environment: str = PRODUCTION) -> Deployment:
    """Let a service answer again with what is deployed; raise NotFound if it is not switched off there."""
    if store.stop(tx.connection, tx.project, service, environment) is None:
        raise NotFound(
            f"The service {service} is not switched off in {environment}.",
            mend="See what is: holdtrue status",
            facts={"service": service, "environment": environment},
        )
    present = _deployed(tx.connection, tx.project, service, environment)
    store.drop_stop(tx, service, environment)
    facts = {"environment": environment, "release": present.release}
    tx.emit("service.resumed", service, facts, before="stopped", reason=reason)
    # The environments of a service share one incident of a kind: it ends with the last switch.
    if not any(each.service == service for each in store.list_stops(tx.connection, tx.project)):
        why = reason or f"{tx.context.actor.name} let it answer again in {environment}."
        monitoring.resolve_service(tx, service, why, kinds=(KIND,))
    tx.seal()
    return present


def _deployed(connection: sa.Connection, project: str, service: str, environment: str) -> Deployment:
    check_name(environment, "environment name")
    present = store.deployment(connection, project, service, environment)
    if present is None:
        raise NotFound.of("deployment", f"{service} in {environment}")
    return present


def _check_answer(connection: sa.Connection, project: str, present: Deployment, answer: str | None) -> None:
    """Raise InvalidInput for a safe default that could not be given."""
    if answer is None:
        return
    release = catalog.release(connection, project, present.release)
    if bundles.is_application(release):
        if not 0 < len(answer.strip()) <= _WORDS:
            raise InvalidInput(f"The words of an application are 1 to {_WORDS} letters.")
        return
    classes = bundles.bundle(connection, project, release).classes
    if classes and constant(answer) not in range(len(classes)):
        numbered = ", ".join(f"{number} ({name})" for number, name in enumerate(classes))
        raise InvalidInput(
            f"{answer[:40]!r} is the number of no class of {present.service}.", mend=f"Give one of: {numbered[:300]}."
        )
    constant(answer)


def constant(answer: str) -> float:
    """Return the number that a model's service answers with; raise InvalidInput for a text that is none."""
    try:
        value = float(answer)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(
            f"{answer[:40]!r} is no number, and a model's service answers with one.", mend="Give one like 0.2."
        )
    return value
