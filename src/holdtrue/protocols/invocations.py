"""`POST /invocations` as MLflow's scoring server has it: JSON in four shapes or CSV in, predictions out.

What MLflow's server takes silently and a model cannot use (columns that are unknown, values of another
datatype) is refused here, as under every other protocol.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError
from holdtrue.protocols.bodies import UnsupportedMedia
from holdtrue.protocols.columns import BadRequest, Columns, first, from_csv, from_records, from_rows
from holdtrue.protocols.named import answer_columns, body_of, plan_of
from holdtrue.serving import Bundle, Endpoint, Engine, Reply, Request
from holdtrue.serving.possible import said
from holdtrue.serving.readiness import readiness

PATH: Final = "/invocations"
_FORMATS: Final = frozenset({"dataframe_split", "dataframe_records", "instances", "inputs"})
_SPLIT: Final = frozenset({"columns", "index", "data"})
_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "BAD_REQUEST",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "RESOURCE_DOES_NOT_EXIST",
        405: "ENDPOINT_NOT_FOUND",
        408: "DEADLINE_EXCEEDED",
        413: "INVALID_PARAMETER_VALUE",
        415: "BAD_REQUEST",
        421: "BAD_REQUEST",
        429: "REQUEST_LIMIT_EXCEEDED",
        503: "TEMPORARILY_UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
)


def endpoints(engine: Engine) -> tuple[Endpoint, ...]:
    """Return the endpoints over `engine`; all of them need the permission to predict."""
    routes = _Routes(engine)
    paths = (PATH, f"{PATH}/{{service}}", f"{PATH}/{{service}}/versions/{{release}}")
    return (
        Endpoint("GET", "/ping", Permission.PREDICT, routes.ping),
        *(Endpoint("POST", path, Permission.PREDICT, routes.invoke, deferrable=True) for path in paths),
    )


def error_body(error: HoldtrueError) -> bytes:
    """Return MLflow's form of an error."""
    return orjson.dumps({"error_code": _CODES.get(error.status, "INTERNAL_ERROR"), "message": str(error)})


class _Routes:
    """Answer over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ping(self, _request: Request) -> Reply:
        status, _ = readiness(self._engine.table, self._engine.unread, None)
        return Reply(status, b"\n")

    async def invoke(self, request: Request) -> Reply:
        plan = await plan_of(self._engine, request)
        columns = parse_invocation(body_of(request), request.headers.get(b"content-type", b""), plan.bundle)
        answer = await answer_columns(self._engine, request, plan, columns)
        found: dict[str, Any] = {
            "predictions": said(plan.bundle, answer),
            "prediction_ids": answer.ids,
            "releases": answer.releases,
            "arms": answer.arms,
        }
        if plan.bundle.classes:
            found["classes"] = plan.bundle.classes
            found["probabilities"] = answer.chances or [None] * len(answer.ids)
        if answer.fallback is not None:
            found["fallback"] = answer.fallback
        if answer.abstained is not None:
            found["abstained"] = answer.abstained
        if answer.sets is not None:
            found["sets"] = answer.sets
        if answer.contributions is not None:
            found["contributions"] = answer.contributions
        return Reply(200, orjson.dumps(found))


def parse_invocation(body: bytes, media: bytes, bundle: Bundle) -> Columns:
    """Return the columns of an invocation's body, unchecked; raise BadRequest, TooLarge or UnsupportedMedia."""
    kind = _media(media)
    if kind == "text/csv":
        try:
            return from_csv(body.decode(), bundle)
        except UnicodeDecodeError:
            raise BadRequest("The body is not UTF-8.") from None
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}") from None
    if type(asked) is not dict or len(asked.keys() & _FORMATS) != 1:
        raise BadRequest(f"The body must be a JSON object with exactly one of {', '.join(sorted(_FORMATS))}.")
    unknown = asked.keys() - _FORMATS - {"params"}
    if unknown:
        raise BadRequest(f"Unknown field {first(unknown)} in the request.")
    if asked.get("params"):
        raise BadRequest("The service takes no params.")
    ((name, value),) = ((name, value) for name, value in asked.items() if name in _FORMATS)
    if name == "dataframe_split":
        return _split(value)
    if name == "dataframe_records":
        return from_records(value, name)
    if name == "inputs":
        return _inputs(value, bundle)
    return _listed(value, name, bundle)


def _media(header: bytes) -> str:
    media, *parameters = [part.strip().lower() for part in header.decode("latin-1").split(";")]
    if media not in ("application/json", "text/csv"):
        raise _unsupported(f"It is {media[:60] or 'not given'}; application/json and text/csv are read.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset" or value.strip('"') != "utf-8":
            raise _unsupported(f"Its parameter {parameter[:60]} is not charset=utf-8.")
    return media


def _split(value: Any) -> Columns:
    if type(value) is not dict or not value.keys() <= _SPLIT or "data" not in value:
        raise BadRequest("dataframe_split must be an object of columns, index and data.")
    names = value.get("columns")
    if type(names) is not list or not all(type(name) is str for name in names):
        raise BadRequest("The columns of dataframe_split must be a list of names.")
    if len(set(names)) != len(names):
        raise BadRequest("A column of dataframe_split is there twice.")
    columns = from_rows(names, value["data"], "dataframe_split")
    index = value.get("index")
    if index is not None and (type(index) is not list or len(index) != len(value["data"])):
        raise BadRequest("The index of dataframe_split is not a list with an entry for each row.")
    return columns


def _inputs(value: Any, bundle: Bundle) -> Columns:
    """Return the columns of `inputs`: an object of lists (or of values, for one row), or rows without names."""
    if type(value) is not dict:
        return _listed(value, "inputs", bundle)
    if not value:
        raise BadRequest("inputs is empty.")
    listed = [type(values) is list for values in value.values()]
    if not any(listed):
        return {name: [one] for name, one in value.items()}
    if not all(listed):
        raise BadRequest("Some of inputs are lists and others are not.")
    return {name: _flat(name, values) for name, values in value.items()}


def _flat(name: str, values: list[Any]) -> list[Any]:
    """Return the values of a column that may be written with the shape [rows, 1]."""
    if any(type(value) is list for value in values):
        if not all(type(value) is list and len(value) == 1 for value in values):
            raise BadRequest(f"The input {first([name])} must have the shape [rows] or [rows, 1].")
        return [value[0] for value in values]
    return values


def _listed(value: Any, where: str, bundle: Bundle) -> Columns:
    """Return the columns of a list of objects with names, or of rows in the order of the service's inputs."""
    if type(value) is list and value and type(value[0]) is dict:
        return from_records(value, where)
    return from_rows([each.name for each in bundle.inputs], value, where)


def _unsupported(why: str) -> UnsupportedMedia:
    return UnsupportedMedia("The content type of the body is not read here.", why=why)
