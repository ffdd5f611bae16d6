"""HTTP routes of prompts."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.llm import service
from holdtrue.llm.service import RenderBody

routes = Routes("llm")
_PROMPTS = "/api/projects/{project}/prompts"
_ONE = _PROMPTS + "/{name}/{reference}"
_MOST = 1000


@routes.get(_PROMPTS, Permission.VERSIONS_READ, summary="List prompts.")
def list_prompts(call: Call) -> Any:
    """Return a page of prompt versions; query: limit, after."""
    limit, after = _limit(call), call.query.get("after")
    return call.read(lambda connection: service.list_prompts(connection, call.project, limit=limit, after=after))


@routes.get(_ONE, Permission.VERSIONS_READ, summary="Show a prompt.")
def get_prompt(call: Call) -> Any:
    """Return a prompt by alias, number, id, or “newest”."""
    name, reference = call.path["name"], call.path["reference"]
    return call.read(lambda connection: service.show_prompt(connection, call.project, name, reference))


@routes.get(_ONE + "/diff/{other}", Permission.VERSIONS_READ, summary="Compare two versions of a prompt.")
def get_diff(call: Call) -> Any:
    """Return what differs from `reference` to `other`."""
    name, before, after = (call.path[each] for each in ("name", "reference", "other"))
    return call.read(lambda connection: service.diff_prompts(connection, call.project, name, before, after))


@routes.post(_ONE + "/render", Permission.VERSIONS_READ, summary="Render a prompt without sending it.")
def post_render(call: Call, body: RenderBody) -> Any:
    """Return the chat request that the prompt makes of what is given."""
    name, reference = call.path["name"], call.path["reference"]
    return call.read(lambda connection: service.render_prompt(connection, call.project, name, reference, body))


def _limit(call: Call) -> int:
    text = call.query.get("limit", "100")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise InvalidInput(f"{text[:80]!r} is not a page size.", mend=f"Use a whole number from 1 to {_MOST}.")
    return int(text)
