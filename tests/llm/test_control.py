"""The gateway's control side: who may declare what, what is published, and what is never told."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue.core.access import Role
from holdtrue.delivery import reconcile
from holdtrue.llm.gateway import Period
from holdtrue.llm.gateway.budgets import Amount, Budgets, Limit
from holdtrue.llm.gateway.model import Budget
from tests.server.conftest import Door, Opener, opener  # noqa: F401  # pyright: ignore[reportUnusedImport]  # the fixture

PROVIDER: dict[str, Any] = {
    "kind": "openai",
    "base_url": "https://api.example.com/v1",
    "key": "env:EXAMPLE_KEY",
    "models": ["small", "large"],
}
EXTRACTIVE = {"kind": "extractive"}


@pytest.fixture
def door(opener: Opener) -> Door:  # noqa: F811  # as above
    return opener()


def put(client: httpx.Client, name: str = "example", project: str = "", **changes: Any) -> httpx.Response:
    return client.put(
        f"/api/gateway/providers/{name}", params={"project": project} if project else {}, json={**PROVIDER, **changes}
    )


def published(door: Door) -> Any:
    reconcile(door.built.app.stores, "")
    return json.loads((door.home / "routing" / "current.json").read_text())["gateway"]


def events(door: Door) -> list[str]:
    return [event.action for event in door.built.app.stores.ledger.events(limit=100)]


def test_a_provider_is_declared_and_published(door: Door) -> None:
    owner = door.owner()
    made = put(owner, prices={"small": {"input": 150_000, "output": 600_000}}, fallbacks=["spare/small"])
    assert made.status_code == 200, made.text
    assert made.json()["key"] == "env:EXAMPLE_KEY"
    (shown,) = owner.get("/api/gateway/providers").json()["items"]
    assert (shown["project"], shown["name"], shown["models"]) == ("", "example", ["small", "large"])
    (provider,) = published(door)["projects"][""]["providers"]
    assert provider["prices"]["small"] == {"input": 150_000, "output": 600_000, "cached_input": None}
    assert owner.delete("/api/gateway/providers/example").json() == {"removed": "example"}
    assert published(door) == {}
    assert owner.delete("/api/gateway/providers/example").status_code == 404
    assert [each for each in events(door) if each.startswith("provider.")] == ["provider.declared", "provider.removed"]


def test_stopping_and_starting(door: Door) -> None:
    owner = door.owner()
    put(owner)
    assert owner.post("/api/gateway/providers/example/stop", json={"reason": "too dear"}).status_code == 200
    assert published(door)["projects"][""]["providers"][0]["stopped"] == "too dear"
    # To declare it anew does not start it.
    assert put(owner, models=["small"]).json()["stopped"] == "too dear"
    assert owner.post("/api/gateway/providers/example/start").json()["stopped"] == ""
    assert (
        owner.post("/api/gateway/stop", json={"reason": "an incident"}, params={"project": "flights"}).status_code
        == 200
    )
    assert published(door)["projects"]["flights"]["stopped"] == "an incident"
    assert owner.get("/api/gateway", params={"project": "flights"}).json()["stopped"] == "an incident"
    assert owner.get("/api/gateway").json()["stopped"] is None
    owner.post("/api/gateway/start", params={"project": "flights"})
    assert published(door)["projects"]["flights"]["stopped"] == ""
    assert owner.post("/api/gateway/providers/none/stop", json={"reason": "x"}).status_code == 404
    for reason in ("", "  ", "two\nlines", "x" * 501):
        assert owner.post("/api/gateway/stop", json={"reason": reason}).status_code == 400


def test_what_is_kept_of_calls(door: Door) -> None:
    owner = door.owner()
    assert (
        owner.put("/api/gateway/capture", json={"capture": "masked"}, params={"project": "flights"}).status_code == 200
    )
    owner.post("/api/gateway/stop", json={"reason": "x"}, params={"project": "flights"})
    assert published(door)["projects"]["flights"]["capture"] == "masked"
    assert owner.put("/api/gateway/capture", json={"capture": "everything"}).status_code == 400


def test_budgets_are_set_and_shown_with_what_is_used(door: Door) -> None:
    owner = door.owner()
    body = {"key": "abc", "period": "day", "money": 5_000_000, "requests_per_minute": 60}
    assert owner.put("/api/gateway/budgets", json=body, params={"project": "flights"}).status_code == 200
    owner.put("/api/gateway/budgets", json={"tokens": 100})
    counters = Budgets(door.home / "gateway" / "budgets", "dataplane-0", door.clock)
    limit = Limit("flights", Budget("abc", Period.DAY))
    counters.settle(counters.reserve((limit,), Amount(9, 9, 1), 60), Amount(7, 8, 1))
    counters.close()
    (mine,) = owner.get("/api/gateway/budgets", params={"project": "flights"}).json()["items"]
    assert (mine["money"], mine["used"]["money"], mine["used"]["tokens"]) == (5_000_000, 7, 8)
    assert [each["project"] for each in owner.get("/api/gateway/budgets").json()["items"]] == ["", "flights"]
    config = published(door)["projects"]
    assert config["flights"]["budgets"][0]["requests_per_minute"] == 60
    assert config[""]["budgets"][0]["tokens"] == 100
    assert owner.delete("/api/gateway/budgets/day", params={"project": "flights", "key": "abc"}).status_code == 200
    assert owner.delete("/api/gateway/budgets/day", params={"project": "flights", "key": "abc"}).status_code == 404
    assert owner.delete("/api/gateway/budgets/year").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"money": -1},
        {"money": 2**60},
        {"money": 1.5},
        {"period": "year", "tokens": 1},
        {"key": "a/b", "tokens": 1},
        {"token": 1},
    ],
)
def test_budgets_that_cannot_be(door: Door, body: dict[str, Any]) -> None:
    before = door.digest()
    assert door.owner().put("/api/gateway/budgets", json=body).status_code == 400
    assert door.digest() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "telepathy"},
        {"base_url": "http://api.example.com"},
        {"base_url": ""},
        {"base_url": "http://169.254.169.254/"},
        {"base_url": "https://user:secret@api.example.com"},
        {"key": "sk-live-abc"},
        {"models": []},
        {"models": ["a", "a"]},
        {"models": [""]},
        {"models": ["a\nb"]},
        {"timeout": 0},
        {"timeout": 1e9},
        {"retries": 9},
        {"output_limit": 0},
        {"prices": {"small": {"input": -1}}},
        {"prices": {"unknown": {"input": 1}}},
        {"fallbacks": ["small"]},
        {"command": "sh"},
        {"stopped": "x"},
    ],
)
def test_providers_that_cannot_be(door: Door, changes: dict[str, Any]) -> None:
    before = door.digest()
    answer = put(door.owner(), **changes)
    assert answer.status_code == 400, answer.text
    assert "sk-live" not in answer.text
    assert "secret" not in answer.text
    assert door.digest() == before


@pytest.mark.parametrize("name", ["a%2fb", "..", "a b", "-x", "x" * 64])
def test_names_that_cannot_be(door: Door, name: str) -> None:
    assert put(door.owner(), name=name).status_code in (400, 404, 405)


def test_only_who_runs_the_server_says_where_calls_and_keys_go(door: Door) -> None:
    admin = door.client(door.token(Role.ADMIN))
    put(door.owner(), name="shared")
    for changes in ({}, {"base_url": "http://127.0.0.1:7700"}, {"key": ""}):
        refused = put(admin, **changes)
        assert refused.status_code == 403, refused.text
    assert admin.put("/api/gateway/providers/docs", json=EXTRACTIVE).status_code == 200
    assert admin.put("/api/gateway/budgets", json={"tokens": 5}).status_code == 200
    # What a project's administrator declares is the project's.
    assert set(published(door)["projects"]) == {"", "flights"}
    shown = {each["name"]: each for each in admin.get("/api/gateway/providers").json()["items"]}
    assert (shown["docs"]["project"], shown["shared"]["project"]) == ("flights", "")
    assert shown["shared"]["key"] == "set"
    assert shown["docs"]["models"] == ["extractive", "e5-small"]
    # The house's provider is not a project's to remove or stop.
    assert admin.delete("/api/gateway/providers/shared").status_code == 404
    assert admin.post("/api/gateway/providers/shared/stop", json={"reason": "x"}).status_code == 404


def test_projects_do_not_see_each_other(door: Door) -> None:
    owner = door.owner()
    put(owner, name="theirs", project="elsewhere")
    owner.put("/api/gateway/budgets", json={"tokens": 5}, params={"project": "elsewhere"})
    viewer = door.client(door.token(Role.VIEWER))
    assert viewer.get("/api/gateway/providers").json()["items"] == []
    assert viewer.get("/api/gateway/budgets").json()["items"] == []
    assert viewer.get("/api/gateway", params={"project": "elsewhere"}).status_code == 404
    assert viewer.put("/api/gateway/budgets", json={"tokens": 5}).status_code == 403
    assert put(viewer).status_code == 403
    for role in (Role.DEVELOPER, Role.OPERATOR, Role.REVIEWER, Role.SERVICE):
        assert put(door.client(door.token(role))).status_code == 403


def test_a_key_goes_to_one_host_only(door: Door) -> None:
    owner = door.owner()
    put(owner, name="one")
    elsewhere = {"base_url": "https://evil.example/v1"}
    assert put(owner, name="two", **elsewhere).status_code == 409
    assert put(owner, name="two", project="flights", **elsewhere).status_code == 409
    # A base URL that changes does not take the key along either.
    assert put(owner, name="one", **elsewhere).status_code == 409
    assert put(owner, name="two", base_url="https://api.example.com/v2").status_code == 200
    assert put(owner, name="three", key="env:OTHER_KEY", **elsewhere).status_code == 200
    owner.delete("/api/gateway/providers/one")
    owner.delete("/api/gateway/providers/two")
    assert put(owner, name="one", **elsewhere).status_code == 200


def test_a_house_without_a_project_is_published_too(door: Door) -> None:
    put(door.owner())
    door.built.app.due.reconcile()
    assert json.loads((door.home / "routing" / "current.json").read_text())["sequence"] == 1
    door.built.app.due.run()
    assert json.loads((door.home / "routing" / "current.json").read_text())["sequence"] == 1


def test_the_log_has_where_a_key_is_and_never_what(door: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", "sk-canary-control")
    put(door.owner())
    published(door)
    found = b"".join(each.read_bytes() for each in door.home.rglob("*") if each.is_file())
    assert b"env:EXAMPLE_KEY" in found
    assert b"sk-canary-control" not in found
