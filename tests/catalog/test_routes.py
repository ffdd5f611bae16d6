"""The catalog's routes, called with real stores as the server calls them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from holdtrue.catalog.api import routes
from holdtrue.core.access import Permission
from holdtrue.core.clock import SimulatedClock
from holdtrue.core.codec import load
from holdtrue.core.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from holdtrue.door import Call
from holdtrue.storage import open_stores
from tests.catalog.conftest import ANN, ROBOT

ROOT = "/api/projects/{project}"


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    stores = open_stores(tmp_path / "home", SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
    yield Call(stores, ANN, "flights", {}, {})
    stores.close()


def ask(call: Call, method: str, path: str, body: Any = None, query: dict[str, str] | None = None, **names: str) -> Any:
    """Call the handler of a route; its answer must be JSON."""
    (route,) = [route for route in routes if (route.method, route.path) == (method, ROOT + path)]
    asked = replace(call, path={"project": call.project, **names}, query=query or {})
    arguments = [] if route.body is None else [load(route.body, body, "The body")]
    return orjson.loads(orjson.dumps(route.handler(asked, *arguments)))


def test_every_route_reads_or_writes_as_its_method_says() -> None:
    reading = {Permission.VERSIONS_READ, Permission.RELEASES_READ}
    for route in routes:
        assert (route.method == "GET") == (route.permission in reading), route.path


def test_from_bytes_to_the_difference_of_two_releases(call: Call) -> None:
    digest = call.stores.blobs.put(b"model")
    ids: list[str] = []
    for depth in (3, 4):
        body = {"kind": "model", "name": "delay", "content": {"depth": depth, "digest": digest}, "blobs": [digest]}
        ids.append(ask(call, "POST", "/versions", body)["id"])
    made = [ask(call, "POST", "/releases", {"service": "delay", "versions": {"model": each}}) for each in ids]
    assert [one["created_by"] for one in made] == ["usr_ann", "usr_ann"]
    assert ask(call, "GET", "/versions/{id}", id=ids[0])["content"]["depth"] == 3
    assert ask(call, "GET", "/releases/{id}", id=made[0]["id"]) == made[0]
    listed = ask(call, "GET", "/releases", query={"service": "delay", "limit": "1"})
    assert listed == {"items": [made[1]], "next": made[1]["id"]}
    rest = ask(call, "GET", "/releases", query={"after": listed["next"]})
    assert rest == {"items": [made[0]], "next": None}
    found = ask(call, "GET", "/releases/{id}/diff/{other}", id=made[0]["id"], other=made[1]["id"])
    (changed,) = [change for change in found["items"] if change["kind"] == "changed"]
    assert changed["role"] == "model"
    assert changed["detail"]["differences"] == [{"path": "depth", "kind": "changed", "before": 3, "after": 4}]
    graph = ask(call, "GET", "/lineage/{id}", id=ids[0])
    assert graph["edges"] == [{"source": ids[0], "target": made[0]["id"], "relation": "pinned"}]


def test_the_author_is_whoever_made_the_callers_token(call: Call) -> None:
    version = ask(call, "POST", "/versions", {"kind": "model", "name": "delay", "content": {}})
    robot = replace(call, actor=ROBOT)
    made = ask(robot, "POST", "/releases", {"service": "delay", "versions": {"model": version["id"]}})
    assert made["created_by"] == "usr_ann"
    with pytest.raises(ConfigurationError, match="author"):
        ask(call, "POST", "/releases", {"service": "delay", "author": "usr_bob"})


def test_a_repeated_request_makes_one_version(call: Call) -> None:
    keyed = replace(call, idempotency_key="k", body_digest="d")
    body = {"kind": "model", "name": "delay", "content": {"x": 1}}
    assert ask(keyed, "POST", "/versions", body) == ask(keyed, "POST", "/versions", body)
    assert len(call.stores.ledger.events("flights")) == 1


def test_versions_are_listed_by_kind_and_name(call: Call) -> None:
    for kind, name in (("model", "a"), ("model", "b"), ("policy", "a")):
        for number in range(2):
            ask(call, "POST", "/versions", {"kind": kind, "name": name, "content": {"n": number, "name": name}})
    page = ask(call, "GET", "/versions", query={"kind": "model", "limit": "3"})
    assert [(one["name"], one["number"]) for one in page["items"]] == [("a", 2), ("a", 1), ("b", 2)]
    rest = ask(call, "GET", "/versions", query={"kind": "model", "after": page["next"]})
    assert [(one["name"], one["number"]) for one in rest["items"]] == [("b", 1)]
    assert rest["next"] is None


def test_an_alias_is_put_and_listed(call: Call) -> None:
    version = ask(call, "POST", "/versions", {"kind": "model", "name": "delay", "content": {}})
    ask(
        call,
        "PUT",
        "/aliases/{kind}/{name}/{alias}",
        {"version": version["id"]},
        kind="model",
        name="delay",
        alias="best",
    )
    (alias,) = ask(call, "GET", "/aliases/{kind}/{name}", kind="model", name="delay")["items"]
    assert (alias["alias"], alias["version"]) == ("best", version["id"])


@pytest.mark.parametrize("alias", ["production", "staging", "dev"])
def test_what_is_deployed_is_not_named_by_hand(call: Call, alias: str) -> None:
    version = ask(call, "POST", "/versions", {"kind": "prompt", "name": "answer", "content": {}})
    with pytest.raises(Conflict, match="by hand"):
        ask(
            call,
            "PUT",
            "/aliases/{kind}/{name}/{alias}",
            {"version": version["id"]},
            kind="prompt",
            name="answer",
            alias=alias,
        )


def test_blobs_must_be_stored_first(call: Call) -> None:
    for blob in ("ab" * 32, "../../etc/passwd"):
        with pytest.raises((NotFound, InvalidInput)):
            ask(call, "POST", "/versions", {"kind": "model", "name": "delay", "content": {}, "blobs": [blob]})
    assert call.stores.ledger.events("flights") == []


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1e3", "٣", "9" * 400])
def test_a_page_size_is_a_small_number(call: Call, limit: str) -> None:
    for path in ("/versions", "/releases"):
        with pytest.raises(InvalidInput, match="page size"):
            ask(call, "GET", path, query={"limit": limit})


def test_a_direction_is_one_of_three(call: Call) -> None:
    with pytest.raises(InvalidInput, match="sideways"):
        ask(call, "GET", "/lineage/{id}", query={"direction": "sideways"}, id="mdl_1")
