"""HTTP routes of monitoring: monitors, quality, volume, alarms, incidents."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.monitoring import casework, service
from holdtrue.monitoring.model import Alarm, Incident, IncidentState
from holdtrue.stats import finite
from holdtrue.storage.ledger import Transaction

routes = Routes("monitoring")
_MOST = 500


@dataclass(frozen=True, slots=True)
class TextBody:
    """Carry what a person has to say about an incident."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasonBody:
    """Carry why an incident is over."""

    reason: str


def _limit(call: Call) -> int:
    text = call.query.get("limit", "100")
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise InvalidInput(f"The limit {text[:20]!r} cannot be used.", mend=f"Give a number from 1 to {_MOST}.")
    return int(text)


def _grain(call: Call, default: str) -> str:
    grain = call.query.get("grain", default)
    if grain not in ("day", "month"):
        raise InvalidInput(f"There are no windows by {grain[:20]!r}.", mend="Use day or month.")
    return grain


def _page(call: Call, found: list[Any], render: Callable[[Any], Any]) -> dict[str, Any]:
    """Return one page of things with ids, fetched with one more than asked for."""
    limit = _limit(call)
    more = len(found) > limit
    return {
        "items": [render(each) for each in found[:limit]],
        "next": found[limit - 1].id if more else None,
    }


def alarm_json(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm's JSON form."""
    return {**dump(alarm), "value": finite(alarm.value), "limit": finite(alarm.limit)}


def incident_json(incident: Incident) -> dict[str, Any]:
    """Return an incident's JSON form."""
    return dump(incident)


@routes.get(
    "/api/projects/{project}/monitors",
    Permission.STATUS_READ,
    summary="List monitors, their limits, and how many false alarms to expect.",
)
def list_monitors(call: Call) -> Any:
    """Return the active monitors with what they promise."""
    items: list[dict[str, Any]] = []
    for spec in call.read(lambda conn: service.monitors(conn, call.project)):
        held = call.read(lambda conn, name=spec.name: service.promise(conn, call.project, name))
        looks = call.read(lambda conn, name=spec.name: service.judgements(conn, call.project, monitor=name, limit=1))
        items.append({**dump(spec), "references": held, "last": looks[0].to_json() if looks else None})
    return {"items": items, "next": None}


@routes.get(
    "/api/projects/{project}/monitors/{monitor}/judgements",
    Permission.STATUS_READ,
    summary="List a monitor's looks at its windows, the newest first.",
)
def list_judgements(call: Call) -> Any:
    """Return the judgements of one monitor."""
    name = call.path["monitor"]
    call.read(lambda conn: service.promise(conn, call.project, name))
    found = call.read(lambda conn: service.judgements(conn, call.project, monitor=name, limit=_limit(call)))
    return {"items": [each.to_json() for each in found], "next": None}


@routes.get(
    "/api/projects/{project}/services/{service}/quality",
    Permission.STATUS_READ,
    summary="List quality by release and month (or day), with its maturity.",
)
def list_quality(call: Call) -> Any:
    """Return quality windows; query: grain (month or day), release (“all” is every answer together)."""
    grain, release = _grain(call, "month"), call.query.get("release")
    items = call.read(
        lambda conn: service.quality(conn, call.project, call.path["service"], grain=grain, release=release)
    )
    return {"items": items, "next": None}


@routes.get(
    "/api/projects/{project}/services/{service}/volume",
    Permission.STATUS_READ,
    summary="List how many rows each release answered by day (or month).",
)
def list_volume(call: Call) -> Any:
    """Return volumes; query: grain (day or month)."""
    grain = _grain(call, "day")
    items = call.read(lambda conn: service.volume(conn, call.project, call.path["service"], grain=grain))
    return {"items": items, "next": None}


@routes.get(
    "/api/projects/{project}/services/{service}/labels",
    Permission.STATUS_READ,
    summary="Count labels that are invalid, wait for their prediction, or were given up.",
)
def count_labels(call: Call) -> Any:
    """Return the counts of labels that joined no prediction."""
    return call.read(lambda conn: service.label_counts(conn, call.project, call.path["service"]))


@routes.get("/api/projects/{project}/alarms", Permission.INCIDENTS_READ, summary="List alarms, newest first.")
def list_alarms(call: Call) -> Any:
    """Return alarms; query: service, incident, limit, after."""
    found = call.read(
        lambda conn: service.alarms(
            conn,
            call.project,
            service=call.query.get("service"),
            incident=call.query.get("incident"),
            limit=_limit(call) + 1,
            after=call.query.get("after"),
        )
    )
    return _page(call, found, alarm_json)


@routes.get("/api/projects/{project}/incidents", Permission.INCIDENTS_READ, summary="List incidents, newest first.")
def list_incidents(call: Call) -> Any:
    """Return incidents without timelines; query: service, kind, state, limit, after."""
    state = call.query.get("state")
    if state is not None and state not in {each.value for each in IncidentState}:
        raise InvalidInput(f"An incident is never {state[:20]!r}.", mend="Use open, acknowledged or resolved.")
    found = call.read(
        lambda conn: service.incidents(
            conn,
            call.project,
            service=call.query.get("service"),
            kind=call.query.get("kind"),
            state=state,
            limit=_limit(call) + 1,
            after=call.query.get("after"),
        )
    )
    return _page(call, found, incident_json)


@routes.get(
    "/api/projects/{project}/incidents/{id}",
    Permission.INCIDENTS_READ,
    summary="Show an incident with its timeline and alarms.",
)
def show_incident(call: Call) -> Any:
    """Return one incident."""
    name = call.path["id"]
    incident = call.read(lambda conn: service.incident(conn, call.project, name))
    alarms = call.read(lambda conn: service.alarms(conn, call.project, incident=name))
    return {**incident_json(incident), "alarms": [alarm_json(each) for each in alarms]}


def _act(call: Call, act: Callable[[Transaction], Incident]) -> Any:
    return call.write(lambda tx: incident_json(act(tx)))


@routes.post(
    "/api/projects/{project}/incidents/{id}/acknowledge",
    Permission.INCIDENTS_WRITE,
    summary="Take an incident: the caller becomes its owner.",
)
def acknowledge_incident(call: Call) -> Any:
    """Acknowledge an incident."""
    return _act(call, lambda tx: casework.acknowledge(tx, call.path["id"]))


@routes.post(
    "/api/projects/{project}/incidents/{id}/resolve",
    Permission.INCIDENTS_WRITE,
    summary="Close an incident, saying why it is over.",
)
def resolve_incident(call: Call, body: ReasonBody) -> Any:
    """Resolve an incident."""
    return _act(call, lambda tx: casework.resolve(tx, call.path["id"], body.reason))


@routes.post(
    "/api/projects/{project}/incidents/{id}/note",
    Permission.INCIDENTS_WRITE,
    summary="Add a note to an incident's timeline.",
)
def note_incident(call: Call, body: TextBody) -> Any:
    """Note something about an incident."""
    return _act(call, lambda tx: casework.note(tx, call.path["id"], body.text))
