"""Judge models whose answers are no single probability: those of several classes, and those of a number.

Each row has a loss; means of losses have intervals, slices and paired comparisons as those of probabilities have.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation.model import Comparison
from holdtrue.evaluation.service import days, mean_interval
from holdtrue.stats import bootstrap, finite
from holdtrue.stats.arrays import Floats, block_codes
from holdtrue.stats.intervals import normal_quantile
from holdtrue.stats.resampling import mean_statistic

_CLIP: Final = 1e-6
_FEW_BLOCKS: Final = 6
Loss = Callable[[Any, Any], Floats]


def _wrong(y: Any, chances: Any) -> Floats:
    return (chances.argmax(axis=1) != y).astype(np.float64)


def _brier(y: Any, chances: Any) -> Floats:
    """Return half of Brier's (1950) sum over the classes, in [0, 1]; of two classes it is (p - y)²."""
    missed = chances.copy()
    missed[np.arange(y.size), y] -= 1.0
    return np.square(missed).sum(axis=1) / 2.0


def _log_loss(y: Any, chances: Any) -> Floats:
    return -np.log(np.clip(chances[np.arange(y.size), y], _CLIP, 1.0))


def _absolute(y: Any, score: Any) -> Floats:
    return np.abs(score - y)


def _squared(y: Any, score: Any) -> Floats:
    return np.square(score - y)


CLASS_LOSSES: Final[Mapping[str, Loss]] = MappingProxyType({"error": _wrong, "brier": _brier, "log_loss": _log_loss})
"""Losses of a row by probabilities of several classes, the first of which is the share of wrong answers."""
NUMBER_LOSSES: Final[Mapping[str, Loss]] = MappingProxyType({"mae": _absolute, "mse": _squared})
"""Losses of a row by a predicted number: how far it is off, and the square of it."""


def evaluate_classes(
    y: npt.ArrayLike,
    chances: npt.ArrayLike,
    classes: tuple[str, ...],
    *,
    baseline: npt.ArrayLike,
    slices: Mapping[str, npt.ArrayLike] | None = None,
    times: npt.ArrayLike | None = None,
    min_slice: int = 200,
) -> dict[str, Any]:
    """Judge probabilities float[n, k] of k classes against the numbers of the true ones, int[n].

    `baseline` is the probability of each class that is answered without a model, float[k]. Beside the losses it tells
    how each class is found (`recall`) and how often it is right where it is said (`precision`).
    """
    true, given = np.asarray(y).astype(np.int64), np.asarray(chances, np.float64)
    if given.shape != (true.size, len(classes)) or not np.isfinite(given).all():
        raise InvalidInput(
            f"Probabilities of the shape {given.shape} are not those of {true.size} rows and {len(classes)} classes.",
            mend="Give one finite probability for each row and class.",
        )
    said = given.argmax(axis=1)
    flat = np.broadcast_to(np.asarray(baseline, np.float64), given.shape)
    found = _judged(CLASS_LOSSES, true, given, flat, slices or {}, times, min_slice)
    right = (said == true).astype(np.float64)
    found["metric"]["accuracy"] = mean_interval(right, blocks=None if times is None else days(times)).to_json()
    found["classes"] = [
        {
            "class": name,
            "n": int((true == place).sum()),
            "recall": finite(_share(right[true == place])),
            "precision": finite(_share(right[said == place])),
        }
        for place, name in enumerate(classes)
    ]
    return found


def evaluate_numbers(
    y: npt.ArrayLike,
    score: npt.ArrayLike,
    *,
    baseline: float,
    slices: Mapping[str, npt.ArrayLike] | None = None,
    times: npt.ArrayLike | None = None,
    min_slice: int = 200,
) -> dict[str, Any]:
    """Judge predicted numbers float[n] against the true ones; `baseline` is what is answered without a model.

    `explained` is the share of the squared error of the baseline that the model does not make.
    """
    true, given = np.asarray(y, np.float64), np.asarray(score, np.float64)
    if given.shape != true.shape or not np.isfinite(given).all():
        raise InvalidInput(
            f"Scores of the shape {given.shape} are not finite numbers of {true.size} rows.",
            mend="Give one finite number for each row.",
        )
    found = _judged(NUMBER_LOSSES, true, given, np.full(true.shape, baseline), slices or {}, times, min_slice)
    worst = found["baseline"]["mse"]["value"]
    found["metric"]["explained"] = finite(1.0 - found["metric"]["mse"]["value"] / worst if worst else math.nan)
    return found


def compare_losses(
    metric: str,
    champion: Floats,
    challenger: Floats,
    times: npt.ArrayLike | None = None,
    *,
    alpha: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare losses float[n] on the same rows, challenger minus champion, by days if there are at least six."""
    difference = challenger - champion
    blocks = None if times is None else days(times)
    codes, k = (None, 0) if blocks is None else block_codes(blocks, difference.size)
    if codes is not None and k >= _FEW_BLOCKS:
        found = bootstrap(mean_statistic(difference, codes, k), k, difference.size, draws=draws, seed=seed)
        interval, better = found.interval(alpha), 1.0 - found.share_above(0.0)
        method = f"paired block bootstrap over {k} days, {draws} draws, seed {seed}"
    else:
        interval = mean_interval(difference, alpha=alpha)
        half = (interval.upper - interval.value) / normal_quantile(1.0 - alpha / 2.0)
        better = 0.5 if not half > 0.0 else 0.5 * math.erfc(interval.value / half / math.sqrt(2.0))
        method = "paired mean"
    return Comparison(
        metric, float(champion.mean()), float(challenger.mean()), interval.value, interval.lower, interval.upper,
        better, difference.size, k, method,
    )  # fmt: skip


def _judged(
    losses: Mapping[str, Loss],
    y: Any,
    given: Any,
    baseline: Any,
    slices: Mapping[str, npt.ArrayLike],
    times: npt.ArrayLike | None,
    min_slice: int,
) -> dict[str, Any]:
    blocks = None if times is None else days(times)

    def of(scores: Any) -> dict[str, Any]:
        return {name: mean_interval(loss(y, scores), blocks=blocks).to_json() for name, loss in losses.items()}

    first, loss = next(iter(losses.items()))
    each, skipped = loss(y, given), 0
    found: list[dict[str, Any]] = []
    for name in sorted(slices):
        column = np.asarray(slices[name]).astype(str)
        for value in np.unique(column).tolist():
            rows = column == value
            if int(rows.sum()) < min_slice:
                skipped += 1
                continue
            mean = mean_interval(each[rows], blocks=None if blocks is None else blocks[rows])
            told = {"n": mean.n, first: finite(mean.value), "lower": finite(mean.lower), "upper": finite(mean.upper)}
            found.append({"slice": name, "value": value, **told})
    return {
        "n": int(y.size),
        "metric": of(given),
        "baseline": of(baseline),
        "slices": found,
        "skipped_slices": skipped,
    }


def _share(right: Floats) -> float:
    return float(right.mean()) if right.size else math.nan
