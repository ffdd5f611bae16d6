"""The table that data benchmarks work on: a million rows of twenty columns, and forty rules that it keeps."""

import numpy as np
import pyarrow as pa

from holdtrue.data import Column, column

ROWS = 1_000_000
SEED = 7


def make_table(rows: int = ROWS, *, seed: int = SEED) -> pa.Table:
    """Return eight columns of doubles, four of whole numbers, four of texts, moments, truths, gaps and keys."""
    numbers = np.random.default_rng(seed)
    columns: dict[str, pa.Array | np.ndarray] = {f"f{place}": numbers.normal(size=rows) for place in range(8)}
    for place in range(4):
        columns[f"i{place}"] = numbers.integers(0, 10 ** (place + 2), rows)
    for place in range(4):
        different = 10 ** (place + 1)
        texts = pa.array([f"V{each:05d}" for each in range(different)])
        columns[f"s{place}"] = texts.take(pa.array(numbers.integers(0, different, rows)))
    columns["at"] = pa.array(
        1_600_000_000_000_000 + np.sort(numbers.integers(0, 10**13, rows)), pa.timestamp("us", "UTC")
    )
    columns["flag"] = pa.array(numbers.random(rows) < 0.3)
    columns["gaps"] = pa.array(numbers.random(rows), mask=numbers.random(rows) < 0.1)
    columns["id"] = pa.array([f"id{each:07d}" for each in range(rows)])
    return pa.table(columns)


def forty_rules() -> tuple[Column, ...]:
    """Return the columns with forty rules: none missing (19), ranges (9 × 2), sets (2) and one unique key."""
    found = [column(f"f{place}", "float64", ge=-10, le=10) for place in range(8)]
    found += [column("i0", "int64", ge=0, le=100), *(column(f"i{place}", "int64") for place in range(1, 4))]
    found += [
        column(f"s{place}", "string", isin=[f"V{each:05d}" for each in range(10 ** (place + 1))]) for place in (0, 1)
    ]
    found += [column(f"s{place}", "string") for place in (2, 3)]
    found += [column("at", "timestamp"), column("flag", "bool"), column("gaps", "float64", nullable=True)]
    return (*found, column("id", "string", unique=True))
