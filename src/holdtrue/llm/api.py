"""HTTP routes of the gateway's control side, and of prompts.

Of the gateway's, the query's `project` says whose; without it, the house's.
"""

from dataclasses import dataclass, replace
from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import check_name
from holdtrue.door import Call, Routes
from holdtrue.llm import library, service
from holdtrue.llm.gateway import Budget, Capture, Period, Provider
from holdtrue.llm.library import RenderBody
from holdtrue.llm.service import NewProvider
from holdtrue.storage.ledger import Transaction

routes = Routes("llm")
_GATEWAY = "/api/gateway"
_PROMPTS = "/api/projects/{project}/prompts"
_ONE = _PROMPTS + "/{name}/{reference}"
_MOST = 1000


@dataclass(frozen=True, slots=True)
class StopBody:
    """Say why something is stopped."""

    reason: str


@dataclass(frozen=True, slots=True)
class CaptureBody:
    """Say what is kept of the content of calls."""

    capture: Capture


@routes.get(_GATEWAY, Permission.GATEWAY_READ, summary="Show the gateway's providers, budgets and switches.")
def show_gateway(call: Call) -> Any:
    """Return everything at once."""
    project = _project(call)

    def look(connection: Any) -> Any:
        return {
            **service.switches(connection, project),
            "providers": [_shown(call, each) for each in service.providers(connection, project)],
            "budgets": service.budgets(connection, project, call.stores.home),
        }

    return call.read(look)


@routes.get(_GATEWAY + "/providers", Permission.GATEWAY_READ, summary="List providers.")
def list_providers(call: Call) -> Any:
    """Return the project's providers and the house's; for the house, those of all projects."""
    project = _project(call)
    found = call.read(lambda connection: service.providers(connection, project))
    return {"items": [_shown(call, each) for each in found], "next": None}


@routes.put(_GATEWAY + "/providers/{name}", Permission.GATEWAY_WRITE, summary="Declare a provider.")
def put_provider(call: Call, body: NewProvider) -> Any:
    """Declare a provider, or replace the one of that name."""
    _project(call)
    return call.write(lambda tx: dump(service.put_provider(tx, call.path["name"], body)))


@routes.delete(_GATEWAY + "/providers/{name}", Permission.GATEWAY_WRITE, summary="Remove a provider.")
def delete_provider(call: Call) -> Any:
    """Remove a provider."""
    _project(call)
    name = call.path["name"]
    call.write(lambda tx: service.remove_provider(tx, name))
    return {"removed": name}


@routes.post(_GATEWAY + "/providers/{name}/stop", Permission.GATEWAY_WRITE, summary="Stop a provider.")
def stop_provider(call: Call, body: StopBody) -> Any:
    """Let nobody use a provider until it is started again; calls under way are ended."""
    return _switch(call, _reason(body))


@routes.post(_GATEWAY + "/providers/{name}/start", Permission.GATEWAY_WRITE, summary="Start a stopped provider.")
def start_provider(call: Call) -> Any:
    """Let a provider be used again."""
    return _switch(call, "")


@routes.post(_GATEWAY + "/stop", Permission.GATEWAY_WRITE, summary="Refuse all calls.")
def stop_gateway(call: Call, body: StopBody) -> Any:
    """Refuse all calls of the project, or of every project; those under way are ended."""
    return _switch_all(call, _reason(body))


@routes.post(_GATEWAY + "/start", Permission.GATEWAY_WRITE, summary="Answer calls again.")
def start_gateway(call: Call) -> Any:
    """Take a stop of all calls back."""
    return _switch_all(call, "")


@routes.put(_GATEWAY + "/capture", Permission.GATEWAY_WRITE, summary="Set what is kept of calls' content.")
def put_capture(call: Call, body: CaptureBody) -> Any:
    """Set what is kept of the content of calls: off, masked or full."""
    _project(call)
    call.write(lambda tx: service.set_capture(tx, body.capture))
    return {"capture": body.capture}


@routes.get(_GATEWAY + "/budgets", Permission.GATEWAY_READ, summary="List budgets and what is used of them.")
def list_budgets(call: Call) -> Any:
    """Return the project's budgets; for the house, those of all projects."""
    project = _project(call)
    found = call.read(lambda connection: service.budgets(connection, project, call.stores.home))
    return {"items": found, "next": None}


@routes.put(_GATEWAY + "/budgets", Permission.GATEWAY_WRITE, summary="Set a budget.")
def put_budget(call: Call, body: Budget) -> Any:
    """Set a budget, in place of the one of its key and period."""
    _project(call)
    return call.write(lambda tx: dump(service.set_budget(tx, body)))


@routes.delete(_GATEWAY + "/budgets/{period}", Permission.GATEWAY_WRITE, summary="Remove a budget.")
def delete_budget(call: Call) -> Any:
    """Remove the budget of a period, and of the query's `key`."""
    _project(call)
    text, key = call.path["period"], call.query.get("key", "")
    if text not in set(Period):
        raise InvalidInput(f"{text[:40]!r} is not a period.", mend=f"Use one of {', '.join(Period)}.")
    call.write(lambda tx: service.remove_budget(tx, key, Period(text)))
    return {"removed": text}


def _project(call: Call) -> str:
    """Return whose gateway is meant; "" is the house."""
    return check_name(call.project, "project name") if call.project else ""


def _reason(body: StopBody) -> str:
    reason = body.reason.strip()
    if not 0 < len(reason) <= 500 or not reason.isprintable():
        raise InvalidInput("Say in one line why it is stopped.", why="Whoever is refused is told.")
    return reason


def _switch(call: Call, stopped: str) -> Any:
    _project(call)
    name = call.path["name"]
    return call.write(lambda tx: _hidden(call, service.switch_provider(tx, name, stopped)))


def _switch_all(call: Call, stopped: str) -> Any:
    _project(call)

    def work(tx: Transaction) -> None:
        service.switch_gateway(tx, stopped)

    call.write(work)
    return {"stopped": stopped or None}


def _shown(call: Call, each: service.Scoped) -> Any:
    return {"project": each.project, **_hidden(call, each.value)}


def _hidden(call: Call, provider: Provider) -> Any:
    """Return a provider without where its key is found, unless the caller could say so himself."""
    if not service.may_see_keys(call.actor):
        provider = replace(provider, key="set" if provider.key else "")
    return dump(provider)


@routes.get(_PROMPTS, Permission.VERSIONS_READ, summary="List prompts.")
def list_prompts(call: Call) -> Any:
    """Return a page of prompt versions; query: limit, after."""
    limit, after = _limit(call), call.query.get("after")
    return call.read(lambda connection: library.list_prompts(connection, call.project, limit=limit, after=after))


@routes.get(_ONE, Permission.VERSIONS_READ, summary="Show a prompt.")
def get_prompt(call: Call) -> Any:
    """Return a prompt by alias, number, id, or “newest”."""
    name, reference = call.path["name"], call.path["reference"]
    return call.read(lambda connection: library.show_prompt(connection, call.project, name, reference))


@routes.get(_ONE + "/diff/{other}", Permission.VERSIONS_READ, summary="Compare two versions of a prompt.")
def get_diff(call: Call) -> Any:
    """Return what differs from `reference` to `other`."""
    name, before, after = (call.path[each] for each in ("name", "reference", "other"))
    return call.read(lambda connection: library.diff_prompts(connection, call.project, name, before, after))


@routes.post(_ONE + "/render", Permission.VERSIONS_READ, summary="Render a prompt without sending it.")
def post_render(call: Call, body: RenderBody) -> Any:
    """Return the chat request that the prompt makes of what is given."""
    name, reference = call.path["name"], call.path["reference"]
    return call.read(lambda connection: library.render_prompt(connection, call.project, name, reference, body))


def _limit(call: Call) -> int:
    text = call.query.get("limit", "100")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise InvalidInput(f"{text[:80]!r} is not a page size.", mend=f"Use a whole number from 1 to {_MOST}.")
    return int(text)
