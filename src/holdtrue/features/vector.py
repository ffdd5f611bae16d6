"""The order of a model's features, and how a row of them is put together on either side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import InvalidInput
from holdtrue.features.model import OnDemand, View

if TYPE_CHECKING:
    import pyarrow as pa

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Hold the features of a model: first the expressions over the request, then the views, in order.

    `vocabularies` maps a category's column to its known texts, sorted.
    """

    views: tuple[View, ...]
    expressions: tuple[OnDemand, ...]
    vocabularies: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all features in the order of the matrix's columns."""
        looked_up = tuple(name for view in self.views for name in view.features)
        return tuple(each.feature for each in self.expressions) + looked_up

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the request columns that are needed: of expressions, and entities of views."""
        used = [each.column for each in self.expressions] + [view.entity for view in self.views]
        return tuple(dict.fromkeys(used))

    @classmethod
    def fit(cls, views: Sequence[View], expressions: Sequence[OnDemand], table: "pa.Table") -> "FeatureSet":
        """Fit the vocabularies of categories on the rows of `table`."""
        names = {each.column for each in expressions if each.kind == "category"}
        vocabularies = {
            name: tuple(sorted(value for value in table[name].unique().to_pylist() if value is not None))
            for name in sorted(names)
        }
        return cls(tuple(views), tuple(expressions), vocabularies)

    @classmethod
    def from_json(cls, data: Any) -> "FeatureSet":
        """Build a feature set from its JSON; an unknown key raises ConfigurationError."""
        return load(cls, data, "The feature set")

    def to_json(self) -> Any:
        """Return the content of a feature view's version."""
        return dump(self)

    def assemble(
        self, columns: Mapping[str, Sequence[Any]], online: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """Return float32 [n, features] from request columns and looked-up values, float64 [n] each.

        Moments are int64 microseconds since the epoch. A missing value becomes NaN.
        """
        rows = len(next(iter(columns.values()))) if columns else 0
        matrix = np.empty((rows, len(self.names)), np.float32)
        place = 0
        for each in self.expressions:
            matrix[:, place] = self._expression(each, columns[each.column])
            place += 1
        for view in self.views:
            for name in view.features:
                matrix[:, place] = online[name]
                place += 1
        return matrix

    def assemble_table(self, table: "pa.Table") -> NDArray[np.float32]:
        """Return float32 [n, features] from a table that has the request columns and the views' features."""
        missing = [
            name
            for name in (*self.inputs, *self.names[len(self.expressions) :])
            if name not in table.column_names
        ]
        if missing:
            raise InvalidInput(
                f"The column “{missing[0]}”, which a feature needs, is not in the table.",
                why=f"The table has: {', '.join(table.column_names)}.",
                mend="Join the feature views first, and keep the request's columns.",
            )
        columns = {each.column: plain(table[each.column]) for each in self.expressions}
        if not columns:
            columns = {"": [None] * table.num_rows}
        looked_up = {
            name: table[name].cast("float64").to_numpy(zero_copy_only=False)
            for view in self.views
            for name in view.features
        }
        return self.assemble(columns, looked_up)

    def _expression(self, each: OnDemand, values: Sequence[Any]) -> Any:
        if each.kind == "category":
            places = _places(self.vocabularies[each.column])
            return [places.get(value, -1) for value in values]
        if each.kind == "numeric":
            return np.array([np.nan if value is None else value for value in values], np.float64)
        return _moment(each, values)


@lru_cache(maxsize=256)
def _places(vocabulary: tuple[str, ...]) -> dict[str, int]:
    return {text: place for place, text in enumerate(vocabulary)}


def plain(column: "pa.ChunkedArray") -> list[Any]:
    """Return an Arrow column as plain Python values, moments as microseconds since the epoch."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    return column.to_pylist()


def _moment(each: OnDemand, values: Sequence[Any]) -> NDArray[np.float64]:
    known = np.array([value is not None for value in values], bool)
    moments = np.array([0 if value is None else value for value in values], np.int64)
    local = moments + each.zone_hours * _HOUR
    if each.kind == "hour_of_day":
        part = (local % _DAY) // _HOUR
    elif each.kind == "day_of_week":
        # 1 January 1970 was a Thursday, the third day after Monday.
        part = (local // _DAY + 3) % 7
    else:
        part = local.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    return np.where(known, part.astype(np.float64), np.nan)
