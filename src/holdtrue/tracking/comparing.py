"""Compare runs as measurements: runs that differ only in their seed are repetitions, and two numbers are no result.

Per setting: mean and 95 % interval by Student's t. Between settings: Welch's t-test, whose degrees of freedom are
those of Welch and Satterthwaite, df = (a + b)² / (a²/(n−1) + b²/(m−1)) with a = s²/n, b = t²/m
(B. L. Welch, Biometrika 34, 1947); p-values are adjusted by Holm's step-down rule for the number of comparisons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdtrue.core.errors import InvalidInput
from holdtrue.stats import special
from holdtrue.tracking.model import LARGEST, Run

SEEDS = frozenset({"seed", "random_seed", "random_state", "rng_seed"})
MOST_RUNS: Final = 200


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
    """Hold the settings, the best mean first, and each one's contrast with the first.

    Left out are runs without a number for the metric; an infinity is none.
    """

    metric: str
    settings: tuple[Setting, ...]
    contrasts: tuple[Contrast, ...]
    left_out: tuple[str, ...]


def named_runs(text: str) -> list[str]:
    """Return the ids that a client wrote with commas between, each once; InvalidInput for too few or too many."""
    found = list(dict.fromkeys(each for each in text.split(",") if each))
    if not 2 <= len(found) <= MOST_RUNS:
        raise InvalidInput(
            f"A comparison takes 2 to {MOST_RUNS} runs.",
            why=f"{len(found)} {'was' if len(found) == 1 else 'were'} named, each counted once.",
            mend="Name at least two.",
        )
    return found


def lowest_is_best(text: str) -> bool:
    """Tell whether a client wrote that the lowest value is the best; nothing means the highest."""
    if text not in ("", "highest", "lowest"):
        raise InvalidInput("The best value is the highest or the lowest.", mend="Say best=highest or best=lowest.")
    return text == "lowest"


def setting_of(run: Run) -> tuple[tuple[str, str], ...]:
    """Return what a run's repetitions share with it: its parameters but the seed."""
    return tuple(sorted((each.key, each.value) for each in run.params if each.key.lower() not in SEEDS))


def seed_of(run: Run) -> str:
    """Return a run's seed, or nothing."""
    return next((each.value for each in run.params if each.key.lower() in SEEDS), "")


def compare(runs: Sequence[Run], metric: str, *, lowest: bool = False) -> Comparison:
    """Group runs by their parameters but the seed, and compare the groups on `metric`; `lowest` values are best."""
    groups: dict[tuple[tuple[str, str], ...], list[tuple[str, str, float]]] = {}
    left_out: list[str] = []
    for run in runs:
        value = next((each.value for each in run.metrics if each.key == metric and not each.nan), None)
        if value is None or abs(value) >= LARGEST:
            left_out.append(run.info.id)
            continue
        groups.setdefault(setting_of(run), []).append((run.info.id, seed_of(run), value))
    # A power of two, so that nothing is rounded: squares of what is left neither overflow nor vanish.
    powers = (math.frexp(value)[1] for group in groups.values() for _, _, value in group)
    scale = 2.0 ** min(1023, max(powers, default=0))
    found = [_setting(dict(params), members, scale) for params, members in groups.items()]
    settings = sorted(found, key=lambda each: each.mean if lowest else -each.mean)
    raw = [_contrast(place, settings[0], each, scale) for place, each in enumerate(settings) if place]
    return Comparison(metric, tuple(settings), tuple(_adjusted(raw)), tuple(left_out))


def _setting(params: dict[str, str], members: list[tuple[str, str, float]], scale: float) -> Setting:
    values = [value / scale for _, _, value in members]
    mean = math.fsum(values) / len(values)
    return Setting(
        params,
        tuple(one for one, _, _ in members),
        tuple(seed for _, seed, _ in members),
        tuple(value for _, _, value in members),
        mean * scale,
        interval_of(values, scale),
    )


def interval_of(values: Sequence[float], scale: float = 1.0) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean by Student's t, times `scale`; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    half = _quantile(len(values) - 1) * math.sqrt(_variance(values) / len(values))
    return _bounded((mean - half) * scale, (mean + half) * scale)


def _bounded(lower: float, upper: float) -> tuple[float, float]:
    """Return an interval whose ends are numbers that JSON has."""
    return max(lower, -LARGEST), min(upper, LARGEST)


def _contrast(place: int, first: Setting, other: Setting, scale: float) -> Contrast:
    mine, theirs = ([value / scale for value in each.values] for each in (first, other))
    apart = math.fsum(mine) / len(mine) - math.fsum(theirs) / len(theirs)
    difference = max(-LARGEST, min(LARGEST, apart * scale))
    if len(mine) < 2 or len(theirs) < 2:
        return Contrast(place, difference, None, None, "not known: a setting was run with one seed only")
    a, b = (_variance(each) / len(each) for each in (mine, theirs))
    if a + b == 0:
        return Contrast(place, difference, (difference, difference), 1.0 if apart == 0 else 0.0, "")
    # Welch and Satterthwaite's formula by shares of the variance, whose squares do not vanish together.
    share = a / (a + b)
    freedom = 1 / (share**2 / (len(mine) - 1) + (1 - share) ** 2 / (len(theirs) - 1))
    error = math.sqrt(a + b)
    half = _quantile(freedom) * error
    p = float(2 * special.stdtr(freedom, -abs(apart) / error))
    return Contrast(place, difference, _bounded((apart - half) * scale, (apart + half) * scale), p, "")


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
