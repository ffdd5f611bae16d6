"""How many tokens a text has, without a language: words, single signs, single signs of scripts that have no spaces."""

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Ints

_SPACE, _WORD, _SIGN, _WIDE, _REST = range(5)


def _classes() -> npt.NDArray[np.uint8]:
    """Return what each byte of UTF-8 begins: nothing, a word, a sign of its own; or that it goes on with one."""
    found = np.full(256, _WORD, np.uint8)
    found[:0x21] = _SPACE
    found[0x7F] = _SPACE
    for sign in range(0x21, 0x7F):
        if not chr(sign).isalnum() and chr(sign) != "_":
            found[sign] = _SIGN
    found[0x80:0xC0] = _REST
    # U+3000 to U+9FFF: Chinese and Japanese signs, which no spaces part, have three bytes beginning with these.
    found[0xE3:0xEA] = _WIDE
    return found


_CLASSES = _classes()
_PLAIN = bytes(int(byte) for byte in np.flatnonzero((_CLASSES == _WORD) | (_CLASSES == _REST)))


def token_counts(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Ints:
    """Return the number of tokens int64[n] of n texts in UTF-8, which lie in `data` from offsets[i] to offsets[i + 1].

    A token is a run of letters, digits and underscores, any other sign by itself, or one Chinese or Japanese sign: as
    the basic tokenizer of BERT cuts a text (Devlin et al., 2019) before it looks pieces of words up.
    """
    lengths = np.diff(offsets)
    if not len(data.tobytes().translate(None, _PLAIN)):
        return (lengths > 0).astype(np.int64)
    classes = _CLASSES[data]
    begins = (classes == _SIGN) | (classes == _WIDE)
    word = classes == _WORD
    parted = np.ones(len(data), bool)
    parted[1:] = classes[:-1] <= _SPACE
    parted[1:] |= classes[:-1] == _SIGN
    # A sign of three bytes ends two bytes after it began.
    parted[3:] |= classes[:-3] == _WIDE
    begins |= word & parted
    first = offsets[:-1][lengths > 0]
    begins[first] = classes[first] != _SPACE
    upto = np.concatenate([[0], np.cumsum(begins)])
    return np.diff(upto[offsets])
