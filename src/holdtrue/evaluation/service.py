"""Evaluate one score, or compare two on the same rows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation.model import Comparison, Evaluation, MissingLabels, OneClass, Scores, SliceScore
from holdtrue.stats import (
    BadNumbers,
    Interval,
    OneClassOnly,
    auc_difference,
    auc_interval,
    bootstrap,
    pair_counts,
    reliability,
)
from holdtrue.stats.arrays import Floats, binary_labels, block_codes, same_length
from holdtrue.stats.intervals import around, normal_quantile, student_quantile
from holdtrue.stats.resampling import Statistic, mean_statistic
from holdtrue.stats.scoring import brier_losses, log_losses

P = ParamSpec("P")
T = TypeVar("T")

_FEW_BLOCKS = 6
_HIGHER_IS_BETTER = {"roc_auc": True, "brier": False, "log_loss": False}


def _plainly(judge: Callable[P, T]) -> Callable[P, T]:
    """Turn what the statistics refuse into an error of the house with the same words."""

    @wraps(judge)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return judge(*args, **kwargs)
        except BadNumbers as error:
            kind = OneClass if isinstance(error, OneClassOnly) else InvalidInput
            raise kind(error.what, why=error.why, mend=error.mend, facts=error.facts) from error

    return call


def label_column(table: Mapping[str, npt.ArrayLike], name: str) -> npt.NDArray[Any]:
    """Return the column of labels of a mapping of columns; MissingLabels names what is there instead."""
    if name not in table:
        raise MissingLabels.column(name, tuple(table))
    return np.asarray(table[name])


def days(times: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return days since 1970 (UTC) as int64[n] of datetime64 values or of microseconds since 1970."""
    values = np.asarray(times)
    if values.dtype.kind == "M":
        return values.astype("datetime64[D]").astype(np.int64)
    if values.dtype.kind in "iu":
        return np.floor_divide(values.astype(np.int64), 86_400_000_000)
    raise InvalidInput(
        f"Times of type {values.dtype} cannot be cut into days.",
        mend="Give datetime64 values, or whole microseconds since 1970.",
    )


@_plainly
def evaluate(
    y: npt.ArrayLike,
    score: npt.ArrayLike,
    *,
    slices: Mapping[str, npt.ArrayLike] | None = None,
    times: npt.ArrayLike | None = None,
    baseline: npt.ArrayLike | float | None = None,
    alpha: float = 0.05,
    min_slice: int = 200,
) -> Evaluation:
    """Judge `score` float[n] (probabilities) against labels `y` [n]; rows whose label is NaN are left out.

    `slices` names columns [n] whose values are judged apart; values with fewer than `min_slice` rows are
    only counted. With `times` [n] intervals allow for rows of one day depending on each other. `baseline` is
    a score [n], one constant, or None for the base rate itself. No label at all raises MissingLabels, one
    class only OneClass, a score that is NaN InvalidInput.
    """
    labels, known = _known(y)
    values = _take(score, known, "score")
    columns = {name: _take(column, known, name) for name, column in (slices or {}).items()}
    blocks = days(_take(times, known, "times")) if times is not None else None
    positive = binary_labels(labels)
    base_rate = float(positive.mean())
    reference: npt.ArrayLike
    if baseline is None or isinstance(baseline, int | float):
        reference = np.full(positive.size, base_rate if baseline is None else float(baseline))
    else:
        reference = _take(baseline, known, "baseline")
    found, skipped = _slices(positive, values, columns, blocks, alpha, min_slice)
    return Evaluation(
        n=positive.size,
        base_rate=base_rate,
        metric=score_of(positive, values, blocks=blocks, alpha=alpha),
        baseline=score_of(positive, reference, blocks=blocks, alpha=alpha),
        slices=found,
        blocks=0 if blocks is None else int(np.unique(blocks).size),
        left_out=int(known.size - positive.size),
        skipped_slices=skipped,
        reliability=tuple(asdict(group) for group in reliability(positive, values)),
    )


@_plainly
def score_of(
    y: npt.ArrayLike, score: npt.ArrayLike, *, blocks: npt.ArrayLike | None = None, alpha: float = 0.05
) -> Scores:
    """Return area, Brier score and log loss with intervals; rows of one of `blocks` [n] may be dependent."""
    return Scores(
        auc_interval(y, score, alpha=alpha, blocks=blocks),
        mean_interval(brier_losses(y, score), blocks=blocks, alpha=alpha),
        mean_interval(log_losses(y, score), blocks=blocks, alpha=alpha),
    )


def mean_interval(values: Floats, *, blocks: npt.ArrayLike | None = None, alpha: float = 0.05) -> Interval:
    """Return the mean of `values` float[n] with its interval, over blocks if there are at least 6 of them."""
    n = values.size
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(values.mean())
    if blocks is not None:
        codes, k = block_codes(blocks, n)
        if k >= _FEW_BLOCKS:
            moved = np.bincount(codes, weights=values - mean, minlength=k) / n
            error = math.sqrt(float(np.dot(moved, moved)) * k / (k - 1.0))
            return around(mean, error, n, student_quantile(1.0 - alpha / 2.0, k - 1))
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return around(mean, error, n, normal_quantile(1.0 - alpha / 2.0))


@_plainly
def compare(
    y: npt.ArrayLike,
    champion_score: npt.ArrayLike,
    challenger_score: npt.ArrayLike,
    times: npt.ArrayLike | None = None,
    *,
    metric: str = "roc_auc",
    alpha: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two scores float[n] on the same rows: challenger minus champion, with `p_better`.

    With at least 6 days in `times` the first method is the paired block bootstrap by day; DeLong (or the
    normal interval of the paired mean) is reported beside it in `others`. The same seed gives the same
    numbers.
    """
    if metric not in _HIGHER_IS_BETTER:
        raise InvalidInput(
            f"There is no comparison by “{metric}”.",
            why=f"Known metrics: {', '.join(sorted(_HIGHER_IS_BETTER))}.",
            mend="Choose one of them.",
        )
    labels, known = _known(y)
    positive = binary_labels(labels)
    first = _take(champion_score, known, "champion score")
    second = _take(challenger_score, known, "challenger score")
    blocks = days(_take(times, known, "times")) if times is not None else None
    plain = _analytic(metric, positive, first, second, blocks, alpha)
    if blocks is None:
        return plain
    _, k = block_codes(blocks, positive.size)
    if k < _FEW_BLOCKS:
        return plain
    return _bootstrapped(plain, positive, first, second, blocks, alpha, draws, seed)


def _analytic(metric: str, positive: Any, first: Any, second: Any, blocks: Any, alpha: float) -> Comparison:
    if metric == "roc_auc":
        found = auc_difference(positive, first, second, alpha=alpha, blocks=blocks)
        return Comparison(
            metric, found.first, found.second, found.difference, found.lower, found.upper,
            found.p_better, found.n, 0 if blocks is None else int(np.unique(blocks).size), found.method,
        )  # fmt: skip
    losses = brier_losses if metric == "brier" else log_losses
    a, b = losses(positive, first), losses(positive, second)
    interval = mean_interval(b - a, blocks=blocks, alpha=alpha)
    half = (interval.upper - interval.value) / normal_quantile(1.0 - alpha / 2.0)
    chance = 0.5 if not half > 0.0 else 0.5 * math.erfc(interval.value / half / math.sqrt(2.0))
    return Comparison(
        metric, float(a.mean()), float(b.mean()), interval.value, interval.lower, interval.upper,
        chance, interval.n, 0 if blocks is None else int(np.unique(blocks).size), "paired mean",
    )  # fmt: skip


def _bootstrapped(
    plain: Comparison,
    positive: Any,
    first: Any,
    second: Any,
    blocks: Any,
    alpha: float,
    draws: int,
    seed: int,
) -> Comparison:
    codes, k = block_codes(blocks, positive.size)
    if plain.metric == "roc_auc":
        one, two = pair_counts(positive, first, codes), pair_counts(positive, second, codes)

        def areas(counts: Floats) -> Floats:
            return two.areas(counts) - one.areas(counts)

        statistic: Statistic = areas
    else:
        losses = brier_losses if plain.metric == "brier" else log_losses
        statistic = mean_statistic(losses(positive, second) - losses(positive, first), codes, k)
    found = bootstrap(statistic, k, positive.size, draws=draws, seed=seed)
    interval = found.interval(alpha)
    above = found.share_above(0.0)
    return Comparison(
        plain.metric,
        plain.champion,
        plain.challenger,
        interval.value,
        interval.lower,
        interval.upper,
        above if _HIGHER_IS_BETTER[plain.metric] else 1.0 - above,
        positive.size,
        k,
        f"paired block bootstrap over {k} days, {draws} draws, seed {seed}",
        ({
            "method": plain.method,
            "difference": plain.difference,
            "lower": plain.lower,
            "upper": plain.upper,
            "p_better": plain.p_better,
        },),
    )  # fmt: skip


def _slices(
    positive: npt.NDArray[np.bool_],
    score: npt.NDArray[Any],
    columns: Mapping[str, npt.NDArray[Any]],
    blocks: npt.NDArray[np.int64] | None,
    alpha: float,
    min_slice: int,
) -> tuple[tuple[SliceScore, ...], int]:
    found: list[SliceScore] = []
    skipped = 0
    same_length(columns, positive.size)
    for name in sorted(columns):
        column = columns[name].astype(str)
        for value in np.unique(column):
            rows = column == value
            n = int(rows.sum())
            if n < min_slice:
                skipped += 1
                continue
            inside = None if blocks is None else blocks[rows]
            rate = float(positive[rows].mean())
            try:
                area = auc_interval(positive[rows], score[rows], alpha=alpha, blocks=inside)
                found.append(SliceScore(name, str(value), area, rate))
            except OneClassOnly as error:
                nothing = Interval(math.nan, math.nan, math.nan, n)
                found.append(SliceScore(name, str(value), nothing, rate, error.why))
    return tuple(found), skipped


def _known(y: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the labels that are there, and which rows have one, bool[n]."""
    labels = np.asarray(y)
    if labels.dtype == object:
        labels = np.array([math.nan if value is None else value for value in labels])
    known = ~np.isnan(labels) if labels.dtype.kind == "f" else np.ones(labels.shape, dtype=np.bool_)
    if not known.any():
        raise MissingLabels(
            "There is no label in these rows.",
            why=f"{labels.size} rows were given." if labels.size else "No rows were given.",
            mend="Wait until labels have arrived, or name the column that holds them.",
        )
    return labels[known], known


def _take(column: npt.ArrayLike, known: npt.NDArray[np.bool_], what: str) -> npt.NDArray[Any]:
    values = np.asarray(column)
    if values.shape[:1] != known.shape:
        raise InvalidInput(
            f"The column “{what}” has shape {values.shape} for {known.size} rows of labels.",
            mend="Give one value for each row, in the same order.",
        )
    return values[known]
