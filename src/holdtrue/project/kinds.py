"""What depends on what a model answers with: the chance of an event, one of several classes, or a number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation import compare, evaluate
from holdtrue.evaluation.kinds import CLASS_LOSSES, NUMBER_LOSSES, compare_losses, evaluate_classes, evaluate_numbers
from holdtrue.project.definitions import EvaluationPlan, Model
from holdtrue.project.rows import Rows
from holdtrue.serving import Model as Loaded
from holdtrue.serving.runtime import numbered
from holdtrue.stats.conformal import (
    calibrate,
    calibrate_classes,
    calibrate_ranges,
    covered,
    covered_classes,
    covered_ranges,
)

_WAYS: Final[Mapping[str, tuple[str, Callable[..., Any], Callable[..., Any]]]] = MappingProxyType(
    {
        "sets": ("sets", calibrate, covered),
        "class_sets": ("class_sets", calibrate_classes, covered_classes),
        "ranges": ("ranges", calibrate_ranges, covered_ranges),
    }
)


@dataclass(frozen=True, slots=True)
class Sure:
    """Hold what a release says of how sure its answers are: a setting of it, and how that held on later rows."""

    setting: str
    content: Any
    coverage: dict[str, Any]


def outcomes(model: Model, column: pa.ChunkedArray) -> np.ndarray:
    """Return the outcomes of rows: int64 [n] of 0 and 1 or of classes' numbers, or float64 [n] of numbers.

    Classes may be given by their names. Raises InvalidInput for what is none of them.
    """
    if model.number:
        found = column.cast(pa.float64()).to_numpy()
        if not np.isfinite(found).all():
            raise _not_one(model, "some are no finite numbers", "Make them NULL, so that such rows are left out.")
        return found
    if not model.classes:
        return column.cast(pa.int64()).to_numpy()
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(model.classes))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        options = pc.SetLookupOptions(value_set=pa.array(model.classes, column.type))
        found = pc.fill_null(pc.call_function("index_in", [column], options), -1).to_numpy().astype(np.int64)
    else:
        found = column.cast(pa.int64()).to_numpy()
    bad = (found < 0) | (found >= len(model.classes))
    if bad.any():
        example = column[int(np.flatnonzero(bad)[0])].as_py()
        raise _not_one(model, f"one of them is {example!r}", f"Give one of {listed[:300]}, or its name.")
    return found


def check_trainable(model: Model, y: np.ndarray) -> None:
    """Raise InvalidInput for outcomes of training rows that teach nothing, or leave a class out."""
    present = np.unique(y)
    if len(present) < 2:
        raise InvalidInput(
            f"“{model.name}” cannot be trained: all {len(y)} outcomes are the same.",
            why=f"The outcome is “{model.outcome}”.",
            mend="Take in more data, or correct the outcome's expression.",
        )
    if model.classes and len(present) < len(model.classes):
        lacking = [name for number, name in enumerate(model.classes) if number not in present]
        raise InvalidInput(
            f"“{model.name}” cannot be trained: no training row is of the class {', '.join(lacking)[:200]}.",
            why=f"It tells {len(model.classes)} classes apart, and {len(present)} are in the data.",
            mend="Take in more data, or leave those classes out of the model.",
        )


def check_answers(model: Model, loaded: Loaded) -> None:
    """Raise InvalidInput for a fitted model that answers with something else than its definition says."""
    if len(loaded.classes) != len(model.classes):
        raise InvalidInput(
            f"“{model.name}” does not answer as it is declared.",
            why=f"What was fitted tells {len(loaded.classes)} classes apart, and {len(model.classes)} are named.",
            mend="Name as many classes as there are: @project.model(…, classes=[…]), the first for the outcome 0.",
        )
    # Estimators number their classes as they were given; what has names of its own may have them in another order.
    if loaded.classes not in (numbered(len(loaded.classes)), model.classes):
        raise InvalidInput(
            f"“{model.name}” does not answer as it is declared.",
            why=f"What was fitted tells {', '.join(loaded.classes)[:200]} apart, in that order, "
            f"and the model is declared with {', '.join(model.classes)[:200]}.",
            mend="Give both the same names in the same order.",
        )


def base_of(model: Model, y: np.ndarray) -> float | list[float]:
    """Return what is answered without a model: the share of yes or the mean, or of classes the share of each."""
    if model.classes:
        return (np.bincount(y, minlength=len(model.classes)) / len(y)).tolist()
    return float(y.mean())


def judge(
    model: Model,
    plan: EvaluationPlan,
    held: Rows,
    score: np.ndarray,
    base: float | list[float],
    champion: np.ndarray | None,
    against: str,
) -> list[dict[str, Any]]:
    """Return the evidence about a score of held-out rows, beside the champion's (None: beside the baseline)."""
    slices = {
        name: np.asarray(held.table[name].cast(pa.string()).to_pylist(), dtype=object).astype(str)
        for name in plan.slices
    }
    guess = np.tile(np.asarray(base, np.float64), (len(held.y), 1)) if model.classes else np.full(len(held.y), base)
    reference = guess if champion is None else champion
    if model.classes or model.number:
        judged, paired = _judge_losses(model, plan, held, score, base, reference, slices)
    else:
        judged = evaluate(held.y, score, slices=slices, times=held.times, baseline=guess).to_json()
        judged["metric"]["base_rate"] = judged["base_rate"]
        paired = compare(held.y, reference, score, held.times, metric=plan.metric).to_json()
    more = {"classes": judged["classes"]} if "classes" in judged else {}
    return [
        {"kind": "metric", "content": {**judged["metric"], "n": judged["n"], **more}},
        {"kind": "baseline", "content": judged["baseline"]},
        {"kind": "slices", "content": judged["slices"]},
        {"kind": "comparison", "content": {"champion": paired, "against": against}},
    ]


def _judge_losses(
    model: Model,
    plan: EvaluationPlan,
    held: Rows,
    score: np.ndarray,
    base: Any,
    reference: np.ndarray,
    slices: Mapping[str, np.ndarray],
) -> tuple[dict[str, Any], dict[str, Any]]:
    if model.classes:
        judged = evaluate_classes(held.y, score, model.classes, baseline=base, slices=slices, times=held.times)
    else:
        judged = evaluate_numbers(held.y, score, baseline=base, slices=slices, times=held.times)
    loss = (CLASS_LOSSES if model.classes else NUMBER_LOSSES)[plan.metric]
    mine, other = (loss(held.y, each.astype(np.float64)) for each in (score, reference))
    return judged, compare_losses(plan.metric, other, mine, held.times).to_json()


def loss_of(model: Model) -> Callable[[Any, Any], Any] | None:
    """Return the loss by which features are valued, None where it is the area under the ROC curve."""
    if model.classes:
        return CLASS_LOSSES["brier"]
    return NUMBER_LOSSES["mae"] if model.number else None


def sure_of(model: Model, plan: EvaluationPlan, held: Rows, score: np.ndarray) -> Sure | None:
    """Return prediction sets or ranges and how often they held the truth, None where too few rows were held out.

    They are made of the earlier half of the held-out rows and measured on the later one, as in production.
    """
    if not plan.confidence:
        return None
    order = np.argsort(held.times, kind="stable")
    half = len(order) // 2
    early, late = order[:half], order[half:]
    setting, make, measure = _WAYS["class_sets" if model.classes else "ranges" if model.number else "sets"]
    made = make(score[early], held.y[early], plan.confidence)
    if made is None:
        return None
    return Sure(setting, dump(made), {**measure(made, score[late], held.y[late]), "made_of": half})


def _not_one(model: Model, why: str, mend: str) -> InvalidInput:
    wanted = "a number" if model.number else "a class"
    return InvalidInput(
        f"The outcomes “{model.outcome}” of “{model.name}” are not each {wanted}.",
        why=f"{why[0].upper()}{why[1:]}.",
        mend=mend,
    )
