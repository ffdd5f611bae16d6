"""Judge a rollout in which each question is answered by one arm only, as those of applications are.

What is measured of an answer lies in [0, 1], 0 best: that it failed, that its checks did not hold, that people
did not like it, what it cost, that it took too long. Rows of both arms that are neighbours in time make blocks, whose
differences have a confidence sequence for each measure: it holds at all times at once, so that one may look as often as
one likes, and also if the base rate moves with the hour while the challenger's share grows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdtrue.core.clock import microseconds
from holdtrue.delivery.model import Canary, Rollout
from holdtrue.delivery.rows import rows_of
from holdtrue.delivery.rules import Judgement
from holdtrue.stats import matched, sequences
from holdtrue.stats.matched import MatchedDifference
from holdtrue.stats.sequences import MeanSequence

FAILED: Final = "failed"
CHECKS: Final = "checks"
FEEDBACK: Final = "feedback"
COST: Final = "cost"
LATENCY: Final = "latency"
WORDS: Final[Mapping[str, str]] = {
    FAILED: "the share of answers that failed",
    CHECKS: "the share of answers that did not pass their checks",
    FEEDBACK: "the share of bad feedback",
    COST: "the cost, as a share of its limit,",
    LATENCY: "the share of answers that took longer than the limit",
}
GROUP: Final = f"{FEEDBACK} of group "
OTHER: Final = "(others)"
_MOST_GROUPS: Final = 12
_CHAMPION, _CHALLENGER = "champion", "challenger"
_KEEP_DAYS: Final = 60
_DAY_US: Final = 86_400_000_000
_MAX_WAITING: Final = 200_000
_CHECKED: Final = 0.6

_COLUMNS: Final = (
    "id",
    "rollout",
    "release",
    "score",
    "fallback",
    "cost_micros",
    "latency_us",
    "recorded_at",
    "time",
)

Sequences = dict[str, dict[str, MeanSequence]]
Unrated = tuple[str, int, tuple[str, ...]]
"""An answer without feedback: its arm, its moment, and its values of the inputs that are groups."""
Found = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
"""Measure → whether the challenger answered, and the value, of each row in the order in which they came."""


@dataclass(frozen=True, slots=True)
class ArmsJudging:
    """Hold all that was counted in a rollout so far; its JSON form stands on the rollout's row.

    `sequences` are those of each arm and measure, `matched` those of a measure's difference; `waiting` holds answers
    without feedback: id → arm, moment and its values of the inputs that are groups. `share` is the percent that a
    bandit gives the challenger since `share_at`.
    """

    cursor: str
    labels_cursor: str
    sequences: Sequences = field(default_factory=dict[str, dict[str, MeanSequence]])
    step_start: int = 0
    waiting: dict[str, Unrated] = field(default_factory=dict[str, "Unrated"])
    matched: dict[str, MatchedDifference] = field(default_factory=dict[str, MatchedDifference])
    share: float | None = None
    share_at: int | None = None

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
            "matched": {name: each.to_json() for name, each in self.matched.items()},
            "share": self.share,
            "share_at": self.share_at,
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
            {name: (row[0], row[1], tuple(row[2]) if len(row) > 2 else ()) for name, row in data["waiting"].items()},
            {name: MatchedDifference.from_json(each) for name, each in data.get("matched", {}).items()},
            data.get("share"),
            data.get("share_at"),
        )

    def answers(self, arm: str) -> int:
        """Return how many questions an arm has answered."""
        mine = self.sequences.get(arm, {})
        return mine[FAILED].n if FAILED in mine else 0

    def rated(self, arm: str) -> int:
        """Return how many answers of an arm have feedback."""
        mine = self.sequences.get(arm, {})
        return mine[FEEDBACK].n if FEEDBACK in mine else 0

    def next_step(self) -> "ArmsJudging":
        """Return this with the present answer as the first of a new step."""
        return replace(self, step_start=self.answers(_CHALLENGER))

    def counted(self, found: Found) -> "ArmsJudging":
        """Return this with the rows of each measure counted, which must be in the order in which they came."""
        grown: Sequences = {arm: dict(self.sequences.get(arm, {})) for arm in (_CHAMPION, _CHALLENGER)}
        differences = dict(self.matched)
        for name, (of, given) in found.items():
            arms, values = np.asarray(of, dtype=np.bool_), np.asarray(given, dtype=np.float64)
            for arm, mine in grown.items():
                rows = values[arms if arm == _CHALLENGER else ~arms]
                if rows.size:
                    mine[name] = sequences.update(mine.get(name) or sequences.start(0.0, 1.0), rows)
            differences[name] = matched.update(differences.get(name) or matched.start(), arms, values)
        return replace(self, sequences=grown, matched=differences)


def absorb_arms(
    judging: ArmsJudging,
    rollout: Rollout,
    predictions: pa.Table,
    labels: pa.Table,
    now: datetime,
    *,
    checked: bool = True,
) -> ArmsJudging:
    """Return `judging` with new records counted: answers of this rollout, and the first feedback on each.

    `checked` tells that an answer's score says whether its checks held, as an application's does. Feedback is also
    counted for each value of the inputs that the canary names as groups, of each input for the first twelve.
    """
    inputs = tuple(f"x_{name}" for name in rollout.canary.groups)
    found: dict[str, tuple[list[bool], list[float]]] = {}
    waiting = dict(judging.waiting)
    # Several processes write; blocks are made of neighbours in time.
    for row in sorted(rows_of(predictions, (*_COLUMNS, *inputs)), key=lambda row: row["recorded_at"] or row["time"]):
        if row["rollout"] != rollout.id:
            continue
        arm = _CHALLENGER if row["release"] == rollout.challenger else _CHAMPION
        for name, value in _measures(row, rollout.canary):
            if checked or name != CHECKS:
                _append(found, name, arm, value)
        values = tuple("(missing)" if row[name] is None else str(row[name]) for name in inputs)
        waiting[row["id"]] = (arm, row["recorded_at"] or row["time"], values)
    known = [*judging.matched]
    for row in rows_of(labels, ("prediction_id", "value", "low", "high")):
        if row["prediction_id"] in waiting and row["value"] is not None:
            arm, _, values = waiting.pop(row["prediction_id"])
            _append(found, FEEDBACK, arm, 1.0 - _liking(row))
            for place, value in enumerate(values):
                _append(found, _group(place, value, known), arm, 1.0 - _liking(row))
    oldest = microseconds(now) - _KEEP_DAYS * _DAY_US
    kept = [(name, row) for name, row in waiting.items() if row[1] >= oldest][-_MAX_WAITING:]
    return replace(judging.counted(found), waiting=dict(kept))


def _group(place: int, value: str, known: list[str]) -> str:
    """Return the measure of a group's feedback: the input's place and its value; later values are one group."""
    name = f"{GROUP}{place}|{value}"
    if name in known:
        return name
    if sum(each.startswith(f"{GROUP}{place}|") for each in known) >= _MOST_GROUPS:
        name = f"{GROUP}{place}|{OTHER}"
    if name not in known:
        known.append(name)
    return name


def _append(found: dict[str, tuple[list[bool], list[float]]], name: str, arm: str, value: float) -> None:
    arms, values = found.setdefault(name, ([], []))
    arms.append(arm == _CHALLENGER)
    values.append(value)


def _measures(row: Mapping[str, Any], canary: Canary) -> Iterable[tuple[str, float]]:
    """Yield what an answer says of its arm.

    One that its client did not wait for has no score: it says nothing but that it was late, if it was by then.
    """
    left = row["score"] is None and not row["fallback"]
    if canary.latency_limit_seconds and row["latency_us"] is not None:
        late = row["latency_us"] > canary.latency_limit_seconds * 1e6
        if late or not left:
            yield LATENCY, float(late)
    if left:
        return
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
    words: str = ""

    @property
    def told(self) -> str:
        """Return it in words."""
        limits = f"difference between {self.lower:+.3f} and {self.upper:+.3f}"
        return (
            f"{WORDS.get(self.measure, self.words)} is {self.challenger:.3f} on {self.n_challenger} answers, the "
            f"champion's {self.champion:.3f} on {self.n_champion} ({limits})"
        )

    def facts(self) -> dict[str, Any]:
        """Return the numbers as a verdict keeps them."""
        return {
            "measure": self.measure,
            "champion": self.champion,
            "challenger": self.challenger,
            "n_champion": self.n_champion,
            "n_challenger": self.n_challenger,
            "lower": self.lower,
            "upper": self.upper,
            "margin": self.margin,
        }


def difference_of(
    judging: ArmsJudging, name: str, margin: float, worse: float, proof: float, *, needed: bool = True
) -> Difference | None:
    """Return what is known of one measure if both arms have it, with limits of these one-sided errors."""
    champion, challenger = (judging.sequences.get(arm, {}) for arm in (_CHAMPION, _CHALLENGER))
    if name not in champion or name not in challenger or name not in judging.matched:
        return None
    ours, theirs, blocks = challenger[name], champion[name], judging.matched[name]
    return Difference(
        measure=name,
        margin=margin,
        needed=needed,
        champion=theirs.mean,
        challenger=ours.mean,
        n_champion=theirs.n,
        n_challenger=ours.n,
        lower=matched.lower_bound(blocks, worse),
        upper=matched.upper_bound(blocks, proof),
    )


def differences(judging: ArmsJudging, canary: Canary) -> list[Difference]:
    """Return what is known of each measure that is judged and that both arms have.

    For “worse”, half of alpha is shared by all measures, of which the checks have three fifths: they are what a release
    is about. “At most the margin worse” has the other half for each, since all measures must be shown.
    """
    margins = {
        FAILED: (canary.fallback_margin, True),
        CHECKS: (canary.margin, True),
        FEEDBACK: (canary.feedback_margin, canary.feedback_needed),
    }
    if canary.cost_limit_micros:
        margins[COST] = (canary.cost_margin, True)
    if canary.latency_limit_seconds:
        margins[LATENCY] = (canary.latency_margin, True)
    half = canary.alpha / 2.0
    worse = {name: half * (_CHECKED if name == CHECKS else (1.0 - _CHECKED) / (len(margins) - 1)) for name in margins}
    found = (
        difference_of(judging, name, margin, worse[name], half, needed=needed)
        for name, (margin, needed) in margins.items()
    )
    return [each for each in found if each is not None]


def judge_arms(canary: Canary, judging: ArmsJudging, rollout: Rollout, now: datetime) -> tuple[Judgement, Any]:
    """Decide the next move of a rollout; return the judgement and the facts it rests on."""
    found = differences(judging, canary)
    answers = judging.answers(_CHALLENGER)
    days = (now - rollout.started_at) / timedelta(days=1)
    facts: dict[str, Any] = {
        "answers": {arm: judging.answers(arm) for arm in (_CHAMPION, _CHALLENGER)},
        "step_answers": answers - judging.step_start,
        "days": days,
        "measures": [each.facts() for each in found],
    }
    return _decide(canary, rollout, found, answers - judging.step_start, days), facts


def _decide(canary: Canary, rollout: Rollout, found: list[Difference], step_answers: int, days: float) -> Judgement:
    """Decide; a share is given once it is shown that the service as a whole gets at most the margin worse by it.

    The next share of the answers times their surely largest harm must stay below the margin, so that the first
    shares, which harm few, need few answers; the last step asks for the margin itself.
    """
    worse = [each for each in found if each.lower > 0.0]
    if worse:
        return Judgement("roll_back", f"It is worse than the champion: {worse[0].told}.")
    last = rollout.step + 1 >= len(canary.steps)
    share = 1.0 if last else canary.steps[rollout.step + 1] / 100.0
    known = {each.measure for each in found}
    open_ones = [each for each in found if each.needed and each.upper * share >= each.margin]
    expected = {FEEDBACK: canary.feedback_needed, LATENCY: bool(canary.latency_limit_seconds)}
    missing = {FAILED, CHECKS, *(name for name, needed in expected.items() if needed)} - known
    more = canary.min_rows_per_step - step_answers
    if not open_ones and not missing and more <= 0:
        told = "; ".join(each.told for each in found)
        return Judgement("promote" if last else "advance", f"It is within the margins: {told}.")
    if days >= canary.patience_days:
        what = open_ones[0].told if open_ones else f"{step_answers} answers came in this step"
        return Judgement("stop", f"After {days:.0f} days it is not shown to be within the margins: {what}.")
    if open_ones:
        limit = open_ones[0].margin / share
        return Judgement("wait", f"Not shown yet to be within {limit:.3g}: {open_ones[0].told}.")
    if missing:
        return Judgement("wait", f"Nothing is known yet of {WORDS[min(missing)]} in both arms.")
    return Judgement("wait", f"{more} more answers are needed in this step.", more)
