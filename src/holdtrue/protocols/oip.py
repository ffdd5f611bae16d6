"""The Open Inference Protocol, version 2, JSON form: requests in, responses out, endpoints.

Everything a request says about itself must be true: shapes, datatypes, names. What is not in the
protocol is refused, so that a mistake never turns into an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from holdtrue._version import __version__
from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError
from holdtrue.protocols.columns import KINDS, LIMITS, BadRequest, check_columns, first
from holdtrue.serving import DATATYPES, Bundle, Endpoint, Engine, Reply, Request

_TOP: Final = frozenset({"id", "parameters", "inputs", "outputs"})
_TENSOR: Final = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT: Final = frozenset({"name", "parameters"})
_ID_LIMIT: Final = 256
_BINARY: Final = b"inference-header-content-length"


@dataclass(slots=True)
class InferRequest:
    """Hold a parsed request: its id, and one list of `rows` values per input."""

    id: str | None
    columns: dict[str, list[Any]]
    rows: int


def parse_infer(body: bytes, bundle: Bundle) -> InferRequest:
    """Parse the JSON of an inference request for the inputs of `bundle`; raise BadRequest or TooLarge.

    Null stands for a missing value; whether one may be missing is the contract's decision.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}") from None
    if type(data) is not dict:
        raise BadRequest("The body is not a JSON object.")
    if not data.keys() <= _TOP:
        raise BadRequest(f"Unknown field {first(data.keys() - _TOP)} in the request.")
    request_id = data.get("id")
    if request_id is not None and (type(request_id) is not str or not 0 < len(request_id) <= _ID_LIMIT):
        raise BadRequest(f"The field id must be a string of 1 to {_ID_LIMIT} characters.")
    _check_parameters(data, "the request")
    if "outputs" in data:
        _check_outputs(data["outputs"], bundle.output)
    tensors = data.get("inputs")
    if type(tensors) is not list or not tensors:
        raise BadRequest("The field inputs must be a list of at least one tensor.")
    plain = _plain_row(tensors, bundle)
    if plain is not None:
        return InferRequest(request_id, plain, 1)
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        name, values = _parse_tensor(tensor)
        if name in columns:
            raise BadRequest(f"The input {first({name})} is given twice.")
        columns[name] = values
        tensor["data"] = values
    return _complete(request_id, columns, tensors, bundle)


def _plain_row(tensors: list[Any], bundle: Bundle) -> dict[str, list[Any]] | None:
    """Return the columns of the commonest request at once: one row, inputs in order, nothing unusual.

    None means that the request has to be looked at closely, not that it is wrong.
    """
    if len(tensors) != len(bundle.inputs):
        return None
    columns: dict[str, list[Any]] = {}
    for tensor, declared in zip(tensors, bundle.inputs, strict=True):
        if type(tensor) is not dict or len(tensor) != 4 or tensor.get("name") != declared.name:
            return None
        datatype = declared.datatype
        shape, values = tensor.get("shape"), tensor.get("data")
        if tensor.get("datatype") != datatype or type(shape) is not list or shape != [1]:
            return None
        # JSON's true and 1.0 are equal to 1 in Python, and no size.
        if type(shape[0]) is not int:
            return None
        if type(values) is not list or len(values) != 1:
            return None
        value = values[0]
        if type(value) not in KINDS[datatype]:
            return None
        limits = LIMITS[datatype]
        if limits is not None and not limits[0] <= value <= limits[1]:
            return None
        columns[declared.name] = values
    return columns


def _complete(
    request_id: str | None, columns: dict[str, list[Any]], tensors: list[dict[str, Any]], bundle: Bundle
) -> InferRequest:
    """Check the tensors against what the service takes, and put them in its order."""
    given = {tensor["name"]: tensor["datatype"] for tensor in tensors}
    for declared in bundle.inputs:
        datatype = given.get(declared.name, declared.datatype)
        if datatype != declared.datatype:
            raise BadRequest(f"The input {declared.name} is {declared.datatype}; the request says {datatype}.")
    ordered, rows = check_columns(columns, bundle)
    return InferRequest(request_id, ordered, rows)


def _parse_tensor(tensor: Any) -> tuple[str, list[Any]]:
    if type(tensor) is not dict:
        raise BadRequest("An input is not a JSON object.")
    try:
        name, shape, datatype, data = tensor["name"], tensor["shape"], tensor["datatype"], tensor["data"]
    except KeyError as error:
        raise BadRequest(f"An input has no field {error.args[0]}.") from None
    if len(tensor) > 4:
        if not tensor.keys() <= _TENSOR:
            raise BadRequest(f"Unknown field {first(tensor.keys() - _TENSOR)} in an input.")
        _check_parameters(tensor, "an input")
    if type(name) is not str:
        raise BadRequest("The name of an input is not a string.")
    if type(datatype) is not str or datatype not in DATATYPES:
        raise BadRequest(f"The input {first({name})} has an unknown datatype.")
    if type(data) is not list:
        raise BadRequest(f"The data of the input {first({name})} is not a list.")
    if type(shape) is not list or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise BadRequest(f"The shape of the input {first({name})} is not a list of positive integers.")
    if len(shape) == 2 and shape[1] == 1:
        data = _flatten(name, data)
    elif len(shape) != 1:
        raise BadRequest(f"The input {first({name})} must have the shape [rows] or [rows, 1].")
    if shape[0] != len(data):
        raise BadRequest(f"The input {first({name})} says {shape[0]} rows and has {len(data)}.")
    return name, data


def _flatten(name: str, data: list[Any]) -> list[Any]:
    if not any(type(row) is list for row in data):
        return data
    if not all(type(row) is list and len(row) == 1 for row in data):
        raise BadRequest(f"The data of the input {first({name})} does not have its shape.")
    return [row[0] for row in data]


def _check_parameters(holder: Mapping[str, Any], where: str) -> None:
    parameters = holder.get("parameters")
    if parameters is None:
        return
    if type(parameters) is not dict:
        raise BadRequest(f"The parameters of {where} are not a JSON object.")
    if "binary_data_size" in parameters:
        raise _binary()


def _check_outputs(outputs: Any, name: str) -> None:
    if type(outputs) is not list:
        raise BadRequest("The field outputs is not a list.")
    for output in outputs:
        if type(output) is not dict or not output.keys() <= _OUTPUT:
            raise BadRequest("A requested output has unknown fields.")
        if output.get("name") != name:
            raise BadRequest(f"The service has one output, {name}.")


def error_body(error: HoldtrueError) -> bytes:
    """Return the protocol's form of an error."""
    return orjson.dumps({"error": f"{error.what} {error.why}".strip()})


def endpoints(engine: Engine) -> tuple[Endpoint, ...]:
    """Return the protocol's endpoints over `engine`; all of them need the permission to predict."""
    routes = _Routes(engine)
    table = {
        ("GET", "/v2"): routes.server,
        ("GET", "/v2/health/live"): routes.live,
        ("GET", "/v2/health/ready"): routes.server_ready,
        ("GET", "/v2/models/{model}"): routes.model,
        ("GET", "/v2/models/{model}/versions/{version}"): routes.model,
        ("GET", "/v2/models/{model}/ready"): routes.ready,
        ("GET", "/v2/models/{model}/versions/{version}/ready"): routes.ready,
        ("POST", "/v2/models/{model}/infer"): routes.infer,
        ("POST", "/v2/models/{model}/versions/{version}/infer"): routes.infer,
    }
    return tuple(Endpoint(method, path, Permission.PREDICT, handle) for (method, path), handle in table.items())


class _Routes:
    """Answer the protocol's requests over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def infer(self, request: Request) -> Reply:
        if _BINARY in request.headers:
            raise _binary()
        model, version = _names(request)
        plan = self._engine.plan(request.project, model, version)
        asked = parse_infer(request.body, plan.bundle)
        answer = await self._engine.predict(plan, asked.columns, asked.rows, asked.id, request.started)
        parameters: dict[str, Any] = {
            "prediction_ids": answer.ids,
            "releases": answer.releases,
            "arms": answer.arms,
        }
        if answer.fallback is not None:
            parameters["fallback"] = answer.fallback
        output = {
            "name": plan.bundle.output,
            "datatype": "FP32",
            "shape": [asked.rows],
            "data": answer.scores,
        }
        response: dict[str, Any] = {"model_name": model, "outputs": [output], "parameters": parameters}
        if asked.id is not None:
            response["id"] = asked.id
        if version is not None:
            response["model_version"] = version
        return _json(response)

    async def model(self, request: Request) -> Reply:
        model, version = _names(request)
        plan = self._engine.plan(request.project, model, version)
        tensors = [{"name": each.name, "datatype": each.datatype, "shape": [-1]} for each in plan.bundle.inputs]
        return _json(
            {
                "name": model,
                "versions": list(plan.loaded),
                "platform": "onnx",
                "inputs": tensors,
                "outputs": [{"name": plan.bundle.output, "datatype": "FP32", "shape": [-1]}],
            }
        )

    async def ready(self, request: Request) -> Reply:
        model, version = _names(request)
        self._engine.plan(request.project, model, version)
        return _json({"name": model, "ready": True})

    async def server(self, _request: Request) -> Reply:
        return _json({"name": "holdtrue", "version": __version__, "extensions": []})

    async def live(self, _request: Request) -> Reply:
        return _json({"live": True})

    async def server_ready(self, _request: Request) -> Reply:
        ready = self._engine.ready
        return _json({"ready": ready}, 200 if ready else 503)


def _names(request: Request) -> tuple[str, str | None]:
    """Return the model's name and the version in the path, if it has one."""
    model, *version = request.path
    return model, version[0] if version else None


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value))


def _binary() -> BadRequest:
    return BadRequest("Tensor data in binary form is not supported: send it as JSON (binary_data=False).")
