"""How the answers of two releases differ on the rows that both scored: on the whole, by slice, and in time taken."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdtrue import monitoring
from holdtrue.core.clock import from_microseconds
from holdtrue.delivery import reading, store
from holdtrue.delivery.history import moments
from holdtrue.delivery.losses import loss_differences
from holdtrue.delivery.model import Canary, Rollout
from holdtrue.stats import discoveries, finite, kolmogorov_smirnov, psi
from holdtrue.stats.arrays import Floats
from holdtrue.stats.intervals import around, student_below, student_quantile
from holdtrue.storage import Stores

_MOST_VALUES: Final = 30
_LEAST_ROWS: Final = 50
_BINS: Final = np.linspace(0.0, 1.0, 11)


@dataclass(frozen=True, slots=True)
class Slice:
    """Tell how two releases differ on the rows with one value of one input.

    `moved` is the mean of the challenger's score minus the champion's, `apart` the mean of its size, `changed` the
    share of rows that fall on the other side of one half. `brier`, with its limits, is the difference of their Brier
    scores on the `labelled` rows (above 0: the challenger is worse) by Student's interval, and `p` is that of “not
    worse”; `worse` tells whether it is a discovery among all slices (Benjamini and Hochberg, 5 %).
    """

    input: str
    value: str
    rows: int
    moved: float
    apart: float
    changed: float
    labelled: int
    brier: float | None
    lower: float | None
    upper: float | None
    p: float | None
    worse: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Hold the whole, the slices (the largest difference first), how scores are spread, and times by release.

    `psi` and `kolmogorov_smirnov` compare the two releases' scores on the same rows; `times` are milliseconds of the
    requests that each answered, and (`model_p50`, `model_p99`) of its own features and model on every row that it
    scored: the middle one and the slowest of a hundred.
    """

    rollout: str
    champion: str
    challenger: str
    whole: Slice | None
    slices: tuple[Slice, ...]
    psi: float | None
    kolmogorov_smirnov: float | None
    times: Mapping[str, Mapping[str, float | int]]


def differing(stores: Stores, project: str, name: str) -> Report:
    """Return how the answers of a rollout's two releases differ; raise NotFound for no such rollout."""
    rollout = stores.ledger.read(lambda connection: store.rollout(connection, project, name))
    stream = stores.ledger.read(
        lambda connection: reading.stream(connection, project, rollout.service, rollout.environment)
    )
    since, until = moments(stores, project, stream, rollout)
    records = stores.journal.table("prediction", project, service=stream, since=since, until=until)
    if "rollout" in records.column_names:
        records = records.filter(pc.field("rollout") == rollout.id)
    joined = monitoring.joined(
        stores, project, stream, releases=(rollout.champion, rollout.challenger), since=since, until=until
    )
    declared = stores.ledger.read(lambda connection: store.service(connection, project, rollout.service))
    rows = _Rows.of(rollout, joined, records, None if declared is None else declared.spec.prediction_time)
    slices = [made for column, values in rows.inputs() for made in rows.split(column, values)]
    return Report(
        rollout=rollout.id,
        champion=rollout.champion,
        challenger=rollout.challenger,
        whole=rows.slice("", "", np.ones(rows.n, np.bool_)) if rows.n else None,
        slices=tuple(_marked(sorted(slices, key=lambda each: -each.apart))),
        psi=finite(psi(*(np.histogram(each, _BINS)[0] for each in (rows.champion, rows.challenger))))
        if rows.n
        else None,
        kolmogorov_smirnov=kolmogorov_smirnov(rows.champion, rows.challenger) if rows.n else None,
        times=_times(rollout, records),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Hold n rows that both releases scored: their scores, labels (NaN: none yet) and what was asked.

    `moment` names the input that is a moment in microseconds, if there is one.
    """

    champion: Floats
    challenger: Floats
    labels: Floats
    asked: pa.Table
    canary: Canary
    moment: str | None

    @property
    def n(self) -> int:
        return int(self.champion.size)

    @classmethod
    def of(cls, rollout: Rollout, joined: pa.Table, records: pa.Table, moment: str | None) -> "_Rows":
        """Return the pairs; a fallback's constant is no score of a model."""
        fell = pc.fill_null(joined["fallback"], False).to_numpy()
        scores = pc.fill_null(joined["score"], math.nan).to_numpy()
        scored = joined.filter(pa.array(np.isfinite(scores) & ~fell)).filter(pc.field("rollout") == rollout.id)
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for name, release, score, label in zip(
            *(scored[column].to_pylist() for column in ("prediction_id", "release", "score", "label")), strict=True
        ):
            found.setdefault(name, {})[release] = (score, np.nan if label is None else label)
        both = {name: each for name, each in found.items() if rollout.champion in each and rollout.challenger in each}
        pairs = [(each[rollout.champion][0], *each[rollout.challenger]) for each in both.values()]
        values = np.array(pairs, dtype=np.float64).reshape(-1, 3)
        if rollout.canary.loss == "brier":
            values = np.clip(values, 0.0, 1.0)
        return cls(values[:, 0], values[:, 1], values[:, 2], _asked(records, list(both)), rollout.canary, moment)

    def inputs(self) -> Iterator[tuple[str, list[str | None]]]:
        """Yield the inputs that can be sliced by, and the slice of each row: its value, or a quarter of the numbers."""
        for name in self.asked.column_names:
            kind = self.asked.schema.field(name).type
            if not name.startswith("x_"):
                continue
            if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                quarters = _quarters(self.asked[name], is_moment=name == f"x_{self.moment}")
                if quarters is not None:
                    yield name.removeprefix("x_"), quarters
                continue
            if not (pa.types.is_string(kind) or pa.types.is_boolean(kind)):
                continue
            values = [None if each is None else str(each) for each in self.asked[name].to_pylist()]
            if 1 < len(set(values)) <= _MOST_VALUES:
                yield name.removeprefix("x_"), values

    def split(self, name: str, values: list[str | None]) -> Iterator[Slice]:
        """Yield a slice for each value of an input that has enough rows."""
        column = np.array(["" if each is None else each for each in values], dtype=object)
        for value in sorted(set(column.tolist())):
            mine = column == value
            if int(mine.sum()) >= _LEAST_ROWS:
                yield self.slice(name, value, mine)

    def slice(self, name: str, value: str, mine: Any) -> Slice:
        """Return how the releases differ on the rows `mine` bool[n]."""
        one, two, labels = self.champion[mine], self.challenger[mine], self.labels[mine]
        known = np.isfinite(labels)
        losses = loss_differences(self.canary, labels[known], one[known], two[known])
        mean, lower, upper, p = _student(losses)
        return Slice(
            input=name,
            value=value,
            rows=int(one.size),
            # Numbers of classes are no amounts: all that is told of them is where they differ.
            moved=0.0 if self.canary.loss == "wrong" else float((two - one).mean()),
            apart=float((one != two).mean() if self.canary.loss == "wrong" else np.abs(two - one).mean()),
            changed=float(self._changed(one, two).mean()),
            labelled=int(known.sum()),
            brier=mean,
            lower=lower,
            upper=upper,
            p=p,
        )

    def _changed(self, one: Any, two: Any) -> Any:
        """Tell where the two decide otherwise: say another class, or lie a tenth of the scale apart."""
        if self.canary.loss == "wrong":
            return one != two
        if self.canary.loss == "distance":
            return np.abs(one - two) > self.canary.scale / 10.0
        return (one >= 0.5) != (two >= 0.5)


def _quarters(column: pa.ChunkedArray, *, is_moment: bool = False) -> list[str | None] | None:
    """Return in which quarter of its numbers each row lies, as text; few different numbers stand for themselves.

    None where there are no quarters that differ in what is told of them.
    """
    values = pc.fill_null(column.cast(pa.float64()), math.nan).to_numpy()
    known = np.isfinite(values)
    different = np.unique(values[known])
    if different.size < 2:
        return None
    if different.size <= _MOST_VALUES:
        told = dict(zip(different.tolist(), _told(different.tolist(), is_moment=is_moment), strict=True))
        if len(set(told.values())) < 2:
            return None
        return [told[value] if is_known else None for value, is_known in zip(values.tolist(), known, strict=True)]
    edges = np.unique(np.quantile(values[known], (0.0, 0.25, 0.5, 0.75, 1.0)))
    names = [f"{low} to {high}" for low, high in pairwise(_told(edges.tolist(), is_moment=is_moment))]
    if len(set(names)) < 2:
        return None
    places = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(names) - 1)
    return [names[place] if is_known else None for place, is_known in zip(places.tolist(), known, strict=True)]


def _told(numbers: list[float], *, is_moment: bool) -> list[str]:
    """Return growing numbers as texts: of moments the second, else as few digits as tell all of them apart."""
    if is_moment:
        try:
            return [f"{from_microseconds(round(each)):%Y-%m-%d %H:%M:%S}" for each in numbers]
        except (OverflowError, ValueError):
            # A client may ask about any moment; beyond the calendar it is a number like any other.
            pass
    short = [f"{each:g}" for each in numbers]
    return short if len(set(short)) == len(short) else [f"{each:.17g}" for each in numbers]


def _student(losses: Floats) -> tuple[float | None, float | None, float | None, float | None]:
    """Return the mean of paired differences, Student's limits, and p of “not above 0”; None where unknown."""
    n = int(losses.size)
    mean = float(losses.mean()) if n else None
    if mean is None or n < _LEAST_ROWS:
        return mean, None, None, None
    error = float(losses.std(ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return mean, mean, mean, 0.0 if mean > 0.0 else 1.0
    found = around(mean, error, n, student_quantile(0.975, n - 1))
    return mean, found.lower, found.upper, 1.0 - student_below(mean / error, n - 1)


def _marked(slices: list[Slice]) -> list[Slice]:
    """Return the slices with those marked that are worse, however many were looked at."""
    tested = [(at, each.p) for at, each in enumerate(slices) if each.p is not None]
    found = discoveries([p for _, p in tested])
    worse = {at for (at, _), is_one in zip(tested, found.tolist(), strict=True) if is_one}
    return [replace(each, worse=at in worse) for at, each in enumerate(slices)]


def _asked(records: pa.Table, names: list[str]) -> pa.Table:
    """Return what was asked in the rows of these predictions, in their order, by the record of the answer."""
    answers = records.filter(pc.field("role") != "shadow") if "role" in records.column_names else records
    if answers.num_rows == 0 or "prediction_id" not in answers.column_names:
        return pa.table({})
    options = pc.SetLookupOptions(value_set=answers["prediction_id"].combine_chunks(), skip_nulls=True)
    at = pc.call_function("index_in", [pa.array(names, pa.string())], options)
    return answers.take(at)


def _times(rollout: Rollout, records: pa.Table) -> dict[str, dict[str, float | int]]:
    found: dict[str, dict[str, float | int]] = {}
    if "latency_us" not in records.column_names:
        return found
    for arm, release in (("champion", rollout.champion), ("challenger", rollout.challenger)):
        scored = records.filter(pc.field("release") == release)
        times = _milliseconds(scored.filter(pc.field("role") != "shadow"), "latency_us")
        alone = _milliseconds(scored, "model_us")
        told: dict[str, float | int] = {}
        if times.size:
            middle, slow = (float(each) for each in np.percentile(times, (50, 99)))
            told = {"n": int(times.size), "p50": middle, "p99": slow}
        if alone.size:
            middle, slow = (float(each) for each in np.percentile(alone, (50, 99)))
            told |= {"model_n": int(alone.size), "model_p50": middle, "model_p99": slow}
        if told:
            found[arm] = told
    return found


def _milliseconds(records: pa.Table, name: str) -> Floats:
    if name not in records.column_names:
        return np.zeros(0)
    return records[name].drop_null().to_numpy() / 1000.0
