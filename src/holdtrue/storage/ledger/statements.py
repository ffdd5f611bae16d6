"""Statements that say the same on SQLite and on PostgreSQL, and statements that are compiled once.

What the two databases write differently stands here and nowhere else; a room builds its statements from these.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Self

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

__all__ = [
    "Insert",
    "Prepared",
    "any_case_like",
    "any_of",
    "exact_like",
    "insert",
    "pairs_in",
    "prepare",
    "prepare_insert",
]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Hold a statement that each connection compiles once, in its own dialect.

    `widths` are the numbers of rows that one statement can take instead, the greatest first, and `of_rows` makes
    that statement when a connection first wants it. `keys` are the places of the primary key in a row: PostgreSQL
    changes no row twice in one statement.
    """

    one: sa.ClauseElement
    widths: tuple[int, ...] = ()
    of_rows: Callable[[int], sa.ClauseElement] | None = None
    keys: tuple[int, ...] = ()

    def groups(self, count: int) -> Iterator[int]:
        """Yield the numbers of rows into which `count` rows are cut, a statement each."""
        for width in self.widths:
            yield from repeat(width, count // width)
            count %= width
        yield from repeat(1, count)

    def of_width(self, width: int) -> sa.ClauseElement:
        """Return the statement for so many rows."""
        return self.one if width == 1 or self.of_rows is None else self.of_rows(width)


def prepare(statement: sa.ClauseElement) -> Prepared:
    """Keep a statement whose parameters are `sa.bindparam`s, for work too frequent to compile each time.

    Values go to the database as they are given, in the order in which the text names them: columns whose type
    converts them have no place here.
    """
    return Prepared(statement)


def prepare_insert(
    table: sa.Table, finish: Callable[[Insert], Insert], widths: tuple[int, ...] = (50, 10, 3)
) -> Prepared:
    """Keep an insert of all columns of `table` in their order, for one row and for each of `widths` rows at once.

    `finish` adds what happens on a conflict.
    """

    def of_rows(width: int) -> sa.ClauseElement:
        rows = [{each.name: sa.bindparam(f"{each.name}_{row}") for each in table.c} for row in range(width)]
        return finish(insert(table).values(rows))

    one = insert(table).values({each.name: sa.bindparam(each.name) for each in table.c})
    keys = tuple(place for place, each in enumerate(table.c) if each.primary_key)
    return Prepared(finish(one), widths, of_rows, keys)


class _Condition(FunctionElement[bool]):
    """Hold a condition whose text each database writes for itself, in brackets.

    As a function it would be written `(…) = 1` on SQLite, which has no booleans: true, but no index serves it.
    """

    type = sa.Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Self:
        """Return itself: it is a condition as it stands."""
        return self


class _Like(_Condition):
    """Compare a text with a pattern in which % stands for any text and _ for any sign; nothing escapes them."""

    inherit_cache = True


class _ExactLike(_Like):
    inherit_cache = True


class _AnyCaseLike(_Like):
    inherit_cache = True


class _GlobPattern(sa.types.TypeDecorator[str]):
    """Send a LIKE pattern in the form that the database's exact comparison takes."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return _glob(value) if value is not None and dialect.name == "sqlite" else value


def exact_like(column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Return whether a text matches a LIKE pattern, upper and lower case apart."""
    return _ExactLike(column, sa.bindparam(None, pattern, type_=_GlobPattern()))


def any_case_like(column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Return whether a text matches a LIKE pattern, where a to z and A to Z are alike."""
    return _AnyCaseLike(sa.func.lower(column), sa.bindparam(None, pattern.lower(), type_=sa.Text()))


@compiles(_Like, "sqlite")
def _like_on_sqlite(element: _Like, compiler: SQLCompiler, **options: Any) -> str:
    # SQLite's LIKE ignores case; GLOB does not, so the pattern is rewritten.
    word = "GLOB" if isinstance(element, _ExactLike) else "LIKE"
    text, pattern = (compiler.process(each, **options) for each in element.clauses)
    return f"({text} {word} {pattern})"


@compiles(_Like, "postgresql")
def _like_on_postgresql(element: _Like, compiler: SQLCompiler, **options: Any) -> str:
    text, pattern = (compiler.process(each, **options) for each in element.clauses)
    return f"({text} LIKE {pattern} ESCAPE '')"


def _glob(pattern: str) -> str:
    """Rewrite a LIKE pattern: % is any text, _ any sign, and GLOB's own signs stand for themselves."""
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(special.get(sign, sign) for sign in pattern)


class _Numbers(sa.types.TypeDecorator[Any]):
    """Send whole numbers as one value: a JSON array to SQLite, an array to PostgreSQL."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else ARRAY(sa.BigInteger()))

    def process_bind_param(self, value: Sequence[int] | None, dialect: sa.Dialect) -> Any:
        assert value is not None
        return orjson.dumps(list(value)).decode() if dialect.name == "sqlite" else list(value)


class _AnyOf(_Condition):
    inherit_cache = True


def any_of(column: sa.ColumnElement[int], numbers: Sequence[int] | str) -> sa.ColumnElement[bool]:
    """Return whether a whole number is one of many, which go to the database as one value.

    As a value each, a thousand of them take longer to be written into the statement than rows take to be found. A text
    is the name of the parameter as which they come when the statement is executed.
    """
    if isinstance(numbers, str):
        return _AnyOf(column, sa.bindparam(numbers, type_=_Numbers()))
    return _AnyOf(column, sa.bindparam(None, numbers, type_=_Numbers()))


@compiles(_AnyOf, "sqlite")
def _any_of_on_sqlite(element: _AnyOf, compiler: SQLCompiler, **options: Any) -> str:
    column, numbers = (compiler.process(each, **options) for each in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({numbers})))"  # noqa: S608  # compiled parts, no client's text


@compiles(_AnyOf, "postgresql")
def _any_of_on_postgresql(element: _AnyOf, compiler: SQLCompiler, **options: Any) -> str:
    column, numbers = (compiler.process(each, **options) for each in element.clauses)
    return f"({column} = ANY({numbers}))"


class _Elements(FunctionElement[Any]):
    """Give the elements of a JSON array, a row each."""

    name = "elements"
    inherit_cache = True


class _TextAt(FunctionElement[str]):
    """Give one text of a JSON array by its place."""

    type = sa.Text()
    inherit_cache = True


def pairs_in(column: sa.ColumnElement[Any]) -> tuple[sa.FromClause, sa.ColumnElement[str], sa.ColumnElement[str]]:
    """Return the pairs of texts in a JSON column as a lateral table, with its keys and its values."""
    pairs = _Elements(column).table_valued("value").alias("pairs")
    return pairs, _TextAt(pairs.c.value, sa.literal_column("0")), _TextAt(pairs.c.value, sa.literal_column("1"))


@compiles(_Elements, "sqlite")
def _elements_on_sqlite(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Elements, "postgresql")
def _elements_on_postgresql(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements({compiler.process(element.clauses, **options)})"


@compiles(_TextAt, "sqlite")
def _text_on_sqlite(element: _TextAt, compiler: SQLCompiler, **options: Any) -> str:
    array, place = (compiler.process(each, **options) for each in element.clauses)
    return f"json_extract({array}, '$[{place}]')"


@compiles(_TextAt, "postgresql")
def _text_on_postgresql(element: _TextAt, compiler: SQLCompiler, **options: Any) -> str:
    array, place = (compiler.process(each, **options) for each in element.clauses)
    return f"({array} ->> {place})"
