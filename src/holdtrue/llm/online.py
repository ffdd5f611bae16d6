"""What a data plane needs of this room: releases loaded, prompts by name; no SQL."""

from collections.abc import Mapping
from typing import Any

from holdtrue.core.clock import Clock
from holdtrue.core.codec import load
from holdtrue.core.errors import ConfigurationError
from holdtrue.llm.application import Application, Parts, read_settings
from holdtrue.llm.gateway import Route
from holdtrue.llm.guardrails import GuardrailSpec, compile_guardrails
from holdtrue.llm.model import Begin, Complete
from holdtrue.llm.prompts import parse_prompt
from holdtrue.llm.retrieval import Embedder, open_index
from holdtrue.llm.tracing import Keep
from holdtrue.storage import BlobStore


def compile_parts(
    blobs: BlobStore,
    contents: Mapping[str, Any],
    versions: Mapping[str, str],
    config: Mapping[str, Any],
    embedder: Embedder | None = None,
) -> Parts:
    """Compile what a release pins: `contents` and `versions` by role (prompt, route, index, guardrails).

    `embedder` is that of the index where it is open already. Every way in which that can fail is a HoldtrueError.
    """
    prompt = parse_prompt(contents["prompt"], versions.get("prompt", ""))
    index = open_index(blobs, contents["index"], embedder) if contents.get("index") is not None else None
    if prompt.passages is not None and index is None:
        raise ConfigurationError(
            f"The prompt takes retrieved passages ({prompt.passages}), and there is no index.",
            mend="Give the application an index, or take the variable out of the prompt.",
        )
    rails, watched = None, ()
    if contents.get("guardrails") is not None:
        rails = compile_guardrails(contents["guardrails"])
        spec = load(GuardrailSpec, contents["guardrails"], "The guardrails")
        named = zip(spec.names(), spec.guards, strict=True)
        watched = tuple(name for name, guard in named if guard.on in ("output", "both"))
    route = load(Route, contents["route"], "The route")
    return Parts(prompt, route, read_settings(config), dict(versions), index, rails, watched)


def build_application(
    parts: Parts, complete: Complete, keep: Keep, clock: Clock, *, begin: Begin | None = None
) -> Application:
    """Return an application ready to answer; `begin` lets answers leave in pieces while they are made."""
    return Application(parts, complete, keep, clock, begin=begin)
