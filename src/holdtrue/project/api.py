"""HTTP routes of this room."""

from typing import Any

from holdtrue import delivery
from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.project import service, store
from holdtrue.project.model import ProjectSpec

routes = Routes("project")


@routes.get("/api/projects/{project}/definitions", Permission.STATUS_READ, summary="Show what is applied")
def definitions(call: Call) -> Any:
    """Return the definitions applied last, or null."""
    return {"applied": call.read(lambda connection: service.applied(connection, call.project))}


@routes.post("/api/projects/{project}/plan", Permission.PROJECT_APPLY, summary="Show what apply would change")
def plan(call: Call, body: ProjectSpec) -> Any:
    """Return the differences, what they mean for contracts, and how what is deployed differs; nothing is changed."""
    _check(call, body)
    found = call.read(
        lambda connection: {
            "changes": service.plan(connection, call.project, body),
            "contracts": service.contract_plan(connection, call.project, body),
        }
    )
    return {**found, "drift": [dump(each) for each in delivery.drift(call.stores, call.project)]}


@routes.post("/api/projects/{project}/apply", Permission.PROJECT_APPLY, summary="Apply definitions")
def apply(call: Call, body: ProjectSpec) -> Any:
    """Make the definitions those of the project."""
    _check(call, body)
    return call.write(lambda tx: {"changes": [dump(each) for each in service.apply(tx, body)]})


@routes.get("/api/projects/{project}/events", Permission.ACTIVITY_READ, summary="Read the event log")
def events(call: Call) -> Any:
    """Return events after the number `after`, oldest first, or the newest first with `newest`."""
    after, limit = number(call, "after", 0, 2**53), number(call, "limit", 100, 500)
    found = call.stores.ledger.events(
        call.project,
        after=after,
        limit=max(1, limit),
        action=call.query.get("action"),
        object=call.query.get("object"),
        newest_first=call.query.get("newest") == "true",
    )
    more = len(found) == limit and call.query.get("newest") != "true"
    who = {each.actor for each in found}
    names = call.read(lambda connection: store.names(connection, who))
    items = [{**dump(each), "actor_name": names.get(each.actor, each.actor)} for each in found]
    return {"items": items, "next": str(found[-1].seq) if more else None}


def number(call: Call, name: str, default: int, most: int) -> int:
    """Return a whole number of the query, 0 to `most`."""
    text = call.query.get(name, str(default))
    if not text.isdigit() or int(text) > most:
        raise InvalidInput(f"“{name}” is not a number from 0 to {most}.", mend="Send a whole number in that range.")
    return int(text)


def _check(call: Call, body: ProjectSpec) -> None:
    if body.name != call.project:
        raise InvalidInput(
            f"The definitions are those of “{body.name}”, and the address names “{call.project}”.",
            mend="Send them to the project they name.",
        )
