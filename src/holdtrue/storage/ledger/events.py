"""Events: what happened, in one hash-linked sequence."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from holdtrue.core.actor import Actor
from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger.merkle import Frontier, leaf_hash, push
from holdtrue.storage.ledger.statements import prepare_insert
from holdtrue.storage.ledger.tables import events, payloads

if TYPE_CHECKING:
    from holdtrue.storage.ledger.backend import WritingConnection

VERSION = b"\x01"
NO_HASH = "0" * 64

_EVENT = prepare_insert(events, lambda statement: statement, widths=())
_PAYLOAD = prepare_insert(payloads, lambda statement: statement, widths=())


@dataclass(frozen=True, slots=True)
class Event:
    """Tell one thing that happened: when, by whom, to what.

    `on_behalf_of` is the person behind a program, else empty. `before` and `after` are digests or
    ids. `payload` is None once it was erased. `project` is empty for what concerns the whole house.
    """

    seq: int
    time: datetime
    project: str
    actor: str
    on_behalf_of: str
    action: str
    object: str
    before: str
    after: str
    payload: Any
    reason: str
    request_id: str
    prev_hash: str
    leaf_hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """Hold the end of the log: number of entries, hash of the last one, perfect subtrees."""

    size: int
    hash: str
    frontier: Frontier


EMPTY = Head(0, NO_HASH, ())


@dataclass(frozen=True, slots=True)
class Draft:
    """Hold what an emitter states of an event, before the log gives it its place."""

    time: datetime
    project: str
    actor: Actor
    action: str
    object: str
    before: str
    after: str
    payload: Any
    reason: str
    request_id: str


def entry_bytes(entry: dict[str, Any]) -> bytes:
    """Return the bytes that are hashed: a version byte and the RFC 8785 form of the entry.

    Entries hold only texts and integers under ASCII names, for which orjson's sorted form is the
    canonical one (a property test compares it with rfc8785, which takes a hundred times longer).
    """
    try:
        return VERSION + orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise InvalidInput("An event cannot be written.", why=f"{error}.", mend="Use valid Unicode text.") from None


def append(database: "WritingConnection", head: Head, draft: Draft) -> tuple[Head, Event]:
    """Insert an event after `head` in the open transaction; return the new head and the event."""
    seq = head.size + 1
    body = _body(draft)
    salt = secrets.token_bytes(32)
    owner = draft.actor.created_by or ""
    entry: dict[str, str | int] = {
        "seq": seq,
        "time": microseconds(draft.time),
        "project": draft.project,
        "actor": draft.actor.id,
        "on_behalf_of": owner,
        "action": draft.action,
        "object": draft.object,
        "before_digest": draft.before,
        "after_digest": draft.after,
        "request_id": draft.request_id,
        "payload_commitment": hashlib.sha256(salt + body).hexdigest(),
        "prev_hash": head.hash,
    }
    for name, value in entry.items():
        # SQLite would store a number in a text column as text, which is not what was hashed.
        if not isinstance(value, str) and name not in ("seq", "time"):
            raise TypeError(f"“{name}” of an event is text, not {type(value).__name__}")
    leaf = leaf_hash(entry_bytes(entry))
    # The driver itself, not SQLAlchemy: this runs for every event in the house.
    database.many(_EVENT, [(*entry.values(), leaf.hex())])
    database.many(_PAYLOAD, [(seq, draft.project, salt, body.decode())])
    event = Event(
        seq=seq,
        time=draft.time,
        project=draft.project,
        actor=draft.actor.id,
        on_behalf_of=owner,
        action=draft.action,
        object=draft.object,
        before=draft.before,
        after=draft.after,
        payload=draft.payload,
        reason=draft.reason,
        request_id=draft.request_id,
        prev_hash=head.hash,
        leaf_hash=leaf.hex(),
    )
    return Head(seq, leaf.hex(), push(head.frontier, head.size, leaf)), event


def _body(draft: Draft) -> bytes:
    """Return the canonical form of what stands outside the tree."""
    return canonical_bytes({"payload": draft.payload, "reason": draft.reason})


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Choose events: None means any; `after` is a sequence number, exclusive.

    With `newest_first`, `after` is where the walk back begins (0: at the end). An `action` that ends
    with a dot matches every action under it, as in “release.”.
    """

    project: str | None = None
    after: int = 0
    limit: int = 100
    action: str | None = None
    object: str | None = None
    newest_first: bool = False


def select_events(connection: sa.Connection, chosen: EventFilter) -> list[Event]:
    """Return the events that `chosen` describes, in order of their sequence."""
    query = sa.select(events, payloads.c.body).outerjoin(payloads, payloads.c.seq == events.c.seq)
    if chosen.project is not None:
        query = query.where(events.c.project == chosen.project)
    if chosen.object is not None:
        query = query.where(events.c.object == chosen.object)
    if chosen.action is not None and chosen.action.endswith("."):
        query = query.where(events.c.action.startswith(chosen.action, autoescape=True))
    elif chosen.action is not None:
        query = query.where(events.c.action == chosen.action)
    if chosen.newest_first:
        query = query.order_by(events.c.seq.desc())
        query = query.where(events.c.seq < chosen.after) if chosen.after else query
    else:
        query = query.where(events.c.seq > chosen.after).order_by(events.c.seq)
    return [_event(row) for row in connection.execute(query.limit(chosen.limit))]


def payloads_with(connection: sa.Connection, project: str, actions: Sequence[str], text: str) -> list[int]:
    """Return the sequence numbers of events of these actions whose payload has a text in it."""
    query = (
        sa.select(events.c.seq)
        .join(payloads, payloads.c.seq == events.c.seq)
        .where(events.c.project == project, events.c.action.in_(list(actions)))
        .where(payloads.c.body.contains(text, autoescape=True))
        .order_by(events.c.seq)
    )
    return [row.seq for row in connection.execute(query)]


def _event(row: sa.Row[Any]) -> Event:
    body: dict[str, Any] = orjson.loads(row.body) if row.body is not None else {}
    return Event(
        seq=row.seq,
        time=row.time,
        project=row.project,
        actor=row.actor,
        on_behalf_of=row.on_behalf_of,
        action=row.action,
        object=row.object,
        before=row.before_digest,
        after=row.after_digest,
        payload=body.get("payload"),
        reason=body.get("reason", ""),
        request_id=row.request_id,
        prev_hash=row.prev_hash,
        leaf_hash=row.leaf_hash,
    )
