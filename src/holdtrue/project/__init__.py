"""The project: what a user writes, how it is planned and applied, and how its jobs are run."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.project.applications import check, guard, index, route
    from holdtrue.project.definitions import Project, Training
    from holdtrue.project.loading import DEFAULT_FILE, load_project
    from holdtrue.project.model import PlannedChange, ProjectSpec
    from holdtrue.project.modelfile import read_model, serve_file
    from holdtrue.project.service import applied, apply, plan
    from holdtrue.project.store import names
    from holdtrue.project.work import Workshop, execute

__all__ = [
    "DEFAULT_FILE",
    "PlannedChange",
    "Project",
    "ProjectSpec",
    "Training",
    "Workshop",
    "applied",
    "apply",
    "check",
    "execute",
    "guard",
    "index",
    "load_project",
    "names",
    "plan",
    "read_model",
    "route",
    "serve_file",
]

# The server applies definitions and must not load what training needs.
__getattr__ = attach(
    __name__,
    {
        "DEFAULT_FILE": "loading",
        "PlannedChange": "model",
        "Project": "definitions",
        "ProjectSpec": "model",
        "Training": "definitions",
        "Workshop": "work",
        "applied": "service",
        "apply": "service",
        "check": "applications",
        "execute": "work",
        "guard": "applications",
        "index": "applications",
        "load_project": "loading",
        "names": "store",
        "plan": "service",
        "read_model": "modelfile",
        "route": "applications",
        "serve_file": "modelfile",
    },
)
