"""Why a model gave a score: how much each feature contributed, so that base and contributions add up to the score.

Trees of LightGBM and XGBoost are explained exactly, by the libraries' own TreeSHAP (Lundberg et al. 2020), on the
scale of their raw score. Any other model is explained by Shapley values against a background, a sample of training
rows that the release keeps (Strumbelj and Kononenko 2014): features are replaced one after the other, in a random
order and in the reverse of it, from each background row to the row that is explained. Each such walk adds up exactly;
the error that stems from the choice of orders is measured and told.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt, HoldtrueError, InvalidInput, MissingExtra
from holdtrue.serving.runtime import Matrix, Model, checked

Floats = NDArray[np.float64]
MOST_ROWS: Final = 64
"""Rows of one request that are explained at most."""
BACKGROUND_ROWS: Final = 64
"""Rows of training data that a release keeps to explain against."""
SCORE: Final = "score"
RAW: Final = "raw score"
_ORDERS: Final = 2
_CHUNK: Final = 65_536
_TOLERANCE: Final = 1e-3


class NotExplained(InvalidInput):
    """A release does not keep what its answers could be explained with."""

    code = "not_explained"


class DoesNotAddUp(HoldtrueError):
    """Contributions do not add up to what they explain, so they explain nothing."""

    code = "does_not_add_up"


@dataclass(frozen=True, slots=True)
class Contributions:
    """Hold what k features contributed to n scores.

    `values` float64 [n, k] and `base` float64 [n] add up to `total` float64 [n], but for `gap`, the largest difference.
    `error` float64 [n, k] is the standard error of each value, None where they are exact. `scale` says of what:
    the score itself, or the raw score of trees (the logarithm of the odds, of a classifier). Of a model of several
    classes they are those of the class that is said, whose number of each row is in `said` and name in `classes`.
    """

    names: tuple[str, ...]
    values: Floats
    base: Floats
    total: Floats
    error: Floats | None
    scale: str
    gap: float
    said: NDArray[np.intp] | None = None
    classes: tuple[str, ...] = ()

    def of_row(self, row: int) -> dict[str, Any]:
        """Return the JSON form of one row, the largest contribution first."""
        order = np.argsort(-np.abs(self.values[row]), kind="stable")
        found: dict[str, Any] = {
            "scale": self.scale,
            "base": float(self.base[row]),
            "total": float(self.total[row]),
            "gap": float(self.gap),
            "values": {self.names[place]: float(self.values[row, place]) for place in order},
        }
        if self.said is not None:
            found["class"] = self.classes[self.said[row]]
        if self.error is not None:
            found["error"] = {self.names[place]: float(self.error[row, place]) for place in order}
        return found


Explain = Callable[[Matrix], Contributions]


class Explainer:
    """Explain with what `make` builds when it is first asked for; most releases never are."""

    def __init__(self, make: Callable[[], Explain]) -> None:
        self._make = make
        self._made: Explain | None = None
        self._lock = threading.Lock()

    def __call__(self, matrix: Matrix) -> Contributions:
        """Return what the features of rows contributed to their scores."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return self._made(matrix)


def explainer(
    model: Model,
    format: str,
    data: bytes,
    names: Sequence[str],
    background: Matrix | None,
    classes: tuple[str, ...] = (),
) -> Explain:
    """Return what explains the scores of a model; `data` are the bytes of its file, and `names` its features'.

    `classes` are the names of those that it tells apart. Raises NotExplained for a model that needs a background and
    has none.
    """
    if format == "lightgbm":
        return _checked(_lightgbm(data, tuple(names), classes))
    if format == "xgboost":
        return _checked(_xgboost(data, tuple(names), classes))
    if background is None or not len(background):
        raise NotExplained(
            "The answers of this release are not explained.",
            why="It keeps no sample of training rows to compare with, and its model tells nothing by itself.",
            mend="Make a release with `holdtrue run`, which keeps one; of LightGBM and XGBoost none is needed.",
        )
    rows = background

    def explain(matrix: Matrix) -> Contributions:
        if classes:
            return _sampled_classes(model, matrix, rows, tuple(names), classes)
        return sampled(model.score, matrix, rows, tuple(names))

    return _checked(explain)


def _sampled_classes(
    model: Model, matrix: Matrix, background: Matrix, names: tuple[str, ...], classes: tuple[str, ...]
) -> Contributions:
    """Return Shapley values of the probability of the class that each row is said to be of."""
    said = checked(model.score(matrix), len(matrix), len(classes)).argmax(axis=1)

    def of(place: int) -> Callable[[Matrix], Any]:
        return lambda part: checked(model.score(part), len(part), len(classes))[:, place]

    each = [sampled(of(int(place)), matrix[row : row + 1], background, names) for row, place in enumerate(said)]
    values, base, total, errors = (
        np.concatenate([np.asarray(getattr(found, name)) for found in each])
        for name in ("values", "base", "total", "error")
    )
    gap = max(found.gap for found in each)
    return Contributions(names, values, base, total, errors, SCORE, gap, said, classes)


def read_background(data: bytes, digest: str, features: int) -> Matrix:
    """Return the background in a blob, float32 [rows, features]; raise Corrupt for one that was changed."""
    if bytes_hash(data) != digest or len(data) % (4 * features):
        raise Corrupt("The rows that a release keeps to explain against are damaged.", facts={"digest": digest})
    return np.frombuffer(data, dtype="<f4").reshape(-1, features)


def background_of(training: Matrix) -> bytes:
    """Return the bytes of a background: rows of the training data, evenly spread over it."""
    places = np.linspace(0, len(training) - 1, min(BACKGROUND_ROWS, len(training))).round().astype(int)
    return np.ascontiguousarray(training[np.unique(places)], dtype="<f4").tobytes()


def sampled(
    score: Callable[[Matrix], Any], matrix: Matrix, background: Matrix, names: tuple[str, ...], seed: int = 0
) -> Contributions:
    """Return Shapley values of `score` for rows, float32 [n, k], against a background, float32 [b, k].

    Every background row is used with the same number of orders, so that the error is that of the orders alone: each
    with its reverse is one draw, and their spread within a background row gives it. The same `seed` draws the same.
    """
    random = np.random.default_rng(seed)
    found = [_one(score, row, background, random) for row in np.ascontiguousarray(matrix, np.float32)]
    values, errors, base, total = (np.array([each[place] for each in found]) for place in range(4))
    gap = float(np.abs(values.sum(axis=1) + base - total).max())
    return Contributions(names, values, base, total, errors, SCORE, gap)


def _one(
    score: Callable[[Matrix], Any], row: NDArray[np.float32], background: Matrix, random: np.random.Generator
) -> tuple[Floats, Floats, float, float]:
    """Return values, their standard errors, base and total of one row."""
    count, width = background.shape
    forward = np.array([[random.permutation(width) for _ in range(_ORDERS)] for _ in range(count)])
    orders = np.concatenate([forward, forward[:, :, ::-1]], axis=1).reshape(-1, width)
    walks = np.repeat(background, 2 * _ORDERS, axis=0)
    # A walk of width + 1 steps: the background row first, the explained one last.
    steps = np.repeat(walks[:, None, :], width + 1, axis=1)
    place = np.empty_like(orders)
    np.put_along_axis(place, orders, np.arange(width)[None, :].repeat(len(orders), axis=0), axis=1)
    taken = place[:, None, :] < np.arange(width + 1)[None, :, None]
    steps = np.where(taken, row[None, None, :], steps).astype(np.float32)
    scores = _scores(score, steps.reshape(-1, width)).reshape(len(orders), width + 1)
    moved = np.empty((len(orders), width))
    np.put_along_axis(moved, orders, np.diff(scores, axis=1), axis=1)
    pairs = moved.reshape(count, 2, _ORDERS, width).mean(axis=1)
    spread = pairs.var(axis=1, ddof=1) / _ORDERS
    error = np.sqrt(spread.sum(axis=0)) / count
    return pairs.mean(axis=(0, 1)), error, float(scores[:, 0].mean()), float(scores[:, -1].mean())


def _scores(score: Callable[[Matrix], Any], matrix: Matrix) -> Floats:
    parts = [matrix[start : start + _CHUNK] for start in range(0, len(matrix), _CHUNK)]
    return np.concatenate([np.asarray(checked(score(part), len(part)), np.float64) for part in parts])


def _checked(explain: Explain) -> Explain:
    def sound(matrix: Matrix) -> Contributions:
        found = explain(matrix)
        if not np.isfinite(found.values).all() or found.gap > _TOLERANCE * max(1.0, float(np.abs(found.total).max())):
            raise DoesNotAddUp(
                "The contributions of the features do not add up to the score.",
                why=f"They miss it by {found.gap:.3g}.",
                mend="The prediction itself stands; report the model's form.",
            )
        return found

    return sound


def _lightgbm(data: bytes, names: tuple[str, ...], classes: tuple[str, ...]) -> Explain:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra.of("lightgbm", "lightgbm") from None
    booster = lightgbm.Booster(model_str=data.decode())

    def explain(matrix: Matrix) -> Contributions:
        found = booster.predict(matrix, pred_contrib=True, num_threads=1, validate_features=False)
        total = booster.predict(matrix, raw_score=True, num_threads=1, validate_features=False)
        return _exact(names, np.asarray(found, np.float64), np.asarray(total, np.float64), classes)

    return explain


def _xgboost(data: bytes, names: tuple[str, ...], classes: tuple[str, ...]) -> Explain:
    try:
        import xgboost
    except ImportError:
        raise MissingExtra.of("xgboost", "xgboost") from None
    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    booster.set_param({"nthread": 1})

    def explain(matrix: Matrix) -> Contributions:
        rows = xgboost.DMatrix(matrix, missing=np.nan, nthread=1)
        found = booster.predict(rows, pred_contribs=True, validate_features=False)
        total = booster.predict(rows, output_margin=True, validate_features=False)
        return _exact(names, np.asarray(found, np.float64), np.asarray(total, np.float64), classes)

    return explain


def _exact(names: tuple[str, ...], found: Floats, total: Floats, classes: tuple[str, ...]) -> Contributions:
    """Return what a library's TreeSHAP says: a contribution of each feature, and the base in the last column."""
    said = None
    if classes:
        # Raw scores rank classes as their probabilities do.
        rows, said = np.arange(len(total)), total.argmax(axis=1)
        found, total = found.reshape(len(total), len(classes), -1)[rows, said], total[rows, said]
    gap = float(np.abs(found.sum(axis=1) - total).max())
    return Contributions(names, found[:, :-1], found[:, -1], total, None, RAW, gap, said, classes)
