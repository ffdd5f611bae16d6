"""Compare runs as measurements: runs that differ only in their seed are repetitions, and two numbers are no result.

Per setting: mean and 95 % interval by Student's t. Between settings: Welch's t-test, whose degrees of freedom are
those of Welch and Satterthwaite, df = (a + b)² / (a²/(n−1) + b²/(m−1)) with a = s²/n, b = t²/m
(B. L. Welch, Biometrika 34, 1947); p-values are adjusted by Holm's step-down rule for the number of comparisons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from holdtrue.stats import special
from holdtrue.tracking.model import Run

SEEDS = frozenset({"seed", "random_seed", "random_state", "rng_seed"})


@dataclass(frozen=True, slots=True)
class Setting:
    """Hold the runs of one setting: their seeds and values, the mean, and its 95 % interval if there are two."""

    params: dict[str, str]
    runs: tuple[str, ...]
    seeds: tuple[str, ...]
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Contrast:
    """Compare one setting with the first: difference of means, its interval, and how sure it is not chance.

    `p` and `interval` are None where a setting was run once: then nobody knows how much a seed alone moves it.
    """

    setting: int
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hold the settings, by mean from high to low, and each one's contrast with the first."""

    metric: str
    settings: tuple[Setting, ...]
    contrasts: tuple[Contrast, ...]
    left_out: tuple[str, ...]


def compare(runs: Sequence[Run], metric: str) -> Comparison:
    """Group runs by their parameters but the seed, and compare the groups on `metric`."""
    groups: dict[tuple[tuple[str, str], ...], list[tuple[str, str, float]]] = {}
    left_out: list[str] = []
    for run in runs:
        value = next((each.value for each in run.metrics if each.key == metric and not each.nan), None)
        if value is None:
            left_out.append(run.info.id)
            continue
        own = tuple(sorted((each.key, each.value) for each in run.params if each.key.lower() not in SEEDS))
        seed = next((each.value for each in run.params if each.key.lower() in SEEDS), "")
        groups.setdefault(own, []).append((run.info.id, seed, value))
    found = [_setting(dict(params), members) for params, members in groups.items()]
    settings = sorted(found, key=lambda each: -each.mean)
    raw = [_contrast(place, settings[0], each) for place, each in enumerate(settings) if place]
    return Comparison(metric, tuple(settings), tuple(_adjusted(raw)), tuple(left_out))


def _setting(params: dict[str, str], members: list[tuple[str, str, float]]) -> Setting:
    values = [value for _, _, value in members]
    mean = math.fsum(values) / len(values)
    interval = None
    if len(values) > 1:
        half = _quantile(len(values) - 1) * math.sqrt(_variance(values) / len(values))
        interval = (mean - half, mean + half)
    return Setting(
        params,
        tuple(one for one, _, _ in members),
        tuple(seed for _, seed, _ in members),
        tuple(values),
        mean,
        interval,
    )


def _contrast(place: int, first: Setting, other: Setting) -> Contrast:
    difference = first.mean - other.mean
    if len(first.values) < 2 or len(other.values) < 2:
        return Contrast(place, difference, None, None, "not known: a setting was run with one seed only")
    a, b = (_variance(each.values) / len(each.values) for each in (first, other))
    if a + b == 0:
        p = 1.0 if difference == 0 else 0.0
        return Contrast(place, difference, (difference, difference), p, "")
    freedom = (a + b) ** 2 / (a**2 / (len(first.values) - 1) + b**2 / (len(other.values) - 1))
    error = math.sqrt(a + b)
    half = _quantile(freedom) * error
    p = float(2 * special.stdtr(freedom, -abs(difference) / error))
    return Contrast(place, difference, (difference - half, difference + half), p, "")


def _adjusted(contrasts: list[Contrast]) -> list[Contrast]:
    """Adjust p-values by Holm's rule and put the verdict into words."""
    tested = sorted((each for each in contrasts if each.p is not None), key=lambda each: each.p or 0.0)
    adjusted: dict[int, float] = {}
    highest = 0.0
    for rank, each in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * (each.p or 0.0)))
        adjusted[each.setting] = highest
    return [
        Contrast(
            each.setting,
            each.difference,
            each.interval,
            adjusted.get(each.setting),
            each.verdict or ("different" if adjusted[each.setting] < 0.05 else "not told apart from chance"),
        )
        for each in contrasts
    ]


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _quantile(freedom: float) -> float:
    return float(special.stdtrit(freedom, 0.975))
