"""On-demand features as Python functions of request values: one text, computed in one way on both sides.

A function is pinned by its own text, which a release carries. That text is not executed as Python: it may hold
arithmetic, comparisons and functions of NumPy by element, and is compiled into calls of exactly those. So a data plane
runs no code of anybody's, and what a request may cost is bounded by the length of the text.
"""

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.core.ids import check_name
from holdtrue.features.model import Computed

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Evaluate: TypeAlias = Callable[[dict[str, Any]], Any]

_LONGEST: Final = 10_000
_MOST_NODES: Final = 400
_NAN: Final = float("nan")
_UFUNCS: Final = (
    "abs", "absolute", "arccos", "arcsin", "arctan", "arctan2", "cbrt", "ceil", "cos", "exp", "exp2", "expm1", "floor",
    "fmax", "fmin", "hypot", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "maximum", "minimum", "mod",
    "power", "rint", "sign", "sin", "sqrt", "square", "tan", "tanh", "trunc", "logical_not", "logical_and",
    "logical_or",
)  # fmt: skip
_CONSTANTS: Final[Mapping[str, float]] = MappingProxyType({"pi": np.pi, "e": np.e, "nan": _NAN, "inf": float("inf")})
_BINARY: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        ast.Add: np.add,
        ast.Sub: np.subtract,
        ast.Mult: np.multiply,
        ast.Div: np.true_divide,
        ast.FloorDiv: np.floor_divide,
        ast.Mod: np.mod,
        ast.Pow: np.power,
        ast.BitAnd: np.logical_and,
        ast.BitOr: np.logical_or,
        ast.BitXor: np.logical_xor,
    }
)
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        ast.Eq: operator.eq,
        ast.NotEq: operator.ne,
        ast.Lt: operator.lt,
        ast.LtE: operator.le,
        ast.Gt: operator.gt,
        ast.GtE: operator.ge,
    }
)
_INSTEAD: Final[Mapping[type[ast.AST], str]] = MappingProxyType(
    {
        ast.IfExp: "np.where(condition, one, other)",
        ast.If: "np.where(condition, one, other)",
        ast.BoolOp: "& and | between comparisons in parentheses",
        ast.Not: "~ before a comparison in parentheses",
        ast.In: "np.isin(column, [...])",
        ast.NotIn: "~np.isin(column, [...])",
        ast.For: "functions of NumPy by element",
        ast.While: "functions of NumPy by element",
    }
)


def on_demand(function: Callable[..., Any]) -> Computed:
    """Make a feature of a function of request columns, which its parameters name.

    It gets float64 arrays (missing values are NaN, moments are microseconds) or texts, and returns an array by
    arithmetic, comparisons and functions of NumPy. Its name is the feature's. Raises ConfigurationError, naming the
    line, for what is not among these.
    """
    name = getattr(function, "__name__", "")
    try:
        source = textwrap.dedent(inspect.getsource(function))
        parsed = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError) as error:
        raise _refused(name or "function", "its source cannot be read", "Define it in a file, with def.") from error
    if not isinstance(parsed, ast.FunctionDef):
        raise _refused(name or "function", "it is no plain function", "Define it with def.")
    parsed = _plain(parsed, _known_constants(function))
    made = Computed(parsed.name, tuple(each.arg for each in parsed.args.args), ast.unparse(parsed))
    compile_function(made)
    return made


def compile_function(computed: Computed) -> Callable[[Arrays, int], NDArray[np.float64]]:
    """Return the function of columns (arrays [n] by name) and n that computes a feature, float64 [n].

    Raises ConfigurationError for a text that holds something else than it may; what it returns raises InvalidInput
    for texts where numbers are needed.
    """
    check_name(computed.name, "feature function name")
    parsed = _parsed(computed)
    compiler = _Compiler(computed.name, set(computed.inputs))
    try:
        steps = [compiler.statement(each) for each in parsed.body]
    except RecursionError:
        raise _refused(computed.name, "its parts are nested too deeply", "Assign some of them to names.") from None
    inputs = computed.inputs

    def compute(columns: Arrays, rows: int) -> NDArray[np.float64]:
        values: dict[str, Any] = {name: columns[name] for name in inputs}
        with np.errstate(all="ignore"):
            for target, evaluate in steps:
                values[target] = evaluate(values)
            found = np.asarray(_number(computed.name, values[""]), np.float64)
        return found if found.shape == (rows,) else np.broadcast_to(found, (rows,))

    return compute


def request_column(values: Sequence[Any]) -> NDArray[Any]:
    """Return a request's column as a function gets it: float64, or objects if there are texts."""
    try:
        return np.array([_NAN if value is None else value + 0.0 for value in values], np.float64)
    except (TypeError, OverflowError):
        column = np.empty(len(values), object)
        column[:] = values
        return column


class _Compiler:
    """Compile the statements of one function; names become known as they are assigned."""

    def __init__(self, name: str, known: set[str]) -> None:
        self._name = name
        self._known = known
        self._returned = False

    def statement(self, node: ast.stmt) -> tuple[str, Evaluate]:
        """Return the name that a statement gives a value (“” for the result), and how it is computed."""
        if self._returned:
            raise self._refuse(node, "nothing may stand after the return")
        if isinstance(node, ast.Return) and node.value is not None:
            self._returned = True
            return "", self.expression(node.value)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            evaluate = self.expression(node.value)
            self._known.add(node.targets[0].id)
            return node.targets[0].id, evaluate
        raise self._refuse(node, "a function consists of assignments to names and one return")

    def expression(self, node: ast.expr) -> Evaluate:
        """Return how an expression is computed from values by name."""
        if isinstance(node, ast.Name):
            if node.id not in self._known:
                raise self._refuse(node, "this name is no parameter, no constant of the file, and was not assigned")
            return operator.itemgetter(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            number = np.float64(node.value)
            return lambda _: number
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self._apply(_BINARY[type(node.op)], [node.left, node.right])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Invert):
            calls = {ast.USub: np.negative, ast.UAdd: np.positive, ast.Invert: np.logical_not}
            return self._apply(calls[type(node.op)], [node.operand])
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return self._compare(node)
        if isinstance(node, ast.Attribute) and _is_numpy(node.value) and node.attr in _CONSTANTS:
            constant = np.float64(_CONSTANTS[node.attr])
            return lambda _: constant
        if isinstance(node, ast.Call) and not node.keywords:
            return self._call(node)
        raise self._refuse(node, "this is not among what a feature may be computed with")

    def _apply(self, function: Callable[..., Any], nodes: Sequence[ast.expr]) -> Evaluate:
        name = self._name
        parts = [self.expression(each) for each in nodes]
        if len(parts) == 1:
            (part,) = parts
            return lambda values: function(_number(name, part(values)))
        if len(parts) == 2:
            one, two = parts
            return lambda values: function(_number(name, one(values)), _number(name, two(values)))
        return lambda values: function(*(_number(name, part(values)) for part in parts))

    def _compare(self, node: ast.Compare) -> Evaluate:
        (right,), (op,) = node.comparators, node.ops
        compare = _COMPARE[type(op)]
        if isinstance(right, ast.Constant) and isinstance(right.value, str):
            if not isinstance(op, ast.Eq | ast.NotEq):
                raise self._refuse(node, "texts are equal or not, and nothing else")
            text, left, equal = right.value, self.expression(node.left), isinstance(op, ast.Eq)
            return lambda values: _is_text(left(values), (text,)) == equal
        return self._apply(compare, [node.left, right])

    def _call(self, node: ast.Call) -> Evaluate:
        name = self._function_name(node)
        if name == "where" and len(node.args) == 3:
            return self._apply(lambda *given: np.where(given[0] != 0, given[1], given[2]), node.args)
        if name == "clip" and len(node.args) == 3:
            return self._apply(np.clip, node.args)
        if name == "isin" and len(node.args) == 2:
            return self._isin(node)
        if name in _UFUNCS:
            function: Any = getattr(np, name)
            if len(node.args) == function.nin:
                return self._apply(function, node.args)
        raise self._refuse(node, "this call is not among those that a feature may be computed with")

    def _isin(self, node: ast.Call) -> Evaluate:
        column, members = node.args
        if not isinstance(members, ast.List | ast.Tuple):
            raise self._refuse(members, "np.isin needs a list of texts or of numbers, written out")
        known = [each.value for each in members.elts if isinstance(each, ast.Constant)]
        left = self.expression(column)
        if len(known) == len(members.elts) and all(isinstance(each, str) for each in known):
            texts = tuple(str(each) for each in known)
            return lambda values: _is_text(left(values), texts)
        if len(known) == len(members.elts) and all(isinstance(each, int | float) for each in known):
            numbers, name = np.array(known, np.float64), self._name
            return lambda values: np.isin(_number(name, left(values)), numbers)
        raise self._refuse(members, "np.isin needs a list of texts or of numbers, written out")

    def _function_name(self, node: ast.Call) -> str:
        if isinstance(node.func, ast.Attribute) and _is_numpy(node.func.value):
            return node.func.attr
        return "abs" if isinstance(node.func, ast.Name) and node.func.id == "abs" else ""

    def _refuse(self, node: ast.AST, why: str) -> ConfigurationError:
        said = ast.unparse(node).splitlines()[0][:80]
        inner: list[ast.AST] = [node, *ast.walk(node)]
        instead = next((_INSTEAD[type(each)] for each in inner if type(each) in _INSTEAD), None)
        mend = f"Write {instead} instead." if instead else f"Known functions: where, clip, isin, {', '.join(_UFUNCS)}."
        return _refused(self._name, f"line {getattr(node, 'lineno', 1)}: “{said}”: {why}", mend)


def _plain(parsed: ast.FunctionDef, constants: Mapping[str, Any]) -> ast.FunctionDef:
    """Return a function without decorators, annotations and docstring, and with constants in the place of their names.

    Comments and layout do not count either: what remains is what is computed.
    """
    own = {each.arg for each in parsed.args.args}
    own |= {each.id for each in ast.walk(parsed) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}

    class Constants(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:  # the name is the library's
            if isinstance(node.ctx, ast.Load) and node.id in constants and node.id not in own:
                return ast.copy_location(ast.Constant(constants[node.id]), node)
            return node

    parsed.decorator_list, parsed.returns = [], None
    for each in (*parsed.args.posonlyargs, *parsed.args.args, *parsed.args.kwonlyargs):
        each.annotation = None
    if parsed.body and isinstance(parsed.body[0], ast.Expr) and isinstance(parsed.body[0].value, ast.Constant):
        parsed.body = parsed.body[1:]
    return ast.fix_missing_locations(Constants().visit(parsed))


def _known_constants(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the numbers and texts among the names around a function."""
    try:
        found = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        return {}
    around = {**found.globals, **found.nonlocals}
    return {name: value for name, value in around.items() if type(value) in (int, float, str, bool)}


def _parsed(computed: Computed) -> ast.FunctionDef:
    name = computed.name
    if len(computed.source) > _LONGEST:
        raise _refused(name, f"its text is longer than {_LONGEST} characters", "Make it shorter.")
    try:
        body = ast.parse(computed.source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refused(name, "its text is no function", "Release the model again.") from None
    parsed = body[0] if len(body) == 1 else None
    if not isinstance(parsed, ast.FunctionDef) or parsed.decorator_list:
        raise _refused(name, "its text is no function", "Release the model again.")
    arguments = parsed.args
    names = tuple(each.arg for each in arguments.args)
    if (
        names != computed.inputs
        or parsed.name != name
        or not names
        or any((arguments.posonlyargs, arguments.kwonlyargs, arguments.vararg, arguments.kwarg, arguments.defaults))
    ):
        raise _refused(name, "its parameters are not just names of columns", "Name a column by each parameter.")
    if sum(1 for _ in ast.walk(parsed)) > _MOST_NODES:
        raise _refused(name, f"it has more than {_MOST_NODES} parts", "Make two features of it.")
    if not parsed.body or not isinstance(parsed.body[-1], ast.Return):
        raise _refused(name, "it does not end with a return", "Return the feature's value.")
    return parsed


def _is_numpy(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("np", "numpy")


def _is_text(column: Any, texts: tuple[str, ...]) -> NDArray[np.bool_]:
    """Tell which values are one of `texts`; a column of numbers has none."""
    found = np.zeros(np.shape(column), np.bool_)
    if _has_texts(column):
        for text in texts:
            found |= np.asarray(column == text, np.bool_)
    return found


def _has_texts(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind == "O"


def _number(name: str, value: Any) -> Any:
    if _has_texts(value):
        wrong = next((each for each in value.tolist() if isinstance(each, str)), value.tolist()[0])
        raise InvalidInput(
            f"The feature “{name}” cannot be computed of {wrong!r:.80}.",
            why="It needs a number there, or null.",
            mend="Correct the request.",
            facts={"feature": name},
        )
    return value


def _refused(name: str, why: str, mend: str) -> ConfigurationError:
    return ConfigurationError(
        f"The feature function “{name}” cannot be used.", why=f"{why[:1].upper()}{why[1:]}.", mend=mend
    )
