"""Conditions over the columns of one row: one text, compiled to SQL for tables and to Python for requests.

Both sides compute alike: numbers are IEEE doubles, a moment is its microseconds, what cannot be computed (a missing
value, a division by nothing, infinity less infinity) is unknown, and unknown is neither true nor false (Kleene's
three values). A row breaks a condition that is false of it.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from holdtrue.core.errors import ConfigurationError
from holdtrue.data.columns import Dtype

Kind = Literal["number", "moment", "text", "truth"]
Value: TypeAlias = Callable[[Mapping[str, Any]], Any]

_KINDS: Mapping[Dtype, Kind] = {
    "int64": "number",
    "float64": "number",
    "timestamp": "moment",
    "string": "text",
    "bool": "truth",
}
_MOST_TEXT, _MOST_NODES = 1000, 60
_SPANS = {"seconds": 1_000_000, "minutes": 60_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}
_COMPARE: Mapping[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("=", operator.eq),
    ast.NotEq: ("<>", operator.ne),
}
_ARITHMETIC: Mapping[type[ast.operator], tuple[str, Callable[[float, float], float]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_KNOWN = "columns, numbers, texts, True and False; + - * /, comparisons, `in`, and, or, not; abs(), length(), missing()"
_CALLS = f"{_KNOWN}; seconds(), minutes(), hours(), days()"


@dataclass(frozen=True, slots=True)
class Term:
    """Hold a part of a condition, compiled both ways.

    `value` gets a row as plain values (moments in microseconds) and returns None for what is unknown; `sql` is a
    format in which `{name}` stands for a column, by its place in `columns`.
    """

    kind: Kind
    value: Value
    sql: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Hold a compiled condition and the columns that it reads."""

    columns: tuple[str, ...]
    value: Value
    template: str

    def sql(self, names: Mapping[str, str]) -> str:
        """Return the condition as SQL, with the columns under these names; missing numbers must be NULL."""
        return self.template.format(*(names[column] for column in self.columns))


def compile_condition(text: str, dtypes: Mapping[str, Dtype]) -> Condition:
    """Compile a condition over columns of these types; raise ConfigurationError that shows what is wrong with it."""
    if len(text) > _MOST_TEXT:
        _refuse(text, f"It has {len(text)} characters, more than {_MOST_TEXT}.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        _refuse(text, f"It is no expression: {getattr(error, 'msg', error)}.")
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES * 2:
        _refuse(text, "It is too long: split it into several rules.")
    compiler = _Compiler(text, dtypes)
    term = compiler.term(tree)
    if term.kind != "truth":
        _refuse(text, f"It gives a {term.kind}, and a condition is true or false.")
    return Condition(tuple(compiler.columns), term.value, term.sql)


def holds(condition: Condition, row: Mapping[str, Any]) -> bool:
    """Tell whether a row keeps a condition: whether it is not false of it."""
    return condition.value(row) is not False


class _Compiler:
    """Turn the parts of one text into terms; remember which columns it reads."""

    def __init__(self, text: str, dtypes: Mapping[str, Dtype]) -> None:
        self._text = text
        self._dtypes = dtypes
        self.columns: list[str] = []

    def term(self, node: ast.expr) -> Term:
        """Return a part of the condition, compiled."""
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, ast.Constant):
            return self._constant(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._arithmetic(type(node.op), self.term(node.left), self.term(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._negative(self.term(node.operand))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._not(self.term(node.operand))
        if isinstance(node, ast.BoolOp):
            return self._logic([self.term(each) for each in node.values], all_of=isinstance(node.op, ast.And))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node.func.id, node.args)
        _refuse(self._text, f"“{ast.unparse(node)[:80]}” is not understood.")

    def _column(self, name: str) -> Term:
        dtype = self._dtypes.get(name)
        if dtype is None:
            _refuse(self._text, f"There is no column “{name}”. Columns: {', '.join(self._dtypes)}.")
        if name not in self.columns:
            self.columns.append(name)
        place = f"{{{self.columns.index(name)}}}"
        kind = _KINDS[dtype]
        if kind == "number":
            return Term(kind, lambda row: _number(row[name]), f"nullif({place}::DOUBLE, 'nan'::DOUBLE)")
        if kind == "moment":
            return Term(kind, lambda row: _number(row[name]), f"epoch_us({place})::DOUBLE")
        return Term(kind, lambda row: row[name], place)

    def _constant(self, value: Any) -> Term:
        if isinstance(value, bool):
            return Term("truth", lambda _: value, str(value).lower())
        if isinstance(value, int | float):
            try:
                number = float(value)
            except OverflowError:
                _refuse(self._text, f"{str(value)[:40]}… is too large a number.")
            return Term("number", lambda _: number, f"'{number!r}'::DOUBLE")
        if isinstance(value, str) and "\0" not in value:
            quoted = value.replace("'", "''").replace("{", "{{").replace("}", "}}")
            return Term("text", lambda _: value, f"'{quoted}'")
        _refuse(self._text, f"{value!r} is no value here; a missing one is asked for with missing(column).")

    def _arithmetic(self, kind: type[ast.operator], left: Term, right: Term) -> Term:
        sign, work = _ARITHMETIC[kind]
        kinds = (left.kind, right.kind)
        result: Kind = "number"
        if (
            kinds in (("moment", "number"), ("number", "moment"))
            and sign in "+-"
            and (sign, kinds[1]) != ("-", "moment")
        ):
            result = "moment"
        elif kinds != ("number", "number") and (kinds != ("moment", "moment") or sign != "-"):
            _refuse(self._text, f"A {left.kind} {sign} a {right.kind} has no meaning.")

        def value(row: Mapping[str, Any]) -> float | None:
            a, b = left.value(row), right.value(row)
            if a is None or b is None or (sign == "/" and b == 0):
                return None
            found = work(a, b)
            return found if found == found else None

        divisor = f"nullif({right.sql}, 0)" if sign == "/" else right.sql
        return Term(result, value, f"nullif({left.sql} {sign} {divisor}, 'nan'::DOUBLE)")

    def _negative(self, term: Term) -> Term:
        if term.kind != "number":
            _refuse(self._text, f"A {term.kind} has no negative.")

        def value(row: Mapping[str, Any]) -> float | None:
            found = term.value(row)
            return None if found is None else -found

        return Term("number", value, f"(-({term.sql}))")

    def _not(self, term: Term) -> Term:
        self._need(term, "truth", "not")

        def value(row: Mapping[str, Any]) -> bool | None:
            found = term.value(row)
            return None if found is None else not found

        return Term("truth", value, f"(NOT {term.sql})")

    def _logic(self, terms: Sequence[Term], *, all_of: bool) -> Term:
        for term in terms:
            self._need(term, "truth", "and" if all_of else "or")
        values = [term.value for term in terms]

        def value(row: Mapping[str, Any]) -> bool | None:
            unknown = False
            for each in values:
                found = each(row)
                if found is None:
                    unknown = True
                elif found is not all_of:
                    return not all_of
            return None if unknown else all_of

        return Term("truth", value, f"({(' AND ' if all_of else ' OR ').join(term.sql for term in terms)})")

    def _comparison(self, node: ast.Compare) -> Term:
        sides = [node.left, *node.comparators]
        found: list[Term] = []
        for kind, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if isinstance(kind, ast.In | ast.NotIn):
                member = self._member(self.term(left), right)
                found.append(member if isinstance(kind, ast.In) else self._not(member))
            elif type(kind) in _COMPARE:
                found.append(self._compared(type(kind), self.term(left), self.term(right)))
            else:
                _refuse(self._text, "`is` is not understood: use ==, or missing(column).")
        return found[0] if len(found) == 1 else self._logic(found, all_of=True)

    def _compared(self, kind: type[ast.cmpop], left: Term, right: Term) -> Term:
        sign, work = _COMPARE[kind]
        if left.kind != right.kind:
            _refuse(self._text, f"A {left.kind} is not compared with a {right.kind}.")

        def value(row: Mapping[str, Any]) -> bool | None:
            a, b = left.value(row), right.value(row)
            return None if a is None or b is None else work(a, b)

        return Term("truth", value, f"({left.sql} {sign} {right.sql})")

    def _member(self, term: Term, among: ast.expr) -> Term:
        if not isinstance(among, ast.List | ast.Tuple | ast.Set) or not among.elts:
            _refuse(self._text, "`in` needs values in brackets: carrier in ['AA', 'UA'].")
        constants = [self.term(each) for each in among.elts if isinstance(each, ast.Constant)]
        if len(constants) < len(among.elts):
            _refuse(self._text, "`in` needs plain values.")
        for each in constants:
            self._need(each, term.kind, "in")
        values = frozenset(each.value({}) for each in constants)

        def value(row: Mapping[str, Any]) -> bool | None:
            found = term.value(row)
            return None if found is None else found in values

        return Term("truth", value, f"({term.sql} IN ({', '.join(each.sql for each in constants)}))")

    def _call(self, name: str, arguments: Sequence[ast.expr]) -> Term:
        if len(arguments) != 1:
            _refuse(self._text, f"{name}() takes one thing.")
        term = self.term(arguments[0])
        if name == "missing":
            return Term("truth", lambda row: term.value(row) is None, f"({term.sql} IS NULL)")
        if name == "abs" and term.kind == "number":
            return Term("number", lambda row: _applied(abs, term.value(row)), f"abs({term.sql})")
        if name == "length" and term.kind == "text":
            return Term(
                "number",
                lambda row: _applied(lambda text: float(len(text)), term.value(row)),
                f"length({term.sql})::DOUBLE",
            )
        if name in _SPANS and term.kind == "number":
            return self._arithmetic(ast.Mult, term, self._constant(_SPANS[name]))
        _refuse(self._text, f"{name}() of a {term.kind} is not understood.")

    def _need(self, term: Term, kind: Kind, what: str) -> None:
        if term.kind != kind:
            _refuse(self._text, f"`{what}` needs a {kind} where it has a {term.kind}.")


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _applied(work: Callable[[Any], float], value: Any) -> float | None:
    return None if value is None else work(value)


def _refuse(text: str, why: str) -> NoReturn:
    raise ConfigurationError(
        f"The condition “{text[:120]}” cannot be used.",
        why=why,
        mend=f"A condition is made of {_CALLS}.",
    )
