"""Which records of the journal are of an entity: by its own column, and by the predictions that name it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from holdtrue.core.clock import SystemClock
from holdtrue.data.erasure import Entity
from holdtrue.delivery import bundles
from holdtrue.delivery.privacy.tracing import all_releases
from holdtrue.storage import Stores
from holdtrue.storage.journal.erasing import Found, Meant, same_text
from holdtrue.storage.ledger import WriteContext
from holdtrue.traces import infos
from holdtrue.traces.model import KIND
from holdtrue.traces.service import refresh

_USER: Final = "user"


@dataclass(frozen=True, slots=True)
class Roles:
    """Say in which services the entity's column is the entity of a request, and in which its key."""

    entities: frozenset[str]
    keys: frozenset[str]


def roles_of(stores: Stores, project: str, column: str) -> Roles:
    """Return what the column is in each service, by all its releases; applications know their users."""
    entities: set[str] = set()
    keys: set[str] = set()

    def work(connection: Any) -> None:
        for release in all_releases(connection, project):
            config = release.manifest.config
            entity = _USER if bundles.is_application(release) else config.get("entity")
            if entity == column:
                entities.add(release.service)
            if config.get("key") == column:
                keys.add(release.service)

    stores.ledger.read(work)
    return Roles(frozenset(entities), frozenset(keys))


def predictions_of(project: str, entity: Entity, roles: Roles) -> Meant:
    """Return which predictions are of the entity."""

    def matches(stream: str, table: pa.Table) -> NDArray[np.bool_]:
        # What an environment answers that must be named is a stream of its own: delay@staging.
        service = stream.partition("@")[0]
        found = same_text(table, f"x_{entity.column}", [entity.value])
        if service in roles.entities:
            found |= same_text(table, "entity", [entity.value])
        if service in roles.keys:
            found |= same_text(table, "key", [entity.value])
        return found

    columns = (f"x_{entity.column}", "entity", "key", "prediction_id", "trace_id")
    return Meant("prediction", project, columns, matches)


def events_of(project: str, entity: Entity) -> Meant:
    """Return which events are of the entity, of whatever source."""
    return Meant("event", project, (entity.column,), lambda _, table: same_text(table, entity.column, [entity.value]))


def traces_of(stores: Stores, project: str, entity: Entity) -> list[str]:
    """Return the entity's traces, as long as its predictions and spans are there."""
    found = stores.journal.meant(predictions_of(project, entity, roles_of(stores, project, entity.column)))
    predictions = sorted(set().union(*found.values("prediction_id").values()))
    return _traces_of(stores, project, predictions, [entity.value] if entity.column == _USER else [], found)


def erase_said(stores: Stores, context: WriteContext, entity: Entity) -> dict[str, Any]:
    """Take out what was said of the entity's predictions: labels, feedback, and spans with their traces."""
    journal, project = stores.journal, context.project
    roles = roles_of(stores, project, entity.column)
    found = journal.meant(predictions_of(project, entity, roles))
    ids, keys = found.values("prediction_id"), found.values("key")
    predictions = sorted(set().union(*ids.values()))

    def labels(stream: str, table: pa.Table) -> NDArray[np.bool_]:
        mine = same_text(table, "prediction_id", sorted(ids.get(stream, ())))
        mine |= same_text(table, "key", sorted(keys.get(stream, ())))
        return mine | same_text(table, "key", [entity.value] if stream.partition("@")[0] in roles.keys else [])

    label = journal.erase(Meant("label", project, ("prediction_id", "key"), labels))
    user = [entity.value] if entity.column == _USER else []
    told = _traces_of(stores, project, predictions, user, found)

    # First, as long as it is known which traces are the entity's.
    if told:
        stores.ledger.write(context, lambda tx: infos.erase(tx, told))

    def feedback(_: str, table: pa.Table) -> NDArray[np.bool_]:
        mine = same_text(table, "prediction_id", predictions) | same_text(table, "trace_id", told)
        return mine | same_text(table, _USER, user)

    judged = journal.erase(Meant("feedback", project, ("prediction_id", "trace_id", _USER), feedback))
    spans = journal.erase(Meant(KIND, project, ("trace_id",), lambda _, table: same_text(table, "trace_id", told)))
    if told:
        # Indexes hold words of spans: those of files that are gone go too.
        refresh(stores, SystemClock().monotonic)
    return {"labels": label.rows, "feedback": judged.rows, "spans": spans.rows, "traces": len(told)}


def erase_records(stores: Stores, project: str, entity: Entity) -> dict[str, Any]:
    """Take out the entity's events and predictions."""
    journal = stores.journal
    events = journal.erase(events_of(project, entity))
    predictions = journal.erase(predictions_of(project, entity, roles_of(stores, project, entity.column)))
    return {"events": events.rows, "predictions": predictions.rows}


def _traces_of(stores: Stores, project: str, predictions: list[str], user: Iterable[str], found: Found) -> list[str]:
    """Return the traces that a prediction of the entity, or its own name, stands in."""
    names = list(user)

    def matches(_: str, table: pa.Table) -> NDArray[np.bool_]:
        return same_text(table, "prediction_id", predictions) | same_text(table, _USER, names)

    spans = stores.journal.meant(Meant(KIND, project, ("prediction_id", _USER, "trace_id"), matches))
    told: Mapping[str, set[str]] = spans.values("trace_id")
    own: Mapping[str, set[str]] = found.values("trace_id")
    return sorted(set().union(*told.values(), *own.values()))
