"""Which columns of which dataset flow into a model: through views, expressions, its outcome, and its own function.

A source's function is any query; what a column of its answer is made of is asked of DuckDB itself: it plans the query
for that column alone, and says which columns it would read. Where that cannot be told, all columns count as read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any, Final

import duckdb

from holdtrue.data import DatasetSpec
from holdtrue.features import Latest, View
from holdtrue.project.definitions import Model, Project, Source

OUTCOME: Final = "outcome"
ROWS: Final = "training rows"
_TYPES: Final = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
}
_TABLE: Final = "read_rows"
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of all optimisers the one that leaves out unused columns is wanted; others may leave out a scan of an empty table.
_OFF: Final = "statistics_propagation,filter_pushdown,filter_pullup,empty_result_pullup"


def columns_of(project: Project, model: Model) -> dict[str, dict[str, list[str]]]:
    """Return by dataset each column that a model is trained on, with what it is used for: feature names, outcome."""
    found: dict[str, dict[str, set[str]]] = {}

    def add(dataset: str, columns: Iterable[str], uses: Iterable[str]) -> None:
        for column in columns:
            found.setdefault(dataset, {}).setdefault(column, set()).update(uses)

    spec = model.dataset.spec
    for each in model.expressions:
        add(spec.name, [each.column], [each.feature])
    for each in getattr(model, "functions", ()):
        add(spec.name, each.inputs, [each.feature])
    known = [column.name for column in spec.contract.columns]
    words = set(_WORD.findall(model.outcome))
    add(spec.name, [name for name in known if name in words], [OUTCOME])
    if _reads_rows(model.fit.__code__ if hasattr(model.fit, "__code__") else None):
        add(spec.name, known, [ROWS])
    for view in model.views:
        add(spec.name, [view.entity, model.time], view.features)
        source = project.sources[view.source]
        made = origins(source)
        for name, uses in _read_of(view):
            add(source.dataset.spec.name, made.get(name, ()), uses)
    return {
        dataset: {column: sorted(uses) for column, uses in sorted(columns.items())}
        for dataset, columns in sorted(found.items())
    }


def _read_of(view: View) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each column of its source that a view reads, with the features it is read for."""
    for name in (view.entity, *getattr(view, "moments", (view.time,))):
        yield name, view.features
    if isinstance(view, Latest):
        for column in view.columns:
            own = f"{view.name}_{column}"
            yield column, [own] if own in view.features else view.features
    else:
        yield view.column, view.features


def origins(source: Source) -> Mapping[str, frozenset[str]]:
    """Return of which columns of its dataset each column of a source is made."""
    spec = source.dataset.spec
    everything = frozenset(column.name for column in spec.contract.columns)
    if getattr(source, "takes", "relation") != "relation":
        return _Everything(everything)
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET disabled_optimizers = '{_OFF}'")
        connection.execute(_definition(spec))
        given = connection.table(_TABLE)
        made = source.select(given)
        rows: Any = given.query("rows", made) if isinstance(made, str) else made
        return {name: _read(connection, rows, name, everything) for name in rows.columns}
    except Exception:  # noqa: BLE001  # the user's own function met a table without rows, or is no query
        return _Everything(everything)
    finally:
        connection.close()


class _Everything(Mapping[str, frozenset[str]]):
    """Say of every name that it is made of all columns."""

    def __init__(self, columns: frozenset[str]) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> frozenset[str]:
        return self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _definition(spec: DatasetSpec) -> str:
    columns = ", ".join(f"{_quoted(column.name)} {_TYPES[column.dtype]}" for column in spec.contract.columns)
    return f"CREATE TABLE {_TABLE} ({columns})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _read(connection: Any, rows: Any, name: str, everything: frozenset[str]) -> frozenset[str]:
    query = rows.select(duckdb.ColumnExpression(name)).sql_query()
    plan = json.loads(connection.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchall()[0][1])
    found: set[str] = set()
    for leaf in _leaves(plan):
        told = leaf.get("extra_info", {})
        if str(told.get("Table", "")).rpartition(".")[2] == _TABLE:
            projections = told.get("Projections") or []
            found.update([projections] if isinstance(projections, str) else projections)
        elif leaf.get("name") not in ("DUMMY_SCAN", "EMPTY_RESULT"):
            # Rows that a function made of these rows by itself, or brought along.
            return everything
    return frozenset(found) & everything


def _leaves(plan: Any) -> Iterator[Mapping[str, Any]]:
    for node in plan if isinstance(plan, list) else [plan]:
        if node.get("children"):
            yield from _leaves(node["children"])
        else:
            yield node


def _reads_rows(code: CodeType | None) -> bool:
    """Tell whether a training function looks at the rows themselves; one that cannot be looked into may."""
    if code is None:
        return True
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return "rows" in code.co_names or any(_reads_rows(each) for each in inner)
