"""Use cases of prompts: list them, read one, tell two apart, render one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.catalog import Version
from holdtrue.core.codec import dump
from holdtrue.llm.prompts import compose, parse_prompt, render, request_of

PROMPT = "prompt"


@dataclass(frozen=True, slots=True)
class RenderBody:
    """Hold what a prompt is rendered with: values of variables, or a conversation too."""

    variables: dict[str, Any] = field(default_factory=dict[str, Any])
    messages: tuple[dict[str, Any], ...] = ()


def list_prompts(connection: sa.Connection, project: str, *, limit: int, after: str | None) -> dict[str, Any]:
    """Return a page of prompt versions, the newest of each name first, with their aliases."""
    found = catalog.versions(connection, project, PROMPT, limit=limit, after=after)
    items = [_summary(connection, project, version) for version in found]
    return {"items": items, "next": f"{PROMPT}/{found[-1].name}/{found[-1].number}" if len(found) == limit else None}


def find_prompt(connection: sa.Connection, project: str, name: str, reference: str) -> Version:
    """Return the version of a prompt: by alias, by number, by id, or the newest for “newest”; raise NotFound."""
    if reference.startswith("prm_"):
        version = catalog.get(connection, project, reference)
        return catalog.find(connection, project, PROMPT, name, number=version.number)
    if reference.isdigit():
        return catalog.find(connection, project, PROMPT, name, number=int(reference[:9]))
    if reference == "newest":
        return catalog.find(connection, project, PROMPT, name)
    return catalog.find(connection, project, PROMPT, name, alias=reference)


def show_prompt(connection: sa.Connection, project: str, name: str, reference: str) -> dict[str, Any]:
    """Return a prompt with its content."""
    version = find_prompt(connection, project, name, reference)
    return {**_summary(connection, project, version), "content": version.content}


def diff_prompts(connection: sa.Connection, project: str, name: str, before: str, after: str) -> dict[str, Any]:
    """Return what differs between two versions of a prompt, by path."""
    old, new = (find_prompt(connection, project, name, each) for each in (before, after))
    found, more = catalog.differences(old.content, new.content)
    return {"before": old.label, "after": new.label, "items": [dump(each) for each in found], "truncated": more}


def render_prompt(
    connection: sa.Connection, project: str, name: str, reference: str, body: RenderBody
) -> dict[str, Any]:
    """Return the chat request that a prompt makes of variables and a conversation; nothing is sent anywhere."""
    version = find_prompt(connection, project, name, reference)
    prompt = parse_prompt(version.content, version.label)
    if body.messages:
        given: Mapping[str, Any] = {"messages": [*body.messages], "variables": body.variables}
        return compose(prompt, given, {}, version.label)
    return request_of(prompt, render(prompt, body.variables, version.label))


def _summary(connection: sa.Connection, project: str, version: Version) -> dict[str, Any]:
    aliases = catalog.aliases(connection, project, PROMPT, version.name)
    return {
        "name": version.name,
        "version": version.id,
        "number": version.number,
        "aliases": sorted(each.alias for each in aliases if each.version == version.id),
        "created_at": version.created_at.isoformat(),
        "created_by": version.created_by,
    }
