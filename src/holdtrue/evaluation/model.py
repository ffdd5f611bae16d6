"""What an evaluation and a comparison say, and the JSON evidence that they become."""

from dataclasses import dataclass, field
from typing import Any, Final

from holdtrue.core.errors import InvalidInput
from holdtrue.stats import Interval, finite

METRICS: Final = ("roc_auc", "brier", "log_loss")
"""By what models are compared."""


class MissingLabels(InvalidInput):
    """The rows to be judged have no column of labels, or no label in it."""

    code = "missing_labels"

    @classmethod
    def column(cls, name: str, present: tuple[str, ...]) -> "MissingLabels":
        """Say that the label column `name` is not among the columns `present`."""
        return cls(
            f"The label column “{name}” is missing.",
            why=f"The table has: {', '.join(present) or 'no columns'}.",
            mend="Name the column that holds the truth, or deliver the table again with it.",
            facts={"column": name, "present": list(present)},
        )


class OneClass(InvalidInput):
    """The rows to be judged all have the same label, so that no ranking of them exists."""

    code = "one_class_only"


@dataclass(frozen=True, slots=True)
class Scores:
    """Hold the metrics of one score on one set of rows, each with its interval."""

    roc_auc: Interval
    brier: Interval
    log_loss: Interval

    def to_json(self) -> dict[str, Any]:
        """Return `{"roc_auc": {...}, "brier": {...}, "log_loss": {...}}`."""
        return {
            "roc_auc": self.roc_auc.to_json(),
            "brier": self.brier.to_json(),
            "log_loss": self.log_loss.to_json(),
        }


@dataclass(frozen=True, slots=True)
class SliceScore:
    """Hold the area of one slice; NaN with a `reason` where it is not defined."""

    slice: str
    value: str
    roc_auc: Interval
    base_rate: float
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a flat JSON object, as gate rules read it."""
        interval = self.roc_auc
        return {
            "slice": self.slice,
            "value": self.value,
            "n": interval.n,
            "roc_auc": finite(interval.value),
            "lower": finite(interval.lower),
            "upper": finite(interval.upper),
            "base_rate": finite(self.base_rate),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Hold how good a score is: overall, against the baseline, and by slice."""

    n: int
    base_rate: float
    metric: Scores
    baseline: Scores
    slices: tuple[SliceScore, ...] = ()
    blocks: int = 0
    left_out: int = 0
    skipped_slices: int = 0
    reliability: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """Return the content of a piece of evidence of kind evaluation."""
        return {
            "n": self.n,
            "base_rate": finite(self.base_rate),
            "metric": self.metric.to_json(),
            "baseline": self.baseline.to_json(),
            "slices": [entry.to_json() for entry in self.slices],
            "skipped_slices": self.skipped_slices,
            "blocks": self.blocks,
            "left_out": self.left_out,
            "reliability": list(self.reliability),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hold the paired difference of one metric, challenger minus champion, on the same rows.

    `p_better` is the confidence that the challenger is better, whichever direction of the metric is good.
    """

    metric: str
    champion: float
    challenger: float
    difference: float
    lower: float
    upper: float
    p_better: float
    n: int
    blocks: int
    method: str
    others: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the content of a piece of evidence of kind comparison."""
        return {
            "metric": self.metric,
            "champion": finite(self.champion),
            "challenger": finite(self.challenger),
            "difference": finite(self.difference),
            "lower": finite(self.lower),
            "upper": finite(self.upper),
            "p_better": finite(self.p_better),
            "n": self.n,
            "blocks": self.blocks,
            "method": self.method,
            "others": [dict(entry) for entry in self.others],
        }
