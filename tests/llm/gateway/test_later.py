"""Requests through the gateway that are answered later: begun at most once, since a provider is paid for each."""

from typing import Any

import httpx

from holdtrue.testing import FakeProvider, Fault
from tests.llm.gateway.worlds import KEY, Served, World, only, provider
from tests.serving.plane_home import Process
from tests.serving.test_later import LATER, fetched

CHAT = "/v1/chat/completions"


def asked(words: str = "good day", **more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": words}], "max_tokens": 4, **more}


def take(plane: Process, name: str, body: dict[str, Any], path: str = CHAT) -> httpx.Response:
    """Send a request for later under its own name."""
    taken = plane.client.post(path, json=body, headers={**LATER, "x-request-id": name})
    assert (taken.status_code, taken.json()["id"]) == (202, name), taken.text
    return taken


def test_an_answer_is_fetched_later_and_is_that_of_the_same_request_at_once(served: Served) -> None:
    at_once = served.plane.client.post(CHAT, json=asked()).json()
    take(served.plane, "chat-1", asked())
    done = fetched(served.plane, "chat-1")
    assert done.status_code == 200
    assert done.headers["x-holdtrue-provider"] == "fake"
    assert done.json()["choices"] == at_once["choices"]
    take(served.plane, "chat-1", asked())
    take(served.plane, "talk-1", asked(), "/v1/messages")
    assert fetched(served.plane, "talk-1").json()["type"] == "message"
    assert len(served.fake.received) == 3
    pieces = served.plane.client.post(CHAT, json=asked(stream=True), headers=LATER)
    assert pieces.headers["content-type"].startswith("text/event-stream")


def test_an_error_of_the_provider_is_the_result_and_it_is_not_asked_again(served: Served) -> None:
    served.fake.script(Fault(status=503))
    take(served.plane, "refused", asked())
    done = fetched(served.plane, "refused")
    assert done.status_code >= 500
    assert "message" in done.json()["error"]
    assert len(served.fake.received) == 1
    take(served.plane, "broken", {"model": "small"})
    assert fetched(served.plane, "broken").status_code == 400


def test_what_was_begun_when_the_process_died_is_never_begun_again(world: World, fake: FakeProvider) -> None:
    plane = world.plane(only(provider(fake.url)))
    fake.always(Fault(hang=True))
    take(plane, "begun", asked())
    fake.wait(lambda received: len(received) == 1)
    plane.kill()
    fake.always(Fault())
    again = world.start(FAKE_KEY=KEY)
    done = fetched(again, "begun")
    assert (done.status_code, done.json()["error"]["code"]) == (500, "request_unsure")
    assert "may have answered, and been paid" in done.json()["error"]["message"]
    take(again, "after", asked())
    assert fetched(again, "after").status_code == 200
    # The one that was begun was asked once; the second request is the other one.
    assert len(fake.received) == 2
    assert again.stop() == 0
