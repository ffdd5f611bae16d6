"""Judge a rollout in which each question is answered by one arm only, as those of applications are.

What is measured of an answer lies in [0, 1], 0 best: that it failed, that its checks did not hold, that people
did not like it, what it cost. Each arm has a confidence sequence of each measure, and the difference of two
means lies between the differences of their limits; both limits hold at all times at once, so that one may look
as often as one likes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from holdtrue.core.clock import microseconds
from holdtrue.delivery.model import Canary, Rollout
from holdtrue.delivery.rows import rows_of
from holdtrue.delivery.rules import Judgement
from holdtrue.stats import sequences
from holdtrue.stats.sequences import MeanSequence

FAILED: Final = "failed"
CHECKS: Final = "checks"
FEEDBACK: Final = "feedback"
COST: Final = "cost"
WORDS: Final[Mapping[str, str]] = {
    FAILED: "the share of answers that failed",
    CHECKS: "the share of answers that did not pass their checks",
    FEEDBACK: "the share of bad feedback",
    COST: "the cost, as a share of its limit,",
}
_CHAMPION, _CHALLENGER = "champion", "challenger"
_KEEP_DAYS: Final = 60
_DAY_US: Final = 86_400_000_000
_MAX_WAITING: Final = 200_000

Sequences = dict[str, dict[str, MeanSequence]]


@dataclass(frozen=True, slots=True)
class ArmsJudging:
    """Hold all that was counted in a rollout so far; its JSON form stands on the rollout's row.

    `sequences` are those of each arm and measure; `waiting` holds answers without feedback: id → arm and moment.
    """

    cursor: str
    labels_cursor: str
    sequences: Sequences = field(default_factory=dict[str, dict[str, MeanSequence]])
    step_start: int = 0
    waiting: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "cursor": self.cursor,
            "labels_cursor": self.labels_cursor,
            "sequences": {
                arm: {name: sequence.to_json() for name, sequence in mine.items()}
                for arm, mine in self.sequences.items()
            },
            "step_start": self.step_start,
            "waiting": {name: list(row) for name, row in self.waiting.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ArmsJudging":
        """Build what `to_json` described."""
        return cls(
            data["cursor"],
            data["labels_cursor"],
            {
                arm: {name: MeanSequence.from_json(each) for name, each in mine.items()}
                for arm, mine in data["sequences"].items()
            },
            data["step_start"],
            {name: (row[0], row[1]) for name, row in data["waiting"].items()},
        )

    def answers(self, arm: str) -> int:
        """Return how many questions an arm has answered."""
        mine = self.sequences.get(arm, {})
        return mine[FAILED].n if FAILED in mine else 0

    def next_step(self) -> "ArmsJudging":
        """Return this with the present answer as the first of a new step."""
        return replace(self, step_start=self.answers(_CHALLENGER))


def absorb_arms(
    judging: ArmsJudging, rollout: Rollout, predictions: pa.Table, labels: pa.Table, now: datetime
) -> ArmsJudging:
    """Return `judging` with new records counted: answers of this rollout, and the first feedback on each."""
    found: dict[str, dict[str, list[float]]] = {_CHAMPION: {}, _CHALLENGER: {}}
    waiting = dict(judging.waiting)
    for row in rows_of(
        predictions, ("id", "rollout", "release", "score", "fallback", "cost_micros", "recorded_at", "time")
    ):
        if row["rollout"] != rollout.id:
            continue
        arm = _CHALLENGER if row["release"] == rollout.challenger else _CHAMPION
        for name, value in _measures(row, rollout.canary):
            found[arm].setdefault(name, []).append(value)
        waiting[row["id"]] = (arm, row["recorded_at"] or row["time"])
    for row in rows_of(labels, ("prediction_id", "value", "low", "high")):
        if row["prediction_id"] in waiting and row["value"] is not None:
            arm, _ = waiting.pop(row["prediction_id"])
            found[arm].setdefault(FEEDBACK, []).append(1.0 - _liking(row))
    oldest = microseconds(now) - _KEEP_DAYS * _DAY_US
    kept = [(name, row) for name, row in waiting.items() if row[1] >= oldest][-_MAX_WAITING:]
    return replace(judging, sequences=_grown(judging.sequences, found), waiting=dict(kept))


def _measures(row: Mapping[str, Any], canary: Canary) -> Iterable[tuple[str, float]]:
    yield FAILED, float(bool(row["fallback"]))
    if row["score"] is not None:
        yield CHECKS, 1.0 - _unit(row["score"])
    if canary.cost_limit_micros and row["cost_micros"] is not None:
        yield COST, _unit(row["cost_micros"] / canary.cost_limit_micros)


def _liking(row: Mapping[str, Any]) -> float:
    """Return a piece of feedback as a number in [0, 1], 1 best, from the range it was given in."""
    low, high = row["low"] or 0.0, 1.0 if row["high"] is None else row["high"]
    return _unit((row["value"] - low) / (high - low)) if high > low else _unit(row["value"])


def _unit(value: Any) -> float:
    return min(max(float(value), 0.0), 1.0)


def _grown(before: Sequences, found: Mapping[str, Mapping[str, list[float]]]) -> Sequences:
    grown: Sequences = {arm: dict(mine) for arm, mine in before.items()}
    for arm, measures in found.items():
        mine = grown.setdefault(arm, {})
        for name, values in measures.items():
            mine[name] = sequences.update(mine.get(name) or sequences.start(0.0, 1.0), values)
    return grown


@dataclass(frozen=True, slots=True)
class Difference:
    """Hold what is known of one measure: challenger minus champion (above 0: the challenger is worse)."""

    measure: str
    margin: float
    needed: bool
    champion: float
    challenger: float
    n_champion: int
    n_challenger: int
    lower: float
    upper: float

    @property
    def told(self) -> str:
        """Return it in words."""
        return (
            f"{WORDS[self.measure]} is {self.challenger:.3f} on {self.n_challenger} answers, the champion's "
            f"{self.champion:.3f} on {self.n_champion} (difference between {self.lower:+.3f} and {self.upper:+.3f})"
        )


def differences(judging: ArmsJudging, canary: Canary) -> list[Difference]:
    """Return what is known of each measure that both arms have.

    For “worse”, half of alpha is shared by all measures and arms; for “at most the margin worse”, half of
    alpha by the two arms, since all measures must be shown.
    """
    margins = {
        FAILED: (canary.fallback_margin, True),
        CHECKS: (canary.margin, True),
        FEEDBACK: (canary.feedback_margin, canary.feedback_needed),
        COST: (canary.cost_margin, True),
    }
    champion, challenger = (judging.sequences.get(arm, {}) for arm in (_CHAMPION, _CHALLENGER))
    shared = [name for name in margins if name in champion and name in challenger]
    found: list[Difference] = []
    for name in shared:
        margin, needed = margins[name]
        ours, theirs = challenger[name], champion[name]
        worse, proof = canary.alpha / (4.0 * len(margins)), canary.alpha / 4.0
        found.append(
            Difference(
                measure=name,
                margin=margin,
                needed=needed,
                champion=theirs.mean,
                challenger=ours.mean,
                n_champion=theirs.n,
                n_challenger=ours.n,
                lower=sequences.lower_bound(ours, worse) - sequences.upper_bound(theirs, worse),
                upper=sequences.upper_bound(ours, proof) - sequences.lower_bound(theirs, proof),
            )
        )
    return found


def judge_arms(canary: Canary, judging: ArmsJudging, rollout: Rollout, now: datetime) -> tuple[Judgement, Any]:
    """Decide the next move of a rollout; return the judgement and the facts it rests on."""
    found = differences(judging, canary)
    answers = judging.answers(_CHALLENGER)
    days = (now - rollout.started_at) / timedelta(days=1)
    facts: dict[str, Any] = {
        "answers": {arm: judging.answers(arm) for arm in (_CHAMPION, _CHALLENGER)},
        "step_answers": answers - judging.step_start,
        "days": days,
        "measures": [
            {
                "measure": each.measure,
                "champion": each.champion,
                "challenger": each.challenger,
                "n_champion": each.n_champion,
                "n_challenger": each.n_challenger,
                "lower": each.lower,
                "upper": each.upper,
                "margin": each.margin,
            }
            for each in found
        ],
    }
    return _decide(canary, rollout, found, answers - judging.step_start, days), facts


def _decide(canary: Canary, rollout: Rollout, found: list[Difference], step_answers: int, days: float) -> Judgement:
    worse = [each for each in found if each.lower > 0.0]
    if worse:
        return Judgement("roll_back", f"It is worse than the champion: {worse[0].told}.")
    known = {each.measure for each in found}
    open_ones = [each for each in found if each.needed and each.upper >= each.margin]
    missing = {FAILED, CHECKS, *([FEEDBACK] if canary.feedback_needed else [])} - known
    more = canary.min_rows_per_step - step_answers
    if not open_ones and not missing and more <= 0:
        last = rollout.step + 1 >= len(canary.steps)
        told = "; ".join(each.told for each in found)
        return Judgement("promote" if last else "advance", f"It is within the margins: {told}.")
    if days >= canary.patience_days:
        what = open_ones[0].told if open_ones else f"{step_answers} answers came in this step"
        return Judgement("stop", f"After {days:.0f} days it is not shown to be within the margins: {what}.")
    if open_ones:
        return Judgement("wait", f"Not shown yet to be within {open_ones[0].margin:g}: {open_ones[0].told}.")
    if missing:
        return Judgement("wait", f"Nothing is known yet of {WORDS[min(missing)]} in both arms.")
    return Judgement("wait", f"{more} more answers are needed in this step.", more)
