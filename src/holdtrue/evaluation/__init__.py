"""How good a model is: metrics with intervals, slices, a baseline, and paired comparisons."""

from holdtrue.evaluation.model import Comparison, Evaluation, MissingLabels, OneClass, Scores, SliceScore
from holdtrue.evaluation.service import compare, days, evaluate, label_column, mean_interval, score_of

__all__ = [
    "Comparison",
    "Evaluation",
    "MissingLabels",
    "OneClass",
    "Scores",
    "SliceScore",
    "compare",
    "days",
    "evaluate",
    "label_column",
    "mean_interval",
    "score_of",
]
