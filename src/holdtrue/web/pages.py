"""The pages: routes, and for each the context its template shows."""

from dataclasses import replace
from typing import Any

from holdtrue import delivery
from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError
from holdtrue.door import Call, Reply, Routes
from holdtrue.web import (
    activity,
    answers,
    comparisons,
    incidents,
    reasons,
    releases,
    runs,
    services,
    store,
    texts,
    traces,
    urls,
)
from holdtrue.web.model import ErrorPage, Frame, HomePage, PredictionPage, ServiceRow
from holdtrue.web.render import asset, render

routes = Routes("web")
_COMMAND = 'curl -X POST -H "Authorization: Bearer $HOLDTRUE_TOKEN" $HOLDTRUE_URL/api/sign-in-codes'


@routes.page("/", Permission.STATUS_READ, summary="Show the projects, or go to the only one.")
def home(call: Call) -> str | Reply:
    """Show the projects the caller may see; who may see one only goes straight to it."""
    mine = call.actor.project
    projects = [mine] if mine else sorted({*call.read(store.projects), *call.stores.journal.projects("span")})
    if len(projects) == 1:
        return Reply(status=303, headers=(("location", urls.overview(projects[0])),))
    frame = Frame("Projects", "", "", call.actor.name, call.stores.clock.now())
    return render("home.html", frame=frame, page=HomePage(tuple(projects)))


@routes.page("/sign-in", "public", summary="Explain how to sign in.")
def sign_in(call: Call) -> str:
    """Explain how to sign a browser in."""
    return _sign_in()


@routes.page("/projects/{project}", Permission.STATUS_READ, summary="Show a project's services.")
def overview(call: Call) -> str:
    """Show a project's services, what waits for somebody, and what happened last."""
    now = call.stores.clock.now()
    page = call.read(lambda connection: services.overview(connection, call.project, now))
    page = replace(page, services=tuple(_with_answers(call, row) for row in page.services))
    return render("overview.html", frame=_frame(call, "Services", "services"), page=page)


def _with_answers(call: Call, row: ServiceRow) -> ServiceRow:
    if row.kind != "application":
        return row
    return replace(row, answers=answers.lately(call.stores.journal, call.project, row.name, call.stores.clock.now()))


@routes.page("/projects/{project}/services/{service}", Permission.STATUS_READ, summary="Show one service.")
def service(call: Call) -> str:
    """Show one service over time."""
    name, now = call.path["service"], call.stores.clock.now()
    page = call.read(lambda connection: services.one(connection, call.project, name, now))
    if page.service.spec.kind == "application":
        page = replace(page, answers=answers.lately(call.stores.journal, call.project, name, now, closely=True))
    crumbs = (("Services", urls.overview(call.project)),)
    return render("service.html", frame=_frame(call, name, "services", crumbs), page=page)


@routes.page("/projects/{project}/releases", Permission.RELEASES_READ, summary="List releases.")
def release_list(call: Call) -> str:
    """List releases, newest first."""
    wanted, after = call.query.get("service", ""), call.query.get("after")
    page = call.read(lambda connection: releases.listing(connection, call.project, wanted, after))
    frame = _frame(call, "Releases", "releases")
    return render("releases.html", frame=frame, page=page, first_url=urls.releases(call.project, service=wanted))


@routes.page("/projects/{project}/releases/{release}", Permission.RELEASES_READ, summary="Show one release.")
def release(call: Call) -> str:
    """Show one release: its manifest, evidence, decisions and lineage."""
    release_id = call.path["release"]
    page = call.read(lambda connection: releases.one(connection, call.project, release_id))
    crumbs = (("Releases", urls.releases(call.project)),)
    return render("release.html", frame=_frame(call, texts.short(release_id), "releases", crumbs), page=page)


@routes.page("/projects/{project}/incidents", Permission.INCIDENTS_READ, summary="List incidents.")
def incident_list(call: Call) -> str:
    """List incidents, newest first."""
    state, after = call.query.get("state", ""), call.query.get("after")
    page = call.read(lambda connection: incidents.listing(connection, call.project, state, after))
    frame = _frame(call, "Incidents", "incidents")
    return render("incidents.html", frame=frame, page=page, first_url=urls.incidents(call.project, state=state))


@routes.page("/projects/{project}/incidents/{incident}", Permission.INCIDENTS_READ, summary="Show one incident.")
def incident(call: Call) -> str:
    """Show one incident with its timeline."""
    page = call.read(lambda connection: incidents.one(connection, call.project, call.path["incident"]))
    frame = _frame(call, page.incident.title, "incidents", (("Incidents", urls.incidents(call.project)),))
    lasted = incidents.lasted(page, call.stores.clock.now())
    return render("incident.html", frame=frame, page=page, lasted=lasted)


@routes.page("/projects/{project}/activity", Permission.ACTIVITY_READ, summary="Show the event log.")
def activity_list(call: Call) -> str:
    """Show the event log, newest first."""
    action, about, before = (call.query.get(name) for name in ("action", "object", "before"))
    page = call.read(lambda connection: activity.listing(connection, call.project, action or "", about or "", before))
    frame = _frame(call, "Activity", "activity")
    first = urls.activity(call.project, action=page.action, object=page.object)
    return render("activity.html", frame=frame, page=page, first_url=first)


@routes.page("/projects/{project}/runs", Permission.RUNS_READ, summary="List and search runs, and pick some.")
def run_list(call: Call) -> str | Reply:
    """List runs, newest first; a filter that cannot be used is told where it was written."""
    page = call.read(lambda connection: runs.listing(connection, call.project, call.query))
    first = urls.runs(call.project, **page.asked, picked=page.carried)
    text = render("runs.html", frame=_frame(call, "Runs", "runs"), page=page, first_url=first)
    return text if page.wrong is None else Reply(text, status=page.wrong.status)


@routes.page("/projects/{project}/runs/{run}", Permission.RUNS_READ, summary="Show one run.")
def run(call: Call) -> str:
    """Show one run: what was logged, what it cost, the curve of one metric."""
    named, metric = call.path["run"], call.query.get("metric")
    page = call.read(lambda connection: runs.one(connection, call.project, named, metric))
    frame = _frame(call, page.run.info.name, "runs", (("Runs", urls.runs(call.project)),))
    return render("run.html", frame=frame, page=page)


@routes.page("/projects/{project}/run-comparison", Permission.RUNS_READ, summary="Compare runs.")
def run_comparison(call: Call) -> str | Reply:
    """Compare runs; boxes that a form sent become the address that can be kept."""
    if any(name.startswith(runs.PICK) for name in call.query):
        asked = {name: call.query.get(name) for name in ("metric", "best")}
        kept = urls.comparison(call.project, runs.picks(call.query, "runs"), **asked)
        return Reply(status=303, headers=(("location", kept),))
    page = call.read(lambda connection: comparisons.page(connection, call.project, call.query))
    frame = _frame(call, "Comparison of runs", "runs", (("Runs", urls.runs(call.project)),))
    return render("comparison.html", frame=frame, page=page, columns=runs.COST_COLUMNS)


@routes.page("/projects/{project}/traces", Permission.TRACES_READ, summary="List and search traces.")
def trace_list(call: Call) -> str:
    """List traces, newest first."""
    page = traces.listing(call.stores, call.project, call.query)
    return render(
        "traces.html",
        frame=_frame(call, "Traces", "traces"),
        page=page,
        first_url=urls.traces(call.project, **page.asked),
    )


@routes.page("/projects/{project}/traces/{trace}", Permission.TRACES_READ, summary="Show one trace.")
def trace(call: Call) -> str:
    """Show one trace: its waterfall, one span opened with its conversation, feedback."""
    page = traces.one(call.stores, call.project, call.path["trace"], call.query.get("span"))
    crumbs = (("Traces", urls.traces(call.project)),)
    return render("trace.html", frame=_frame(call, page.summary.name or "Trace", "traces", crumbs), page=page)


@routes.page(
    "/projects/{project}/predictions/{prediction}",
    Permission.PREDICTIONS_READ,
    summary="Explain one prediction.",
)
def prediction(call: Call) -> str:
    """Explain one prediction, from the answer back to the data."""
    name = call.path["prediction"]
    found: Any = delivery.why(call.stores, call.project, name)
    page = PredictionPage(name, reasons.of_prediction(found, lambda one: urls.of_object(call.project, one)))
    return render("prediction.html", frame=_frame(call, f"Prediction {texts.short(name)}", ""), page=page)


@routes.add("GET", urls.static("holdtrue.css"), "public", summary="Serve the pages' stylesheet.", kind="static")
def stylesheet(call: Call) -> Reply:
    """Serve the stylesheet, which the sign-in page needs too."""
    return Reply(asset("holdtrue.css"), media_type="text/css; charset=utf-8")


@routes.add("GET", urls.static("chart.js"), Permission.STATUS_READ, summary="Serve the charts' script.", kind="static")
def chart_script(call: Call) -> Reply:
    """Serve the module that shows a chart's values under the pointer."""
    return Reply(asset("chart.js"), media_type="text/javascript; charset=utf-8")


@routes.add("GET", urls.static("links.js"), Permission.STATUS_READ, summary="Serve the script of links.", kind="static")
def link_script(call: Call) -> Reply:
    """Serve the module that leads links of MLflow's client to pages."""
    return Reply(asset("links.js"), media_type="text/javascript; charset=utf-8")


def error_page(error: HoldtrueError, request_id: str) -> str:
    """Return an error as a page; who is not signed in is told how to."""
    if error.status == 401:
        return _sign_in()
    page = ErrorPage(error.code, error.status, error.what, error.why, error.mend, request_id)
    return render("error.html", frame=Frame(error.what, "", "", ""), page=page)


def _sign_in() -> str:
    return render("sign_in.html", frame=Frame("Sign in", "", "", ""), command=_COMMAND)


def _frame(call: Call, title: str, section: str, crumbs: tuple[tuple[str, str], ...] = ()) -> Frame:
    return Frame(title, section, call.project, call.actor.name, call.stores.clock.now(), crumbs)
