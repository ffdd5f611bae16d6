"""Definitions of features: what cannot be meant is refused where it is written."""

from collections.abc import Callable
from typing import Any

import pytest

from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.features import Latest, Trailing, microseconds_of


@pytest.mark.parametrize(
    ("span", "expected"), [("90s", 90_000_000), ("15m", 900_000_000), ("6h", 21_600_000_000), ("7d", 604_800_000_000)]
)
def test_spans_are_microseconds(span: str, expected: int) -> None:
    assert microseconds_of(span) == expected


@pytest.mark.parametrize("span", ["", "0h", "-1h", "1.5h", "h", "6 h", "6w", "6h\n"])
def test_what_is_no_span_is_refused(span: str) -> None:
    with pytest.raises(ConfigurationError, match="span of time"):
        microseconds_of(span)


@pytest.mark.parametrize(
    ("define", "word"),
    [
        (lambda: Trailing("v", "s", "e", "t", "c", ("mean",), "90m", "1h"), "tiles"),
        (lambda: Trailing("v", "s", "e", "t", "c", ()), "no aggregate"),
        (lambda: Trailing("v", "s", "e", "t", "c", ("mean", "mean")), "twice"),
        (lambda: Latest("v", "s", "e", "t", (), "1h"), "no column"),
        (lambda: Latest("v", "s", "e", "t", ("a", "a"), "1h"), "twice"),
        (lambda: Latest("v", "s", "e", "t", ("a",), "soon"), "span of time"),
        (lambda: Latest("v", "s", "e", "t", ("a",), "1h", freshness="soon"), "span of time"),
        (lambda: Trailing("v", "s", "e", "t", "c", freshness="1w"), "span of time"),
    ],
)
def test_views_that_cannot_be_meant_are_refused(define: Callable[[], Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        define()


def test_a_view_needs_a_name_that_can_name_a_feature() -> None:
    with pytest.raises(InvalidInput, match="feature view name"):
        Latest("a view", "s", "e", "t", ("a",), "1h")


def test_features_are_named_after_their_view() -> None:
    assert Latest("w", "s", "e", "t", ("a", "b"), "1h").features == ("w_a", "w_b")
    assert Trailing("d", "s", "e", "t", "c").features == ("d_mean", "d_count")
