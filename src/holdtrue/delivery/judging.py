"""Count what a rollout's records say, row by row as their labels arrive."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdtrue.core.clock import microseconds
from holdtrue.delivery.losses import loss_differences
from holdtrue.delivery.model import Canary, Rollout
from holdtrue.delivery.rows import rows_of
from holdtrue.delivery.rules import Facts
from holdtrue.delivery.watching import ESTIMATED, REFUSED, SLOW, Watching, concerns
from holdtrue.stats import sequences
from holdtrue.stats.sequences import MeanSequence

_KEEP_DAYS: Final = 60
_DAY_US: Final = 86_400_000_000
_MAX_PENDING: Final = 200_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Hold the two scores of a row whose label has not come, and its values of the inputs that are groups."""

    key: str | None
    champion: float
    challenger: float
    recorded_at: int
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judging:
    """Hold all that was counted in a rollout so far; its JSON form stands on the rollout's row.

    `difference` is the sequence of the challenger's loss minus the champion's, in [-1, 1];
    `fallbacks` that of the challenger's fallback answers, 0 or 1. `waiting` holds rows without a label,
    by prediction id. `forgotten` counts rows whose label did not come in 60 days. `scores` is the sequence of the
    challenger's score minus the champion's, which needs no label (counted if its drift is judged). `watching` holds
    what is judged beside these; `refusals_cursor` is where refused requests were read up to.
    """

    cursor: str
    labels_cursor: str
    difference: MeanSequence = field(default_factory=lambda: sequences.start(-1.0, 1.0))
    fallbacks: MeanSequence = field(default_factory=lambda: sequences.start(0.0, 1.0))
    step_start: int = 0
    champion_answers: int = 0
    champion_fallbacks: int = 0
    waiting: dict[str, Waiting] = field(default_factory=dict[str, Waiting])
    forgotten: int = 0
    scores: MeanSequence = field(default_factory=lambda: sequences.start(-1.0, 1.0))
    watching: Watching = field(default_factory=Watching)
    refusals_cursor: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "cursor": self.cursor,
            "labels_cursor": self.labels_cursor,
            "difference": self.difference.to_json(),
            "fallbacks": self.fallbacks.to_json(),
            "step_start": self.step_start,
            "champion_answers": self.champion_answers,
            "champion_fallbacks": self.champion_fallbacks,
            "waiting": {
                name: [row.key, row.champion, row.challenger, row.recorded_at, list(row.groups)]
                for name, row in self.waiting.items()
            },
            "forgotten": self.forgotten,
            **({"scores": self.scores.to_json()} if self.scores.n else {}),
            "watching": self.watching.to_json(),
            "refusals_cursor": self.refusals_cursor,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Judging":
        """Build what `to_json` described."""
        return cls(
            data["cursor"],
            data["labels_cursor"],
            MeanSequence.from_json(data["difference"]),
            MeanSequence.from_json(data["fallbacks"]),
            data["step_start"],
            data["champion_answers"],
            data["champion_fallbacks"],
            {name: _waiting(*row) for name, row in data["waiting"].items()},
            data["forgotten"],
            MeanSequence.from_json(data["scores"]) if "scores" in data else sequences.start(-1.0, 1.0),
            Watching.from_json(data["watching"]) if "watching" in data else Watching(),
            data.get("refusals_cursor", ""),
        )

    def next_step(self) -> "Judging":
        """Return this with the present row as the first of a new step."""
        return replace(self, step_start=self.difference.n)

    def counted(
        self,
        differences: npt.ArrayLike = (),
        fallbacks: npt.ArrayLike = (),
        champion_answers: int = 0,
        champion_fallbacks: int = 0,
        scores: npt.ArrayLike = (),
    ) -> "Judging":
        """Return this with more differences of losses and of scores, and more answers, counted."""
        return replace(
            self,
            difference=sequences.update(self.difference, differences),
            fallbacks=sequences.update(self.fallbacks, fallbacks),
            champion_answers=self.champion_answers + champion_answers,
            champion_fallbacks=self.champion_fallbacks + champion_fallbacks,
            scores=sequences.update(self.scores, scores),
        )


def _waiting(key: str | None, champion: float, challenger: float, recorded_at: int, groups: Any = ()) -> Waiting:
    return Waiting(key, champion, challenger, recorded_at, tuple(groups))


def absorb(judging: Judging, rollout: Rollout, predictions: pa.Table, labels: pa.Table, now: datetime) -> Judging:
    """Return `judging` with new records counted: predictions of this rollout, and labels in order of arrival.

    Rows count when they have both scores and a label; the first label of a row counts. Labels must have been
    read from the journal before predictions, so that no label comes without its row.
    """
    grown = _count_predictions(judging, rollout, predictions)
    waiting = dict(grown.waiting)
    seen: list[tuple[float, float, float]] = []
    erred: list[tuple[tuple[str, ...], bool, bool]] = []
    canary = rollout.canary
    for name, value in _matched(canary, waiting, labels):
        row = waiting.pop(name)
        seen.append((value, row.champion, row.challenger))
        erred.append((row.groups, _is_wrong(canary, row.champion, value), _is_wrong(canary, row.challenger, value)))
    if canary.groups and canary.group_measure == "error":
        # Rows that waited since before groups were judged have none.
        known = [row for row in erred if len(row[0]) == len(canary.groups)]
        grown = replace(grown, watching=grown.watching.grouped(canary.groups, known))
    oldest = microseconds(now) - _KEEP_DAYS * _DAY_US
    kept = {name: row for name, row in waiting.items() if row.recorded_at >= oldest}
    if len(kept) > _MAX_PENDING:
        kept = dict(list(kept.items())[-_MAX_PENDING:])
    return replace(
        grown.counted(loss_differences(canary, *np.array(seen).reshape(-1, 3).T)),
        waiting=kept,
        forgotten=grown.forgotten + len(waiting) - len(kept),
    )


def _is_wrong(canary: Canary, score: float, label: float) -> bool:
    return score != label if canary.loss == "wrong" else (score >= canary.decision_at) is not (label >= 0.5)


def _within(canary: Canary, value: Any) -> float:
    """Return a score or label as it is judged: as a probability it lies in [0, 1]."""
    return min(max(float(value), 0.0), 1.0) if canary.loss == "brier" else float(value)


_COLUMNS: Final = (
    "prediction_id",
    "id",
    "rollout",
    "release",
    "role",
    "score",
    "fallback",
    "key",
    "recorded_at",
    "time",
    "model_us",
)


def _count_predictions(judging: Judging, rollout: Rollout, predictions: pa.Table) -> Judging:
    scores: dict[str, dict[str, Any]] = {}
    fallbacks: list[float] = []
    champion_answers = champion_fallbacks = 0
    inputs = tuple(f"x_{name}" for name in rollout.canary.groups)
    for row in rows_of(predictions, (*_COLUMNS, *inputs)):
        if row["rollout"] != rollout.id:
            continue
        fell = bool(row["fallback"])
        if row["role"] == "answer":
            if row["release"] == rollout.challenger:
                fallbacks.append(float(fell))
            else:
                champion_answers += 1
                champion_fallbacks += fell
        # A fallback's constant says nothing about the model; its share is judged on its own.
        if row["score"] is not None and not fell:
            entry = scores.setdefault(row["prediction_id"] or row["id"], {})
            entry["key"] = _key(row["key"])
            entry["recorded_at"] = row["recorded_at"] or row["time"]
            entry["groups"] = tuple("(missing)" if row[name] is None else str(row[name]) for name in inputs)
            entry[row["release"]] = (_within(rollout.canary, row["score"]), row["model_us"])
    both = {name: each for name, each in scores.items() if rollout.champion in each and rollout.challenger in each}
    waiting = dict(judging.waiting)
    moved: list[float] = []
    for name, entry in both.items():
        champion, challenger = entry[rollout.champion][0], entry[rollout.challenger][0]
        if rollout.canary.drift_margin:
            moved.append(challenger - champion)
        waiting[name] = Waiting(entry["key"], champion, challenger, entry["recorded_at"], entry["groups"])
    counted = judging.counted((), fallbacks, champion_answers, champion_fallbacks, moved)
    return replace(counted, waiting=waiting, watching=_watched(counted.watching, rollout, list(both.values())))


def _watched(watching: Watching, rollout: Rollout, rows: list[dict[str, Any]]) -> Watching:
    """Return what is judged beside the losses with rows counted that both releases scored."""
    canary = rollout.canary
    pairs = [(row[rollout.champion], row[rollout.challenger]) for row in rows]
    found: dict[str, list[float]] = {}
    if canary.estimate_margin:
        found[ESTIMATED] = [other * (1.0 - other) - mine * (1.0 - mine) for (mine, _), (other, _) in pairs]
    if canary.latency_limit_seconds:
        limit = canary.latency_limit_seconds * 1e6
        found[SLOW] = [
            float(other > limit) - float(mine > limit)
            for (_, mine), (_, other) in pairs
            if mine is not None and other is not None
        ]
    if canary.contract_margin:
        # A row that was scored was refused by neither.
        found[REFUSED] = [0.0] * len(rows)
    grown = watching.counted(found)
    if canary.groups and canary.group_measure == "positive":
        decided = [(row["groups"], mine >= canary.decision_at, other >= canary.decision_at)
                   for row, ((mine, _), (other, _)) in zip(rows, pairs, strict=True)]  # fmt: skip
        grown = grown.grouped(canary.groups, decided)
    return grown


def absorb_refusals(judging: Judging, rollout: Rollout, refusals: pa.Table) -> Judging:
    """Return `judging` with requests counted that a release's contract refused, or would have refused."""
    if not rollout.canary.contract_margin:
        return judging
    differences: list[float] = []
    for row in rows_of(refusals, ("rollout", "rows", "champion", "challenger")):
        if row["rollout"] == rollout.id and row["rows"]:
            differences += [float(bool(row["challenger"])) - float(bool(row["champion"]))] * int(row["rows"])
    return replace(judging, watching=judging.watching.counted({REFUSED: differences}))


def _matched(canary: Canary, waiting: dict[str, Waiting], labels: pa.Table) -> list[tuple[str, float]]:
    """Return (prediction id, label) of rows whose label came, in order of arrival, then of id."""
    by_key: dict[str | None, list[str]] = {}
    for name, row in waiting.items():
        if row.key is not None:
            by_key.setdefault(row.key, []).append(name)
    found: dict[str, tuple[int, str, float]] = {}
    for row in rows_of(labels, ("prediction_id", "key", "value", "known_at", "time")):
        if row["value"] is None:
            continue
        ids = [row["prediction_id"]] if row["prediction_id"] else by_key.get(_key(row["key"]), [])
        known_at = row["known_at"] or row["time"]
        for name in ids:
            if name in waiting and (name not in found or known_at < found[name][0]):
                found[name] = (known_at, name, _within(canary, row["value"]))
    return [(name, value) for _, name, value in sorted(found.values())]


def _key(value: Any) -> str | None:
    """Return a key as text: numbers come back from the journal as integers or, beside nulls, as floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value)


def facts_of(judging: Judging, rollout: Rollout, now: datetime) -> Facts:
    """Return what the counts say at this moment, with limits for the rollout's alpha.

    Half of alpha goes to the share of fallback answers, a quarter to “worse” and a quarter to scores that have drifted
    and all else that is judged: together at most alpha of equal releases are ever rolled back. Half of alpha goes to
    “at most the margin worse”.
    """
    canary: Canary = rollout.canary
    sequence, fallbacks = judging.difference, judging.fallbacks
    known = sequence.n > 0
    return Facts(
        step=rollout.step,
        pairs=sequence.n,
        step_pairs=sequence.n - judging.step_start,
        mean=sequence.mean if known else None,
        sd=sequence.sd if sequence.n > 1 else None,
        lower=sequences.lower_bound(sequence, canary.alpha / 4.0) if known else -1.0,
        upper=sequences.upper_bound(sequence, canary.alpha / 2.0) if known else 1.0,
        answers=fallbacks.n,
        fallback=fallbacks.mean if fallbacks.n else 0.0,
        fallback_lower=sequences.lower_bound(fallbacks, canary.alpha / 2.0) if fallbacks.n else 0.0,
        champion_fallback=(judging.champion_fallbacks / judging.champion_answers if judging.champion_answers else 0.0),
        days=(now - rollout.started_at) / timedelta(days=1),
        step_days=(now - rollout.step_started_at) / timedelta(days=1),
        **_drift(judging.scores, canary),
        concerns=tuple(concerns(judging.watching, canary, canary.alpha / (8.0 if canary.drift_margin else 4.0))),
    )


def _drift(scores: MeanSequence, canary: Canary) -> dict[str, Any]:
    if not canary.drift_margin or not scores.n:
        return {}
    each = canary.alpha / 16.0
    return {
        "scored": scores.n,
        "score_mean": scores.mean,
        "score_lower": sequences.lower_bound(scores, each),
        "score_upper": sequences.upper_bound(scores, each),
    }
