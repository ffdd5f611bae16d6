"""The OpenAPI document of one service, made from the inputs of its release and from its contract."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from holdtrue._version import __version__
from holdtrue.core.codec import load
from holdtrue.data.contract import Column, Contract
from holdtrue.protocols.columns import LIMITS, MAX_ROWS
from holdtrue.serving import Bundle, Input, Plan

_LATEST: Final = 2**53
_ERRORS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "400": "The request is not what the service or its contract asks for.",
        "401": "No valid token.",
        "403": "The token may not predict.",
        "404": "There is no such service in this project.",
        "408": "The request was not done before its deadline.",
        "413": "The request is too large.",
        "422": "The id of a request for later is that of another one.",
        "429": "The token or the service is asked too often; Retry-After says when to try again.",
        "503": "The service cannot answer now; Retry-After says when to try again.",
    }
)


def document(service: str, plan: Plan) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `POST /predict/{service}` as the service takes it now."""
    row, answer = {"$ref": "#/components/schemas/Row"}, {"$ref": "#/components/schemas/Answer"}
    failure = {"content": _json({"$ref": "#/components/schemas/Error"})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": service,
            "version": "+".join(arm.release for arm in plan.route.arms),
            "description": f"Predictions of the service {service}, answered by Holdtrue {__version__}.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": {
            f"/predict/{service}": {
                "post": {
                    "operationId": "predict",
                    "summary": "Predict one row, or a list of rows",
                    "parameters": _parameters(),
                    "requestBody": {"required": True, "content": _json(_one_or_many(row))},
                    "responses": {
                        "200": {"description": "One answer for each row.", "content": _json(_one_or_many(answer))},
                        "202": {"description": "It will be answered later; Location says where."},
                        **{status: {"description": text, **failure} for status, text in _ERRORS.items()},
                    },
                }
            }
        },
        "components": {
            "schemas": {"Row": row_schema(plan), "Answer": _answer(plan.bundle), "Error": _error()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _parameters() -> list[dict[str, Any]]:
    """Return the headers that say more about a request; none is needed."""
    text, flag = {"type": "string"}, {"type": "string", "enum": ["true", "false"]}
    told: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("Idempotency-Key", text, "The same rows under the same key are recorded as the same predictions."),
        ("Prefer", {"type": "string", "enum": ["respond-async"]}, "Answer later: 202, and the result at Location."),
        ("X-Holdtrue-Contributions", flag, "Say what each feature contributed to the score."),
        ("X-Holdtrue-Environment", text, "The environment that is meant; without it the first that has the service."),
        ("X-Holdtrue-Sets", flag, "Say which outcomes the score leaves possible."),
        ("X-Request-Id", text, "The id under which the predictions are recorded."),
    )
    return [
        {"name": name, "in": "header", "required": False, "schema": schema, "description": words}
        for name, schema, words in told
    ]


def row_schema(plan: Plan) -> dict[str, Any]:
    """Return the JSON Schema of one row: what it accepts is what the service accepts, whole numbers aside.

    JSON Schema takes 1.0 for an integer; the service wants an integer written without a decimal point.
    """
    described: dict[str, Column] = {}
    if plan.bundle.contract is not None:
        contract = load(Contract, plan.bundle.contract, "The request contract")
        described = {column.name: column for column in contract.columns}
    moments = plan.moments | ({plan.bundle.prediction_time} - {None})
    properties = {
        each.name: _property(each, described.get(each.name), each.name in moments) for each in plan.bundle.inputs
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [each.name for each in plan.bundle.inputs],
        "additionalProperties": False,
    }


def _property(given: Input, column: Column | None, moment: bool) -> dict[str, Any]:
    if moment:
        if given.datatype == "BYTES":
            return {"type": "string", "format": "date-time"}
        return {
            "type": "integer",
            "minimum": 0,
            "maximum": _LATEST,
            "description": "Microseconds since 1970-01-01T00:00:00Z.",
        }
    kind = "string" if given.datatype == "BYTES" else "boolean" if given.datatype == "BOOL" else "integer"
    schema: dict[str, Any] = {"type": "number" if given.datatype[:2] == "FP" else kind}
    limits = LIMITS[given.datatype]
    if limits is not None:
        schema["minimum"], schema["maximum"] = limits
    # What only warns does not refuse a request; whether a column may be missing is a rule like the others.
    strict = column is not None and column.severity != "warn"
    if column is not None and strict:
        if column.ge is not None:
            schema["minimum"] = max(column.ge, schema.get("minimum", column.ge))
        if column.le is not None:
            schema["maximum"] = min(column.le, schema.get("maximum", column.le))
        if column.pattern is not None:
            schema["pattern"] = f"^(?:{column.pattern})$"
        if column.isin is not None:
            schema["enum"] = [*column.isin]
    if not strict or (column is not None and column.nullable):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _answer(bundle: Bundle) -> dict[str, Any]:
    text, output, classes = {"type": "string"}, bundle.output, [*bundle.classes]
    said: dict[str, Any] = {**text, "enum": classes} if classes else {"type": "number"}
    chances = {
        "type": ["object", "null"],
        "properties": {name: {"type": "number"} for name in classes},
        "description": "The probability of each class; null where no model answered.",
    }
    return {
        "type": "object",
        "properties": {
            "outputs": {"type": "object", "properties": {output: said}, "required": [output]},
            **({"probabilities": chances} if classes else {}),
            "prediction_id": {**text, "description": "What labels, feedback and `holdtrue why` name it by."},
            "release": {**text, "description": "The release that answered."},
            "arm": {**text, "description": "The arm of the rollout that answered."},
            "fallback": {"type": "boolean", "description": "Whether something else answered because the model failed."},
            "abstained": {"type": "boolean", "description": "Whether the score is too near the line to decide by."},
            "set": {
                "type": ["array", "null"],
                "items": {**text, "enum": classes} if classes else {"type": "integer"},
                "description": "Outcomes that are possible.",
            },
            "contributions": {"type": ["object", "null"], "description": "What each feature contributed to the score."},
        },
        "required": ["outputs", "prediction_id", "release", "arm"],
    }


def _error() -> dict[str, Any]:
    fields = {name: {"type": "string"} for name in ("code", "what", "why", "mend")}
    inner = {"type": "object", "properties": {**fields, "facts": {"type": "object"}}, "required": ["code", "what"]}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"]}


def _one_or_many(schema: dict[str, str]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "array", "items": schema, "minItems": 1, "maxItems": MAX_ROWS}]}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
