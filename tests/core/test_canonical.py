"""One byte form for a JSON value, whatever it was made from, and hashes that stand for it."""

import json
import math
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from holdtrue.core.canonical import bytes_hash, canonical_bytes, canonical_texts, content_hash
from holdtrue.core.errors import InvalidInput

SAFE = 2**53 - 1
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.none() | st.booleans() | st.integers(-SAFE, SAFE) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


def shuffled(value: Any) -> Any:
    """Return an equal value whose objects have their members the other way round."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(list(value))}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


def same(one: Any, two: Any) -> bool:
    """Tell whether JSON has no way to tell two values apart: all its numbers are doubles."""
    if isinstance(one, bool) or isinstance(two, bool) or one is None or two is None:
        return one is two
    if isinstance(one, int | float) and isinstance(two, int | float):
        return float(one) == float(two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


@given(JSON)
def test_the_form_is_json_of_the_same_value_and_the_order_of_members_does_not_count(value: Any) -> None:
    form = canonical_bytes(value)
    assert same(json.loads(form), value)
    assert canonical_bytes(shuffled(value)) == form
    assert canonical_bytes(json.loads(form, parse_int=float)) == form
    assert content_hash(value) == content_hash(shuffled(value)) == bytes_hash(form)


@given(JSON)
@example({"a\u0007\x7f\u2028/\\": ["\U0001f600", SAFE, -SAFE, True], "b": {"é": 1, "\ue000": 0, "\U00010000": -0.0}})
@example([[[[[[[[[["deep"]]]]]]]]]])
def test_what_is_written_the_fast_way_is_what_the_slow_one_writes(value: Any) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


@given(JSON, JSON)
def test_values_that_differ_have_other_forms(one: Any, two: Any) -> None:
    assert (canonical_bytes(one) == canonical_bytes(two)) == same(one, two)


@given(st.dictionaries(TEXT, st.none(), max_size=8))
def test_members_stand_in_the_order_of_their_utf_16_units(members: dict[str, None]) -> None:
    names = list(json.loads(canonical_bytes(members)))
    assert names == sorted(members, key=lambda name: name.encode("utf-16-be"))


@pytest.mark.parametrize(
    ("bits", "form"),
    [
        # Appendix B of RFC 8785.
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("41b3de4355555553", "333333333.3333332"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
    ],
)
def test_numbers_are_written_as_the_standard_says(bits: str, form: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_bytes(number).decode() == form


def test_texts_are_escaped_as_little_as_the_standard_allows() -> None:
    value = {"\u20ac": "Euro Sign", "\r": "Carriage Return", "1": "One", "\u0080": "Control", "\ufb33": "Hebrew"}
    assert list(json.loads(canonical_bytes(value))) == ["\r", "1", "\u0080", "\u20ac", "\ufb33"]
    assert canonical_bytes('€$\u000f\nA\'B"\\"/') == '"€$\\u000f\\nA\'B\\"\\\\\\"/"'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, SAFE + 1, -SAFE - 1, {"a": [math.nan]}, {1: 2}, b"x"])
def test_what_has_no_form_is_refused_with_its_mend(value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        canonical_bytes(value)
    assert refused.value.mend


def test_hashes_are_those_of_blake3() -> None:
    # The first test vectors of BLAKE3: no byte, and the byte 0.
    assert bytes_hash(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert bytes_hash(b"\0") == "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"


@given(st.dictionaries(TEXT, TEXT, max_size=6))
@example({"\ufb33": "\x7f", "\U0001f600": "\u2028", "\x00\x1f": '"\\/\b\t'})
def test_an_object_of_texts_has_the_same_form_the_short_way(values: dict[str, str]) -> None:
    assert canonical_texts(values) == canonical_bytes(values)


def test_a_lone_surrogate_has_no_form() -> None:
    for values in ({"\udcff": "a"}, {"a": "\udcff"}):
        with pytest.raises(InvalidInput, match="canonical"):
            canonical_texts(values)
