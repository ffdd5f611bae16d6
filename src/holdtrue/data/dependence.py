"""Who depends on a column of a dataset: feature sets that read it, and models defined on it or trained with it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.errors import NotFound

_SHOWN = 5


def dependents(connection: sa.Connection, project: str, dataset: str, columns: Sequence[str]) -> list[str]:
    """Return what depends on these columns: “features delay-features@3 (view weather)”, “model delay@3 (weather_temp)”.

    A view names a source and not its dataset, so a column of the same name in another dataset counts too: rather one
    too many than one too few.
    """
    wanted = frozenset(columns)
    found = list(_models(connection, project, dataset, wanted))
    affected: dict[str, str] = {}
    for name in catalog.names(connection, project, "feature_view"):
        (newest,) = catalog.versions(connection, project, "feature_view", name, limit=1)
        readers = [reader for reader, read in _readers(newest.content) if read & wanted]
        if readers:
            found.append(f"features {newest.label} ({', '.join(readers)})")
            affected[newest.id] = newest.label
    return [*found, *_trained(connection, project, dataset, wanted, affected)]


def _trained(
    connection: sa.Connection, project: str, dataset: str, wanted: frozenset[str], affected: Mapping[str, str]
) -> Iterator[str]:
    """Yield the newest models that were trained on these columns, or else on a feature set that reads them."""
    for model in catalog.names(connection, project, "model"):
        (newest,) = catalog.versions(connection, project, "model", model, limit=1)
        read = newest.content.get("columns") if isinstance(newest.content, Mapping) else None
        if isinstance(read, Mapping):
            uses = {use for column, found in read.get(dataset, {}).items() if column in wanted for use in found}
            through = sorted(uses - {"outcome"})
        else:
            made_of = {edge.source for edge in catalog.origins(connection, project, [newest.id])}
            through = [label for name, label in affected.items() if name in made_of]
        if through:
            more = f" and {len(through) - _SHOWN} more" if len(through) > _SHOWN else ""
            yield f"model {newest.label} ({', '.join(through[:_SHOWN])}{more})"


def _models(connection: sa.Connection, project: str, dataset: str, wanted: frozenset[str]) -> Iterator[str]:
    try:
        applied = catalog.find(connection, project, "config", project, alias="applied").content
    except NotFound:
        return
    for model in applied.get("models", ()):
        if model["dataset"] == dataset and wanted & {*re.findall(r"[A-Za-z_][A-Za-z0-9_]*", model["outcome"])}:
            yield f"model {model['name']} (its outcome)"
    for service in applied.get("services", ()):
        if wanted & {service.get("key"), service.get("entity"), service.get("prediction_time")}:
            yield f"service {service['name']}"


def _readers(content: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each part of a feature set with the columns it reads."""
    for view in content.get("views", ()):
        own = view.get("columns") or [view.get("column")]
        yield f"view {view['name']}", frozenset({*own, view["entity"], view["time"]})
    for each in content.get("expressions", ()):
        yield f"{each['kind']} {each['column']}", frozenset({each["column"]})
