"""Prompts over the server's own door: applied, listed, compared, rendered; and what names may say."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue import llm
from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.publishing import published_prompts
from holdtrue.server.answers import plain_page
from holdtrue.server.build import build
from holdtrue.server.home import read_token
from holdtrue.server.settings import load_settings
from holdtrue.server.table import room_routes
from holdtrue.server.transport import in_process
from holdtrue.storage import Stores, open_stores
from holdtrue.storage.ledger import WriteContext

ADA = Actor("usr_ada", "human", "ada", frozenset({Role.DEVELOPER}))
BASE = "/api/projects/help/prompts"


def content(words: str, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "system", "content": words}, {"role": "user", "content": "{{question}}"}],
        "variables": {"question": {"source": "user"}},
        **more,
    }


@contextmanager
def opened(home: Path) -> Generator[tuple[httpx.Client, Stores]]:
    clock = SimulatedClock(datetime(2026, 1, 5, 12, tzinfo=UTC))
    stores = open_stores(home, clock)
    built = build(stores, load_settings(home, environ={}), clock, room_routes(), plain_page)
    with in_process(built.gate) as transport:
        headers = {"authorization": f"Bearer {read_token(home)}"}
        with httpx.Client(transport=transport, base_url="http://127.0.0.1:7700", headers=headers) as client:
            yield client, stores
    built.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[tuple[httpx.Client, Stores]]:
    """Open a server with two versions of one prompt in the project “help”."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with opened(home) as made:
        for words in ("Answer shortly.", "Answer at length."):
            assets = [("prompt", "answer", content(words, parameters={"temperature": 0}))]
            made[1].ledger.write(WriteContext(ADA, "help"), lambda tx, assets=assets: llm.declare(tx, assets))
        yield made


def test_applied_prompts_are_versions_with_an_alias(room: tuple[httpx.Client, Stores]) -> None:
    client, stores = room
    items = client.get(BASE).json()["items"]

    assert [(each["number"], each["aliases"]) for each in items] == [(2, ["latest"]), (1, [])]
    latest = client.get(f"{BASE}/answer/latest").json()
    assert latest["content"]["messages"][0]["content"] == "Answer at length."
    for reference in ("2", "newest", latest["version"]):
        assert client.get(f"{BASE}/answer/{reference}").json() == latest
    published = stores.ledger.read(published_prompts)
    assert published["help"]["answer"]["latest"]["version"] == latest["version"]


def test_two_versions_are_compared(room: tuple[httpx.Client, Stores]) -> None:
    client, _ = room
    (difference,) = client.get(f"{BASE}/answer/1/diff/2").json()["items"]

    assert difference["path"] == "messages[0].content"
    assert (difference["before"], difference["after"]) == ("Answer shortly.", "Answer at length.")


def test_a_prompt_is_rendered_without_being_sent(room: tuple[httpx.Client, Stores]) -> None:
    client, _ = room
    said = client.post(f"{BASE}/answer/latest/render", json={"variables": {"question": "Why?"}}).json()
    assert said["messages"][1] == {"role": "user", "content": "Why?"}
    assert said["temperature"] == 0

    missing = client.post(f"{BASE}/answer/latest/render", json={})
    assert missing.status_code == 400
    assert missing.json()["error"]["code"] == "prompt_variable"
    assert "question" in missing.json()["error"]["what"]


@pytest.mark.parametrize("path", ["/gone/latest", "/answer/gone", "/answer/9", "/answer/prm_0000000000000000"])
def test_what_is_not_there_is_not_found(room: tuple[httpx.Client, Stores], path: str) -> None:
    assert room[0].get(f"{BASE}{path}").status_code == 404


@pytest.mark.parametrize(
    ("kind", "asset"),
    [
        ("prompt", {"messages": []}),
        ("prompt", {"messages": [{"role": "user", "content": "{{gone}}"}]}),
        ("model", {}),
    ],
)
def test_what_could_not_be_used_is_not_applied(
    room: tuple[httpx.Client, Stores], kind: str, asset: dict[str, Any]
) -> None:
    client, stores = room
    with pytest.raises(HoldtrueError):
        stores.ledger.write(WriteContext(ADA, "help"), lambda tx: llm.declare(tx, [(kind, "bad", asset)]))
    assert client.get(f"{BASE}/bad/latest").status_code == 404
