"""Read what the activity page shows: the event log, a page at a time."""

import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger import Event, EventFilter, select_events
from holdtrue.web import store, texts, urls
from holdtrue.web.model import ActivityPage, EventRow

PAGE = 50
FAMILIES = (
    "alarm.",
    "alias.",
    "approval.",
    "dataset.",
    "decision.",
    "deployment.",
    "evidence.",
    "fragment.",
    "incident.",
    "job.",
    "lineage.",
    "monitor.",
    "operation.",
    "policy.",
    "project.",
    "quarantine.",
    "release.",
    "retrain.",
    "rollout.",
    "service.",
    "trigger.",
    "version.",
)
_TELLING = ("environment", "service", "name", "window", "kind", "failed", "state")


def listing(connection: sa.Connection, project: str, action: str, object: str, before: str | None) -> ActivityPage:
    """Return one page of the log, newest first, of what lies before event number `before`."""
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise InvalidInput("This page does not exist.", mend="Start again at the newest event.")
    chosen = EventFilter(
        project=project,
        after=int(before or 0),
        limit=PAGE + 1,
        action=action or None,
        object=object or None,
        newest_first=True,
    )
    found = select_events(connection, chosen)
    shown = found[:PAGE]
    older = None
    if len(found) > PAGE:
        older = urls.activity(project, action=action, object=object, before=shown[-1].seq)
    return ActivityPage(
        rows=_rows(connection, project, shown),
        action=action,
        object=object,
        families=FAMILIES,
        older=older,
        first=before is None,
    )


def latest(connection: sa.Connection, project: str, limit: int = 8) -> tuple[EventRow, ...]:
    """Return the newest events of a project."""
    found = select_events(connection, EventFilter(project=project, limit=limit, newest_first=True))
    return _rows(connection, project, found)


def _rows(connection: sa.Connection, project: str, events: list[Event]) -> tuple[EventRow, ...]:
    names = store.names(connection, (who for event in events for who in (event.actor, event.on_behalf_of)))

    def called(event: Event) -> str:
        actor = names.get(event.actor, texts.short(event.actor))
        if not event.on_behalf_of:
            return actor
        return f"{actor}, for {names.get(event.on_behalf_of, texts.short(event.on_behalf_of))}"

    return tuple(
        EventRow(event, called(event), urls.of_object(project, event.object), _detail(event)) for event in events
    )


def _detail(event: Event) -> str:
    """Return the reason of an event, else what in its payload tells most."""
    if event.reason:
        return texts.plain(event.reason)
    payload = event.payload
    if not isinstance(payload, dict):
        return "" if payload is None else texts.plain(payload)
    told = next((payload[key] for key in ("reason", "why", "text") if payload.get(key)), None)
    if isinstance(told, str):
        return texts.plain(told)
    return texts.plain(
        {key.replace("_", " "): payload[key] for key in _TELLING if payload.get(key) not in (None, "", [], {})}
        or {key: value for key, value in payload.items() if isinstance(value, str | int | float)}
    )
