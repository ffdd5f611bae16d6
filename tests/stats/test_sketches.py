"""Sketches: what is merged from parts says of the whole what one pass says, within the stated error."""

from collections import Counter
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.stats import (
    DISTINCT_ERROR,
    BadNumbers,
    Distinct,
    Frequent,
    Moments,
    Quantiles,
    all_differ,
    mixed,
    text_hashes,
)
from holdtrue.stats.sketches import MOST_FREQUENT, POINTS
from tests.sampling import examples


@st.composite
def splits(draw: st.DrawFn) -> list[np.ndarray]:
    """Draw a column of numbers with many or few ties, and cut it anywhere."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 3000))
    whole = draw(
        st.sampled_from(
            [
                numbers.normal(size=n),
                numbers.integers(0, 5, n).astype(float),
                np.exp(numbers.normal(size=n) * 20),
                np.sort(numbers.random(n)),
                numbers.zipf(1.3, n).clip(max=10**9).astype(float),
            ]
        )
    )
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    return np.split(whole, cuts)


@settings(max_examples=examples(80), deadline=None)
@given(parts=splits(), points=st.sampled_from([8, 64, POINTS]))
def test_merged_quantiles_are_within_their_error(parts: list[np.ndarray], points: int) -> None:
    whole = np.concatenate(parts)
    merged = Quantiles.merged(Quantiles.of(np.sort(part), points) for part in parts)
    assert merged.n == pytest.approx(len(whole))
    edges = np.unique(np.concatenate([whole, whole + 1e-9, whole - 1e-9]))
    true = np.searchsorted(np.sort(whole), edges, side="right") / len(whole)
    assert np.abs(merged.below(edges) - true).max() <= merged.error + 1e-9
    assert merged.error <= 0.5 / points
    assert merged.compressed(points).error <= 1 / points


@settings(max_examples=examples(40), deadline=None)
@given(parts=splits())
def test_merging_merged_ones_keeps_to_the_error_they_say(parts: list[np.ndarray]) -> None:
    whole = np.sort(np.concatenate(parts))
    nested = reduce(
        lambda one, two: Quantiles.merged([one, two]).compressed(32),
        [Quantiles.of(np.sort(part), 32) for part in parts],
    )
    true = np.searchsorted(whole, whole, side="right") / len(whole)
    assert np.abs(nested.below(whole) - true).max() <= nested.error + 1e-9
    for share, value in zip((0.0, 0.25, 0.5, 1.0), nested.at((0.0, 0.25, 0.5, 1.0)), strict=True):
        assert value is not None
        low, high = (np.searchsorted(whole, value, side=side) / len(whole) for side in ("left", "right"))
        assert low - nested.error - 1e-9 <= share <= high + nested.error + 1e-9


@settings(max_examples=examples(60), deadline=None)
@given(parts=splits())
def test_merged_moments_are_those_of_the_whole(parts: list[np.ndarray]) -> None:
    whole = np.concatenate(parts)
    merged = reduce(Moments.merged, [Moments.of(part) for part in parts])
    assert merged.n == len(whole)
    assert merged.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-9)
    expected = whole.std(ddof=1) if len(whole) > 1 else None
    assert merged.deviation == (None if expected is None else pytest.approx(expected, rel=1e-6, abs=1e-9))


@settings(max_examples=examples(60), deadline=None)
@given(parts=splits())
def test_merged_registers_are_those_of_the_whole(parts: list[np.ndarray]) -> None:
    merged = reduce(Distinct.merged, [Distinct.of(mixed(part)) for part in parts])
    whole = Distinct.of(mixed(np.concatenate(parts)))
    assert np.array_equal(merged.registers, whole.registers)
    assert np.array_equal(Distinct.unpacked(merged.packed()).registers, whole.registers)


@pytest.mark.parametrize("n", [0, 1, 50, 3000, 12_000, 200_000])
def test_different_values_are_counted_within_four_errors(n: int) -> None:
    values = np.random.default_rng(n).permutation(n).astype(np.float64)
    found = Distinct.of(mixed(np.concatenate([values, values[: n // 2]]))).count
    assert abs(found - n) <= max(1, 4 * DISTINCT_ERROR * n)


@settings(max_examples=examples(60), deadline=None)
@given(parts=splits())
def test_merged_frequent_values_are_within_their_error(parts: list[np.ndarray]) -> None:
    true = Counter(np.concatenate(parts).tolist())
    merged = Frequent.merged(Frequent.of(Counter(part.tolist())) for part in parts)
    assert len(merged.counts) <= MOST_FREQUENT
    for value, count in true.items():
        if value in merged.counts:
            assert merged.counts[value] <= count <= merged.counts[value] + merged.error
        else:
            assert count <= merged.error


def test_zeros_of_both_signs_are_one_value() -> None:
    assert len(np.unique(mixed(np.array([0.0, -0.0])))) == 1


def test_a_histogram_counts_every_value_once() -> None:
    quantiles = Quantiles.of(np.arange(100.0))
    assert quantiles.histogram(np.array([9.0, 49.0])).tolist() == [10, 40, 50]
    with pytest.raises(BadNumbers, match="no values"):
        Quantiles().below(np.array([1.0]))
    nothing: list[Any] = Quantiles().at([0.5])
    assert nothing == [None]


@settings(max_examples=examples(60), deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=40))
def test_texts_have_one_hash_each_wherever_they_stand(texts: list[str]) -> None:
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(encoded), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in encoded])]).astype(np.int64)
    found = text_hashes(data, offsets).tolist()
    assert len(set(found)) == len(set(texts))
    alone = [
        text_hashes(np.frombuffer(each, np.uint8), np.array([0, len(each)])).tolist()[0] if each else None
        for each in encoded
    ]
    assert [one for one in alone if one is not None] == [one for one, each in zip(found, encoded, strict=True) if each]


def test_hashes_of_texts_are_evenly_spread_and_never_change() -> None:
    data = np.frombuffer(b"EWRJFK", np.uint8)
    assert text_hashes(data, np.array([0, 3, 6])).tolist() == [9406780384909720169, 2840962103261977071]
    many = [f"id{each:06d}".encode() for each in range(20_000)]
    offsets = np.arange(20_001, dtype=np.int64) * 8
    assert abs(Distinct.of(text_hashes(np.frombuffer(b"".join(many), np.uint8), offsets)).count - 20_000) < 1300


@settings(max_examples=examples(80), deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 3000), twice=st.booleans(), near=st.booleans())
def test_equal_hashes_always_meet(seed: int, n: int, twice: bool, near: bool) -> None:
    numbers = np.random.default_rng(seed)
    # Hashes that agree in most of their bits meet again and again; they are not what a hash is like, and still told.
    hashes = np.unique(numbers.integers(0, 2**64, n, dtype=np.uint64) & np.uint64(0xFFF if near else 2**64 - 1))
    numbers.shuffle(hashes)
    if twice and len(hashes):
        hashes = np.append(hashes, hashes[numbers.integers(len(hashes))])
    assert all_differ(hashes) is not (twice and len(hashes) > 0)


def test_a_million_different_hashes_are_told_from_a_million_but_one() -> None:
    hashes = mixed(np.arange(1_000_000))
    assert all_differ(hashes)
    hashes[123_456] = hashes[999_999]
    assert not all_differ(hashes)
