"""Evidence as a page shows it: measurements beside their baseline, comparisons against zero, the rest as facts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from holdtrue.data.tags import told
from holdtrue.governance import Evidence
from holdtrue.web import texts
from holdtrue.web.model import Estimate, EvidenceView, MetricRow

_EVALUATION = ("metric", "baseline", "slices")
_ORDER = ("comparison", "contract", "parity", "privacy")
_WORDS = {"p_better": "probability that it is better", "n": "rows", "roc_auc": "ROC AUC", "brier": "Brier score"}


def views(found: Iterable[Evidence]) -> tuple[EvidenceView, ...]:
    """Return the newest evidence of each kind as sections; metric, baseline and slices stand together.

    Whatever shape evidence has is shown: what is no number in the known place is told as words.
    """
    by_kind = {each.kind: each for each in found}
    parts: dict[str, tuple[Evidence, Any]] = {}
    if "evaluation" in by_kind:
        whole = by_kind.pop("evaluation")
        parts = {name: (whole, value) for name, value in _mapping(whole.content).items() if name in _EVALUATION}
    for name in _EVALUATION:
        if name in by_kind:
            single = by_kind.pop(name)
            parts[name] = (single, single.content)
    sections = [_evaluation(parts)] if parts else []
    ordered = sorted(by_kind, key=lambda kind: (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), kind))
    for kind in ordered:
        shown = {"comparison": _comparison, "privacy": _privacy}.get(kind, _plain)
        sections.append(shown(by_kind[kind]))
    return tuple(sections)


def _evaluation(parts: Mapping[str, tuple[Evidence, Any]]) -> EvidenceView:
    content = {name: value for name, (_, value) in parts.items()}
    metric = _mapping(content.get("metric"))
    metrics = _metrics(metric, _mapping(content.get("baseline")))
    told = {name for name, value in metric.items() if _estimate(value) is not None}
    return EvidenceView(
        ids=tuple(dict.fromkeys(evidence.id for evidence, _ in parts.values())),
        kind="evaluation",
        created_at=max(evidence.created_at for evidence, _ in parts.values()),
        metrics=metrics,
        slices=_slices(content.get("slices")),
        facts=tuple(_facts({name: value for name, value in metric.items() if name not in told})),
    )


def _comparison(evidence: Evidence) -> EvidenceView:
    """Show each paired comparison as one row, on a scale that has zero on it."""
    content = _mapping(evidence.content)
    flat = "difference" in content
    found = {"champion": content} if flat else {name: _mapping(value) for name, value in content.items()}
    rows: list[MetricRow] = []
    told: list[tuple[str, str]] = []
    for name, value in found.items():
        estimate = _estimate({**value, "value": value.get("difference")})
        if estimate is None:
            told += _facts({name: value or content.get(name)})
            continue
        low, high = _scale([estimate, Estimate(0.0)])
        title = f"{texts.metric(str(value.get('metric', '')))}, challenger minus {name}"
        rows.append(MetricRow(title, estimate, Estimate(0.0), _count(value), low, high))
        told += _facts({key: value[key] for key in value if key not in ("metric", "difference", "lower", "upper", "n")})
    return EvidenceView((evidence.id,), evidence.kind, evidence.created_at, tuple(rows), (), tuple(told))


def _privacy(evidence: Evidence) -> EvidenceView:
    """Show what a model may be used for, and each column behind it with its tags."""
    content = _mapping(evidence.content)
    found = [
        ("purpose of the model", texts.plain(content.get("purpose"))),
        ("allowed by every column", texts.plain(content.get("allowed"))),
        ("columns of personal data", texts.plain(content.get("personal"))),
        ("erased entities in its data", texts.plain(content.get("erased"))),
    ]
    for each in _entries(content.get("columns")):
        tags = {name: each[name] for name in ("personal", "licence", "source") if each.get(name, "none") != "none"}
        purposes = [str(one) for one in each.get("purposes") or ()]
        said = told({**tags, "purposes": None if purposes == ["any"] else purposes}) or "no tags"
        uses = ", ".join(str(one) for one in each.get("uses") or ())
        found.append((f"{each.get('dataset')}.{each.get('column')}", f"{said}; used for {uses}"))
    found += [(str(each.get("what")), f"not allowed: {each.get('why')}") for each in _entries(content.get("failures"))]
    return EvidenceView((evidence.id,), evidence.kind, evidence.created_at, facts=tuple(found))


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [_mapping(each) for each in value] if isinstance(value, list | tuple) else []


def _plain(evidence: Evidence) -> EvidenceView:
    content = evidence.content if isinstance(evidence.content, Mapping) else {"content": evidence.content}
    return EvidenceView((evidence.id,), evidence.kind, evidence.created_at, facts=tuple(_facts(content)))


def facts(content: Any) -> tuple[tuple[str, str], ...]:
    """Return any evidence in few words: estimates with their intervals, lists by their length."""
    if not isinstance(content, Mapping):
        return (("entries", texts.count(len(content)) if isinstance(content, list | tuple) else texts.plain(content)),)
    short = {
        name: texts.plural(len(value), "entry", "entries") if isinstance(value, list | tuple) else value
        for name, value in content.items()
    }
    return tuple(_facts(short))


def _facts(content: Mapping[str, Any], under: str = "") -> list[tuple[str, str]]:
    """Return JSON as pairs of words, one level of nesting told by its path."""
    found: list[tuple[str, str]] = []
    for name, value in content.items():
        words = under + _WORDS.get(str(name), str(name).replace("_", " "))
        estimate = _estimate(value)
        if estimate is not None:
            interval = texts.span(estimate.lower, estimate.upper)
            found.append((words, texts.ratio(estimate.value) + (f" ({interval})" if interval else "")))
        elif isinstance(value, Mapping) and not under:
            found += _facts(value, f"{name}, ")
        else:
            found.append((words, texts.plain(value)))
    return found


def _metrics(metric: Mapping[str, Any], baseline: Mapping[str, Any]) -> tuple[MetricRow, ...]:
    rows: list[MetricRow] = []
    for name, value in metric.items():
        estimate, other = _estimate(value), _estimate(baseline.get(name))
        if estimate is None:
            continue
        low, high = _scale([each for each in (estimate, other) if each is not None])
        rows.append(MetricRow(texts.metric(str(name)), estimate, other, _count(value), low, high))
    return tuple(rows)


def _slices(found: Any) -> tuple[MetricRow, ...]:
    kept: list[tuple[str, Estimate, int | None]] = []
    for each in found if isinstance(found, list | tuple) else ():
        row = _mapping(each)
        estimate = _estimate({**row, "value": row.get("roc_auc")})
        if estimate is not None:
            kept.append((f"{row.get('slice')} = {row.get('value')}", estimate, _count(row)))
    if not kept:
        return ()
    low, high = _scale([estimate for _, estimate, _ in kept])
    return tuple(MetricRow(name, estimate, None, n, low, high) for name, estimate, n in kept)


def _scale(estimates: Iterable[Estimate]) -> tuple[float, float]:
    values = [value for each in estimates for value in (each.value, each.lower, each.upper) if value is not None]
    room = (max(values) - min(values)) * 0.1 or 0.01
    return min(values) - room, max(values) + room


def _estimate(value: Any) -> Estimate | None:
    found = _mapping(value)
    middle = _number(found.get("value"))
    return None if middle is None else Estimate(middle, _number(found.get("lower")), _number(found.get("upper")))


def _count(value: Any) -> int | None:
    found = _number(_mapping(value).get("n"))
    return None if found is None else round(found)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
