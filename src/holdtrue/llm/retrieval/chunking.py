"""Cut documents into chunks: at headings, then at paragraphs, sentences, lines and words."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from holdtrue.llm.retrieval.model import Chunk, Chunking, Document, Kind
from holdtrue.llm.retrieval.text import word_spans

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t])")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_SENTENCE_END = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")
_LONGEST_HEADING = 200
# A chunk of W words has at most this many times W characters, whatever its words are.
_CHARACTERS_A_WORD = 12
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Heading:
    """Hold one heading of a text: where it starts, how deep it is (1: the top), and what it says."""

    start: int
    level: int
    title: str


@dataclass(slots=True)
class _Group:
    """Words `first` to `last` (exclusive), which are cut together, below a path of headings."""

    first: int
    last: int
    path: tuple[str, ...]


def outline(text: str, kind: Kind) -> list[Heading]:
    """Return the headings of a text, in order; plain text and PDF have none."""
    if kind in ("markdown", "html"):
        return list(_markdown(text))
    return list(_restructured(text)) if kind == "rst" else []


def chunk_document(document: Document, chunking: Chunking) -> list[Chunk]:
    """Return the chunks of a document, in the order of its text.

    Every word is in one chunk, or in two where neighbours overlap. `chunk.text` is
    `document.text[chunk.start:chunk.end]`.
    """
    text = document.text
    words = word_spans(text)
    chunks: list[Chunk] = []
    for group in _groups(document, words, chunking):
        for first, last in _cuts(text, words, group, chunking):
            start, end = words[first][0], words[last - 1][1]
            name = f"{document.id}#{len(chunks)}"
            chunks.append(Chunk(name, document.id, document.title, group.path, text[start:end], start, end))
    return chunks


def _groups(document: Document, words: list[Span], chunking: Chunking) -> list[_Group]:
    """Return the sections between headings, short ones joined to the next."""
    groups: list[_Group] = []
    for section in _sections(document, words, chunking):
        last = groups[-1] if groups else None
        if last is not None and last.last - last.first < chunking.least:
            last.last = section.last
            last.path = _common(last.path, section.path)
        else:
            groups.append(section)
    return groups


def _sections(document: Document, words: list[Span], chunking: Chunking) -> Iterator[_Group]:
    headings = outline(document.text, document.kind) if chunking.at_headings else []
    path: list[Heading] = []
    first = place = 0
    for heading in headings:
        while place < len(words) and words[place][0] < heading.start:
            place += 1
        if place > first:
            yield _Group(first, place, tuple(each.title for each in path))
        first = place
        path = [*(each for each in path if each.level < heading.level), heading]
    if len(words) > first:
        yield _Group(first, len(words), tuple(each.title for each in path))


def _cuts(text: str, words: list[Span], group: _Group, chunking: Chunking) -> Iterator[Span]:
    """Yield the first and last word (exclusive) of each chunk of a group."""
    first = group.first
    while True:
        most = _reach(words, first, group.last, chunking)
        if most >= group.last:
            yield first, group.last
            return
        last = _best_cut(text, words, first, min(most, first + chunking.words), chunking)
        yield first, last
        first = max(last - chunking.overlap, first + 1)
        # Words that are so long that the next chunk would end where this one does: they overlap less.
        while _reach(words, first, group.last, chunking) <= last:
            first += 1


def _reach(words: list[Span], first: int, end: int, chunking: Chunking) -> int:
    """Return how far a chunk from `first` may go: a quarter over its aim, if that is all that is left."""
    aim = first + chunking.words
    last = end if end - first <= chunking.words * 5 // 4 else aim
    limit = words[first][0] + chunking.words * _CHARACTERS_A_WORD
    while last > first + 1 and words[last - 1][1] > limit:
        last -= 1
    return last


def _best_cut(text: str, words: list[Span], first: int, most: int, chunking: Chunking) -> int:
    """Return the last good place to cut: in the second half of the chunk, and past what overlaps."""
    least = min(most, first + max(chunking.words // 2, chunking.overlap + 1))
    best, found = most, 0
    for place in range(most, least - 1, -1):
        grade = _grade(text, words, place)
        if grade > found:
            best, found = place, grade
            if grade == 3:
                break
    return best


def _grade(text: str, words: list[Span], place: int) -> int:
    """Return how good a cut before word `place` is: 3 paragraph, 2 sentence, 1 line, 0 anywhere."""
    before, after = words[place - 1], words[place]
    lines = text.count("\n", before[1], after[0])
    if lines > 1:
        return 3
    if after[0] > before[1] and _SENTENCE_END.search(text, before[0], before[1]):
        return 2
    return 1 if lines else 0


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    shared: list[str] = []
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared.append(left)
    return tuple(shared)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


def _markdown(text: str) -> Iterator[Heading]:
    """Yield the headings of CommonMark text (sections 4.2 and 4.3); lines inside fences are none."""
    fence, gap = "", True
    before: tuple[int, str] | None = None
    for start, line in _lines(text):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" " + fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        elif found := _ATX.match(line):
            if title := _atx_title(line[found.end() :].strip(" \t")):
                yield Heading(start, len(found[1]), title[:_LONGEST_HEADING])
        elif before is not None and _SETEXT.match(line):
            yield Heading(before[0], 1 if "=" in line else 2, before[1].strip())
        elif gap and _may_be_title(line):
            # A line below a gap: with an underline it is a heading. A rule under a longer paragraph is none.
            before, gap = (start, line), False
            continue
        before, gap = None, not line.strip()


def _atx_title(text: str) -> str:
    """Return a heading without the signs that may close it, which stand alone."""
    bare = text.rstrip("#")
    return bare.rstrip(" \t") if bare != text and bare[-1:] in (" ", "\t", "") else text


def _may_be_title(line: str) -> bool:
    return (
        bool(line.strip()) and len(line) <= _LONGEST_HEADING and not line.startswith(("    ", "\t", "|", "-", "*", ">"))
    )


def _restructured(text: str) -> Iterator[Heading]:
    """Yield the headings of reStructuredText: lines with a line of one sign below; depth by first appearance."""
    marks: list[str] = []
    title: tuple[int, str] | None = None
    over = ""
    for start, line in _lines(text):
        stripped = line.rstrip()
        ruled = len(stripped) > 2 and stripped[0] in _PUNCTUATION and stripped == stripped[0] * len(stripped)
        if ruled and title is not None and len(stripped) >= len(title[1].strip()) <= _LONGEST_HEADING:
            style = stripped[0] * (2 if over else 1)
            if style not in marks:
                marks.append(style)
            yield Heading(title[0], marks.index(style) + 1, title[1].strip())
            title, over = None, ""
        elif ruled:
            title, over = None, stripped
        else:
            title = (start, line) if stripped and (over or not line.startswith(" ")) else None
            over = over if title else ""
