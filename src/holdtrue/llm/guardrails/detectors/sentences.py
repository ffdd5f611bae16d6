"""Cut texts into sentences and sentences into what they claim: words, numbers, names, denial."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdtrue.llm.guardrails.detectors.matching import words as words_of

# A mark that cites ends a sentence too: a heading or an item of a list has no full stop before it.
_GAP: Final = re.compile(r"[.!?][\"'”»)\]]{0,3}\s+|\n\s*|(?<=\])\s+(?=[A-ZÀ-Þ#*`|-])")
_WORD: Final = re.compile(r"[^\W_]+(?:[-_'’.][^\W_]+)*")
_NUMBER: Final = re.compile(r"[0-9]+(?:[.,:][0-9]+)*")
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{3})+")
_MARK: Final = re.compile(r"\[\^?([A-Za-z0-9][A-Za-z0-9_.:/#-]{0,199})\]")
_ABBREVIATIONS: Final = words_of(
    "mr mrs ms dr prof st no nr art vs e.g i.e z.b d.h bzw ca approx inc ltd co fig sec min max vol p pp tel"
)
_STOP: Final = words_of(
    "a about after all also am an and any are as at be because been before but by can could did do does for"
    " from had has"
    " have he her his how i if in into is it its just may me more most must my of on once one only or other"
    " our out over"
    " own please same she should so some such than that the their them then there these they this those to"
    " too under up us"
    " very was we were what when where which while who will with would you your yours itself themselves now"
    " there's it's"
    " der die das den dem des ein eine einen einem einer und oder ist sind war waren wird werden wurde wurden"
    " im in am an"
    " auf aus bei bis für mit nach von vom zu zum zur über unter es sie er wir ihr ich man auch noch nur dass"
    " wenn als wie"
    " hat haben kann können muss müssen sich so bleibt"
    " le la les l un une des du de et ou est sont était étaient dans sur sous pour par avec ce cette ces il"
    " elle ils elles on"
    " nous vous se sa son ses leur leurs qui que quoi dont où aux au en y d s c qu plus"
    " el los las lo una unos unas del al y o es son era eran fue en con por para se su sus que como más este esta estos"
    " estas ese esa hay ha han puede pueden a e"
    " um uma os as do da dos das no na nos nas ao aos foi são com seu sua pelo pela"
)
_DENIALS: Final = words_of(
    "not no never none cannot can't won't doesn't don't didn't isn't aren't wasn't neither nor unable nicht kein"
    " keine keinen keinem keiner nie niemals pas jamais aucun aucune ne nunca ningún ninguna não nenhum"
    " nenhuma"
)
_NUMBER_WORDS: Final = {
    word: str(number)
    for number, words in {
        2: "two zwei deux dos dois duas",
        3: "three drei trois tres três",
        4: "four vier quatre cuatro quatro",
        5: "five fünf cinq cinco",
        6: "six sechs seis",
        7: "seven sieben sept siete sete",
        8: "eight acht huit ocho oito",
        9: "nine neun neuf nueve nove",
        10: "ten zehn dix diez dez",
        11: "eleven elf onze once",
        12: "twelve zwölf douze doce",
        15: "fifteen fünfzehn quinze quince",
        20: "twenty zwanzig vingt veinte vinte",
        30: "thirty dreißig trente treinta",
        50: "fifty fünfzig cinquante",
        100: "hundred hundert cent cien",
        1000: "thousand tausend mille mil",
    }.items()
    for word in words.split()
}
_ENDINGS: Final = ("ingly", "ings", "ing", "edly", "ied", "ies", "ed", "es", "en", "er", "ly", "e", "s", "n", "t")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Hold a sentence's place in its text and what it claims; an amount is a number and the word after it."""

    start: int
    end: int
    text: str
    words: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    amounts: frozenset[tuple[str, str]]
    denies: bool
    cited: tuple[str, ...] = ()


def sentences(text: str) -> Iterator[Sentence]:
    """Yield the sentences of `text`; a line's end ends one too."""
    start = 0
    for gap in _GAP.finditer(text):
        if _goes_on(text, start, gap):
            continue
        end = gap.start() + len(gap.group().rstrip())
        yield from _sentence(text, start, end)
        start = gap.end()
    yield from _sentence(text, start, len(text))


def _goes_on(text: str, start: int, gap: re.Match[str]) -> bool:
    """Tell whether a full stop ends an abbreviation or a number, not a sentence."""
    if "\n" in gap.group() or gap.group()[0] != ".":
        return False
    last = text[start : gap.start()].rpartition(" ")[2].lower()
    following = text[gap.end() : gap.end() + 1]
    return last in _ABBREVIATIONS or following.islower() or (last.isdigit() and len(last) < 3)


def _sentence(text: str, start: int, end: int) -> Iterator[Sentence]:
    piece = text[start:end].rstrip()
    start, end = start + len(piece) - len(piece.lstrip()), start + len(piece)
    piece = piece.lstrip()
    cited = tuple(mark.group(1) for mark in _MARK.finditer(piece))
    bare = _MARK.sub(" ", piece) if cited else piece
    if any(sign.isalnum() for sign in bare):
        yield _read(start, end, bare, cited)


def _read(start: int, end: int, text: str, cited: tuple[str, ...]) -> Sentence:
    words: set[str] = set()
    numbers: set[str] = set()
    names: set[str] = set()
    amounts: set[tuple[str, str]] = set()
    denies, last = False, ""
    for at, match in enumerate(_WORD.finditer(text)):
        whole = match.group().replace("’", "'")
        low = whole.lower()
        denies = denies or low in _DENIALS or low.endswith("n't")
        before, last = last, ""
        if low in _NUMBER_WORDS:
            last = _NUMBER_WORDS[low]
            numbers.add(last)
        elif whole[0].isdigit():
            found = [number(each) for each in _NUMBER.findall(whole)]
            numbers.update(found)
            last = found[-1]
        elif low not in _DENIALS:
            words.update(stem(part) for part in _parts(low) if part not in _STOP)
            if _is_name(whole, at):
                names.add(stem(low))
            if before:
                amounts.add((before, stem(low)))
    return Sentence(
        start, end, text, frozenset(words), frozenset(numbers), frozenset(names), frozenset(amounts), denies, cited
    )


def _parts(word: str) -> list[str]:
    """Return the words in one with hyphens or an elided article; a name with a digit stays whole."""
    if any(sign.isdigit() for sign in word):
        return [word]
    return [part for part in re.split(r"[-'._]", word) if len(part) > 1]


def _is_name(word: str, at: int) -> bool:
    inner = any(sign.isupper() or sign.isdigit() or sign == "_" for sign in word[1:])
    return inner or (at > 0 and word[0].isupper() and word.lower() not in _STOP)


def number(text: str) -> str:
    """Return a number in one way of writing it: 1,000 and 1.000 are 1000, 0,40 is 0.4."""
    if ":" in text:
        return text
    if _THOUSANDS.fullmatch(text):
        return text.replace(",", "").replace(".", "")
    plain = text.replace(",", ".")
    if "." not in plain:
        return plain.lstrip("0") or "0"
    whole, _, part = plain.partition(".")
    part = part.rstrip("0")
    return plain if "." in part else f"{whole.lstrip('0') or '0'}{'.' if part else ''}{part}"


def stem(word: str) -> str:
    """Return a word without the ending that changes with its form, in a way that several languages share."""
    if any(sign.isdigit() for sign in word):
        return word
    for ending in _ENDINGS:
        if len(word) - len(ending) >= 4 and word.endswith(ending):
            return word[: -len(ending)]
    return word


def capitalised_nouns(context: "list[Sentence]") -> bool:
    """Tell whether a language writes its nouns with capitals, as German does: then a capital makes no name."""
    words = sum(len(sentence.words) for sentence in context)
    names = sum(len(sentence.names) for sentence in context)
    return words >= 8 and names > 0.4 * words
