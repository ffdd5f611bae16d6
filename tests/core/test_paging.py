"""A page token is good for the question that it was given for, and for no other."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput
from holdtrue.core.paging import place_of, token_of

PLACES = st.lists(st.text(max_size=9) | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9), max_size=4)


@given(st.dictionaries(st.text(max_size=4), st.integers(-9, 9), max_size=3), PLACES)
def test_a_token_brings_its_place_back_and_answers_no_other_question(question: dict[str, int], place: Any) -> None:
    token = token_of(question, place)
    assert place_of(question, token) == place
    with pytest.raises(InvalidInput, match="page token"):
        place_of({**question, "more": 1}, token)


@pytest.mark.parametrize("token", ["", None])
def test_without_a_token_a_listing_begins_at_its_start(token: str | None) -> None:
    assert place_of({"a": 1}, token) is None


def crafted(place: Any) -> str:
    """Return a token with the right question's mark and a place that no listing gives."""
    mark = orjson.loads(base64.urlsafe_b64decode(token_of("q", []) + "=="))[0]
    return base64.urlsafe_b64encode(orjson.dumps([mark, place])).decode().rstrip("=")


@pytest.mark.parametrize("token", ["?", "ä", "AAAA", "bnVsbA", "W10", crafted(None), crafted([{}]), crafted([None])])
def test_a_token_that_nobody_gave_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match="page token"):
        place_of("q", token)
