"""What holds for the whole protocol: addresses, error codes, how fields are read."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from holdtrue.core.errors import (
    Conflict,
    Forbidden,
    HoldtrueError,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from holdtrue.door import Dialect
from holdtrue.tracking import NameTaken, Pair, View, rules
from holdtrue.tracking.registry import NoAlias

Fields = dict[str, Any]

ANSWERS_AS: Final = "3.17.2"
"""The version of MLflow whose protocol this is, and what /version says."""

# The code that clients know each kind of refusal by, and the status it travels with.
_CODES: tuple[tuple[type[HoldtrueError], str, int], ...] = (
    (NameTaken, "RESOURCE_ALREADY_EXISTS", 400),
    (Unauthenticated, "UNAUTHENTICATED", 401),
    (Forbidden, "PERMISSION_DENIED", 403),
    (NoAlias, "INVALID_PARAMETER_VALUE", 400),
    (NotFound, "RESOURCE_DOES_NOT_EXIST", 404),
    (InvalidInput, "INVALID_PARAMETER_VALUE", 400),
    (Unavailable, "TEMPORARILY_UNAVAILABLE", 503),
    (Conflict, "INVALID_STATE", 409),
)
_BY_STATUS: Mapping[int, str] = MappingProxyType(
    {405: "ENDPOINT_NOT_FOUND", 413: "INVALID_PARAMETER_VALUE", 415: "BAD_REQUEST", 421: "BAD_REQUEST",
     422: "INVALID_PARAMETER_VALUE", 429: "REQUEST_LIMIT_EXCEEDED", 431: "BAD_REQUEST", 501: "NOT_IMPLEMENTED",
     507: "RESOURCE_EXHAUSTED"}
)  # fmt: skip

# What MLflow's own server has for its pages and gateway. Prefixes after /api/2.0/mlflow/ and /api/3.0/mlflow/.
_UNSERVED: Mapping[str, str] = MappingProxyType(
    {
        "artifacts/presigned": "presigned addresses of artifacts",
        "traces/calculate-filter-correlation": "correlations of traces",
        "unified-traces": "unified traces",
        "get-online-trace-details": "online traces",
        "workspaces": "workspaces",
        "issues": "issues",
        "label-schemas": "label schemas",
        "scorers/online-config": "scorers that a server runs",
        "gateway/": "MLflow's gateway",
        "prompt-optimization/": "jobs that optimise prompts",
        "review-queues": "review queues",
        "jobs": "jobs",
        "webhooks": "webhooks",
        "mcp-servers": "MLflow's list of MCP servers",
    }
)


def error_form(error: HoldtrueError) -> tuple[int, Any]:
    """Return an error as MLflow's clients read it: code, and the whole message with reason and mend."""
    code, status = "INTERNAL_ERROR", error.status
    for kind, known, travels in _CODES:
        if isinstance(error, kind):
            code, status = known, travels
            break
    else:
        code = _BY_STATUS.get(error.status, code)
    return status, {"error_code": code, "message": str(error)}


MLFLOW: Final = Dialect(
    name="mlflow",
    prefixes=(
        "/api/2.0/mlflow/",
        "/api/3.0/mlflow/",
        "/api/2.0/mlflow-artifacts/",
        "/ajax-api/2.0/",
        "/ajax-api/3.0/",
        "/version",
        "/v1/traces",
    ),
    error=error_form,
    aliases=MappingProxyType({"/ajax-api/": "/api/"}),
    escaped=(
        "/api/2.0/mlflow-artifacts/",
        "/ajax-api/2.0/mlflow-artifacts/",
        "/api/2.0/mlflow/logged-models/",
        "/api/3.0/mlflow/datasets/",
    ),
    fallback="default",
    unserved=MappingProxyType(
        {f"/api/{version}/mlflow/{name}": what for name, what in _UNSERVED.items() for version in ("2.0", "3.0")}
        | {
            "/api/2.0/mlflow-artifacts/presigned": _UNSERVED["artifacts/presigned"],
            "/api/2.0/mlflow/traces": "traces of MLflow's version 2",
        }
    ),
)


def text(body: Fields, name: str, default: str | None = None) -> str:
    """Return a field that is text; without a `default` it must be there."""
    value = body.get(name)
    if value is None:
        value = default
    if value is None or (value == "" and default is None):
        raise InvalidInput(f"Missing value for required parameter '{name}'.")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise InvalidInput(f"Invalid value for parameter '{name}' supplied.", why="It must be text.")
    return value


def run_id(body: Fields) -> str:
    """Return the id of the run a request is about, under its present or its old name."""
    return rules.check_run_id(body.get("run_id") or body.get("run_uuid"))


def whole(body: Fields, name: str, default: int) -> int:
    """Return a field that is a whole number."""
    value = body.get(name)
    return rules.whole(default if value in (None, "") else value, name)


def flag(body: Fields, name: str) -> bool:
    """Return a field that is true or false."""
    return body.get(name) in (True, "true", "True", 1)


def several(body: Fields, name: str) -> list[Any]:
    """Return a field that is a list; a query gives a list of one as its only value."""
    value = body.get(name)
    if value is None:
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        raise InvalidInput(f"Invalid value for parameter '{name}' supplied.", why="It must be a list.")
    return [value]


def texts(body: Fields, name: str) -> list[str]:
    """Return a field that is a list of texts."""
    found = several(body, name)
    if not all(isinstance(each, str) for each in found):
        raise InvalidInput(f"Invalid value for parameter '{name}' supplied.", why="It must be a list of texts.")
    return found


def objects(body: Fields, name: str) -> list[Fields]:
    """Return a field that is a list of objects."""
    found = body.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not set(map(type, found)) <= {dict}:
        raise InvalidInput(f"Invalid value for parameter '{name}' supplied.", why="It must be a list of objects.")
    return found


def tags_of(body: Fields, limit: int, name: str = "tags") -> tuple[Pair, ...]:
    """Return a list of tags."""
    return tuple(
        rules.pair(each.get("key"), each.get("value"), limit, f"{name}[{place}]")
        for place, each in enumerate(objects(body, name))
    )


def view_of(body: Fields, name: str) -> View:
    """Return which lifecycles are asked for."""
    value = body.get(name)
    views: Mapping[Any, View] = {
        None: "active", "": "active", "ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all",
        1: "active", 2: "deleted", 3: "all", "1": "active", "2": "deleted", "3": "all",
    }  # fmt: skip
    if isinstance(value, str | int | None) and value in views:
        return views[value]
    raise InvalidInput(
        f"Invalid value {str(value)[:80]!r} for parameter '{name}' supplied.",
        why="It must be ACTIVE_ONLY, DELETED_ONLY or ALL.",
    )


def number_json(value: float, nan: int) -> float | str:
    """Return a double as the protocol's JSON writes it."""
    return "NaN" if nan or math.isnan(value) else value


def pairs_json(pairs: tuple[Pair, ...]) -> list[dict[str, str]]:
    """Return parameters or tags as the protocol writes them."""
    return [{"key": key, "value": value} for key, value in pairs]
