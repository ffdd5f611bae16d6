"""Recognise attempts to take over a model: a score from what words and forms a text has, and how near each other.

It reads patterns, not meaning. A new way to say it passes, and a text that quotes an attack may not: the threshold
says which of the two is worse, and the test set says how often each happens.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from holdtrue.llm.guardrails.detectors.folding import (
    Folded,
    fold,
    payloads,
    rot13,
    squeezed,
    unleet,
    unspaced,
)
from holdtrue.llm.guardrails.detectors.lexicon import PATTERNS, Concept, Pattern, build_lexicon
from holdtrue.llm.guardrails.detectors.structure import QUOTED, SHAPES
from holdtrue.llm.guardrails.model import Hit, Steps, Subject

_TOKEN: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.!?;](?=\s|$)")
_TRIPLE: Final = re.compile(r"([a-z])\1\1")
_DOT: Final = re.compile(r"\.[a-z]")
_DOTTED: Final = re.compile(r"\w(?<![\w-].)[\w-]*(?:\.[\w-]+)+")
_SENTENCE_GAP: Final = 3
_TOGETHER: Final = 600  # signs within which what was seen is one attack
_THEIRS, _YOURS, _NOT, _META = int(Concept.THEIRS), int(Concept.YOURS), int(Concept.NOT), int(Concept.META)
_NOT_IN_NAMES: Final = int(Concept.META | Concept.UNBOUND | Concept.PERSONA)
_DENIED, _THIRD_PERSON, _QUOTED, _ABOUT = 0.2, 0.4, 0.25, 0.6


@dataclass(frozen=True, slots=True)
class _Mark:
    """Hold a word with a meaning: which one it is, and its place, in which the ends of sentences count too."""

    word: int
    place: int
    concepts: int


@dataclass(frozen=True, slots=True)
class _Sign:
    """Hold one reason for suspicion."""

    family: str
    label: str
    weight: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Lexicon:
    words: Mapping[str, int]
    squeezed: Mapping[str, int]
    turned: frozenset[str]

    @classmethod
    def build(cls) -> "_Lexicon":
        # A sentence's end is a word without a meaning, which is how the reader sees it.
        words = {**build_lexicon(), ".": 0, "!": 0, "?": 0, ";": 0}
        wanted = Concept.OVERRIDE | Concept.RULES | Concept.REVEAL | Concept.PRIOR | Concept.PROMPT
        long = [word for word, concepts in words.items() if len(word) >= 6 and concepts & wanted and word.isascii()]
        turned = {word[::-1] for word in long} | {rot13(word) for word in long}
        return cls(
            words, {squeezed(word): concepts for word, concepts in words.items()}, frozenset(turned - set(words))
        )


def injection_detector(threshold: float, decode: bool = True) -> Callable[[Subject], Steps]:
    """Return a detector that reports what it saw where the combined score reaches `threshold`.

    With `decode`, payloads in base64, hexadecimal, escapes and invisible signs are read too.
    """
    lexicon = _Lexicon.build()

    def detect(subject: Subject) -> Steps:
        folded = fold(subject.text)
        signs = _signs(folded.text, lexicon)
        signs = [_placed(sign, folded) for sign in signs]
        yield []
        score, chosen = _combined(signs)
        if decode and score < threshold:
            signs += _decoded(subject.text, lexicon)
            yield []
            signs += _rewritten(folded, subject.text, lexicon)
            score, chosen = _combined(signs)
        yield (
            [Hit(sign.start, sign.end, round(sign.weight, 3), sign.label) for sign in chosen]
            if score >= threshold
            else []
        )
        return round(score, 3)

    return detect


def _placed(sign: _Sign, folded: Folded) -> _Sign:
    start, end = folded.span(sign.start, sign.end)
    return replace(sign, start=start, end=end)


def _combined(signs: Sequence[_Sign]) -> tuple[float, list[_Sign]]:
    """Return the score of the most suspicious stretch, 1 - Π(1 - w) over its families, and what it is made of."""
    best: tuple[float, list[_Sign]] = (0.0, [])
    ordered = sorted(signs, key=lambda sign: sign.start)
    for at, first in enumerate(ordered):
        strongest: dict[str, _Sign] = {}
        for index in range(at, len(ordered)):
            sign = ordered[index]
            if sign.start - first.start > _TOGETHER:
                break
            known = strongest.get(sign.family)
            if known is None or sign.weight > known.weight:
                strongest[sign.family] = sign
        harmless = 1.0
        for sign in strongest.values():
            harmless *= 1.0 - sign.weight
        if 1.0 - harmless > best[0]:
            best = (1.0 - harmless, sorted(strongest.values(), key=lambda sign: -sign.weight))
    return best


def _signs(text: str, lexicon: _Lexicon) -> list[_Sign]:
    """Return what is suspicious in a folded text, by words and by form."""
    marks, turned = _marks(text, lexicon)
    about = any(mark.concepts & _META for mark in marks)
    found = _by_words(text, marks) + _by_form(text)
    if turned >= 2:
        for reading in (text[::-1], rot13(text)):
            inner = _signs_plain(reading, lexicon)
            found += [_Sign("encoded", "encoded_turned", min(0.9, score), 0, len(text)) for score in inner]
    if found and about:
        quoted = [match.span() for match in QUOTED.finditer(text)]
        found = [_tempered(sign, quoted) for sign in found]
    return found


def _signs_plain(text: str, lexicon: _Lexicon) -> list[float]:
    marks, _ = _marks(text, lexicon)
    score, _ = _combined(_by_words(text, marks) + _by_form(text))
    return [score + 0.1] if score >= 0.4 else []


def _tempered(sign: _Sign, quoted: Sequence[tuple[int, int]]) -> _Sign:
    inside = any(start <= sign.start and sign.end <= end for start, end in quoted)
    return replace(sign, weight=sign.weight * (_QUOTED if inside else _ABOUT))


def _marks(text: str, lexicon: _Lexicon) -> tuple[list[_Mark], int]:
    """Return the words with a meaning here, and how many words would have one backwards or rotated."""
    found = _TOKEN.findall(text)
    unknown = set(found).difference(lexicon.words)
    changed = _disguised(unknown, text, lexicon)
    named = _in_names(text)
    marks: list[_Mark] = []
    gaps = 0
    for at, concepts in enumerate(map(lexicon.words.get, found)):
        if concepts is None:
            if changed and found[at] in changed:
                marks.append(_Mark(at, at + gaps, changed[found[at]]))
        elif not concepts:
            gaps += _SENTENCE_GAP
        elif found[at] in named:
            marks.append(_Mark(at, at + gaps, concepts & ~_NOT_IN_NAMES))
        else:
            marks.append(_Mark(at, at + gaps, concepts))
    return marks, len(unknown & lexicon.turned)


def _disguised(unknown: set[str], text: str, lexicon: _Lexicon) -> dict[str, int]:
    """Return what words mean in which digits stand for letters, letters are repeated, or an article is elided."""
    changed: dict[str, int] = {}
    tripled = _TRIPLE.search(text) is not None
    for word in unknown:
        if not word.isalpha():
            for plain in (word.rpartition("'")[2],) if "'" in word else unleet(word):
                changed[word] = changed.get(word, 0) | lexicon.words.get(plain, 0)
        elif tripled:
            changed[word] = lexicon.squeezed.get(squeezed(word), 0)
    return {word: concepts for word, concepts in changed.items() if concepts}


def _in_names(text: str) -> frozenset[str]:
    """Return the words that are parts of dotted names: `evil.example` calls nobody evil, and is no example."""
    if _DOT.search(text) is None:
        return frozenset()
    return frozenset(word for name in _DOTTED.findall(text) for word in _TOKEN.findall(name))


def _by_words(text: str, marks: Sequence[_Mark]) -> list[_Sign]:
    total = 0
    for mark in marks:
        total |= mark.concepts
    found: list[tuple[Pattern, float, int, int]] = []
    for pattern in PATTERNS:
        if pattern.anchor & total and all(need & total for need in pattern.needs):
            found += _matches(pattern, marks)
    if not found:
        return []
    spans = [match.span() for match in _TOKEN.finditer(text)]
    return [
        _Sign(pattern.family, pattern.label, weight, spans[first][0], spans[last][1])
        for pattern, weight, first, last in found
    ]


def _matches(pattern: Pattern, marks: Sequence[_Mark]) -> list[tuple[Pattern, float, int, int]]:
    """Return each place where a pattern fits: how much it weighs there, its first and its last word."""
    anchor, needs, unless = int(pattern.anchor), [int(need) for need in pattern.needs], int(pattern.unless or 0)
    found: list[tuple[Pattern, float, int, int]] = []
    for at, mark in enumerate(marks):
        if not mark.concepts & anchor:
            continue
        around = _around(marks, at, pattern)
        used = [next((other for other in around if other.concepts & need), None) for need in needs]
        if None in used or (unless and any(other.concepts & unless for other in around)):
            continue
        words = [mark.word, *(other.word for other in used if other is not None)]
        weight = pattern.weight
        if pattern.negated and _denied(marks, at):
            weight *= _DENIED
        if any(other.concepts & _THEIRS for other in around) and not any(other.concepts & _YOURS for other in around):
            weight *= _THIRD_PERSON
        found.append((pattern, weight, min(words), max(words)))
    return found


def _around(marks: Sequence[_Mark], at: int, pattern: Pattern) -> list[_Mark]:
    place = marks[at].place
    found: list[_Mark] = []
    index = at + 1
    while index < len(marks) and marks[index].place - place <= pattern.after:
        found.append(marks[index])
        index += 1
    index = at - 1
    while index >= 0 and place - marks[index].place <= pattern.before:
        found.append(marks[index])
        index -= 1
    return found


def _denied(marks: Sequence[_Mark], at: int) -> bool:
    return at > 0 and bool(marks[at - 1].concepts & _NOT) and marks[at].place - marks[at - 1].place <= 2


def _by_form(text: str) -> list[_Sign]:
    found: list[_Sign] = []
    for pattern, needles, family, label, weight in SHAPES:
        if any(needle in text for needle in needles):
            found += [_Sign(family, label, weight, *match.span()) for match in pattern.finditer(text)]
    return found


def _decoded(text: str, lexicon: _Lexicon) -> list[_Sign]:
    """Return what is suspicious in what was written in another form; that it was hidden counts too."""
    found: list[_Sign] = []
    for payload in payloads(text):
        if payload.form == "tags" and len(payload.text) >= 8:
            found.append(_Sign("hidden", "encoded_tags", 0.7, payload.start, payload.end))
        for score in _signs_plain(fold(payload.text).text, lexicon):
            label = f"encoded_{payload.form}"
            found.append(_Sign("encoded", label, min(0.95, score), payload.start, payload.end))
    return found


def _rewritten(folded: Folded, text: str, lexicon: _Lexicon) -> list[_Sign]:
    joined = unspaced(folded.text)
    if not joined:
        return []
    apart = re.sub(r"[a-z]{10,}", lambda match: _segmented(match.group(), lexicon.words), joined)
    return [
        _Sign("encoded", "encoded_spaced", min(0.9, score), 0, len(text))
        for score in (*_signs_plain(joined, lexicon), *_signs_plain(apart, lexicon))
    ]


def _segmented(run: str, words: Mapping[str, int]) -> str:
    """Return letters without spaces with spaces around the known words in them, the longest first."""
    if run in words:
        return run
    found: list[str] = []
    at = 0
    while at < len(run):
        size = next((size for size in range(16, 2, -1) if run[at : at + size] in words), 0)
        if size:
            found.append(f" {run[at : at + size]} ")
        else:
            found.append(run[at])
        at += size or 1
    return "".join(found)
