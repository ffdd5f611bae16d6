import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.traces.indexing import _spaced  # pyright: ignore[reportPrivateUsage]  # what a column's texts become
from holdtrue.traces.searching import having
from holdtrue.traces.words import Numbering, number_of, words

NUMBERING = Numbering()
TEXTS = st.lists(st.one_of(st.text(max_size=40), st.text("ab_ -9.É日ß\n", max_size=30)), max_size=12)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Where is order A-12?", ["where", "is", "order", "a", "12"]),
        ("snake_case stays", ["snake_case", "stays"]),
        ("", []),
        ("返品したい now", ["返", "品", "し", "た", "い", "now"]),
        ("naïve “quotes” Ünder", ["naïve", "quotes", "ünder"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_words_of_a_text(text: str, found: list[str]) -> None:
    assert words(text) == found


@settings(deadline=None)
@given(TEXTS)
def test_a_whole_column_has_the_words_of_its_texts(texts: list[str]) -> None:
    lowered = [text.encode(errors="replace").decode().lower() for text in texts]
    data = [_spaced(text) for text in lowered]
    offsets = np.cumsum([0, *map(len, data)])
    numbers, rows = NUMBERING.words(1, np.frombuffer(b"".join(data), np.uint8), offsets)
    wanted = [(number_of(1, word.encode()), row) for row, text in enumerate(lowered) for word in words(text)]
    assert list(zip(numbers.tolist(), rows.tolist(), strict=True)) == wanted


@settings(deadline=None)
@given(TEXTS, st.integers(0, 20))
def test_many_texts_are_numbered_as_each_alone(texts: list[str], salt: int) -> None:
    values = [text.encode(errors="replace").decode() for text in texts]
    assert NUMBERING.texts(salt, values).tolist() == [number_of(salt, value.encode()) for value in values]


@settings(deadline=None)
@given(st.text(max_size=20), st.text("ab_ -9É日ß\u0301²", max_size=12), st.text("ab_9É日ß²", min_size=1, max_size=3))
def test_a_word_is_found_in_a_column_where_it_is_one(one: str, two: str, asked: str) -> None:
    for text in (one, two, f"{one}{asked}{two}", f"{two} {asked}"):
        lowered = text.encode(errors="replace").decode().lower()
        for word in words(asked):
            table = pa.table({"text": [lowered, None]})
            assert having(table, word).tolist() == [word in words(lowered), False]


def test_texts_longer_than_a_stretch_are_numbered_too() -> None:
    values = ["a" * 100_000, "b", "", "c" * 32_768, "a" * 32_767, "d" * 5]
    assert NUMBERING.texts(2, values).tolist() == [number_of(2, value.encode()) for value in values]


def test_fields_do_not_share_numbers() -> None:
    assert len({number_of(salt, b"same") for salt in range(20)}) == 20
    assert number_of(1, b"\0") != number_of(1, b"")


def test_signs_newer_than_this_pythons_unicode_are_no_letters_on_either_side() -> None:
    texts = [f"ab{chr(code)}" for code in (0x11F04, 0x1E033, 0x1F600, 0xE9, 0x2019, 0x65E5)]
    table = pa.table({"text": texts})
    assert having(table, "ab").tolist() == ["ab" in words(text) for text in texts]
