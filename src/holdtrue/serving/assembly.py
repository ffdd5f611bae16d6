"""Prepare what a release needs before its model: the feature set that training used, and the contract."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import content_hash
from holdtrue.core.codec import load
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.data.contract import Contract
from holdtrue.data.online import Finding, compile_request
from holdtrue.features.model import View
from holdtrue.features.vector import FeatureSet
from holdtrue.serving.runtime import Model, numbered, refused
from holdtrue.serving.snapshot import DATATYPES, Bundle

Columns: TypeAlias = Mapping[str, list[Any]]
Lookup: TypeAlias = Callable[
    [Sequence[View], Mapping[str, Sequence[Any]], Sequence[int]], Mapping[str, NDArray[np.float64]]
]
Check: TypeAlias = Callable[[Columns], Sequence[Finding]]
Matrix: TypeAlias = NDArray[np.float32]

_ENTITIES: Final = frozenset(name for name in DATATYPES if name == "BYTES" or "INT" in name)
_MOMENTS: Final = frozenset({"hour_of_day", "day_of_week", "month"})


class FeaturesRefused(InvalidInput):
    """A release's features do not fit its model or its inputs."""

    code = "features_refused"


@dataclass(frozen=True, slots=True)
class Assembly:
    """Hold a compiled feature set.

    `make(columns, times, lookup)` returns the float32 matrix [rows, names]; `digest` names the set by its
    content, so that releases with equal sets share one matrix; `moments` are the inputs read as times.
    """

    digest: str
    names: tuple[str, ...]
    views: tuple[View, ...]
    moments: frozenset[str]
    make: Callable[[Columns, list[int], Lookup], Matrix]


def compile_assembly(bundle: Bundle, width: int) -> Assembly:
    """Compile the feature set of `bundle` for a model that takes `width` features; raise FeaturesRefused."""
    try:
        features = FeatureSet.from_json(bundle.features)
    except HoldtrueError as error:
        raise _refused(f"{error.what} {error.why}") from None
    names = features.names
    if len(names) != width:
        raise _refused(f"the model takes {width} features and the set makes {len(names)}")
    datatypes = {each.name: each.datatype for each in bundle.inputs}
    for name in features.inputs:
        if name not in datatypes:
            raise _refused(f"a feature needs the input {name}, which the service does not take")
    for view in features.views:
        if datatypes[view.entity] not in _ENTITIES:
            raise _refused(f"{view.entity} is {datatypes[view.entity]}; entities are texts or integers")
    for each in features.expressions:
        if each.kind == "numeric" and datatypes[each.column] == "BYTES":
            raise _refused(f"the feature {each.feature} is a number, and the input {each.column} is text")
    return Assembly(
        digest=content_hash(bundle.features),
        names=names,
        views=features.views,
        moments=frozenset(each.column for each in features.expressions if each.kind in _MOMENTS),
        make=_maker(features),
    )


def _maker(features: FeatureSet) -> Callable[[Columns, list[int], Lookup], Matrix]:
    views, assemble = features.views, features.assemble
    entities = tuple(dict.fromkeys(view.entity for view in views))

    def make(columns: Columns, times: list[int], lookup: Lookup) -> Matrix:
        online = lookup(views, {name: columns[name] for name in entities}, times) if views else {}
        return assemble(columns, online)

    return make


def check_classes(bundle: Bundle, model: Model) -> None:
    """Raise ModelRefused unless a model tells the classes apart that its release says, by number or by name."""
    if len(bundle.classes) != len(model.classes):
        raise refused(
            f"it tells {len(model.classes) or 'no'} classes apart, its release {len(bundle.classes) or 'none'}"
        )
    if model.classes not in (numbered(len(model.classes)), bundle.classes):
        # Read by the release's names, each probability would be that of another class.
        raise refused(f"it tells {', '.join(model.classes)[:200]} apart, its release {', '.join(bundle.classes)[:200]}")


def compile_check(bundle: Bundle) -> tuple[Check | None, frozenset[str]]:
    """Compile the contract of `bundle` for the columns a request has; also return those that are times.

    A contract describes the data set too, which has columns (the label) that no request can have.
    """
    if bundle.contract is None:
        return None, frozenset()
    names = {each.name for each in bundle.inputs}
    contract = load(Contract, bundle.contract, "The request contract")
    described = contract.only(tuple(column.name for column in contract.columns if column.name in names))
    columns = described.columns
    if not columns:
        return None, frozenset()
    moments = frozenset(column.name for column in columns if column.dtype == "timestamp")
    check = compile_request(described)
    if len(columns) == len(names):
        return check, moments
    known = frozenset(column.name for column in columns)

    def check_described(given: Columns) -> Sequence[Finding]:
        return check({name: values for name, values in given.items() if name in known})

    return check_described, moments


def _refused(why: str) -> FeaturesRefused:
    return FeaturesRefused(
        "The features of this release are not served.",
        why=f"{why[:1].upper()}{why[1:]}.".replace("..", "."),
        mend="Release the model again with the feature set it was trained on.",
    )
