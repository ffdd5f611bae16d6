"""Make versions of what a project declares in files: prompts, guardrails, routes."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from holdtrue import catalog
from holdtrue.core.codec import load
from holdtrue.core.errors import InvalidInput
from holdtrue.llm.prompts import parse_prompt
from holdtrue.storage.ledger import Transaction

LATEST: Final = "latest"


def declare(tx: Transaction, assets: Iterable[tuple[str, str, Any]]) -> list[str]:
    """Register assets (kind, name, content), each checked by what would use it, and point “latest” to them.

    Returns the version ids. What did not change is the version it was.
    """
    found: list[str] = []
    for kind, name, content in assets:
        check(kind, name, content)
        version = catalog.register(tx, kind, name, content)
        catalog.set_alias(tx, kind, name, LATEST, version.id)
        found.append(version.id)
    return found


def check(kind: str, name: str, content: Any) -> None:
    """Raise what a data plane would stumble over: a prompt, guardrails or a route that cannot be used."""
    checks: dict[str, Callable[[Any, str], Any]] = {
        "prompt": parse_prompt,
        "guardrail": _guardrails,
        "route": _route,
    }
    if kind not in checks:
        raise InvalidInput(f"Assets of the kind “{kind}” are not written in files.", mend="Leave it out.")
    checks[kind](content, name)


def _guardrails(content: Any, name: str) -> None:
    from holdtrue.llm.guardrails import compile_guardrails

    compile_guardrails(content)


def _route(content: Any, name: str) -> None:
    from holdtrue.llm.gateway import Route

    route = load(Route, content, f"The route {name}")
    if not route.targets:
        raise InvalidInput(f"The route {name} has no target.", mend='Name one: ht.route("provider/model").')
