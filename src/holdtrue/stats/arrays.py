"""Turn what callers have into the arrays that the statistics need, or say what is wrong with it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from holdtrue.stats.errors import BadNumbers, OneClassOnly

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def binary_labels(y: npt.ArrayLike) -> Bools:
    """Return labels as bool[n]; anything but 0, 1, False and True raises BadNumbers."""
    values = np.asarray(y)
    if values.ndim != 1:
        raise BadNumbers(
            f"Labels must be one column, not an array of shape {values.shape}.",
            mend="Give one label for each row.",
        )
    if values.dtype == np.bool_:
        return values
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise BadNumbers(
            "Labels must be numbers.", why=str(error), mend="Give 1 for the event and 0 for its absence."
        ) from error
    bad = ~((numbers == 0.0) | (numbers == 1.0))
    if bad.any():
        raise BadNumbers(
            f"{int(bad.sum())} of {numbers.size} labels are neither 0 nor 1.",
            why=f"The first of them is {numbers[bad][0]!s}.",
            mend="Leave out rows without a label yet; give 1 for the event and 0 for its absence.",
            facts={"rows": int(bad.sum())},
        )
    return numbers == 1.0


def scores(score: npt.ArrayLike, n: int, what: str = "scores") -> Floats:
    """Return scores as float64[n]; another length, NaN and infinities raise BadNumbers."""
    values = np.asarray(score, dtype=np.float64)
    if values.shape != (n,):
        raise BadNumbers(
            f"There are {n} labels and {what} of shape {values.shape}.",
            mend="Give one score for each label, in the same order.",
        )
    bad = ~np.isfinite(values)
    if bad.any():
        raise BadNumbers(
            f"{int(bad.sum())} of {n} {what} are not finite numbers.",
            why=f"The first of them is in row {int(np.argmax(bad))}.",
            mend="Leave out rows that the model did not answer, or give them the fallback's score.",
            facts={"rows": int(bad.sum())},
        )
    return values


def need_both_classes(positive: Bools) -> tuple[int, int]:
    """Return the numbers of positive and negative rows, or raise OneClassOnly."""
    m = int(np.count_nonzero(positive))
    n = positive.size - m
    if m == 0 or n == 0:
        present = "no rows" if positive.size == 0 else f"{positive.size} rows, all of class {int(m > 0)}"
        raise OneClassOnly(
            "The area under the ROC curve is not defined here.",
            why=f"It compares rows of both classes, and there are {present}.",
            mend="Take a longer window or a larger slice.",
            facts={"positives": m, "negatives": n},
        )
    return m, n


def block_codes(blocks: npt.ArrayLike, n: int) -> tuple[Ints, int]:
    """Return codes int64[n] in 0..k-1 of any block labels, in their sorted order, and k."""
    values = np.asarray(blocks)
    if values.shape != (n,):
        raise BadNumbers(
            f"There are {n} rows and block labels of shape {values.shape}.",
            mend="Give one block (for example the day) for each row.",
        )
    names, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), int(names.size)


def same_length(columns: Mapping[str, npt.ArrayLike], n: int) -> None:
    """Raise BadNumbers that names the first column which has not `n` rows."""
    for name, column in columns.items():
        if np.shape(column)[:1] != (n,):
            raise BadNumbers(
                f"The column “{name}” has {np.shape(column)} values for {n} rows.",
                mend="Give one value for each row.",
            )
