"""Who depends on a column of a dataset: feature sets that read it, and models that are defined on it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.errors import NotFound

_MOST = 1000


def dependents(connection: sa.Connection, project: str, dataset: str, columns: Sequence[str]) -> list[str]:
    """Return what depends on these columns: “model delay”, “features delay-features@3 (view weather)”.

    A view names a source and not its dataset, so a column of the same name in another dataset counts too: rather one
    too many than one too few.
    """
    wanted = frozenset(columns)
    found = list(_models(connection, project, dataset, wanted))
    for name in catalog.names(connection, project, "feature_view"):
        (newest,) = catalog.versions(connection, project, "feature_view", name, limit=1)
        readers = [reader for reader, read in _readers(newest.content) if read & wanted]
        if readers:
            found.append(f"features {newest.label} ({', '.join(readers)})")
    return found


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
