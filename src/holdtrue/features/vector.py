"""The order of a model's features, and how a row of them is put together on either side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.features.functions import compile_function, request_column
from holdtrue.features.model import Computed, OnDemand, View

if TYPE_CHECKING:
    import pyarrow as pa

Compute: TypeAlias = Callable[[Sequence[Any]], list[float]]

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_NAN = float("nan")
_FEW = 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# Not slotted: what is compiled from the definition is kept beside it.
@dataclass(frozen=True)
class FeatureSet:
    """Hold the features of a model: expressions and functions over the request first, then the views, in order.

    `vocabularies` maps a category's column to its known texts, sorted.
    """

    views: tuple[View, ...]
    expressions: tuple[OnDemand, ...]
    vocabularies: dict[str, tuple[str, ...]]
    functions: tuple[Computed, ...] = ()

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"Two features have the name “{twice[0]}”.",
                why="A feature's name is made of its view or column and what is taken of it.",
                mend="Rename a view, or leave one of the two out.",
            )
        # Compiled here, so that a text that cannot be is refused where the set is read, and not at the first request.
        assert len(self._functions) == len(self.functions)
        for each in self.expressions:
            if each.kind == "category" and each.column not in self.vocabularies:
                raise ConfigurationError(
                    f"The category “{each.column}” has no vocabulary.",
                    why="A category becomes its place among the texts seen in training.",
                    mend="Make the set with FeatureSet.fit(views, expressions, training_rows).",
                )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of all features in the order of the matrix's columns."""
        looked_up = tuple(name for view in self.views for name in view.features)
        return tuple(each.feature for each in (*self.expressions, *self.functions)) + looked_up

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the request columns that are needed: of expressions and functions, and entities of views."""
        return tuple(dict.fromkeys((*self._read, *(view.entity for view in self.views))))

    @cached_property
    def _read(self) -> tuple[str, ...]:
        return (*(each.column for each in self.expressions), *(name for each in self.functions for name in each.inputs))

    @classmethod
    def fit(
        cls,
        views: Sequence[View],
        expressions: Sequence[OnDemand],
        table: "pa.Table",
        functions: Sequence[Computed] = (),
    ) -> "FeatureSet":
        """Fit the vocabularies of categories on the rows of `table`."""
        names = {each.column for each in expressions if each.kind == "category"}
        vocabularies = {
            name: tuple(sorted(value for value in table[name].unique().to_pylist() if value is not None))
            for name in sorted(names)
        }
        return cls(tuple(views), tuple(expressions), vocabularies, tuple(functions))

    @classmethod
    def from_json(cls, data: Any) -> "FeatureSet":
        """Build a feature set from its JSON; an unknown key raises ConfigurationError."""
        return load(cls, data, "The feature set")

    def to_json(self) -> Any:
        """Return the content of a feature view's version; what a view leaves open is not in it."""
        content = dump(self)
        views = [{name: value for name, value in view.items() if value is not None} for view in content["views"]]
        if not self.functions:
            del content["functions"]
        return {**content, "views": views}

    def assemble(
        self, columns: Mapping[str, Sequence[Any]], online: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """Return float32 [n, features] from request columns and looked-up values, float64 [n] each.

        Moments are int64 microseconds since the epoch. A missing value becomes NaN, a category that training
        had not -1. Raises InvalidInput naming the column whose values cannot be used.
        """
        rows = len(next(iter(columns.values()))) if columns else 0
        computed: list[Any] = [_computed(each, columns[each.column], compute) for each, compute in self._computes]
        if self.functions:
            given = {name: request_column(columns[name]) for each in self.functions for name in each.inputs}
            computed += [function(given, rows) for function in self._functions]
        if rows != 1:
            return self._stacked(computed, online, rows)
        looked_up = [online[name][0] for view in self.views for name in view.features]
        row = np.array([values[0] for values in computed] + looked_up, np.float64)
        with np.errstate(over="ignore"):
            return row.astype(np.float32).reshape(1, -1)

    def assemble_table(self, table: "pa.Table") -> NDArray[np.float32]:
        """Return float32 [n, features] from a table that has the request columns and the views' features."""
        looked_up = self.names[len(self.expressions) + len(self.functions) :]
        missing = [name for name in (*self._read, *looked_up) if name not in table.column_names]
        if missing:
            raise InvalidInput(
                f"The column “{missing[0]}”, which a feature needs, is not in the table.",
                why=f"The table has: {', '.join(table.column_names)}.",
                mend="Join the feature views first, and keep the request's columns.",
                facts={"column": missing[0]},
            )
        computed: list[Any] = [_computed_column(each, table[each.column], compute) for each, compute in self._computes]
        given = {name: _array(table[name]) for each in self.functions for name in each.inputs}
        computed += [function(given, table.num_rows) for function in self._functions]
        found = {name: table[name].cast("float64").fill_null(_NAN).to_numpy(zero_copy_only=False) for name in looked_up}
        return self._stacked(computed, found, table.num_rows)

    def _stacked(
        self, computed: Sequence[Any], looked_up: Mapping[str, NDArray[np.float64]], rows: int
    ) -> NDArray[np.float32]:
        matrix = np.empty((rows, len(self.names)), np.float32)
        # What is too large for a float32 becomes infinite, on both sides.
        with np.errstate(over="ignore"):
            if computed and rows <= _FEW:
                # All at once: a conversion for each costs more than the numbers in it.
                matrix[:, : len(computed)] = np.array(computed, np.float64).T
            else:
                for place, values in enumerate(computed):
                    matrix[:, place] = np.asarray(values, np.float64)
            for place, name in enumerate(self.names[len(computed) :], len(computed)):
                matrix[:, place] = looked_up[name]
        return matrix

    @cached_property
    def _computes(self) -> tuple[tuple[OnDemand, Compute], ...]:
        return tuple((each, _compile(each, self.vocabularies)) for each in self.expressions)

    @cached_property
    def _functions(self) -> tuple[Callable[..., NDArray[np.float64]], ...]:
        return tuple(map(compile_function, self.functions))


def _array(column: "pa.ChunkedArray") -> NDArray[Any]:
    """Return a column as a function gets it: float64, or objects if it holds texts."""
    import pyarrow as pa

    kind: Any = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column, kind = column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()), pa.int64()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.cast(pa.float64(), safe=False).fill_null(_NAN).to_numpy()
    return request_column(plain(column))


def plain(column: "pa.ChunkedArray | pa.Array[Any]") -> list[Any]:
    """Return an Arrow column as plain Python values, moments as microseconds since the epoch."""
    import pyarrow as pa

    kind: Any = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise InvalidInput(
                "A column of moments has no time zone.",
                why="The same clock time is another moment in another zone.",
                mend="Say in which zone its values are, for example with DuckDB: timezone('UTC', column).",
            )
        column = column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
    return column.to_pylist()


def _computed(each: OnDemand, values: Sequence[Any], compute: Compute) -> list[float]:
    try:
        return compute(values)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(
            f"The column “{each.column}” has a value that cannot be used.",
            why=f"The feature “{each.feature}” needs a {_NEEDS[each.kind]} in each row, or null.",
            mend="Correct the request.",
            facts={"column": each.column, "feature": each.feature},
        ) from None


def _computed_column(each: OnDemand, column: "pa.ChunkedArray", compute: Compute) -> NDArray[np.float64]:
    """Return float64 [n]: the function of each distinct value, put where it occurs."""
    import pyarrow as pa

    kind: Any = column.type
    if each.kind == "numeric" and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return column.cast(pa.float64(), safe=False).fill_null(_NAN).to_numpy()
    if pa.types.is_null(kind):
        return np.full(len(column), _NAN)
    encoded = column.combine_chunks().dictionary_encode()
    values = np.array([*_computed(each, plain(encoded.dictionary), compute), _NAN], np.float64)
    return values[encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)]


def _compile(each: OnDemand, vocabularies: Mapping[str, Sequence[str]]) -> Compute:
    """Return the function of a column's values; both sides use it, so that they cannot differ."""
    shift = each.zone_hours * _HOUR
    if each.kind == "category":
        # None is in the table of places, so that a missing text stays missing and is not a new one.
        places: dict[Any, float] = {text: float(place) for place, text in enumerate(vocabularies[each.column])}
        places[None] = _NAN
        return lambda values: [places.get(value, -1.0) for value in values]
    if each.kind == "numeric":
        return lambda values: [_NAN if value is None else value + 0.0 for value in values]
    if each.kind == "hour_of_day":
        return lambda values: [_NAN if value is None else (value + shift) % _DAY // _HOUR + 0.0 for value in values]
    if each.kind == "day_of_week":
        # 1 January 1970 was a Thursday, the third day after Monday.
        return lambda values: [_NAN if value is None else ((value + shift) // _DAY + 3) % 7 + 0.0 for value in values]

    def months(values: Sequence[Any]) -> list[float]:
        return [_NAN if value is None else (_EPOCH + (value + shift) * _MICROSECOND).month + 0.0 for value in values]

    return months


_NEEDS: Mapping[str, str] = {
    "category": "text",
    "numeric": "number",
    "hour_of_day": "moment in microseconds",
    "day_of_week": "moment in microseconds",
    "month": "moment in microseconds",
}
