"""Read what the activity page shows: the event log, a page at a time."""

import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger import Event, EventFilter, select_events
from holdtrue.web import texts, urls
from holdtrue.web.model import ActivityPage, EventRow

PAGE = 50
FAMILIES = (
    "alarm.",
    "approval.",
    "dataset.",
    "decision.",
    "deployment.",
    "evidence.",
    "incident.",
    "job.",
    "policy.",
    "project.",
    "release.",
    "rollout.",
    "token.",
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
        rows=tuple(row(project, event) for event in shown),
        action=action,
        object=object,
        families=FAMILIES,
        older=older,
        first=before is None,
    )


def latest(connection: sa.Connection, project: str, limit: int = 8) -> tuple[EventRow, ...]:
    """Return the newest events of a project."""
    found = select_events(connection, EventFilter(project=project, limit=limit, newest_first=True))
    return tuple(row(project, event) for event in found)


def row(project: str, event: Event) -> EventRow:
    """Return an event as a line of a table."""
    actor = f"{event.actor}, for {event.on_behalf_of}" if event.on_behalf_of else event.actor
    return EventRow(event, actor, urls.of_object(project, event.object), _detail(event))


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
