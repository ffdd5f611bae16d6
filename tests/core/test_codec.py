"""Dataclasses from JSON and back: what is unknown or wrong is named, with the word that was meant."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Whole:
    parts: tuple[Part, ...] = ()
    mode: Literal["fast", "strict"] = "strict"
    limits: dict[str, int] = field(default_factory=dict[str, int])


WHOLES = st.builds(
    Whole,
    parts=st.lists(st.builds(Part, name=st.text(max_size=9), share=st.floats(0, 1)), max_size=4).map(tuple),
    mode=st.sampled_from(["fast", "strict"]),
    limits=st.dictionaries(st.text(max_size=5), st.integers(), max_size=4),
)


@given(WHOLES)
def test_what_is_dumped_is_loaded_again(whole: Whole) -> None:
    assert load(Whole, dump(whole)) == whole


@pytest.mark.parametrize(
    ("data", "path", "mend"),
    [
        ({"mod": "fast"}, "mod", "“mode”"),
        ({"parts": [{"name": "a", "shar": 1}]}, "parts.0.shar", "spelling"),
        ({"parts": [{"share": 1}]}, "parts.0.name", "Correct"),
        ({"mode": "slow"}, "mode", "Correct"),
        ({"limits": {"a": "many"}}, "limits.a", "Correct"),
        ([], "", "Correct"),
    ],
)
def test_a_mistake_is_named_by_its_place(data: Any, path: str, mend: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(Whole, data, "The test")
    assert refused.value.what.startswith("The test")
    assert refused.value.facts["path"] == path
    assert mend in refused.value.mend
    assert refused.value.exit_code == 2
