"""Explanations as trees: what a thing is, its facts, and what it rests on."""

from collections.abc import Callable, Mapping
from typing import Any

from holdtrue.catalog import Graph, Node
from holdtrue.web import evidence, texts
from holdtrue.web.why import Why

_DEEPEST = 8
_WIDEST = 40
_RECORD = (
    ("time", "time"),
    ("service", "service"),
    ("score", "answer"),
    ("arm", "arm"),
    ("entity", "entity"),
    ("key", "key"),
    ("latency_us", "microseconds taken"),
    ("fallback", "fallback"),
)


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
        # A version that continues an earlier one of its name would nest a level for each month.
        earlier = [nodes[each] for each in below if each in nodes and _same_name(nodes[each], node)]
        below = [each for each in below if each not in {one.id for one in earlier}]
        return Why(
            kind=node.kind.replace("_", " ").capitalize(),
            name=label(node),
            facts=tuple(("continues", label(each)) for each in earlier),
            because=tuple(tell(source, depth + 1) for source in below[:_WIDEST]),
            url=address(id),
        )

    return tell(root, 0)


def _same_name(one: Node, other: Node) -> bool:
    return one.kind == other.kind and one.name == other.name


def downstream(graph: Graph, root: str, address: Callable[[str], str | None]) -> tuple[Why, ...]:
    """Return what came of `root`, near and far, without `root` itself."""
    nodes = {node.id: node for node in graph.nodes}
    targets = sorted({edge.target for edge in graph.edges} - {root})
    found: list[Why] = []
    for target in targets[:_WIDEST]:
        node = nodes.get(target) or Node(target, "thing", target)
        found.append(Why(node.kind.replace("_", " ").capitalize(), label(node), url=address(target)))
    return tuple(found)


def of_prediction(found: Mapping[str, Any], address: Callable[[str], str | None]) -> Why:
    """Return as a tree what `delivery.why` tells of a prediction."""
    record = _mapping(found.get("prediction"))
    facts = [(words, _told(name, record[name])) for name, words in _RECORD if record.get(name) is not None]
    label = _mapping(found.get("label"))
    if label:
        facts.append(
            ("came true", f"{texts.plain(label.get('value'))}, known {texts.moment_of(label.get('known_at'))}")
        )
    else:
        facts.append(("came true", "not known yet"))
    answer = _mapping(found.get("answer"))
    if answer:
        below = [*_of_answer(answer), _of_release(found, address)]
        return Why("Answer", str(record.get("id", "")), tuple(facts), tuple(below))
    below = [
        Why("Inputs", "", _facts(_mapping(found.get("inputs")))),
        Why("Features", "", _facts(_mapping(found.get("features")))),
        _of_release(found, address),
    ]
    return Why("Prediction", str(record.get("id", "")), tuple(facts), tuple(below))


def _of_answer(answer: Mapping[str, Any]) -> list[Why]:
    """Return what an application's answer rests on: question, documents, checks, feedback."""
    said = tuple(
        (name, str(answer[key])) for name, key in (("question", "question"), ("answer", "text")) if answer.get(key)
    )
    documents = tuple(
        Why(
            "Cited passage" if each.get("cited") else "Passage",
            str(each.get("document")),
            (("passage", str(each.get("id"))), ("score", texts.plain(each.get("score")))),
        )
        for each in _mappings(answer.get("documents"))
    )
    feedback = tuple(Why("Feedback", str(each.get("name")), _facts(each)) for each in _mappings(answer.get("feedback")))
    trace = (("trace", str(answer["trace"])),) if answer.get("trace") else ()
    return [
        Why("Said", "", (*said, *trace)),
        Why("Checks", "", _facts(_mapping(answer.get("checks"))), feedback),
        Why("Retrieved", texts.plural(len(documents), "passage"), (), documents),
    ]


def _of_release(found: Mapping[str, Any], address: Callable[[str], str | None]) -> Why:
    release = _mapping(found.get("release"))
    versions = _mapping(found.get("versions"))
    below = [
        Why(
            str(role).replace("_", " ").capitalize(),
            str(version.get("name")),
            (("id", str(version.get("id"))), ("made", texts.moment_of(version.get("created_at")))),
            (_fragments(found),) if role == "dataset" and _mapping(found.get("dataset")) else (),
        )
        for role, version in versions.items()
        if isinstance(version, Mapping)
    ]
    if found.get("rollout"):
        below.append(Why("Rollout", "", _facts(_mapping(found["rollout"]))))
    if found.get("decision"):
        below.append(_of_decision(found))
    name = str(release.get("id", ""))
    told = {key: release[key] for key in ("service", "commit") if release.get(key)}
    told["made"] = texts.moment_of(release.get("created_at"))
    return Why("Release", name, _facts(told), tuple(below), address(name))


def _of_decision(found: Mapping[str, Any]) -> Why:
    decision = _mapping(found.get("decision"))
    rules = [
        Why("Rule", str(each.get("rule")), (("passed" if each.get("passed") else "failed", str(each.get("why"))),))
        for each in _mappings(decision.get("findings"))
    ]
    measured = [
        Why("Evidence", f"{each.get('kind')} {each.get('id')}", evidence.facts(each.get("content")))
        for each in _mappings(found.get("evidence"))
    ]
    approvals = [
        Why("Approval", str(each.get("name")), (("reason", str(each.get("reason"))),))
        for each in _mappings(found.get("approvals"))
    ]
    words = f"{str(decision.get('outcome', '')).replace('_', ' ')} for {decision.get('environment')}"
    facts = (("id", str(decision.get("id"))), ("policy", str(decision.get("policy"))))
    return Why("Decision", words, facts, (*rules, *measured, *approvals))


def _fragments(found: Mapping[str, Any]) -> Why:
    fragments = _mapping(_mapping(found.get("dataset")).get("fragments"))
    facts = tuple(
        (
            str(window),
            f"{texts.plain(_mapping(each).get('rows'))} rows, {texts.short(str(_mapping(each).get('digest')))}",
        )
        for window, each in sorted(fragments.items())
    )
    return Why("Data", texts.plural(len(facts), "window"), facts)


def _told(name: str, value: Any) -> str:
    return texts.moment_of(value) if name == "time" else texts.plain(value)


def _facts(content: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name).replace("_", " "), texts.plain(value)) for name, value in content.items())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []
