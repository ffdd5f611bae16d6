"""Traces over the control plane's API: search, one trace, and whose they are."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue.core.clock import SystemClock, microseconds
from holdtrue.server.build import Built, open_app
from holdtrue.server.client import Client
from holdtrue.server.home import read_token
from holdtrue.server.settings import load_settings
from holdtrue.server.transport import in_process
from holdtrue.traces import SpanSink
from tests.traces.spans import said, span, span_id, trace_id


@dataclass
class Site:
    """The application over a data folder with some traces, in this process."""

    built: Built
    home: Path
    transport: httpx.BaseTransport

    def client(self, token: str | None = None) -> httpx.Client:
        """Return a client with a token: the owner's, if none is given."""
        headers = {"authorization": f"Bearer {token or read_token(self.home)}"}
        return httpx.Client(transport=self.transport, base_url="http://127.0.0.1:7700", headers=headers)

    def token(self, project: str) -> str:
        """Make a reader's token of one project."""
        body = {"roles": ["viewer"], "project": project}
        return self.client().post("/api/tokens", json=body).json()["token"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Open a folder with three traces of one project and one of another."""
    home = tmp_path / "home"
    built = open_app(load_settings(home, environ={}), timer=SystemClock())
    stores = built.app.stores
    writer = stores.journal.writer("test", "strict")
    sink = SpanSink(writer, stores.clock)
    now = microseconds(stores.clock.now()) - 60_000_000

    def at(trace: int, number: int, **changes: Any) -> Any:
        start = now + trace * 1_000_000 + number * 1000
        return span(trace, number, start=start, end=start + 2500, **changes)

    mine = [
        at(0, 0, attributes=said("Where is my order?", "On its way.")),
        at(0, 1, name="find_order", attributes={"a.b[0]": "x", "__proto__": "y"}),
        at(1, 2, status="error", message="no"),
        at(2, 3, attributes={"holdtrue.release": "rel_1", "user.id": "u1"}),
    ]
    asyncio.run(sink.write("shop", mine))
    asyncio.run(sink.write("bank", [at(3, 9), at(0, 9, name="theirs")]))
    about = {"id": ["f1"], "time": [now], "trace_id": [trace_id(0)], "name": "helpful", "value": 0.0, "kind": "bool"}
    writer.append(
        "feedback", "shop", "default", {**about, "low": 0.0, "high": 1.0, "comment": "Late.", "user": "u1"}, 1
    )
    with in_process(built.gate) as transport:
        yield Site(built, home, transport)
    built.close()


def ids(answer: httpx.Response) -> list[str]:
    """Return the ids of a page of traces."""
    assert answer.status_code == 200, answer.text
    return [each["trace_id"] for each in answer.json()["items"]]


def test_traces_are_listed_newest_first_a_page_at_a_time(site: Site) -> None:
    client = site.client()
    path = "/api/projects/shop/traces"
    first = client.get(path, params={"limit": 2})
    assert ids(first) == [trace_id(2), trace_id(1)]
    second = client.get(path, params={"limit": 2, "cursor": first.json()["next"]})
    assert ids(second) == [trace_id(0)]
    assert second.json()["next"] is None
    (row,) = second.json()["items"]
    assert (row["name"], row["span_count"], row["duration"]) == ("chat small", 2, 3500)
    assert row["input"] == "Where is my order?"
    assert row["started_at"].endswith("Z")
    assert row["feedback"][0]["value"] is False


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"text": "ORDER where"}, [0]),
        ({"status": "error"}, [1]),
        ({"release": "rel_1"}, [2]),
        ({"user": "u1"}, [2]),
        ({"name": "find_order"}, [0]),
        ({"attribute": "a.b[0]=x"}, [0]),
        ({"attributes": '{"__proto__":"y"}'}, [0]),
        ({"attributes": '{"__proto__":"y"}', "attribute": "a.b[0]=z"}, []),
        ({"min_duration": "2.5"}, [2, 1, 0]),
        ({"min_duration": "2.6"}, []),
        ({"since": "2001-01-01", "until": "2002-01-01T00:00:00Z"}, []),
        ({"since": "2001-01-01T00:00:00+02:00", "service": "agent"}, [2, 1, 0]),
        ({"service": "default"}, []),
        ({"feedback": "helpful"}, [0]),
        ({"feedback": "helpful", "feedback_least": "0.5"}, []),
        ({"feedback": "helpful", "feedback_most": "0"}, [0]),
        ({"text": "", "status": "", "since": ""}, [2, 1, 0]),
    ],
)
def test_conditions_narrow_the_list(site: Site, query: dict[str, str], wanted: list[int]) -> None:
    assert ids(site.client().get("/api/projects/shop/traces", params=query)) == [trace_id(each) for each in wanted]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "501"},
        {"limit": "x"},
        {"limit": "9" * 40},
        {"cursor": "x"},
        {"since": "soon"},
        {"until": "9" * 400},
        {"min_duration": "nan"},
        {"min_duration": "long"},
        {"status": "bad"},
        {"attribute": "novalue"},
        {"attribute": "=x"},
        {"attributes": "[]"},
        {"attributes": "{"},
        {"attributes": '{"a":1}'},
        {"attributes": '{"":"x"}'},
        {"attributes": str({f"k{number}": "v" for number in range(17)}).replace("'", '"')},
        {"feedback": "helpful", "feedback_least": "inf"},
    ],
)
def test_conditions_that_cannot_be_are_refused(site: Site, query: dict[str, str]) -> None:
    answer = site.client().get("/api/projects/shop/traces", params=query)
    if query.get("until", "").startswith("9"):
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")


def test_one_trace_comes_with_all_its_spans(site: Site) -> None:
    client = site.client()
    found = client.get(f"/api/traces/{trace_id(0)}", params={"project": "shop"}).json()
    assert [each["span_id"] for each in found["spans"]] == [span_id(0), span_id(1)]
    chat, tool = found["spans"]
    assert chat["messages"]["input"] == [
        {"role": "user", "text": "Where is my order?", "tool_calls": [], "tool_answer": ""}
    ]
    assert chat["messages"]["output"][0]["text"] == "On its way."
    assert tool["attributes"] == {"a.b[0]": "x", "__proto__": "y"}
    assert (tool["parent_id"], tool["duration"], tool["service"]) == (span_id(0), 2500, "agent")
    assert found["feedback"][0]["comment"] == "Late."
    # Who may see all projects need not name one, unless two have that id.
    assert client.get(f"/api/traces/{trace_id(2)}").json()["trace_id"] == trace_id(2)
    assert client.get(f"/api/traces/{trace_id(0)}").status_code == 400
    assert client.get(f"/api/traces/{trace_id(8)}").status_code == 404


def test_another_projects_trace_answers_as_a_missing_one_does(site: Site) -> None:
    shop = site.client(site.token("shop"))
    answers = [shop.get(f"/api/traces/{each}") for each in (trace_id(3), trace_id(8), "x")]
    answers += [shop.get(f"/projects/shop/traces/{trace_id(3)}"), shop.get(f"/projects/shop/traces/{trace_id(8)}")]
    errors = [answer.json()["error"] for answer in answers]
    for error in errors:
        del error["request_id"]
    assert {answer.status_code for answer in answers} == {404}
    assert all(error == errors[0] for error in errors)
    assert shop.get(f"/api/traces/{trace_id(3)}", params={"project": "bank"}).status_code == 404
    assert shop.get("/api/projects/bank/traces").status_code == 404
    # A cursor of another project's page shows nothing of it.
    theirs = site.client().get("/api/projects/bank/traces", params={"limit": 1}).json()["next"]
    listed = ids(shop.get("/api/projects/shop/traces", params={"cursor": theirs}))
    assert set(listed) <= {trace_id(0), trace_id(1), trace_id(2)}
    # One id in two projects is two traces.
    assert {each["name"] for each in shop.get(f"/api/traces/{trace_id(0)}").json()["spans"]} == {
        "chat small",
        "find_order",
    }


def test_the_services_role_writes_spans_and_does_not_read_them(site: Site) -> None:
    body = {"roles": ["service"], "project": "shop"}
    service = site.client(site.client().post("/api/tokens", json=body).json()["token"])
    assert service.get(f"/api/traces/{trace_id(0)}").status_code == 403


def test_commands_list_and_show_traces(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    from holdtrue.cli.traces import told

    http = site.client()
    with Client(http) as client:
        found = client.get(f"/api/traces/{trace_id(0)}", project="shop")
    lines = told(found)
    assert lines[0].startswith(f"trace     {trace_id(0)}, ok")
    assert "  chat small  2.5 ms" in lines
    assert "    find_order  2.5 ms" in lines
    assert "  user: Where is my order?" in lines
    assert lines[-1] == "feedback  helpful: False, u1: Late."
