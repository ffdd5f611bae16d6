"""Chunks: all of the text, in order, with exact places, cut where a reader would."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdtrue.core.errors import ConfigurationError
from holdtrue.llm.retrieval.chunking import chunk_document, outline
from holdtrue.llm.retrieval.model import Chunking, Document, DocumentRefused, Parsing
from holdtrue.llm.retrieval.parsing import parse
from holdtrue.llm.retrieval.text import word_spans
from tests.llm.retrieval.conftest import pages
from tests.sampling import examples

_SENTENCES = st.lists(
    st.sampled_from(["one", "two.", "three", "four;", "# five", "\n", "\n\n", "```", "---", "東京", "x" * 90, "é—"]),
    max_size=400,
).map(" ".join)
_TEXTS = st.one_of(st.text(max_size=2000), _SENTENCES)
_CUTS = st.builds(
    lambda words, overlap, least, at_headings: Chunking(
        words, min(overlap, words // 2), min(least, words), at_headings
    ),
    st.integers(8, 60),
    st.integers(0, 30),
    st.integers(0, 30),
    st.booleans(),
)


def _document(text: str, kind: str = "markdown") -> Document:
    return Document("a", "A", text, "a", "d", kind=kind)  # type: ignore[arg-type]  # one of the kinds


@settings(max_examples=examples(300))
@given(_TEXTS, _CUTS)
@example("x" * 5000, Chunking(8, 4, 0))
@example("", Chunking())
def test_chunks_cover_the_words_in_order_and_share_what_was_declared(text: str, chunking: Chunking) -> None:
    words = word_spans(text)
    starts = {start: place for place, (start, _) in enumerate(words)}
    ends = {end: place + 1 for place, (_, end) in enumerate(words)}
    chunks = chunk_document(_document(text), chunking)
    assert bool(chunks) == bool(words)
    spans = [(starts[chunk.start], ends[chunk.end]) for chunk in chunks]
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
    assert [chunk.id for chunk in chunks] == [f"a#{place}" for place in range(len(chunks))]
    if spans:
        assert spans[0][0] == 0
        assert spans[-1][1] == len(words)
    for (first, last), (following, until) in pairwise(spans):
        assert first < following <= last < until
        # Neighbours of one section share the words that were asked for; over a cut at a heading, none.
        shared = last - following
        long = any(end - start == 40 for start, end in words[first:until])
        assert shared in (0, chunking.overlap) or (long and shared < chunking.overlap)
    for first, last in spans:
        assert last - first <= max(chunking.words * 5 // 4, chunking.words + chunking.least)
        assert words[last - 1][1] - words[first][0] <= max(chunking.words * 12, 40)


@pytest.mark.parametrize("chunking", [Chunking(), Chunking(40, 10, 5), Chunking(200, 0, 0, at_headings=False)])
def test_real_pages(chunking: Chunking) -> None:
    for page in pages():
        chunks = chunk_document(page, chunking)
        covered = {place for chunk in chunks for place in range(chunk.start, chunk.end)}
        assert all(sign.isspace() for place, sign in enumerate(page.text) if place not in covered)
        assert all(len(chunk.text.split()) <= chunking.words * 5 // 4 + chunking.least for chunk in chunks)


def test_cuts_are_made_at_paragraphs_then_sentences() -> None:
    text = "\n\n".join(" ".join([f"w{n}"] * 15) + "." for n in range(4))
    chunks = chunk_document(_document(text), Chunking(20, 0, 0))
    assert [chunk.text.split()[0] for chunk in chunks] == ["w0", "w1", "w2", "w3"]
    text = " ".join(" ".join([f"w{n}"] * 15) + "." for n in range(4))
    chunks = chunk_document(_document(text), Chunking(20, 0, 0))
    assert all(chunk.text.endswith(".") for chunk in chunks)


def test_a_chunk_knows_the_headings_above_it() -> None:
    body = " word" * 30
    text = f"# Top\n{body}\n\n## First\n{body}\n\n### Deep\n{body}\n\n## Second\n{body}\n"
    chunks = chunk_document(_document(text), Chunking(60, 0, 20))
    assert [chunk.heading for chunk in chunks] == [
        ("Top",),
        ("Top", "First"),
        ("Top", "First", "Deep"),
        ("Top", "Second"),
    ]


def test_short_sections_are_joined_below_what_they_share() -> None:
    text = "# Top\n\n## One\n\nshort\n\n## Two\n\nshort\n"
    chunks = chunk_document(_document(text), Chunking(60, 0, 20))
    assert [(chunk.heading, chunk.text) for chunk in chunks] == [(("Top",), text.strip())]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("markdown", "# A #\ntext\n## B\n", [(1, "A"), (2, "B")]),
        ("markdown", "Title\n=====\n\nSub\n---\n", [(1, "Title"), (2, "Sub")]),
        ("markdown", "a paragraph\nof two lines\n---\n", []),
        ("markdown", "```\n# no\n```\n# yes", [(1, "yes")]),
        ("markdown", "~~~~\n```\n# no\n~~~\n# no\n~~~~\n# yes", [(1, "yes")]),
        ("markdown", "# C#\n## a # b ##\n# #\n#\n", [(1, "C#"), (2, "a # b")]),
        ("markdown", "#no\n####### no\n| a |\n---\n", []),
        ("rst", "Title\n=====\n\nPart\n----\n\nOther\n=====\n", [(1, "Title"), (2, "Part"), (1, "Other")]),
        ("rst", "====\nOver\n====\n\nPart\n====\n", [(1, "Over"), (2, "Part")]),
        ("rst", "Too long for its line\n===\n", []),
        ("rst", "Table\n\n===== =====\n a b\n===== =====\n", []),
        ("text", "# A\n", []),
    ],
)
def test_headings(kind: str, text: str, expected: list[tuple[int, str]]) -> None:
    found = outline(text, kind)  # type: ignore[arg-type]  # one of the kinds
    assert [(each.level, each.title) for each in found] == expected
    assert all(text[each.start :].lstrip().lstrip("#").lstrip().startswith(each.title) for each in found)


_SIGNS = ["#", "=", "-", "`", "~", " ", "\n", "|", "a", "<!--", ">", "\t", "---\n", "title: ", "# ", "``` x\n"]


@settings(deadline=None, max_examples=examples(30))
@given(st.sampled_from(_SIGNS), st.sampled_from(_SIGNS), st.sampled_from(_SIGNS))
def test_no_text_makes_it_slow(before: str, sign: str, after: str) -> None:
    """Repeat a sign between others: an expression that goes back and forth would take minutes."""
    data = f"---\n{before}{sign * 50_000}{after}x\n".encode()
    for kind in ("markdown", "rst", "text"):
        with suppress(DocumentRefused):
            parsed = parse(kind, data, Parsing())  # type: ignore[arg-type]  # one of the kinds
            chunk_document(_document(parsed.text, kind), Chunking())


@pytest.mark.parametrize("wrong", [{"words": 7}, {"words": 100, "overlap": 51}, {"overlap": -1}, {"least": 121}])
def test_wrong_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="not valid"):
        Chunking(**wrong)  # type: ignore[arg-type]  # numbers, all of them
