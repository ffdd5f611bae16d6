"""Read the text of a CEL expression: which names it uses, how deep its loops go, what each condition is.

The evaluator says only that something is false or missing. A finding has to show the values that a rule saw,
so the tokens of its text are looked at here; the meaning stays with the evaluator.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
_WORDS: Final = frozenset({"true", "false", "null", "in"})
_TOKEN = re.compile(
    r"""(?P<text>[rRbB]{0,2}(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[uU]?)
      | (?P<space>\s+|//[^\n]*)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """Hold a piece of an expression's text and where it starts."""

    kind: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Path:
    """Hold a name with what is taken from it, as `metric.roc_auc.lower`."""

    root: str
    parts: tuple[str | int, ...]
    start: int

    def __str__(self) -> str:
        tail = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.parts)
        return self.root + tail


@dataclass(frozen=True, slots=True)
class Loop:
    """Hold a macro over a list, as `slices.all(s, s.roc_auc >= 0.6)`."""

    over: Path
    macro: str
    variable: str
    body: str


def tokens(expression: str) -> list[Token]:
    """Return the tokens of `expression` without spaces."""
    return [
        Token(str(found.lastgroup), found.group(), found.start())
        for found in _TOKEN.finditer(expression)
        if found.lastgroup != "space"
    ]


def bound(expression: str) -> frozenset[str]:
    """Return the variables that macros bind."""
    found = tokens(expression)
    return frozenset(found[at + 2].text for at in _macros(found))


def paths(expression: str) -> list[Path]:
    """Return every name with its parts, in order; called functions and bound variables are left out."""
    found = tokens(expression)
    names = bound(expression)
    result: list[Path] = []
    for at, token in enumerate(found):
        after_dot = at > 0 and found[at - 1].text == "."
        if token.kind != "word" or token.text in _WORDS or after_dot:
            continue
        if _text(found, at + 1) == "(" or token.text in names:
            continue
        result.append(Path(token.text, _parts(found, at + 1), token.start))
    return result


def loops(expression: str) -> list[Loop]:
    """Return the macros over lists that have a name, outermost and inner ones."""
    found = tokens(expression)
    over = {path.start: path for path in paths(expression)}
    result: list[Loop] = []
    for at in _macros(found):
        close = _closing(found, at + 1)
        first = _start_of_path(found, at)
        path = over.get(found[first].start)
        if close is None or path is None:
            continue
        body = expression[found[at + 3].start + 1 : found[close].start]
        result.append(Loop(path, found[at].text, found[at + 2].text, body.strip()))
    return result


def depth(expression: str) -> int:
    """Return how deep macros are nested in one another."""
    found = tokens(expression)
    spans = [(at, _closing(found, at + 1) or len(found)) for at in _macros(found)]
    return max((sum(a <= at < b for a, b in spans) for at, _ in spans), default=0)


def _macros(found: Sequence[Token]) -> Iterator[int]:
    """Yield the positions of macro names: `.all(x,`."""
    for at in range(1, len(found) - 3):
        if (
            found[at].text in MACROS
            and found[at - 1].text == "."
            and found[at + 1].text == "("
            and found[at + 2].kind == "word"
            and found[at + 3].text == ","
        ):
            yield at


def _closing(found: Sequence[Token], opening: int) -> int | None:
    level = 0
    for at in range(opening, len(found)):
        if found[at].kind != "sign":
            continue
        if found[at].text in "([{":
            level += 1
        elif found[at].text in ")]}":
            level -= 1
            if level == 0:
                return at
    return None


def _start_of_path(found: Sequence[Token], macro: int) -> int:
    at = macro - 2
    while at >= 2 and found[at - 1].text == ".":
        at -= 2
    return max(at, 0)


def _parts(found: Sequence[Token], at: int) -> tuple[str | int, ...]:
    parts: list[str | int] = []
    while True:
        if _text(found, at) == "." and at + 1 < len(found) and found[at + 1].kind == "word":
            if _text(found, at + 2) == "(":
                return tuple(parts)
            parts.append(found[at + 1].text)
            at += 2
        elif _text(found, at) == "[" and _text(found, at + 2) == "]" and found[at + 1].kind == "text":
            parts.append(found[at + 1].text.strip("rRbB")[1:-1])
            at += 3
        elif _text(found, at) == "[" and _text(found, at + 2) == "]" and found[at + 1].text.isdigit():
            parts.append(int(found[at + 1].text))
            at += 3
        else:
            return tuple(parts)


def _text(found: Sequence[Token], at: int) -> str:
    return found[at].text if 0 <= at < len(found) else ""
