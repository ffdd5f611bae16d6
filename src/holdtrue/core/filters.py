"""The filter and order language of searches, as MLflow's clients write it: text in, typed conditions out.

    filter     = condition { "AND" condition }
    condition  = identifier ( comparison | "IS" ["NOT"] "NULL" )
    comparison = ("=" | "!=" | "<>" | ">" | ">=" | "<" | "<=" | "LIKE" | "ILIKE" | "RLIKE") value
               | ["NOT"] "IN" "(" value { "," value } ")"
    identifier = [ entity "." ] key        key: a word with dots (letters of any script), or quoted by ` or "
    order      = identifier [ "ASC" | "DESC" ]

Nothing of the text reaches SQL: keys and values become bound parameters, entities and attributes are looked up
in the vocabulary of what is searched.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from holdtrue.core.errors import InvalidInput

Operator = Literal["=", "!=", ">", ">=", "<", "<=", "LIKE", "ILIKE", "RLIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"]
Value = str | int | float | tuple[str | int | float, ...] | None

LONGEST = 20_000
MOST_CONDITIONS = 64
MOST_ORDERS = 16
MOST_VALUES = 1_000

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<word>(?u:[^\W\d][\w/-]*))
      | (?P<string>'(?:''|\\'|[^'])*')
      | (?P<double>"(?:""|\\"|[^"])*")
      | (?P<back>`[^`]*`)
      | (?P<operator><=|>=|!=|<>|==|=|<|>)
      | (?P<sign>[().,])
    """,
    re.VERBOSE | re.ASCII,
)
_COMPARISONS: Mapping[str, Operator] = {
    "=": "=", "==": "=", "!=": "!=", "<>": "!=", ">": ">", ">=": ">=", "<": "<", "<=": "<=",
}  # fmt: skip


class FilterError(InvalidInput):
    """A filter or an order cannot be read; the message points at the place."""

    code = "bad_filter"

    @classmethod
    def at(cls, text: str, place: int, why: str, what: str = "filter") -> "FilterError":
        """Point at sign `place` of `text`."""
        start, end = max(0, place - 60), place + 60
        shown = text[start:end].replace("\n", " ")
        return cls(
            f"Invalid {what} string at sign {place + 1}: {why}\n{shown}\n{' ' * (place - start)}^",
            facts={"place": place + 1},
        )


class Id(int):
    """Mark, as the type of an attribute, a whole number that is written as text."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Say what may be searched: entities by each of their spellings, and attributes with their type.

    `entities` maps a spelling to an entity; an entity that is not in `closed` takes any key.
    `numeric` holds the entities whose values are numbers, besides the attributes that are; those of `mixed` may be
    compared with a number or with text. `regular` says whether text may be compared with regular expressions (RLIKE).
    """

    entities: Mapping[str, str]
    attributes: Mapping[str, tuple[str, type]]
    default: str = "attribute"
    numeric: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()
    closed: Mapping[str, Mapping[str, tuple[str, type]]] | None = None
    regular: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """Name what a condition or an order is about."""

    entity: str
    key: str
    numeric: bool
    mixed: bool = False
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """Hold one comparison; all conditions of a filter must hold."""

    subject: Subject
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Order:
    """Hold one term of an order."""

    subject: Subject
    ascending: bool


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


def parse_filter(text: str | None, vocabulary: Vocabulary) -> tuple[Condition, ...]:
    """Return the conditions of a filter; none for an empty one. Raises FilterError."""
    if text is None or not text.strip():
        return ()
    reader = _Reader(text, vocabulary, "filter")
    conditions = [reader.condition()]
    while reader.more():
        reader.word("AND", "Conditions are joined by AND; OR and parentheses around them are not known")
        if len(conditions) == MOST_CONDITIONS:
            raise FilterError.at(text, reader.place, f"A filter has at most {MOST_CONDITIONS} conditions.")
        conditions.append(reader.condition())
    return tuple(conditions)


def parse_order(terms: Sequence[str], vocabulary: Vocabulary, among: frozenset[str] | None = None) -> tuple[Order, ...]:
    """Return the terms of an order, by entities of `among` or by any. Raises FilterError."""
    if len(terms) > MOST_ORDERS:
        raise InvalidInput(f"An order has at most {MOST_ORDERS} terms, not {len(terms)}.")
    found: list[Order] = []
    for text in terms:
        reader = _Reader(text, vocabulary, "order_by")
        start = reader.place
        subject = reader.subject()
        if among is not None and subject.entity not in among:
            known = ", ".join(sorted(vocabulary.attributes))
            why = f"There is no order by a {subject.entity} here. Known are: {known}."
            raise FilterError.at(text, start, why, "order_by")
        ascending = True
        if reader.more():
            ascending = reader.direction()
        if reader.more():
            raise FilterError.at(text, reader.place, "An order is one name, then ASC or DESC.", "order_by")
        found.append(Order(subject, ascending))
    return tuple(found)


class _Reader:
    """Read one text, sign by sign of its grammar."""

    def __init__(self, text: str, vocabulary: Vocabulary, what: str) -> None:
        if len(text) > LONGEST:
            raise InvalidInput(f"A {what} string has at most {LONGEST} signs.")
        self._text = text
        self._vocabulary = vocabulary
        self._what = what
        self._tokens = self._read()
        self._next = 0

    @property
    def place(self) -> int:
        """Return where the next token stands."""
        return self._tokens[self._next].place if self.more() else len(self._text)

    def more(self) -> bool:
        """Tell whether anything is left."""
        return self._next < len(self._tokens)

    def word(self, wanted: str, why: str) -> None:
        """Take one word, whatever its case."""
        if not self._is(wanted):
            raise self._wrong(f"{why}.")
        self._next += 1

    def direction(self) -> bool:
        """Take ASC or DESC; tell whether it is ASC."""
        for word in ("ASC", "DESC"):
            if self._is(word):
                self._next += 1
                return word == "ASC"
        raise self._wrong("ASC or DESC is expected here.")

    def condition(self) -> Condition:
        """Take one comparison."""
        start = self.place
        subject = self.subject()
        operator = self._operator()
        if operator in ("IS NULL", "IS NOT NULL"):
            return Condition(subject, operator, None)
        if operator in ("IN", "NOT IN"):
            return Condition(subject, operator, self._list(subject))
        if operator == "RLIKE" and not self._vocabulary.regular:
            raise FilterError.at(
                self._text, start, "Regular expressions (RLIKE) are for searches of traces; use LIKE here.", self._what
            )
        if operator in ("LIKE", "ILIKE", "RLIKE") and subject.numeric:
            raise FilterError.at(self._text, start, f"{subject.key} is a number; {operator} compares text.", self._what)
        if operator in (">", ">=", "<", "<=") and not (subject.numeric or subject.mixed):
            raise FilterError.at(
                self._text, start, f"{subject.entity}.{subject.key} is text; {operator} compares numbers.", self._what
            )
        return Condition(subject, operator, self._value(subject))

    def subject(self) -> Subject:
        """Take an identifier and look it up."""
        start = self.place
        first = self._name("A name is expected here, for example metrics.accuracy or params.`learning rate`.")
        parts = [first]
        while self.more() and self._tokens[self._next].text == "." and self._tokens[self._next].kind == "sign":
            self._next += 1
            parts.append(self._name("A name is expected after the dot."))
        entity = self._vocabulary.entities.get(first.lower()) if len(parts) > 1 else None
        if len(parts) == 1:
            entity = self._vocabulary.default
        elif entity is None:
            known = sorted(set(self._vocabulary.entities))
            close = difflib.get_close_matches(first.lower(), known, n=1)
            hint = f" Did you mean “{close[0]}”?" if close else f" Known are: {', '.join(known)}."
            raise FilterError.at(self._text, start, f"“{first}” is not something to search by.{hint}", self._what)
        key = ".".join(parts[1:]) if len(parts) > 1 else first
        return self._look_up(entity or "", key, start)

    def _look_up(self, entity: str, key: str, start: int) -> Subject:
        closed = (self._vocabulary.closed or {}).get(entity)
        known = self._vocabulary.attributes if entity == "attribute" else closed
        if known is None:
            return Subject(entity, key, entity in self._vocabulary.numeric, entity in self._vocabulary.mixed)
        found = known.get(key) or known.get(key.lower())
        if found is None:
            close = difflib.get_close_matches(key, list(known), n=1)
            hint = f" Did you mean “{close[0]}”?" if close else f" Known are: {', '.join(sorted(known))}."
            raise FilterError.at(self._text, start, f"There is no {entity} “{key[:80]}”.{hint}", self._what)
        return Subject(entity, found[0], found[1] is not str, quoted=found[1] is Id)

    def _operator(self) -> Operator:
        if not self.more():
            raise self._wrong("A comparison is missing.")
        token = self._tokens[self._next]
        if token.kind == "operator":
            self._next += 1
            return _COMPARISONS[token.text]
        for word in ("LIKE", "ILIKE", "RLIKE", "IN"):
            if self._is(word):
                self._next += 1
                return word
        if self._is("NOT"):
            self._next += 1
            self.word("IN", "NOT is followed by IN")
            return "NOT IN"
        if self._is("IS"):
            self._next += 1
            negated = self._is("NOT")
            self._next += negated
            self.word("NULL", "IS is followed by NULL or NOT NULL")
            return "IS NOT NULL" if negated else "IS NULL"
        known = "=, !=, >, >=, <, <=, LIKE, ILIKE, IN, IS NULL" + (", RLIKE" if self._vocabulary.regular else "")
        raise self._wrong(f"A comparison is expected here: {known}.")

    def _list(self, subject: Subject) -> tuple[str | int | float, ...]:
        self._sign("(")
        values = [self._value(subject)]
        while self.more() and self._tokens[self._next].text == ",":
            self._next += 1
            if len(values) == MOST_VALUES:
                raise self._wrong(f"A list has at most {MOST_VALUES} values.")
            values.append(self._value(subject))
        self._sign(")")
        return tuple(values)

    def _sign(self, wanted: str) -> None:
        if not self.more() or self._tokens[self._next].text != wanted:
            raise self._wrong(f"“{wanted}” is expected here.")
        self._next += 1

    def _value(self, subject: Subject) -> str | int | float:
        if not self.more():
            raise self._wrong("A value is missing.")
        token = self._tokens[self._next]
        if subject.quoted and token.kind in ("string", "double") and _is_whole(token.text[1:-1]):
            self._next += 1
            return int(token.text[1:-1])
        if subject.numeric or (subject.mixed and token.kind == "number"):
            if token.kind != "number":
                raise self._wrong(f"{subject.key} is compared with a number.")
            self._next += 1
            return int(token.text) if _is_whole(token.text.lstrip("+-")) else float(token.text)
        if token.kind not in ("string", "double"):
            raise self._wrong("Text is written in quotes, for example 'linear'.")
        self._next += 1
        return _unquoted(token.text)

    def _name(self, why: str) -> str:
        if not self.more() or self._tokens[self._next].kind not in ("word", "back", "double", "string", "number"):
            raise self._wrong(why)
        token = self._tokens[self._next]
        if token.kind == "string":
            raise self._wrong('Single quotes are for values; a name is quoted by ` or ".')
        self._next += 1
        if token.kind in ("back", "double"):
            return _unquoted(token.text)
        return token.text

    def _is(self, word: str) -> bool:
        return self.more() and self._tokens[self._next].kind == "word" and self._tokens[self._next].text.upper() == word

    def _wrong(self, why: str) -> FilterError:
        return FilterError.at(self._text, self.place, why, self._what)

    def _read(self) -> list[_Token]:
        tokens: list[_Token] = []
        place = 0
        while place < len(self._text):
            found = _TOKEN.match(self._text, place)
            if found is None:
                why = "This sign has no meaning here."
                if self._text[place] in "'\"`":
                    why = "This quote is not closed."
                raise FilterError.at(self._text, place, why, self._what)
            kind = found.lastgroup or ""
            if kind != "space":
                tokens.append(_Token(kind, found.group(), place))
            place = found.end()
        return tokens


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _unquoted(text: str) -> str:
    quote = text[0]
    inner = text[1:-1]
    return inner if quote == "`" else inner.replace(quote * 2, quote).replace("\\" + quote, quote)
