"""Incidents: open one or add to the one that is open, acknowledge, note, resolve."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import new_id
from holdtrue.monitoring.model import Incident, IncidentState, move
from holdtrue.monitoring.store import add_entry, put_incident, read_incident, read_incidents
from holdtrue.storage.ledger import Transaction

_TEXT_LIMIT = 4000


def open_incident(
    tx: Transaction,
    *,
    service: str,
    kind: str,
    title: str,
    text: str,
    release: str = "",
    data: Mapping[str, Any] | None = None,
) -> Incident:
    """Open an incident of `kind` for a service, or add `text` to the one that is not resolved yet.

    The owner is who acknowledges it; until then nobody.
    """
    present = read_incidents(tx.connection, tx.project, service=service, kind=kind, unresolved=True)
    if present:
        add_entry(tx, present[0].id, "update", text, data or {})
        tx.emit("incident.updated", present[0].id, {"service": service, "kind": kind, "text": text})
        return read_incident(tx.connection, tx.project, present[0].id)
    incident = Incident(
        id=new_id("inc", tx.now),
        service=service,
        kind=kind,
        title=title,
        state=IncidentState.OPEN,
        owner="",
        release=release,
        opened_at=tx.now,
        resolved_at=None,
    )
    put_incident(tx, incident)
    add_entry(tx, incident.id, "opened", text, data or {})
    tx.emit(
        "incident.opened",
        incident.id,
        {"service": service, "kind": kind, "title": title, "release": release},
        reason=text,
    )
    return read_incident(tx.connection, tx.project, incident.id)


def acknowledge(tx: Transaction, id: str) -> Incident:
    """Take an open incident: the actor becomes its owner. Raises NotFound and StateError."""
    return _change(tx, id, IncidentState.ACKNOWLEDGED, f"Taken by {tx.context.actor.name}.")


def resolve(tx: Transaction, id: str, reason: str) -> Incident:
    """Close an incident with the reason why it is over. Raises NotFound, StateError, InvalidInput."""
    return _change(tx, id, IncidentState.RESOLVED, _checked(reason, "reason"))


def resolve_service(
    tx: Transaction, service: str, reason: str, *, kinds: Sequence[str] = ("quality",)
) -> tuple[str, ...]:
    """Resolve the service's unresolved incidents of `kinds`, as after a promotion; return their ids."""
    done: list[str] = []
    for kind in kinds:
        for incident in read_incidents(tx.connection, tx.project, service=service, kind=kind, unresolved=True):
            resolve(tx, incident.id, reason)
            done.append(incident.id)
    return tuple(done)


def note(tx: Transaction, id: str, text: str, data: Mapping[str, Any] | None = None) -> Incident:
    """Add a note to an incident's timeline, in any state. Raises NotFound and InvalidInput."""
    incident = read_incident(tx.connection, tx.project, id)
    add_entry(tx, id, "note", _checked(text, "note"), data or {})
    tx.emit("incident.noted", id, {"service": incident.service, "text": text})
    return read_incident(tx.connection, tx.project, id)


def _change(tx: Transaction, id: str, wanted: IncidentState, text: str) -> Incident:
    incident = read_incident(tx.connection, tx.project, id)
    state = move(incident.state, wanted)
    changed = replace(
        incident,
        state=state,
        owner=incident.owner or tx.context.actor.id,
        resolved_at=tx.now if state == IncidentState.RESOLVED else None,
    )
    put_incident(tx, changed)
    add_entry(tx, id, state.value, text, {})
    tx.emit(
        f"incident.{state.value}",
        id,
        {"service": incident.service},
        before=incident.state.value,
        after=state.value,
        reason=text,
    )
    return read_incident(tx.connection, tx.project, id)


def _checked(text: str, what: str) -> str:
    if not 0 < len(text.strip()) <= _TEXT_LIMIT:
        raise InvalidInput(
            f"A {what} must have 1 to {_TEXT_LIMIT} characters.",
            mend=f"Write in a sentence what the next reader needs to know, as the {what}.",
        )
    return text.strip()
