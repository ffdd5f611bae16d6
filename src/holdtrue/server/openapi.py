"""The API's description, made from the same declarations that serve it."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from holdtrue._version import __version__
from holdtrue.door import Route

_ERROR = {"$ref": "#/components/schemas/Error"}


def describe_api(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all JSON routes."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": _error_schema()}
    for route in sorted(routes, key=lambda each: (each.path, each.method)):
        if route.kind == "json":
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdtrue", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    public = route.permission == "public"
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.room],
        "operationId": f"{route.room}.{route.handler.__name__}",
        "security": [] if public else [{"token": []}],
        "x-permission": str(route.permission),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{([a-z_]+)(?::path)?\}", route.path)
        ],
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": {}}}},
            "default": {"description": "Refused.", "content": {"application/json": {"schema": _ERROR}}},
        },
    }
    if route.method != "GET":
        operation["parameters"].append(
            {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string"}}
        )
    if route.body is not None:
        schema = TypeAdapter(route.body).json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    fields = {
        "code": text,
        "what": text,
        "why": text,
        "mend": text,
        "facts": {"type": "object"},
        "request_id": text,
    }
    return {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": ["code", "what"], "properties": fields}},
    }
