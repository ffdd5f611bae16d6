"""Rows with their features, as training and evaluation take them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold rows with their features: a float32 matrix [n, k], outcomes [n], times (µs) [n], and the table."""

    X: np.ndarray
    y: np.ndarray
    times: np.ndarray
    table: pa.Table
