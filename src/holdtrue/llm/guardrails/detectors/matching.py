"""Run patterns over a text: look for a literal first, then match, then check.

Every pattern here takes time linear in the text: repeats are bounded, or begin where nothing of their own class stands
before them, and no two neighbouring repeats can divide the same signs among them.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdtrue.llm.guardrails.model import Hit


@dataclass(frozen=True, slots=True)
class Page:
    """Hold a text and its lower-case form, which has the same length."""

    text: str
    lower: str


# Gives the confidence in a match, from 0 (not it at all) to 1.
Check: TypeAlias = Callable[[re.Match[str], Page], float]


@dataclass(frozen=True, slots=True)
class Rule:
    """Describe one thing to find: any of `needles` must be there, `pattern` must match, `check` says how sure it is.

    What is found is the group `v` of the pattern, or all of it. Needles are sought in the text as it is, or, where
    `fold` is set, in its lower-case form. `hint` is a cheaper pattern that must occur, `digits` how many digits must
    stand close together, `lead` how many signs before the match belong to what is found.
    """

    label: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]
    check: Check
    fold: bool = False
    hint: re.Pattern[str] | None = None
    digits: int = 0
    lead: int = 0


def words(text: str) -> frozenset[str]:
    """Return the words of a list that is written as one text."""
    return frozenset(text.split())


def page_of(text: str) -> Page:
    """Return a text with its lower-case form, sign for sign."""
    lower = text.lower()
    if len(lower) != len(text):
        lower = "".join(low if len(low := sign.lower()) == 1 else sign for sign in text)
    return Page(text, lower)


def scan(rule: Rule, page: Page) -> list[Hit]:
    """Return what a rule finds."""
    text = page.lower if rule.fold else page.text
    if rule.needles and not any(needle in text for needle in rule.needles):
        return []
    if rule.hint is not None and rule.hint.search(text) is None:
        return []
    return list(_matches(rule, page))


def _matches(rule: Rule, page: Page) -> Iterator[Hit]:
    group = "v" if "v" in rule.pattern.groupindex else 0
    for match in rule.pattern.finditer(page.text):
        score = rule.check(match, page)
        if score > 0.0:
            start, end = match.span(group)
            yield Hit(start - rule.lead, end, score, rule.label)


def near(page: Page, start: int, end: int, sought: Sequence[str], before: int = 48, after: int = 0) -> bool:
    """Tell whether one of `sought` stands within some signs of a place."""
    around = page.lower[max(0, start - before) : start]
    if after:
        around += "\n" + page.lower[end : end + after]
    return any(word in around for word in sought)


def entropy(text: str) -> float:
    """Return Shannon's entropy of the signs of `text`, in bits a sign."""
    n = len(text)
    counts = (text.count(sign) for sign in set(text))
    return -sum(count / n * math.log2(count / n) for count in counts)


def merged(hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """Return hits in order, overlapping ones as one: all of their span, under the label of the surest.

    Of equally sure ones the longer gives its label. So no sign of anything that was found is left out.
    """
    if len(hits) < 2:
        return tuple(hits)
    result: list[Hit] = []
    best: list[tuple[float, int]] = []
    for hit in sorted(hits, key=lambda each: (each.start, each.end)):
        rank = (hit.score, hit.end - hit.start)
        if result and hit.start < result[-1].end:
            last = result[-1]
            surer = hit if rank > best[-1] else last
            result[-1] = Hit(last.start, max(last.end, hit.end), surer.score, surer.label, surer.reason)
            best[-1] = max(best[-1], rank)
        else:
            result.append(hit)
            best.append(rank)
    return tuple(result)
