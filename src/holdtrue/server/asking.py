"""How a command asks models while it tries an application out: through the gateway, as everybody does.

With a server running, over HTTP, so that keys stay in the gateway's process and budgets hold. Without one, a gateway
in this process answers, with the same configuration.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import Unavailable
from holdtrue.llm.gateway import Completion, Gateway, Route, Usage
from holdtrue.llm.model import Ask, Complete
from holdtrue.protocols.applications import provider_of
from holdtrue.server.client import Client
from holdtrue.server.settings import load_settings

_TRIES = 4
_LONGEST_WAIT = 5.0


@contextlib.contextmanager
def completer(home: Path | None, client: Client) -> Generator[Complete]:
    """Give what asks a model by a route; `client` is the command's own, whose token it uses."""
    http = client.data_plane()
    if http is None:
        with _inside(load_settings(home).home) as complete:
            yield complete
        return
    with http:
        yield _over(http)


def _over(http: httpx.Client) -> Complete:
    """Ask the data plane by the targets of a route, in turn."""

    async def complete(ask: Ask, route: Route, body: Mapping[str, Any], traceparent: str) -> Completion:
        failures: list[Unavailable] = []
        for target in route.targets:
            try:
                return await asyncio.to_thread(_asked, http, ask.project, target.label, body, traceparent)
            except Unavailable as error:
                failures.append(error)
        raise failures[-1]

    return complete


def _asked(http: httpx.Client, project: str, model: str, body: Mapping[str, Any], traceparent: str) -> Completion:
    content = orjson.dumps({**body, "model": model})
    headers = {"content-type": "application/json", "x-holdtrue-project": project}
    if traceparent:
        headers["traceparent"] = traceparent
    for attempt in range(_TRIES):
        try:
            answer = http.post("/v1/chat/completions", content=content, headers=headers)
        except httpx.TransportError as error:
            raise Unavailable("The data plane does not answer.", why=type(error).__name__) from None
        # A project that was applied a moment ago is known to the data plane within a second (404 until then).
        if answer.status_code not in (404, 429, 503) or attempt == _TRIES - 1:
            return _completion(model, answer)
        time.sleep(min(float(answer.headers.get("retry-after", 0.5)), _LONGEST_WAIT))
    raise AssertionError("the last try returns")


def _completion(model: str, answer: httpx.Response) -> Completion:
    if answer.status_code != 200:
        try:
            said = str(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            said = f"It answered {answer.status_code}."
        raise Unavailable(
            f"The model {model} did not answer.", why=said, mend="Look at the gateway: holdtrue provider list"
        )
    body = answer.json()
    usage = body.get("usage") or {}
    provider, _, name = model.partition("/")
    return Completion(
        id=answer.headers.get("x-holdtrue-call", ""),
        body=body,
        usage=Usage(int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))),
        cost_micros=int(answer.headers.get("x-holdtrue-cost-micros", 0)),
        provider=answer.headers.get("x-holdtrue-provider", provider),
        model=name,
        cached=answer.headers.get("x-holdtrue-cache") == "hit",
        attempts=(),
    )


@contextlib.contextmanager
def _inside(home: Path) -> Generator[Complete]:
    """Ask a gateway in this process: without a server the folder is this process's alone."""
    from holdtrue.llm.gateway.extractive import Extractive

    extractive = Extractive()
    gateway = Gateway(home, "command", SystemClock(), extractive=lambda _: extractive)
    gateway.configure(_configuration(home))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(gateway.start(), loop).result()
    inner = provider_of(gateway)

    async def complete(ask: Ask, route: Route, body: Mapping[str, Any], traceparent: str) -> Completion:
        # The gateway's connections belong to its own loop, whichever loop asks.
        asked = asyncio.run_coroutine_threadsafe(_await(inner(ask, route, body, traceparent)), loop)
        return await asyncio.wrap_future(asked)

    try:
        yield complete
    finally:
        asyncio.run_coroutine_threadsafe(gateway.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _await(asked: Awaitable[Completion]) -> Completion:
    return await asked


def _configuration(home: Path) -> Mapping[str, Any]:
    """Return the gateway's configuration as it was published last; nothing if it never was."""
    try:
        snapshot = orjson.loads((home / "routing" / "current.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: each for name, each in snapshot.get("gateway", {}).items() if name != "prompts"}
