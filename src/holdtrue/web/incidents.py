"""Read what the pages about incidents show."""

from datetime import datetime

import sqlalchemy as sa

from holdtrue import monitoring
from holdtrue.core.errors import InvalidInput
from holdtrue.web import store, texts, urls
from holdtrue.web.model import IncidentPage, IncidentsPage

PAGE = 25
STATES = ("", "open", "acknowledged", "resolved")


def listing(connection: sa.Connection, project: str, state: str, after: str | None) -> IncidentsPage:
    """Return one page of incidents, newest first, those opened before the incident `after`."""
    if state not in STATES:
        raise InvalidInput("There is no such state of an incident.", mend="Use open, acknowledged or resolved.")
    found = monitoring.incidents(connection, project, state=state or None, limit=PAGE + 1, after=after)
    shown = found[:PAGE]
    older = urls.incidents(project, state=state, after=shown[-1].id) if len(found) > PAGE else None
    return IncidentsPage(tuple(shown), state, older, after is None)


def one(connection: sa.Connection, project: str, id: str) -> IncidentPage:
    """Return one incident with its timeline and alarms; NotFound if the project has none of this id."""
    incident = monitoring.incident(connection, project, id)
    people = store.names(connection, [incident.owner, *(entry.actor for entry in incident.timeline)])
    return IncidentPage(incident, tuple(monitoring.alarms(connection, project, incident=id, limit=50)), people)


def lasted(page: IncidentPage, now: datetime) -> str:
    """Return how long an incident lasted, or has been open."""
    return texts.duration((page.incident.resolved_at or now) - page.incident.opened_at)
