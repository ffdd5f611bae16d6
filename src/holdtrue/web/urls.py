"""Every address a page links to, built in one place."""

from collections.abc import Iterable
from urllib.parse import quote, urlencode

SAFE = "-._~@:+="
# What the server's own check takes in a path; a name with other signs cannot exist in a project.


def _join(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe=SAFE) for part in parts)


def with_query(path: str, **fields: str | int | None) -> str:
    """Add the fields that have a value to `path`."""
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, safe=',')}" if given else path


def home() -> str:
    """Return the first page."""
    return "/"


def sign_in() -> str:
    """Return the page that explains how to sign in."""
    return "/sign-in"


def static(name: str) -> str:
    """Return the address of one file of this room's static folder."""
    return _join("static", name)


def overview(project: str) -> str:
    """Return the page of a project's services."""
    return _join("projects", project)


def service(project: str, name: str) -> str:
    """Return the page of one service."""
    return _join("projects", project, "services", name)


def releases(project: str, *, service: str | None = None, after: str | None = None) -> str:
    """Return a page of the list of releases."""
    return with_query(_join("projects", project, "releases"), service=service, after=after)


def release(project: str, release_id: str) -> str:
    """Return the page of one release."""
    return _join("projects", project, "releases", release_id)


def incidents(project: str, *, state: str | None = None, after: str | None = None) -> str:
    """Return a page of the list of incidents."""
    return with_query(_join("projects", project, "incidents"), state=state, after=after)


def incident(project: str, incident_id: str) -> str:
    """Return the page of one incident."""
    return _join("projects", project, "incidents", incident_id)


def activity(project: str, *, action: str | None = None, object: str | None = None, before: int | None = None) -> str:
    """Return a page of the event log, newest first, of what lies before event number `before`."""
    return with_query(_join("projects", project, "activity"), action=action, object=object, before=before)


def traces(project: str, **fields: str | int | None) -> str:
    """Return a page of the list of traces; the fields are those of its filters, and `cursor`."""
    return with_query(_join("projects", project, "traces"), **fields)


def trace(project: str, trace_id: str, span: str | None = None) -> str:
    """Return the page of one trace, with one of its spans opened."""
    return with_query(_join("projects", project, "traces", trace_id), span=span)


def trace_data(project: str, trace_id: str) -> str:
    """Return the address of one trace as JSON."""
    return with_query(_join("api", "traces", trace_id), project=project)


def runs(project: str, **fields: str | int | None) -> str:
    """Return a page of the list of runs; the fields are those of its filters, `after`, and `picked` (ids, commas)."""
    return with_query(_join("projects", project, "runs"), **fields)


def run(project: str, run_id: str, metric: str | None = None) -> str:
    """Return the page of one run, with the curve of one of its metrics."""
    return with_query(_join("projects", project, "runs", run_id), metric=metric)


def comparison(project: str, runs: Iterable[str] = (), **fields: str | None) -> str:
    """Return the page that compares runs; the fields are `metric` and `best`."""
    return with_query(_join("projects", project, "run-comparison"), runs=",".join(runs), **fields)


def prediction(project: str, prediction_id: str) -> str:
    """Return the page that explains one prediction."""
    return _join("projects", project, "predictions", prediction_id)


def of_object(project: str, identifier: str) -> str | None:
    """Return the page about the thing of this id or name, if there is one."""
    prefix = identifier.partition("_")[0]
    if prefix == "rel":
        return release(project, identifier)
    if prefix == "inc":
        return incident(project, identifier)
    return None
