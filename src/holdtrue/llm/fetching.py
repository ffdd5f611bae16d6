"""Fetch a prompt for use in any program, with a copy kept for the time when the server does not answer."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from holdtrue.core.clock import Clock, SystemClock
from holdtrue.core.errors import ConfigurationError, NotFound, Unauthenticated, Unavailable
from holdtrue.llm.prompts import Prompt, parse_prompt, render, request_of
from holdtrue.storage import make_folder, write_atomic

FRESH_SECONDS: Final = 60.0
_TIMEOUT: Final = 5.0
_URL: Final = "http://127.0.0.1:7700"


@dataclass(frozen=True, slots=True)
class FetchedPrompt:
    """Hold a prompt that was fetched; `stale` tells that the server did not answer and a kept copy is used."""

    name: str
    version: str
    prompt: Prompt
    stale: bool = False

    def messages(self, **variables: Any) -> list[dict[str, Any]]:
        """Return the messages with `variables` in their places; raise PromptVariable."""
        return render(self.prompt, variables, self.name)

    def request(self, **variables: Any) -> dict[str, Any]:
        """Return the arguments of a chat request: messages, parameters, tools, output schema."""
        return request_of(self.prompt, self.messages(**variables))


def prompt(
    reference: str,
    *,
    url: str | None = None,
    token: str | None = None,
    project: str | None = None,
    cache: Path | None = None,
    fresh_seconds: float = FRESH_SECONDS,
    clock: Clock | None = None,
) -> FetchedPrompt:
    """Return the prompt “name@alias” (alias: “production” if none is named).

    A copy younger than `fresh_seconds` is used without asking; an older one if the server does not answer within
    five seconds or fails. Address, token and project come from HOLDTRUE_URL, HOLDTRUE_TOKEN and HOLDTRUE_PROJECT
    (or the token's own project). Raises NotFound, Unauthenticated, and Unavailable if there is no copy either.
    """
    name, _, alias = reference.partition("@")
    where = (url or os.environ.get("HOLDTRUE_URL") or _URL).rstrip("/")
    secret = token or os.environ.get("HOLDTRUE_TOKEN") or ""
    owner = project or os.environ.get("HOLDTRUE_PROJECT") or ""
    copy = _Copy.of(cache, where, secret, owner, name, alias or "production")
    now = (clock or SystemClock()).now().timestamp()
    kept = copy.read()
    if kept is not None and 0 <= now - float(kept["fetched_at"]) < fresh_seconds:
        return _made(reference, kept, stale=False)
    try:
        found = _fetch(where, secret, owner, name, alias or "production")
    except (httpx.TransportError, Unavailable) as error:
        if kept is None:
            raise Unavailable(
                f"The prompt {reference} cannot be fetched, and there is no copy of it here.",
                why=f"{where} does not answer: {type(error).__name__}.",
                mend="Start the server, or correct HOLDTRUE_URL.",
            ) from None
        return _made(reference, kept, stale=True)
    copy.write({**found, "fetched_at": now})
    return _made(reference, found, stale=False)


@dataclass(frozen=True, slots=True)
class _Copy:
    path: Path

    @classmethod
    def of(cls, folder: Path | None, *parts: str) -> "_Copy":
        base = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdtrue" / "prompts"
        # The token is part of the name: what one may read, another may not. No text of a caller becomes a path.
        return cls(base / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}.json")

    def read(self) -> dict[str, Any] | None:
        try:
            data = orjson.loads(self.path.read_bytes())
            parse_prompt(data["content"], "copy")
            return {**data, "fetched_at": float(data["fetched_at"]), "version": str(data["version"])}
        except (OSError, ValueError, KeyError, TypeError, ConfigurationError):
            return None

    def write(self, data: Mapping[str, Any]) -> None:
        make_folder(self.path.parent)
        write_atomic(self.path, orjson.dumps(dict(data)))


def _made(reference: str, data: Mapping[str, Any], *, stale: bool) -> FetchedPrompt:
    return FetchedPrompt(reference, data["version"], parse_prompt(data["content"], reference), stale)


def _fetch(where: str, secret: str, owner: str, name: str, alias: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    with httpx.Client(base_url=where, headers=headers, timeout=_TIMEOUT, follow_redirects=False) as client:
        if not owner:
            owner = str(_answer(client.get("/api/whoami"), "").get("project") or "")
            if not owner:
                raise ConfigurationError(
                    "It is not known which project is meant.",
                    why="The token is for all projects.",
                    mend="Set HOLDTRUE_PROJECT, or pass project=….",
                )
        answer = _answer(client.get(f"/api/projects/{owner}/prompts/{name}/{alias}"), f"{name}@{alias}")
        return {"version": answer["version"], "content": answer["content"]}


def _answer(response: httpx.Response, what: str) -> dict[str, Any]:
    if response.status_code == 404:
        raise NotFound.of("prompt", what)
    if response.status_code in (401, 403):
        raise Unauthenticated(
            "The server does not take this token.", mend="Set HOLDTRUE_TOKEN to one of `holdtrue token create`."
        )
    if response.status_code != 200:
        raise Unavailable(f"The server answered {response.status_code}.", mend="Try again.")
    return response.json()
