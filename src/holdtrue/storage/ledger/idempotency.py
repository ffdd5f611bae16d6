"""Idempotency keys: the same request sent again gets the same answer, and happens once."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
import sqlalchemy as sa
from pydantic_core import PydanticSerializationError

from holdtrue.core.codec import dump
from holdtrue.core.errors import IdempotencyMismatch
from holdtrue.storage.ledger.tables import idempotency
from holdtrue.storage.ledger.transaction import Transaction

KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold the JSON answer that an earlier request with the same key got."""

    value: Any


def recall(tx: Transaction) -> Answer | None:
    """Return the stored answer for the context's key, if there is one not older than seven days.

    The same key with another request digest raises IdempotencyMismatch.
    """
    key = tx.context.idempotency_key
    if key is None:
        return None
    tx.execute(sa.delete(idempotency).where(idempotency.c.created_at < tx.now - KEPT))
    row = tx.execute(
        sa.select(idempotency.c.digest, idempotency.c.result).where(
            idempotency.c.project == tx.context.project,
            idempotency.c.actor == tx.context.actor.id,
            idempotency.c.key == key,
        )
    ).first()
    if row is None:
        return None
    if row.digest != (tx.context.request_digest or ""):
        raise IdempotencyMismatch(
            "This idempotency key was used for another request.",
            why="A key stands for one request; its body was different the first time.",
            mend="Send a new key with a new request, and the same key only to repeat the same one.",
        )
    return Answer(orjson.loads(row.result))


def remember(tx: Transaction, result: Any) -> None:
    """Store `result` (JSON, or dataclasses of it) as the answer for the context's key."""
    key = tx.context.idempotency_key
    if key is None:
        return
    try:
        text = orjson.dumps(dump(result)).decode()
    except (PydanticSerializationError, orjson.JSONEncodeError) as error:
        raise TypeError(f"work under an idempotency key must return JSON, not {type(result)}") from error
    tx.execute(
        sa.insert(idempotency).values(
            project=tx.context.project,
            actor=tx.context.actor.id,
            key=key,
            digest=tx.context.request_digest or "",
            result=text,
            created_at=tx.now,
        )
    )
