"""Measure a guardrail on a test set: the evidence that a release is judged on."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import InvalidInput
from holdtrue.llm.guardrails.model import KINDS, Expected, Finding, GuardCase, Kind, Subject
from holdtrue.llm.guardrails.service import Armed, Guardrails, Outcome, detector
from holdtrue.stats import Interval, wilson

MOST_CASES_NAMED: Final = 20
RUNS: Final = 3


@dataclass(slots=True)
class _Tally:
    """Count what was found, what was missed, and what was found without being there."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    failed: int = 0
    missed: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)
    found_by_label: Counter[str] = field(default_factory=Counter)
    there_by_label: Counter[str] = field(default_factory=Counter)


def measure(
    guardrails: Guardrails, cases: Sequence[GuardCase], *, timer: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Return the content of a piece of evidence: for each kind of guard, how well and how fast it does on its cases.

    For secrets and personal data each span counts, and is found if its place and its label are exactly right; kinds of
    values that no guard asks for are left out. For the other kinds each case counts. Intervals hold at 95 %. Of three
    runs of a case the fastest counts: what a busy machine adds is no property of a guard. Guards of one kind are
    measured together, wherever they stand and whatever their action; schemas are those of the cases, and a missing
    citation is not held against an answer, as the cases are not written for that. A guard that fails on a case has
    found nothing there. Raises InvalidInput for a kind without a guard.
    """
    evidence: dict[str, Any] = {}
    present = {case.kind for case in cases}
    for kind in KINDS:
        if kind not in present:
            continue
        armed = _armed(guardrails, kind)
        chosen = [case for case in cases if case.kind == kind]
        tally = _Tally()
        for case in chosen:
            subject = _subject(case)
            outcomes: list[Outcome] = []
            seconds: list[float] = []
            for _ in range(RUNS):
                start = timer()
                outcomes = [guardrails.run(each, subject) for each in armed]
                seconds.append(timer() - start)
            tally.microseconds.append(min(seconds) * 1e6)
            _count(tally, _asked(case, armed), outcomes)
        evidence[kind] = _summary(tally, chosen)
    return evidence


def _armed(guardrails: Guardrails, kind: Kind) -> list[Armed]:
    places = [*guardrails.at("input"), *guardrails.at("output"), *guardrails.at("context")]
    found = {each.name: each for each in places if each.guard.kind == kind}
    if not found:
        raise InvalidInput(
            f"The guardrail “{guardrails.spec.name}” has no guard of kind {kind} to measure.",
            why="There are cases of that kind: leaving them out silently would look like a measurement.",
            mend="Declare such a guard, or leave its cases out.",
            facts={"kind": kind},
        )
    distinct: list[Armed] = []
    for each in found.values():
        # The same guard on the input and on the context would only be timed twice.
        if not any(each.options == other.options for other in distinct):
            distinct.append(each)
    return [_for_cases(each) for each in distinct]


def _for_cases(armed: Armed) -> Armed:
    """Return a guard as test sets can measure it: what only fits an application's own answers is left out."""
    own = {"schema": {"schema": None}, "grounding": {"citations": "check"}}.get(armed.guard.kind)
    if own is None or all(armed.options[name] in (value, "ignore") for name, value in own.items()):
        return armed
    options = {**armed.options, **own}
    return replace(armed, options=options, detect=detector(armed.guard, options))


def _asked(case: GuardCase, armed: Sequence[Armed]) -> GuardCase:
    """Return a case without the values that no guard asks for."""
    if isinstance(case.expected, bool):
        return case
    kinds = {kind for each in armed for kind in each.options["kinds"]}
    return replace(case, expected=tuple(each for each in case.expected if each.label in kinds))


def _subject(case: GuardCase) -> Subject:
    ids = tuple(str(number) for number in range(1, len(case.context) + 1))
    return Subject(case.text, case.context, ids, case.schema)


def _count(tally: _Tally, case: GuardCase, outcomes: Sequence[Outcome]) -> None:
    findings = [finding for outcome in outcomes for finding in outcome.findings()]
    tally.failed += any(outcome.failure is not None for outcome in outcomes)
    if isinstance(case.expected, bool):
        hit, missed, invented = _by_case(case.expected, bool(findings))
    else:
        hit, missed, invented = _by_span(tally, case.expected, findings)
    tally.true_positives += hit
    tally.false_negatives += missed
    tally.false_positives += invented
    if missed:
        tally.missed.append(case.id)
    if invented:
        tally.invented.append(case.id)


def _by_case(expected: bool, fired: bool) -> tuple[int, int, int]:
    return int(expected and fired), int(expected and not fired), int(fired and not expected)


def _by_span(tally: _Tally, expected: Sequence[Expected], findings: Sequence[Finding]) -> tuple[int, int, int]:
    there = {(each.start, each.end, each.label) for each in expected}
    found = {(each.start, each.end, each.label) for each in findings}
    tally.there_by_label.update(label for _, _, label in there)
    tally.found_by_label.update(label for _, _, label in there & found)
    return len(there & found), len(there - found), len(found - there)


def _summary(tally: _Tally, cases: Sequence[GuardCase]) -> dict[str, Any]:
    hit, missed, invented = tally.true_positives, tally.false_negatives, tally.false_positives
    summary: dict[str, Any] = {
        "n": len(cases),
        "precision": wilson(hit, hit + invented).to_json(),
        "recall": wilson(hit, hit + missed).to_json(),
        "f1": f1_interval(hit, invented, missed).to_json(),
        "latency_us": {"p50": _quantile(tally.microseconds, 0.5), "p99": _quantile(tally.microseconds, 0.99)},
        "false_negatives": {"n": missed, "cases": tally.missed[:MOST_CASES_NAMED]},
        "false_positives": {"n": invented, "cases": tally.invented[:MOST_CASES_NAMED]},
        "failed": tally.failed,
        "held_out": all(case.split == "held_out" for case in cases),
        "cases": _digest(cases),
    }
    if tally.there_by_label:
        summary["labels"] = [
            {"label": label, "n": n, "found": tally.found_by_label[label]}
            for label, n in sorted(tally.there_by_label.items())
        ]
    return summary


def f1_interval(hit: int, invented: int, missed: int, alpha: float = 0.05) -> Interval:
    """Return F1 with an interval that comes from Wilson's.

    Of all that was found or should have been, the share J = TP / (TP + FP + FN) is a plain proportion, and
    F1 = 2J / (1 + J) grows with it: so the limits of J become those of F1.
    """
    share = wilson(hit, hit + invented + missed, alpha)
    return Interval(_from_share(share.value), _from_share(share.lower), _from_share(share.upper), share.n)


def _from_share(share: float) -> float:
    return 2.0 * share / (1.0 + share)


def _quantile(values: Sequence[float], level: float) -> float:
    """Return the smallest value that at least the share `level` of the values does not exceed."""
    ordered = sorted(values)
    return round(ordered[max(0, math.ceil(level * len(ordered)) - 1)], 1)


def _digest(cases: Sequence[GuardCase]) -> str:
    """Return the hash of the cases that were used, which names their version in the evidence."""
    return content_hash([_plain(case) for case in cases])


def _plain(case: GuardCase) -> dict[str, Any]:
    spans = case.expected if isinstance(case.expected, bool) else [[e.start, e.end, e.label] for e in case.expected]
    return {
        "id": case.id,
        "text": case.text,
        "expected": spans,
        "context": list(case.context),
        "schema": case.schema,
    }
