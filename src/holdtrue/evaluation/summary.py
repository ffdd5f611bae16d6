"""Make evidence of graded answers: rates with intervals, slices, abstention, cost and latency, and what failed."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from holdtrue.core.canonical import canonical_bytes
from holdtrue.evaluation.answers import Graded, GradedAnswer
from holdtrue.evaluation.checks import checks_digest, declined
from holdtrue.evaluation.judges import Calibration
from holdtrue.evaluation.service import mean_interval
from holdtrue.evaluation.testsets import Case
from holdtrue.evaluation.views import short
from holdtrue.stats import Interval, adjusted, clustered_share, finite, lower_than_chance

MOST_BYTES: Final = 200 * 1024
MOST_FAILURES: Final = 100
MOST_SLICES: Final = 100
MIN_SLICE: Final = 5
_FIRST: Final = 5
_RATE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Question:
    """Hold all answers to one case."""

    case: Case
    rows: tuple[GradedAnswer, ...]

    @property
    def share(self) -> float:
        """Return the share of the repeats that passed."""
        return sum(row.passed for row in self.rows) / len(self.rows)

    @property
    def what(self) -> str:
        """Return the id and the beginning of the question."""
        return f"{self.case.id}: {short(self.case.text, 140)}"


def questions_of(graded: Graded) -> tuple[Question, ...]:
    """Return the answers grouped by question, in the order of the test set."""
    found: dict[str, list[GradedAnswer]] = {}
    for row in graded.rows:
        found.setdefault(row.case.id, []).append(row)
    return tuple(Question(rows[0].case, tuple(rows)) for rows in found.values())


def share_of(rows: Sequence[GradedAnswer], values: Iterable[float]) -> dict[str, Any]:
    """Return the weighted mean of `values`, one a row, as evidence: mean, lower, upper, and n questions."""
    ids = np.array([row.case.id for row in rows], dtype=np.str_)
    weights = [row.case.weight for row in rows]
    return told(clustered_share([float(each) for each in values], ids, weights))


def told(interval: Interval) -> dict[str, Any]:
    """Return an interval as evidence names it: `mean`, `lower`, `upper`, `n`; null where it is not known."""
    return {
        "mean": finite(interval.value),
        "lower": finite(interval.lower) if interval.n else None,
        "upper": finite(interval.upper) if interval.n else None,
        "n": interval.n,
    }


def summarise(
    graded: Graded,
    slices: Sequence[str] | None = None,
    *,
    min_slice: int = MIN_SLICE,
    calibrations: Sequence[Calibration] = (),
) -> dict[str, Any]:
    """Return the content of a piece of evidence of kind “answers”.

    `slices` names the tags whose values are judged apart (None: all tags); values with fewer than `min_slice`
    questions are only counted. Intervals are of 95 % and count questions, not repeats. `failures`, here and below
    checks, cost, latency and `unanswerable`, hold what a reader needs to see first; all stays below 200 KiB.
    """
    questions = questions_of(graded)
    rows = graded.rows
    parts, skipped = _slices(questions, slices, min_slice)
    content: dict[str, Any] = {
        "test_set": graded.test_set,
        "name": graded.name,
        "release": graded.release,
        "application": graded.application,
        "checks_digest": checks_digest(graded.checks),
        "n": len(questions),
        "repeats": graded.repeats,
        "answers": len(rows),
        "errors": sum(bool(row.answer.error) for row in rows),
        "pass_rate": share_of(rows, [row.passed for row in rows]),
        "checks": _checks(graded, questions, calibrations),
        "slices": parts[:MOST_SLICES],
        "skipped_slices": skipped + max(0, len(parts) - MOST_SLICES),
        **_abstention(graded, questions),
        "cost": _cost(questions),
        "latency": _latency(questions),
        **failures(questions),
    }
    return _bounded(content)


def failures(questions: Sequence[Question]) -> dict[str, Any]:
    """Return how many questions failed at least once, and which ones and why, the worst first."""
    bad = [each for each in questions if each.share < 1.0]
    bad.sort(key=lambda each: (each.share, -each.case.weight, _mean_score(each), each.case.id))
    listed = [{"what": each.what, "why": why_failed(each.rows)} for each in bad[:MOST_FAILURES]]
    return {
        "failed": len(bad),
        "failures_title": f"{len(bad)} of {len(questions)} questions failed",
        "failures": listed,
    }


def why_failed(rows: Sequence[GradedAnswer], only: str = "") -> str:
    """Return how often a question failed, where it was repeated, and each failed check with its first reason."""
    first: dict[str, str] = {}
    failed = 0
    for row in rows:
        bad = [each for each in row.grades if not each.passed and only in ("", each.check)]
        failed += bool(bad)
        for each in bad:
            first.setdefault(each.check, each.why)
    errors = [row.answer.error for row in rows if row.answer.error]
    if errors and len(errors) == failed:
        told = f"no answer: {errors[0]}"
    else:
        told = "; ".join((f"{check}: " if not only else "") + short(why, 200) for check, why in first.items())
    often = f"failed {failed} of {len(rows)} times: " if len(rows) > 1 and failed else ""
    return short(often + told, 400)


def _mean_score(question: Question) -> float:
    scores = [grade.score for row in question.rows for grade in row.grades]
    return sum(scores) / len(scores) if scores else 0.0


def _checks(graded: Graded, questions: Sequence[Question], calibrations: Sequence[Calibration]) -> dict[str, Any]:
    by_judge = {each.judge: each.to_json() for each in calibrations}
    found: dict[str, Any] = {}
    for check in graded.checks:
        name = check.label
        pairs = [(row, each) for row in graded.rows for each in row.grades if each.check == name]
        if not pairs:
            continue
        rows = [row for row, _ in pairs]
        bad = [
            each for each in questions if any(g.check == name and not g.passed for row in each.rows for g in row.grades)
        ]
        bad.sort(key=lambda each: (_share_of_check(each, name), each.case.id))
        entry = share_of(rows, [each.passed for _, each in pairs])
        entry["kind"] = check.kind
        entry["score"] = share_of(rows, [each.score for _, each in pairs])
        entry["failed"] = len(bad)
        entry["failures_title"] = f"{len(bad)} of {entry['n']} questions failed the check {name}"
        entry["failures"] = [{"what": each.what, "why": why_failed(each.rows, only=name)} for each in bad[:_FIRST]]
        if check.kind == "judge":
            entry["abstained"] = sum(each.abstained for _, each in pairs)
            entry["calibration"] = by_judge.get(name)
        found[name] = entry
    return found


def _share_of_check(question: Question, name: str) -> float:
    passed = [each.passed for row in question.rows for each in row.grades if each.check == name]
    return sum(passed) / len(passed) if passed else 1.0


def _slices(questions: Sequence[Question], names: Sequence[str] | None, least: int) -> tuple[list[dict[str, Any]], int]:
    """Return the slices of at least `least` questions, the worst first, and how many smaller ones there are.

    `p_worse` is the chance of as low a rate in so many questions drawn at random, adjusted for all slices looked at
    (Benjamini & Hochberg 1995); `worse` marks those of which at most 1 in 20 is expected to be there by chance.
    """
    wanted = sorted({name for each in questions for name in each.case.tags}) if names is None else names
    found: list[tuple[str, str, Any]] = []
    skipped = 0
    for name in wanted:
        values = np.array([each.case.tags.get(name, "") for each in questions], dtype=np.str_)
        for value in sorted(set(values.tolist()) - {""}):
            inside = values == value
            if int(inside.sum()) < least:
                skipped += 1
                continue
            found.append((name, value, inside))
    shares = [each.share for each in questions]
    chances = adjusted(lower_than_chance(shares, [inside for _, _, inside in found]))
    entries: list[dict[str, Any]] = []
    for (name, value, inside), chance in zip(found, chances.tolist(), strict=True):
        rows = [row for each, there in zip(questions, inside.tolist(), strict=True) if there for row in each.rows]
        rate = share_of(rows, [row.passed for row in rows])
        entries.append({"slice": name, "value": value, **rate, "p_worse": chance, "worse": bool(chance <= _RATE)})
    entries.sort(key=lambda each: (each["mean"], each["slice"], each["value"]))
    return entries, skipped


def _abstention(graded: Graded, questions: Sequence[Question]) -> dict[str, Any]:
    """Return how often unanswerable questions were declined and answerable ones answered, and how right declining was.

    `precision` is the share of declined answers whose question is unanswerable, `recall` the share of answers to
    unanswerable questions that declined.
    """
    said = {(row.case.id, row.repeat): declined(row.answer, graded.checks) for row in graded.rows}

    def declining(rows: Sequence[GradedAnswer], wanted: bool) -> dict[str, Any]:
        return share_of(rows, [said[row.case.id, row.repeat] == wanted for row in rows])

    answerable = [row for row in graded.rows if row.case.expected.answerable and not row.answer.error]
    unanswerable = [row for row in graded.rows if not row.case.expected.answerable]
    found: dict[str, Any] = {}
    if answerable:
        found["answerable"] = {"answered": declining(answerable, wanted=False)}
    if not unanswerable:
        return found
    declining_rows = [row for row in graded.rows if said[row.case.id, row.repeat]]
    bad = [
        each for each in questions
        if not each.case.expected.answerable and not all(said[row.case.id, row.repeat] for row in each.rows)
    ]  # fmt: skip
    recall = declining(unanswerable, wanted=True)
    found["unanswerable"] = {
        "declined": recall,
        "failed": len(bad),
        "failures_title": f"{len(bad)} of {recall['n']} unanswerable questions were not declined",
        "failures": [
            {"what": each.what, "why": _answered(row for row in each.rows if not said[row.case.id, row.repeat])}
            for each in bad[:_FIRST]
        ],
    }
    precision = share_of(declining_rows, [not row.case.expected.answerable for row in declining_rows])
    found["abstention"] = {"precision": precision, "recall": recall}
    return found


def _answered(rows: Iterable[GradedAnswer]) -> str:
    answer = next(iter(rows)).answer
    return f"no answer: {short(answer.error, 120)}" if answer.error else f"it answered: “{short(answer.text, 120)}”"


def _cost(questions: Sequence[Question]) -> dict[str, Any]:
    """Return what answers cost, in micros: the mean with its interval, the total, and for each answer that passed."""
    rows = [(each, row) for each in questions for row in each.rows if row.answer.cost_micros is not None]
    costs = np.array([row.answer.cost_micros for _, row in rows], dtype=np.float64)
    missing = sum(len(each.rows) for each in questions) - len(rows)
    if not rows:
        return {"n": 0, "unmeasured": missing}
    passed = sum(row.passed for _, row in rows)
    ids = np.array([each.case.id for each, _ in rows], dtype=np.str_)
    dearest = _most(questions, lambda row: row.answer.cost_micros)
    return {
        "unit": "micros",
        **told(mean_interval(costs, blocks=ids)),
        "n": len(rows),
        "unmeasured": missing,
        "total": float(costs.sum()),
        "per_correct": float(costs.sum()) / passed if passed else None,
        "failures_title": f"the dearest of {len(questions)} questions",
        "failures": [{"what": each.what, "why": f"{value:,.0f} micros"} for each, value in dearest],
    }


def _latency(questions: Sequence[Question]) -> dict[str, Any]:
    """Return how long answers took, in seconds: quantiles over all answers."""
    seconds = [row.answer.seconds for each in questions for row in each.rows if row.answer.seconds is not None]
    missing = sum(len(each.rows) for each in questions) - len(seconds)
    if not seconds:
        return {"n": 0, "unmeasured": missing}
    middle, high = np.quantile(np.array(seconds, dtype=np.float64), [0.5, 0.95]).tolist()
    slowest = _most(questions, lambda row: row.answer.seconds)
    return {
        "unit": "seconds",
        "p50": middle,
        "p95": high,
        "n": len(seconds),
        "unmeasured": missing,
        "failures_title": f"the slowest of {len(questions)} questions",
        "failures": [{"what": each.what, "why": f"{value:.2f} s"} for each, value in slowest],
    }


def _most(
    questions: Sequence[Question], amount: Callable[[GradedAnswer], float | None]
) -> list[tuple[Question, float]]:
    """Return the questions with the highest mean amount, and that amount."""
    found: list[tuple[Question, float]] = []
    for each in questions:
        amounts = [value for row in each.rows if (value := amount(row)) is not None]
        if amounts:
            found.append((each, math.fsum(amounts) / len(amounts)))
    found.sort(key=lambda pair: (-pair[1], pair[0].case.id))
    return found[:_FIRST]


def _bounded(content: dict[str, Any]) -> dict[str, Any]:
    """Return `content` with so few of its examples that all of it stays below the limit."""
    while len(content["failures"]) > _FIRST and len(canonical_bytes(content)) > MOST_BYTES:
        content["failures"] = content["failures"][: max(_FIRST, len(content["failures"]) * 3 // 4)]
    if len(canonical_bytes(content)) > MOST_BYTES:
        content["skipped_slices"] += max(0, len(content["slices"]) - 4 * _FIRST)
        content["slices"] = content["slices"][: 4 * _FIRST]
        for check in content["checks"].values():
            check["failures"] = check["failures"][:1]
    return content
