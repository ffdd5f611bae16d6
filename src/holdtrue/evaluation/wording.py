"""Words and sentences: the plain comparisons of texts that checks are made of."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence, Set
from typing import Final

# Scripts that are written without spaces: each sign counts as a word.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W_{_SIGNS}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_MARKER = re.compile(r"\[[^\[\]\n]{1,60}\]")
_STEM: Final = 5
_CONTENT: Final = 4
# fmt: off
_NUMBERS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)
# fmt: on


def folded(text: str, *, case: bool = True) -> str:
    """Return `text` in one Unicode form (NFKC), one kind of apostrophe and space, and with `case` one case."""
    whole = " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").split())
    return whole.casefold() if case else whole


def words(text: str, *, case: bool = True) -> list[str]:
    """Return the words of `text`, folded, without punctuation."""
    return _WORD.findall(folded(text, case=case))


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of words, counted with repetition (Rajpurkar et al. 2016)."""
    one, two = Counter(words(answer)), Counter(words(reference))
    common = (one & two).total()
    if common == 0:
        return float(one == two)
    precision, recall = common / one.total(), common / two.total()
    return 2.0 * precision * recall / (precision + recall)


def sentences(text: str) -> list[str]:
    """Return the sentences of `text` that have words, without marks of citation such as [3]."""
    pieces = _SENTENCE_END.split(_MARKER.sub(" ", text))
    return [piece.strip() for piece in pieces if _WORD.search(piece)]


def support(sentence: str, held: Set[str]) -> float:
    """Return the share of a sentence's words of content that are `held`; 0 if one of its numbers is not.

    It sees that words are there, not what they mean together.
    """
    wanted = content(sentence)
    if any(stem not in held for stem in wanted if stem[0].isdigit()):
        return 0.0
    return sum(stem in held for stem in wanted) / len(wanted) if wanted else 1.0


def unsupported(text: str, passages: Sequence[str], least: float) -> tuple[list[str], int]:
    """Return the sentences of `text` whose support by `passages` is below `least`, and how many there are in all."""
    held = {stem for passage in passages for stem in content(passage)}
    held |= {str(value) for value, word in enumerate(_NUMBERS) if word[:_STEM] in held}
    found = sentences(text)
    return [each for each in found if support(each, held) < least], len(found)


def content(text: str) -> set[str]:
    """Return the words of content of `text`: of at least four letters, cut to five for their endings, and numbers."""
    return {
        word if word[0].isdigit() else word[:_STEM]
        for word in words(text)
        if len(word) >= _CONTENT or word[0].isdigit() or word in _NUMBERS or _is_sign(word)
    }


def _is_sign(word: str) -> bool:
    return len(word) == 1 and not word.isascii()
