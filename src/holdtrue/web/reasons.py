"""Explanations as trees: what a thing is, its facts, and what it rests on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdtrue.catalog import Graph, Node
from holdtrue.web import texts

_DEEPEST = 8
_WIDEST = 40


@dataclass(frozen=True, slots=True)
class Why:
    """Hold one node of an explanation: what it is, its facts, its page, and what it rests on."""

    kind: str
    name: str
    facts: tuple[tuple[str, str], ...] = ()
    because: tuple["Why", ...] = ()
    url: str | None = None


def label(node: Node) -> str:
    """Return the name people use for a node of the lineage."""
    return texts.short(node.name) if node.number is None else f"{node.name}@{node.number}"


def upstream(graph: Graph, root: str, address: Callable[[str], str | None]) -> Why:
    """Return what `root` came from as a tree; a thing met twice is told in full only once."""
    nodes = {node.id: node for node in graph.nodes}
    sources: dict[str, list[str]] = {}
    for edge in graph.edges:
        sources.setdefault(edge.target, []).append(edge.source)
    seen: set[str] = set()

    def tell(id: str, depth: int) -> Why:
        node = nodes.get(id) or Node(id, "thing", id)
        again = id in seen
        seen.add(id)
        below = [] if again or depth >= _DEEPEST else sources.get(id, [])
        return Why(
            kind=node.kind.replace("_", " ").capitalize(),
            name=label(node),
            because=tuple(tell(source, depth + 1) for source in below[:_WIDEST]),
            url=address(id),
        )

    return tell(root, 0)


def downstream(graph: Graph, root: str, address: Callable[[str], str | None]) -> tuple[Why, ...]:
    """Return what came of `root`, near and far, without `root` itself."""
    nodes = {node.id: node for node in graph.nodes}
    targets = sorted({edge.target for edge in graph.edges} - {root})
    found: list[Why] = []
    for target in targets[:_WIDEST]:
        node = nodes.get(target) or Node(target, "thing", target)
        found.append(Why(node.kind.replace("_", " ").capitalize(), label(node), url=address(target)))
    return tuple(found)


def from_json(name: str, value: Any, depth: int = 0) -> Why:
    """Return any JSON as a tree: plain values become facts, objects and lists of objects what lies below."""
    kind = name.replace("_", " ").capitalize()
    if not isinstance(value, Mapping):
        return Why(kind, texts.plain(value))
    facts: list[tuple[str, str]] = []
    below: list[Why] = []
    title = ""
    for key, item in value.items():
        words = str(key).replace("_", " ")
        if key in ("id", "name") and isinstance(item, str) and not title:
            title = item
        elif isinstance(item, Mapping) and item and depth < _DEEPEST:
            below.append(from_json(str(key), item, depth + 1))
        elif isinstance(item, list | tuple) and any(isinstance(each, Mapping) for each in item):
            below += [from_json(str(key).removesuffix("s"), each, depth + 1) for each in item[:_WIDEST]]
        else:
            facts.append((words, texts.plain(item)))
    return Why(kind, title, tuple(facts), tuple(below))
