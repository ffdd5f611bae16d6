"""Answer a question with sentences of the context that was given, or say that it does not answer: no model, no guess.

The support of a sentence is the share of the question that it covers: the sum of the weights of the question's
words that stand in it, over the sum of all. A word weighs as much as it is rare among the context's sentences
(the inverse document frequency of BM25: Robertson and Zaragoza, “The Probabilistic Relevance Framework: BM25 and
Beyond”, 2009, equation 3.3); one that stands nowhere in the context weighs as much as one that stands once, so
that a question about something else finds no support.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

ABSTAINS: Final = "I don't know: the context that I was given does not answer this."
TOKEN: Final = re.compile(r"\w+|[^\w\s]")
"""The tokenizer's rule: a token is a run of letters, digits and underscores, or one other sign."""

_WORD: Final = re.compile(r"\w+")
_END: Final = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n+")
_ABBREVIATED: Final = re.compile(r"(?:\b(?:[A-Za-z]|e\.g|i\.e|cf|Dr|Mr|Mrs|Ms|Prof|St|No|vs|approx|Fig|Inc|Ltd))\.$")
_STOP_WORDS: Final = """
a about after all also am an and any are as at be been before being but by can could did do does doing for from had
has have having he her here hers him his how i if in into is it its just me might more most my no nor not of on
only or other our out over own please same shall she should so some such tell than that the their them then there
these they this those through to too under until up us very was we were what when where which while who whom whose
why will with would you your
"""
_STOP: Final = frozenset(_STOP_WORDS.split())
_SUFFIXES: Final = ("ations", "ation", "ingly", "edly", "ings", "ing", "ies", "ied", "ers", "er", "ed", "es", "ly", "s")
_TITLE_SHARE: Final = 0.5
_BEFORE_SHARE: Final = 0.25
_COMPANION: Final = 0.6

Similar = Callable[[str, Sequence[str]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Passage:
    """Hold one piece of context, and the id under which it is cited."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Say how to answer: at most so many sentences, each with at least so much support (0 to 1).

    `style` is `sentences` or `bullets`; `cite` adds the passage's id in brackets after each sentence.
    """

    max_sentences: int = 2
    threshold: float = 0.4
    style: str = "sentences"
    cite: bool = True


@dataclass(frozen=True, slots=True)
class Quoted:
    """Hold one sentence of an answer, where it stands, and its support."""

    passage: str
    text: str
    support: float


@dataclass(frozen=True, slots=True)
class Found:
    """Hold an answer; without sentences it abstains. `best` is the greatest support that any sentence had."""

    sentences: tuple[Quoted, ...]
    best: float

    def text(self, rules: Rules) -> str:
        """Return the answer as it is given."""
        if not self.sentences:
            return ABSTAINS
        parts = [f"{each.text} [{each.passage}]" if rules.cite else each.text for each in self.sentences]
        return "\n".join(f"- {part}" for part in parts) if rules.style == "bullets" else " ".join(parts)


def find_answer(question: str, passages: Sequence[Passage], rules: Rules, similar: Similar | None = None) -> Found:
    """Return the best-supported sentences of `passages`; equal inputs give equal answers.

    `similar` gives each sentence's likeness to the question (0 to 1), of which the support is then the mean
    with the covered share.
    """
    sentences = [
        (place, passage, sentence) for place, passage in enumerate(passages) for sentence in split(passage.text)
    ]
    asked = Counter(stems(question))
    if not sentences or not asked:
        return Found((), 0.0)
    bags = [frozenset(stems(sentence)) for _, _, sentence in sentences]
    titles = [frozenset(stems(passage.title)) for passage in passages]
    weights = _weights(asked, bags)
    support = [_support(weights, bags, titles, sentences, index) for index in range(len(sentences))]
    if similar is not None:
        alike = similar(question, [sentence for _, _, sentence in sentences])
        support = [(mine + float(other)) / 2 for mine, other in zip(support, alike, strict=True)]
    # Of two with equal support the shorter says it more plainly; then the one that comes first.
    order = sorted(range(len(sentences)), key=lambda index: (-support[index], len(bags[index]), index))
    best = support[order[0]]
    chosen = _choose(order, support, bags, set(asked), rules)
    quoted = tuple(Quoted(sentences[index][1].id, sentences[index][2], support[index]) for index in sorted(chosen))
    return Found(quoted, best)


def _weights(asked: Counter[str], bags: Sequence[frozenset[str]]) -> dict[str, float]:
    count = len(bags)
    found = {word: max(1, sum(word in bag for bag in bags)) for word in asked}
    return {word: math.log(1 + (count - n + 0.5) / (n + 0.5)) for word, n in found.items()}


def _support(
    weights: dict[str, float],
    bags: Sequence[frozenset[str]],
    titles: Sequence[frozenset[str]],
    sentences: Sequence[tuple[int, Passage, str]],
    index: int,
) -> float:
    place = sentences[index][0]
    bag, title = bags[index], titles[place]
    before = bags[index - 1] if index and sentences[index - 1][0] == place else frozenset[str]()
    covered = 0.0
    for word, weight in weights.items():
        if word in bag:
            covered += weight
        elif word in title:
            covered += _TITLE_SHARE * weight
        elif word in before:
            covered += _BEFORE_SHARE * weight
    return covered / sum(weights.values())


def _choose(
    order: Sequence[int], support: Sequence[float], bags: Sequence[frozenset[str]], asked: set[str], rules: Rules
) -> list[int]:
    """Take the best sentence, then those nearly as good that say something that none before says."""
    chosen: list[int] = []
    said: set[frozenset[str]] = set()
    for index in order:
        if support[index] < rules.threshold or len(chosen) >= rules.max_sentences:
            break
        if chosen and support[index] < _COMPANION * support[order[0]]:
            break
        if bags[index] in said or not (bags[index] & asked or not chosen):
            continue
        said.add(bags[index])
        chosen.append(index)
    return chosen


def split(text: str) -> list[str]:
    """Return the sentences of a text: they end with a full stop, question or exclamation mark, or the line."""
    found: list[str] = []
    for part in _END.split(text):
        part = part.strip()
        if not part:
            continue
        if found and _ABBREVIATED.search(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        else:
            found.append(part)
    return found


def stems(text: str) -> list[str]:
    """Return the words of a text that carry meaning, in lower case and without common English endings."""
    return [stem(word) for word in _WORD.findall(text.casefold()) if word not in _STOP]


def stem(word: str) -> str:
    """Return a word without its ending, if at least three letters are left of it."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            root = word[: -len(suffix)] + ("y" if suffix in ("ies", "ied") else "")
            return root[:-1] if len(root) > 3 and root[-1] == root[-2] else root
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def count_tokens(text: str) -> int:
    """Return how many tokens a text has."""
    return sum(1 for _ in TOKEN.finditer(text))
