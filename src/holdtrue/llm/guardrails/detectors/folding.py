"""Undo what hides words from a reader of signs: invisible signs, look-alikes, encodings. Nothing here judges."""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

# Signs without a width, and those that only change the direction of writing (Unicode 15.1, chapter 23).
_INVISIBLE: Final = frozenset(
    ord(sign)
    for sign in (
        "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
        "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\ufeff"
        "\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f"
    )
)
_TAGS: Final = range(0xE0000, 0xE0080)
_BLACK_FLAG: Final = 0x1F3F4
# Cyrillic, Greek and Latin signs that look like a Latin letter (Unicode Technical Standard 39, confusables).
_LOOKS_LIKE: Final = str.maketrans(
    "аеорсухіјѕԁԛԝһӏвкмнтАВЕКМНОРСТУХІЈЅαοενιρτκυχγΑΒΕΖΗΙΚΜΝΟΡΤΥΧıɑɡⅼ",
    "aeopcyxijsdqwhlbkmhtABEKMHOPCTYXIJSaoeviptkuxyABEZHIKMNOPTYXiagl",
)
_LEET: Final = (str.maketrans("013457", "oieast"), str.maketrans("013457", "oleast"))
_WORD: Final = re.compile(r"\w+")
_SHORTEST: Final = 24


@dataclass(frozen=True, slots=True)
class Folded:
    """Hold a text in plain letters, and for each sign its place in the text it came from (None: the same)."""

    text: str
    places: tuple[int, ...] | None
    invisible: int = 0

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the place in the original text of the signs from `start` to `end`."""
        if self.places is None:
            return start, end
        return self.places[start], self.places[end - 1] + 1


@dataclass(frozen=True, slots=True)
class Payload:
    """Hold a text that was written in another form, how, and where."""

    text: str
    form: str
    start: int
    end: int


def fold(text: str) -> Folded:
    """Return `text` in lower case without invisible signs, its compatibility forms and look-alikes as plain letters."""
    if text.isascii():
        return Folded(text.lower(), None)
    signs: list[str] = []
    places: list[int] = []
    invisible = 0
    for place, sign in enumerate(text):
        code = ord(sign)
        if code < 128:
            plain = sign.lower()
        elif code in _INVISIBLE or code in _TAGS:
            invisible += 1
            continue
        elif sign in "’‘":
            plain = "'"
        else:
            plain = unicodedata.normalize("NFKC", sign).lower()
        signs.append(plain)
        places += [place] * len(plain)
    return Folded(_without_look_alikes("".join(signs)), tuple(places), invisible)


def _without_look_alikes(text: str) -> str:
    """Replace look-alikes in words that mix scripts; a word in one script is what it looks like."""

    def plain(match: re.Match[str]) -> str:
        word = match.group()
        latin = any("a" <= sign <= "z" for sign in word)
        return word.translate(_LOOKS_LIKE) if latin and not word.isascii() else word

    return _WORD.sub(plain, text)


def unleet(word: str) -> tuple[str, str]:
    """Return a word with the digits in it as the letters that they stand for; 1 is an i or an l."""
    return word.translate(_LEET[0]), word.translate(_LEET[1])


def squeezed(word: str) -> str:
    """Return a word with each row of equal letters as one."""
    return re.sub(r"([a-z])\1+", r"\1", word)


_SPACED: Final = re.compile(r"(?<![a-z0-9])(?:[a-z][ .*_-]{1,2}){4,400}[a-z](?![a-z0-9])")


def unspaced(text: str) -> str:
    """Return a folded text with letters that stand alone in a row, as in i g n o r e, put together; or nothing."""
    if _SPACED.search(text) is None:
        return ""
    return _SPACED.sub(lambda match: re.sub(r"[^a-z]", "", match.group()), text)


def hidden_tags(text: str) -> Iterator[Payload]:
    """Yield what is written in Unicode's invisible tag signs; the flags that are made of them are no text."""
    at, n = 0, len(text)
    while at < n:
        if ord(text[at]) not in _TAGS:
            at += 1
            continue
        end = at
        while end < n and ord(text[end]) in _TAGS:
            end += 1
        flag = at > 0 and ord(text[at - 1]) == _BLACK_FLAG and end - at <= 7
        if not flag:
            letters = "".join(chr(ord(sign) - 0xE0000) for sign in text[at:end] if 0x20 <= ord(sign) - 0xE0000 < 0x7F)
            yield Payload(letters, "tags", at, end)
        at = end


_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{24,}={0,2}(?![A-Za-z0-9+/])")
_HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{2}){12,}(?![0-9A-Za-z])")
_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2}){4,}")
_ESCAPES: Final = re.compile(r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}")


def payloads(text: str) -> list[Payload]:
    """Return what `text` holds in base64, hexadecimal, percent or backslash escapes and HTML entities."""
    found: list[Payload] = list(hidden_tags(text)) if not text.isascii() else []
    long = any(len(word) >= _SHORTEST for word in text.split())
    for form, pattern in (("base64", _BASE64), ("hex", _HEX)) if long else ():
        for match in pattern.finditer(text):
            plain = _decoded(match.group(), form)
            if plain:
                found.append(Payload(plain, form, *match.span()))
    if "%" in text and (match := _PERCENT.search(text)):
        found.append(Payload(unquote(text), "percent", *match.span()))
    if "&#" in text:
        found.append(Payload(html.unescape(text), "entities", text.find("&#"), len(text)))
    if "\\" in text and (match := _ESCAPES.search(text)):
        plain = _ESCAPES.sub(lambda escape: chr(int(escape.group()[2:], 16)), text)
        found.append(Payload(plain, "escapes", *match.span()))
    return found


def _decoded(text: str, form: str) -> str:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4)) if form == "base64" else bytes.fromhex(text)
        plain = data.decode()
    except (binascii.Error, ValueError):
        return ""
    readable = sum(sign.isalpha() or sign == " " for sign in plain)
    return plain if plain and readable >= 0.8 * len(plain) else ""


def rot13(text: str) -> str:
    """Return `text` with each letter moved by half the alphabet."""
    return codecs.encode(text, "rot13")
