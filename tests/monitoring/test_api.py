"""The routes, called as the server calls them once it has decided that the caller may."""

import json
from typing import Any

import pytest

from holdtrue import monitoring
from holdtrue.core.access import Permission, Role
from holdtrue.core.actor import Actor
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.door import Call
from holdtrue.monitoring.api import ReasonBody, TextBody, routes
from tests.monitoring.production import CONTEXT, PROJECT, SERVICE, SPEC, Production

ANNA = Actor("usr_anna", "human", "Anna", frozenset({Role.OPERATOR}))


def call(production: Production, method: str, path: str, body: Any = None, project: str = PROJECT, **query: str) -> Any:
    """Find the declared route of a concrete path and call its handler; the answer went through JSON."""
    parts = path.strip("/").split("/")
    for route in routes:
        names = route.path.removeprefix("/api/projects/{project}/").split("/")
        if route.method != method or len(names) != len(parts):
            continue
        pairs = list(zip(names, parts, strict=True))
        if all(name == part or name.startswith("{") for name, part in pairs):
            found = {name.strip("{}"): part for name, part in pairs if name.startswith("{")}
            made = Call(production.stores, ANNA, project, found, query)
            answer = route.handler(made) if route.body is None else route.handler(made, body)
            return json.loads(json.dumps(answer, allow_nan=False))
    raise AssertionError(f"No route {method} {path}")


@pytest.fixture
def decayed(production: Production) -> Production:
    production.declare(SPEC)
    production.live(35, 1.2, shadow="rel_b")
    assert production.live(21, 0.2)
    return production


def test_what_was_measured_is_listed(decayed: Production) -> None:
    months = call(decayed, "GET", f"services/{SERVICE}/quality")["items"]
    assert {(row["window"], row["release"], row["role"]) for row in months} >= {
        ("2013-03", "rel_a", "answer"),
        ("2013-03", "rel_b", "shadow"),
        ("2013-04", "rel_a", "answer"),
    }
    assert set(months[0]) >= {
        "window",
        "release",
        "n",
        "labelled",
        "maturity",
        "roc_auc",
        "lower",
        "upper",
        "base_rate",
    }
    together = call(decayed, "GET", f"services/{SERVICE}/quality", grain="day", release="all")["items"]
    assert len(together) == 56
    volumes = call(decayed, "GET", f"services/{SERVICE}/volume")["items"]
    assert sum(row["n"] for row in volumes if row["role"] == "answer") == 56 * 120
    assert call(decayed, "GET", f"services/{SERVICE}/labels") == {"invalid": 0, "waiting": 0, "forgotten": 0}


def test_monitors_tell_what_they_promise_and_what_they_saw_last(decayed: Production) -> None:
    listed = call(decayed, "GET", "monitors")["items"]
    assert [each["name"] for each in listed] == [SPEC.name]
    assert listed[0]["references"][0]["expected_per_quarter"] == pytest.approx(1.0, rel=0.01)
    assert listed[0]["last"]["outcome"] == "alarm"
    looks = call(decayed, "GET", f"monitors/{SPEC.name}/judgements", limit="3")["items"]
    assert len(looks) == 3
    assert looks[0]["end"] > looks[1]["end"]
    with pytest.raises(NotFound):
        call(decayed, "GET", "monitors/nothing/judgements")


def test_an_incident_is_taken_noted_and_resolved(decayed: Production) -> None:
    listed = call(decayed, "GET", "incidents", state="open")["items"]
    name = listed[0]["id"]
    assert call(decayed, "POST", f"incidents/{name}/acknowledge")["owner"] == "usr_anna"
    call(decayed, "POST", f"incidents/{name}/note", TextBody("The weather changed."))
    call(decayed, "POST", f"incidents/{name}/resolve", ReasonBody("Retrained."))
    shown = call(decayed, "GET", f"incidents/{name}")
    assert shown["state"] == "resolved"
    assert [entry["kind"] for entry in shown["timeline"]][-3:] == ["acknowledged", "note", "resolved"]
    assert shown["alarms"]
    assert call(decayed, "GET", "incidents", state="open")["items"] == []


def test_pages_of_alarms_follow_each_other(decayed: Production) -> None:
    everything = call(decayed, "GET", "alarms")["items"]
    assert len(everything) >= 2
    seen, after = [], None
    while True:
        page = call(decayed, "GET", "alarms", limit="1", **({"after": after} if after else {}))
        seen += page["items"]
        after = page["next"]
        if after is None:
            break
    assert seen == everything


def test_another_project_sees_nothing(decayed: Production) -> None:
    for path in ("monitors", "alarms", "incidents", f"services/{SERVICE}/quality"):
        assert call(decayed, "GET", path, project="other")["items"] == []
    name = call(decayed, "GET", "incidents")["items"][0]["id"]
    with pytest.raises(NotFound):
        call(decayed, "GET", f"incidents/{name}", project="other")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("alarms", {"limit": "0"}),
        ("alarms", {"limit": "many"}),
        ("incidents", {"state": "closed"}),
        (f"services/{SERVICE}/quality", {"grain": "year"}),
        (f"services/{SERVICE}/volume", {"grain": "year"}),
    ],
)
def test_queries_that_cannot_be_are_refused(production: Production, path: str, query: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        call(production, "GET", path, **query)


def test_reading_asks_for_a_read_permission_and_changing_for_that_of_incidents() -> None:
    for route in routes:
        wanted = (
            {Permission.INCIDENTS_WRITE}
            if route.method == "POST"
            else {Permission.STATUS_READ, Permission.INCIDENTS_READ}
        )
        assert route.permission in wanted


def test_numbers_that_are_not_known_are_null_in_json(production: Production) -> None:
    production.declare(SPEC)
    production.predict([0.5])
    production.run()
    row = call(production, "GET", f"services/{SERVICE}/quality")["items"][0]
    assert row["roc_auc"] is row["maturity"] is row["base_rate"] is row["brier"] is None
    incident = production.stores.ledger.write(
        CONTEXT, lambda tx: monitoring.open_incident(tx, service=SERVICE, kind="rollout", title="t", text="x")
    )
    assert call(production, "GET", f"incidents/{incident.id}")["resolved_at"] is None
