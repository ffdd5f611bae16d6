"""HTTP routes of this room."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.project import service
from holdtrue.project.model import ProjectSpec

routes = Routes("project")


@routes.get("/api/projects/{project}/definitions", Permission.STATUS_READ, summary="Show what is applied")
def definitions(call: Call) -> Any:
    """Return the definitions applied last, or null."""
    return {"applied": call.read(lambda connection: service.applied(connection, call.project))}


@routes.post("/api/projects/{project}/plan", Permission.PROJECT_APPLY, summary="Show what apply would change")
def plan(call: Call, body: ProjectSpec) -> Any:
    """Return the differences; nothing is changed."""
    _check(call, body)
    return {"changes": call.read(lambda connection: service.plan(connection, call.project, body))}


@routes.post("/api/projects/{project}/apply", Permission.PROJECT_APPLY, summary="Apply definitions")
def apply(call: Call, body: ProjectSpec) -> Any:
    """Make the definitions those of the project."""
    _check(call, body)
    return call.write(lambda tx: {"changes": [dump(each) for each in service.apply(tx, body)]})


def _check(call: Call, body: ProjectSpec) -> None:
    if body.name != call.project:
        raise InvalidInput(
            f"The definitions are those of “{body.name}”, and the address names “{call.project}”.",
            mend="Send them to the project they name.",
        )
