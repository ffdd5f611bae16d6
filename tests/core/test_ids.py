"""Names: of what a thing is, of when it came, and those that people choose."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import PREFIXES, check_name, new_id, version_id
from tests.core.test_canonical import JSON, shuffled

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(JSON, st.sampled_from(sorted(PREFIXES)))
def test_a_version_is_named_by_what_it_is(content: Any, kind: str) -> None:
    name = version_id(kind, content)
    prefix, _, digits = name.partition("_")
    assert (prefix, len(digits)) == (PREFIXES[kind], 16)
    assert int(digits, 16) >= 0
    assert name == version_id(kind, shuffled(content))
    others = {version_id(other, content) for other in PREFIXES}
    assert len(others) == len(PREFIXES), "the kind is part of what it is"


@given(MOMENTS, st.integers(1, 10**9))
def test_ids_sort_by_their_moments(moment: datetime, later: int) -> None:
    first, second = new_id("run", moment), new_id("run", moment + timedelta(milliseconds=later))
    assert first < second
    assert len(first) == len(second) == 4 + 26


def test_ids_of_one_moment_are_all_different() -> None:
    moment = datetime(2013, 1, 1, tzinfo=UTC)
    assert len({new_id("evt", moment) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("text", ["a", "flight-delays", "A.b_c-9", "0", "x" * 63])
def test_names_that_may_be_chosen(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", ["", "-a", ".", "..", "a/b", "a b", "ä", "x" * 64, "a\n", "a\0", "../x", "a%2fb"])
def test_names_that_could_be_paths_or_more_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be used") as refused:
        check_name(text, "project name")
    assert "project name" in refused.value.mend
