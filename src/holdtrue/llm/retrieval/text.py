"""Text that can be trusted to be text: decoded, without hidden characters, and its words and terms."""

import re
import unicodedata
from collections.abc import Iterator
from hashlib import blake2b

from holdtrue.llm.retrieval.model import DocumentRefused, Reason

# Chinese, Japanese and Korean characters: no spaces are written between their words.
_EAST = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_EAST}]|[^\s{_EAST}]{{1,40}}")
# What no reader sees and a language model reads: control and tag characters, zero widths, changes of direction.
_HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_LINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_LETTERS = re.compile(r"\w+")
_PART = re.compile(r"[^\W_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_EAST_RUN = re.compile(rf"[{_EAST}]+|[^{_EAST}]+")
_EAST_ONE = re.compile(rf"[{_EAST}]")
_LONGEST_TERM = 64


def decode(data: bytes) -> str:
    """Return the text of `data`: UTF-8, or UTF-16 with its mark; raise DocumentRefused for anything else."""
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")) and not data.startswith(b"\xff\xfe\x00\x00"):
            text = data.decode("utf-16")
        else:
            text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if _looks_binary(data):
            raise DocumentRefused.of(Reason.BINARY, "Its bytes are not text.") from None
        raise DocumentRefused.of(
            Reason.ENCODING, f"Its bytes are not UTF-8 (the first wrong one is byte {error.start})."
        ) from None
    if len(_CONTROL.findall(text)) * 100 > len(text):
        raise DocumentRefused.of(Reason.BINARY, "More than one in a hundred of its characters are control characters.")
    return text


def clean(text: str) -> str:
    """Return `text` with plain line ends, and without characters that are not seen or not text."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return _HIDDEN.sub("", _LINES.sub("\n", text))


def hidden(text: str) -> int:
    """Return how many characters of `text` nobody sees."""
    return len(_HIDDEN.findall(text))


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end, in characters, of each word: up to 40 characters, or one of an eastern script."""
    return [found.span() for found in _WORD.finditer(text)]


def terms(text: str) -> Iterator[str]:
    """Yield the terms by which `text` is found: words in one form, identifiers whole and in parts.

    Compatibility forms are folded (NFKC) and case is. Eastern scripts give pairs of neighbouring characters.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    for word in _LETTERS.findall(text):
        if not word.isascii() and _EAST_ONE.search(word):
            yield from _eastern(word)
        else:
            yield from _western(word)


def term_key(term: str) -> int:
    """Return the number, 64 bits, under which an index keeps a term."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "little")


def _western(word: str) -> Iterator[str]:
    folded = word.casefold()
    whole = folded[:_LONGEST_TERM]
    if "_" not in word and (folded == word or word[1:].islower() or word.isupper()):
        yield whole
        return
    parts = [part.casefold()[:_LONGEST_TERM] for piece in _PART.findall(word) for part in _HUMP.split(piece)]
    if len(parts) > 1:
        yield whole
    yield from parts


def _eastern(word: str) -> Iterator[str]:
    for run in _EAST_RUN.findall(word):
        if not _EAST_ONE.match(run):
            yield from _western(run)
        elif len(run) == 1:
            yield run
        else:
            for place in range(len(run) - 1):
                yield run[place : place + 2]


def _looks_binary(data: bytes) -> bool:
    sample = data[: 1 << 16]
    strange = sum(sample.count(bytes([code])) for code in (*range(8), *range(14, 27), *range(28, 32)))
    return b"\x00" in sample or strange * 100 > len(sample)
