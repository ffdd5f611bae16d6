"""Compare two releases on the same questions: won and lost, quality, cost and latency, each with its interval."""

from collections.abc import Sequence
from typing import Any, Final

from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation.answers import Graded
from holdtrue.evaluation.checks import checks_digest
from holdtrue.evaluation.model import Comparison
from holdtrue.evaluation.summary import Question, questions_of, why_failed
from holdtrue.evaluation.testsets import Case
from holdtrue.stats import Interval, finite, paired_difference, ratio_of_means, typical_ratio

MOST_LISTED: Final = 40

Pair = tuple[Question, Question]


def compare_answers(champion: Graded, challenger: Graded, *, seed: int = 0) -> dict[str, Any]:
    """Return the content of a piece of evidence of kind “comparison”: challenger minus champion, by question.

    `champion` in it has the shape of every comparison (`difference`, `lower`, `upper`, `p_better`); `failures` are the
    questions lost. Questions that are not the same in both runs are left out and counted. Raises InvalidInput for runs
    graded by other checks, or without a common question.
    """
    if checks_digest(champion.checks) != checks_digest(challenger.checks):
        raise InvalidInput(
            "Champion and challenger cannot be compared: they were graded by different checks.",
            why="A difference between them could be one between the checks.",
            mend="Grade the champion again by the present checks: its answers are kept, and nothing is asked anew.",
        )
    pairs, left = _paired(champion, challenger)
    weights = [one.case.weight for one, _ in pairs]
    found = paired_difference([two.share - one.share for one, two in pairs], weights, seed=seed)
    whole = Comparison(
        metric="pass_rate",
        champion=_mean([one.share for one, _ in pairs], weights),
        challenger=_mean([two.share for _, two in pairs], weights),
        difference=found.difference,
        lower=found.lower,
        upper=found.upper,
        p_better=found.p_better,
        n=found.n,
        blocks=found.n,
        method=f"paired by {found.n} questions, {champion.repeats} and {challenger.repeats} repeats: "
        "Bonett and Price's interval, sign-flip test",
    )
    won = sorted((pair for pair in pairs if pair[1].share > pair[0].share), key=_gain, reverse=True)
    lost = sorted((pair for pair in pairs if pair[1].share < pair[0].share), key=_gain)
    return {
        "champion": {
            **whole.to_json(),
            "won": len(won),
            "lost": len(lost),
            "same": len(pairs) - len(won) - len(lost),
            "left_out": left,
            "checks": _by_check(champion, pairs),
        },
        "against": champion.release or champion.application,
        "test_set": challenger.test_set,
        "cost_ratio": _cost_ratio(pairs),
        "latency_ratio": _latency_ratio(pairs),
        "won": [{"what": two.what, "why": _told("the champion, ", one, two)} for one, two in won[:MOST_LISTED]],
        "failed": len(lost),
        "failures_title": f"{len(lost)} of {len(pairs)} questions were lost to the champion",
        "failures": [{"what": two.what, "why": _told("", two, one)} for one, two in lost[:MOST_LISTED]],
    }


def _paired(champion: Graded, challenger: Graded) -> tuple[list[Pair], int]:
    """Return the questions that are the same in both runs, and how many are not."""
    known = {each.case.id: each for each in questions_of(champion)}
    mine = questions_of(challenger)
    pairs = [(known[each.case.id], each) for each in mine if each.case.id in known]
    same = [(one, two) for one, two in pairs if _compared(one.case) == _compared(two.case)]
    if not same:
        raise InvalidInput(
            "Champion and challenger cannot be compared: they have no question in common.",
            why=f"The champion answered {len(known)}, the challenger {len(mine)}; "
            + ("those of the same id differ." if pairs else "no id is in both."),
            mend="Evaluate the champion on the present test set first.",
        )
    return same, len({*known, *(each.case.id for each in mine)}) - len(same)


def _compared(case: Case) -> Any:
    """Return what makes two cases the same question: its slices and weight may have changed."""
    return case.asked(), case.expected


def _gain(pair: Pair) -> tuple[float, float, str]:
    one, two = pair
    return two.share - one.share, two.case.weight, two.case.id


def _told(who: str, worse: Question, better: Question) -> str:
    """Return why one release failed, and where questions were repeated how often the other one did not."""
    why = why_failed(worse.rows)
    rival = f" (the other passed {sum(row.passed for row in better.rows)} of {len(better.rows)})"
    repeated = len(worse.rows) > 1 or len(better.rows) > 1
    return who + why + (rival if repeated else "")


def _by_check(champion: Graded, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the difference in the pass rate of each check; one interval a check, without control for their number."""
    found: dict[str, Any] = {}
    for check in champion.checks:
        shares = [(_share(one, check.label), _share(two, check.label), one.case.weight) for one, two in pairs]
        graded = [(one, two, weight) for one, two, weight in shares if one is not None and two is not None]
        if not graded:
            continue
        moved = paired_difference([two - one for one, two, _ in graded], [weight for _, _, weight in graded])
        found[check.label] = {
            "difference": finite(moved.difference),
            "lower": finite(moved.lower),
            "upper": finite(moved.upper),
            "n": moved.n,
        }
    return found


def _share(question: Question, check: str) -> float | None:
    passed = [each.passed for row in question.rows for each in row.grades if each.check == check]
    return sum(passed) / len(passed) if passed else None


def _cost_ratio(pairs: Sequence[Pair]) -> dict[str, Any]:
    known = [(_amount(one, "cost_micros"), _amount(two, "cost_micros")) for one, two in pairs]
    both = [(one, two) for one, two in known if one is not None and two is not None]
    return _ratio(ratio_of_means([one for one, _ in both], [two for _, two in both]), "ratio of mean costs")


def _latency_ratio(pairs: Sequence[Pair]) -> dict[str, Any]:
    known = [(_amount(one, "seconds"), _amount(two, "seconds")) for one, two in pairs]
    both = [(one, two) for one, two in known if one is not None and two is not None]
    return _ratio(typical_ratio([one for one, _ in both], [two for _, two in both]), "geometric mean of ratios")


def _amount(question: Question, name: str) -> float | None:
    """Return the mean over repeats, or None where one of them was not measured."""
    amounts = [getattr(row.answer, name) for row in question.rows]
    return None if any(each is None for each in amounts) else sum(amounts) / len(amounts)


def _ratio(found: Interval, method: str) -> dict[str, Any]:
    return {**found.to_json(), "method": method}


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
