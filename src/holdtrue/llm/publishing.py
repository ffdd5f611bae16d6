"""What data planes need to know for the gateway, as it goes into the routing snapshot."""

from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.llm import service


def published_prompts(connection: sa.Connection) -> dict[str, Any]:
    """Return the prompts that have an alias: project → name → alias → {version, content}."""
    found: dict[str, Any] = {}
    for project, alias, version in catalog.aliased(connection, "prompt"):
        entry = {"version": version.id, "content": version.content}
        found.setdefault(project, {}).setdefault(version.name, {})[alias] = entry
    return found


def gateway_config(connection: sa.Connection) -> dict[str, Any]:
    """Return providers, budgets, switches and prompts of all projects; empty if nothing is declared."""
    config = service.gateway_config(connection)
    prompts = published_prompts(connection)
    return {**config, "prompts": prompts} if prompts else config
