"""The Open Inference Protocol, version 2, in JSON and with binary tensors: requests in, responses out, endpoints.

Everything a request says about itself must be true: shapes, datatypes, names. What is not in the
protocol is refused, so that a mistake never turns into an answer.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from holdtrue._version import __version__
from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError
from holdtrue.protocols.columns import KINDS, LIMITS, BadRequest, check_columns, first
from holdtrue.protocols.named import body_of, given_id, key_of, wants_contributions, wants_sets
from holdtrue.protocols.tensors import HEADER, Tail, decode, encode, split
from holdtrue.serving import DATATYPES, Answer, Bundle, Direct, Endpoint, Engine, Plan, Reply, Request, in_environment
from holdtrue.serving.possible import possible, said

_TOP: Final = frozenset({"id", "parameters", "inputs", "outputs"})
_TENSOR: Final = frozenset({"name", "shape", "datatype", "parameters", "data"})
_FIELDS: Final = itemgetter("name", "datatype", "shape", "data")
_ONE: Final = [1]
_OUTPUT: Final = frozenset({"name", "parameters"})
_NO_DATA: Final = frozenset({"shared_memory_region", "classification"})
_ID_LIMIT: Final = 256
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(slots=True)
class InferRequest:
    """Hold a parsed request: its id, one list of `rows` values per input, and how the answer shall be.

    That is in binary form or not, and with or without what each feature contributed and what outcomes are possible.
    `outputs` are those that it asks for, each in binary form or not; None: all of them, as `binary` says.
    """

    id: str | None
    columns: dict[str, list[Any]]
    rows: int
    binary: bool = False
    explain: bool = False
    sets: bool = False
    outputs: dict[str, bool] | None = None


class Output(NamedTuple):
    """Hold one tensor of an answer: what it is, and its values, one after the other."""

    name: str
    datatype: str
    shape: list[int]
    values: list[Any]


def parse_infer(body: bytes, bundle: Bundle, header: bytes | None = None) -> InferRequest:
    """Parse an inference request for the inputs of `bundle`; raise BadRequest or TooLarge.

    `header` is the value of Inference-Header-Content-Length. Null, and NaN in binary data, stand for a missing
    value; whether one may be missing is the contract's decision.
    """
    text, rest = split(body, header)
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}") from None
    if type(data) is not dict:
        raise BadRequest("The body is not a JSON object.")
    return read_request(data, rest, bundle)


def read_request(data: dict[str, Any], rest: memoryview | None, bundle: Bundle) -> InferRequest:
    """Read an inference request from its JSON and the binary data behind it; raise BadRequest or TooLarge."""
    if not data.keys() <= _TOP:
        raise BadRequest(f"Unknown field {first(data.keys() - _TOP)} in the request.")
    request_id = data.get("id")
    if request_id is not None and (type(request_id) is not str or not 0 < len(request_id) <= _ID_LIMIT):
        raise BadRequest(f"The field id must be a string of 1 to {_ID_LIMIT} characters.")
    binary = explain = sets = False
    if "parameters" in data:
        given = _parameters(data, "the request")
        binary = _flag(given, "binary_data_output")
        explain, sets = _flag(given, "contributions"), _flag(given, "sets")
    outputs: dict[str, bool] | None = None
    if "outputs" in data:
        outputs = _parse_outputs(data["outputs"], bundle, binary)
        binary = any(outputs.values()) if outputs else binary
    tensors = data.get("inputs")
    if type(tensors) is not list or not tensors:
        raise BadRequest("The field inputs must be a list of at least one tensor.")
    if rest is None:
        plain = _plain_row(tensors, bundle)
        if plain is not None:
            return InferRequest(request_id, plain, 1, binary, explain, sets, outputs or None)
    columns, rows = check_columns(_columns(tensors, Tail(rest), bundle), bundle)
    return InferRequest(request_id, columns, rows, binary, explain, sets, outputs or None)


def _plain_row(tensors: list[Any], bundle: Bundle) -> dict[str, list[Any]] | None:
    """Return the columns of the commonest request at once: one row, inputs in order, nothing unusual.

    None means that the request has to be looked at closely, not that it is wrong.
    """
    if len(tensors) != len(bundle.inputs):
        return None
    columns: dict[str, list[Any]] = {}
    try:
        for tensor, declared in zip(tensors, bundle.inputs, strict=True):
            name, datatype, shape, values = _FIELDS(tensor)
            # JSON's true and 1.0 are equal to 1 in Python, and no size.
            if shape != _ONE or type(shape[0]) is not int or len(tensor) != 4:
                return None
            if name != declared.name or datatype != declared.datatype or type(values) is not list:
                return None
            (value,) = values
            if type(value) not in KINDS[datatype]:
                return None
            limits = LIMITS[datatype]
            if limits is not None and not limits[0] <= value <= limits[1]:
                return None
            columns[name] = values
    except (KeyError, TypeError, ValueError):
        return None
    return columns


def _columns(tensors: list[Any], tail: Tail, bundle: Bundle) -> dict[str, list[Any]]:
    """Return the values of each tensor; one that holds all inputs of a matrix is taken apart."""
    datatypes = {each.name: each.datatype for each in bundle.inputs}
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        name, shape, datatype = _head(tensor)
        declared = datatypes.get(name)
        whole = name == bundle.matrix and len(tensors) == 1
        if whole:
            declared = bundle.inputs[0].datatype
        if declared is not None and datatype != declared:
            raise BadRequest(f"The input {name} is {declared}; the request says {datatype}.")
        width = len(bundle.inputs) if whole else 1
        if not (len(shape) == 2 and shape[1] == width) and (whole or len(shape) != 1):
            allowed = f"[rows, {width}]" if whole else "[rows] or [rows, 1]"
            raise BadRequest(f"The input {first({name})} must have the shape {allowed}.")
        values = _values(name, shape, datatype, tensor, tail)
        if whole:
            tail.finish()
            return {each.name: values[place::width] for place, each in enumerate(bundle.inputs)}
        if name in columns:
            raise BadRequest(f"The input {first({name})} is given twice.")
        columns[name] = values
    tail.finish()
    return columns


def _head(tensor: Any) -> tuple[str, list[int], str]:
    """Return what a tensor says about itself."""
    if type(tensor) is not dict:
        raise BadRequest("An input is not a JSON object.")
    try:
        name, shape, datatype = tensor["name"], tensor["shape"], tensor["datatype"]
    except KeyError as error:
        raise BadRequest(f"An input has no field {error.args[0]}.") from None
    if not tensor.keys() <= _TENSOR:
        raise BadRequest(f"Unknown field {first(tensor.keys() - _TENSOR)} in an input.")
    if type(name) is not str:
        raise BadRequest("The name of an input is not a string.")
    if type(datatype) is not str or datatype not in DATATYPES:
        raise BadRequest(f"The input {first({name})} has a datatype that is unknown, or not taken here.")
    if type(shape) is not list or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise BadRequest(f"The shape of the input {first({name})} is not a list of positive integers.")
    return name, shape, datatype


def _values(name: str, shape: list[int], datatype: str, tensor: dict[str, Any], tail: Tail) -> list[Any]:
    """Return the values of a tensor in one list, from its JSON or from the bytes behind it."""
    parameters = _parameters(tensor, "an input")
    if "binary_data_size" in parameters:
        if "data" in tensor:
            raise BadRequest(f"The input {first({name})} has data in JSON and in binary form.")
        return decode(name, datatype, shape, tail.take(name, parameters["binary_data_size"]))
    data = tensor.get("data")
    if type(data) is not list:
        raise BadRequest(f"The input {first({name})} has no list as its data.")
    width = 1
    if len(shape) == 2:
        data = _flatten(name, data, shape[1])
        width = shape[1]
    if shape[0] * width != len(data):
        raise BadRequest(f"The input {first({name})} has not as many values as its shape says.")
    return data


def _flatten(name: str, data: list[Any], width: int) -> list[Any]:
    if not any(type(row) is list for row in data):
        return data
    if not all(type(row) is list and len(row) == width for row in data):
        raise BadRequest(f"The data of the input {first({name})} does not have its shape.")
    return [value for row in data for value in row]


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return _NONE
    if type(parameters) is not dict:
        raise BadRequest(f"The parameters of {where} are not a JSON object.")
    if not _NO_DATA.isdisjoint(parameters):
        raise BadRequest(f"Tensors in shared memory and classifications are not taken, as {where} asks for.")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, otherwise: bool = False) -> bool:
    value = parameters.get(name, otherwise)
    if type(value) is not bool:
        raise BadRequest(f"The parameter {name} is not true or false.")
    return value


def _parse_outputs(outputs: Any, bundle: Bundle, binary: bool) -> dict[str, bool]:
    """Return the outputs that are asked for, and whether each is in binary form."""
    if type(outputs) is not list:
        raise BadRequest("The field outputs is not a list.")
    known = [each["name"] for each in described_outputs(bundle)]
    found: dict[str, bool] = {}
    for output in outputs:
        if type(output) is not dict or not output.keys() <= _OUTPUT:
            raise BadRequest("A requested output has unknown fields.")
        name: Any = output.get("name")
        if name not in known:
            one = f"one output, {known[0]}" if len(known) == 1 else f"the outputs {', '.join(known)}"
            raise BadRequest(f"The service has {one}.")
        found[name] = _flag(_parameters(output, "an output"), "binary_data", binary)
    return found


def described_outputs(bundle: Bundle) -> list[dict[str, Any]]:
    """Return the tensors of an answer as metadata describes them: a number a row, or a class and all probabilities."""
    if not bundle.classes:
        return [{"name": bundle.output, "datatype": "FP32", "shape": [-1]}]
    return [
        {"name": bundle.output, "datatype": "BYTES", "shape": [-1]},
        {"name": bundle.chances, "datatype": "FP32", "shape": [-1, len(bundle.classes)]},
    ]


def outputs_of(bundle: Bundle, answer: Answer, asked: InferRequest, *, missing: float | None = None) -> list[Output]:
    """Return the tensors of an answer that were asked for; a row without probabilities has `missing` for each."""
    found = [Output(bundle.output, "FP32", [asked.rows], answer.scores)]
    if bundle.classes:
        width = len(bundle.classes)
        none: list[Any] = [missing] * width
        rows = answer.chances or [None] * asked.rows
        flat = [value for row in rows for value in (none if row is None else row)]
        found = [
            Output(bundle.output, "BYTES", [asked.rows], said(bundle, answer)),
            Output(bundle.chances, "FP32", [asked.rows, width], flat),
        ]
    return found if asked.outputs is None else [each for each in found if each.name in asked.outputs]


def told_of(plan: Plan, answer: Answer, *, sets: bool) -> dict[str, Any]:
    """Return what the protocol's parameters tell beside an answer, with its `sets` of possible outcomes or without."""
    parameters: dict[str, Any] = {
        "prediction_ids": answer.ids,
        "releases": answer.releases,
        "arms": answer.arms,
    }
    if answer.fallback is not None:
        parameters["fallback"] = answer.fallback
    if answer.abstained is not None:
        parameters["abstained"] = answer.abstained
    if sets:
        parameters["sets"] = possible(plan, answer)
    if answer.contributions is not None:
        parameters["contributions"] = answer.contributions
    return parameters


def error_body(error: HoldtrueError) -> bytes:
    """Return the protocol's form of an error: one text."""
    return orjson.dumps({"error": error.line})


def endpoints(engine: Engine) -> tuple[Endpoint, ...]:
    """Return the protocol's endpoints over `engine`; all of them need the permission to predict."""
    routes = Routes(engine)
    table = {
        ("GET", "/v2"): routes.server,
        ("GET", "/v2/health/live"): routes.live,
        ("GET", "/v2/health/ready"): routes.server_ready,
        ("GET", "/v2/models/{model}"): routes.model,
        ("GET", "/v2/models/{model}/versions/{version}"): routes.model,
        ("GET", "/v2/models/{model}/ready"): routes.ready,
        ("GET", "/v2/models/{model}/versions/{version}/ready"): routes.ready,
        ("GET", "/v2/models/{model}/config"): routes.config,
        ("GET", "/v2/models/{model}/versions/{version}/config"): routes.config,
        ("POST", "/v2/repository/index"): routes.index,
        ("POST", "/v2/models/{model}/infer"): routes.infer,
        ("POST", "/v2/models/{model}/versions/{version}/infer"): routes.infer,
    }
    return tuple(
        Endpoint(
            method,
            path,
            Permission.PREDICT,
            handle,
            deferrable=handle == routes.infer,
            begin=routes.begin if handle == routes.infer else None,
        )
        for (method, path), handle in table.items()
    )


class Routes:
    """Answer the protocol's requests over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def plan(self, request: Request, model: str, version: str | None) -> Plan:
        """Return the plan of a model, or of one of its releases, in the environment that a request means."""
        return await self._engine.find(request.project, in_environment(request, model), version)

    async def infer(self, request: Request) -> Reply:
        model, version = _names(request)
        plan = self._engine.here(request.project, in_environment(request, model), version)
        if plan is None:
            plan = await self.plan(request, model, version)
        asked = parse_infer(body_of(request), plan.bundle, request.headers.get(HEADER))
        sets = wants_sets(request, plan, asked=asked.sets)
        return _reply(model, version, plan, asked, sets, await self.asking(request, plan, asked))

    def begin(self, request: Request, direct: Direct) -> bool:
        """Begin to answer as `infer` does, unless that takes a task: a model aside, two contracts, an explanation."""
        model, version = _names(request)
        plan = self._engine.here(request.project, in_environment(request, model), version)
        if plan is None or plan.aside or plan.rival is not None:
            return False
        asked = parse_infer(body_of(request), plan.bundle)
        if asked.explain:
            return False
        sets = wants_sets(request, plan, asked=asked.sets)
        direct.shape(partial(_reply, model, version, plan, asked, sets))
        name = asked.id or given_id(request)
        self._engine.join(plan, asked.columns, asked.rows, name, request.started, direct)
        return True

    def asking(self, request: Request, plan: Plan, asked: InferRequest) -> Awaitable[Answer]:
        """Let a request be answered; raise what refuses it."""
        return self._engine.predict(
            plan,
            asked.columns,
            asked.rows,
            asked.id or given_id(request),
            request.started,
            explain=asked.explain or wants_contributions(request),
            key=key_of(request),
        )

    async def model(self, request: Request) -> Reply:
        return _json(await self.described(request, *_names(request)))

    async def described(self, request: Request, model: str, version: str | None) -> dict[str, Any]:
        """Return what a model takes and gives, as the protocol's metadata has it."""
        plan = await self.plan(request, model, version)
        return {
            "name": model,
            "versions": list(plan.loaded),
            "platform": plan.bundle.model.format,
            "inputs": _inputs(plan.bundle),
            "outputs": described_outputs(plan.bundle),
        }

    async def config(self, request: Request) -> Reply:
        """Return the model in the form of Triton's model configuration."""
        model, version = _names(request)
        bundle = (await self.plan(request, model, version)).bundle
        inputs = [
            {"name": each["name"], "data_type": _triton(each["datatype"]), "dims": each["shape"]}
            for each in _inputs(bundle)
        ]
        outputs = [
            {"name": each["name"], "data_type": _triton(each["datatype"]), "dims": each["shape"]}
            for each in described_outputs(bundle)
        ]
        # Rows are the first dimension of each tensor, which Triton writes as no batch dimension at all.
        found = {"name": model, "platform": bundle.model.format, "backend": "holdtrue", "max_batch_size": 0}
        return _json({**found, "input": inputs, "output": outputs})

    async def index(self, request: Request) -> Reply:
        """Return the services of the project as a model repository lists them."""
        return _json(self._engine.listing(request.project))

    async def ready(self, request: Request) -> Reply:
        model, version = _names(request)
        await self.plan(request, model, version)
        return _json({"name": model, "ready": True})

    async def server(self, _request: Request) -> Reply:
        return _json(self.about())

    def about(self) -> dict[str, Any]:
        """Return name, version and extensions of the server."""
        return {"name": "holdtrue", "version": __version__, "extensions": ["binary_tensor_data", "model_configuration"]}

    async def live(self, _request: Request) -> Reply:
        return _json({"live": True})

    async def server_ready(self, _request: Request) -> Reply:
        ready = self._engine.ready
        return _json({"ready": ready}, 200 if ready else 503)


def _reply(model: str, version: str | None, plan: Plan, asked: InferRequest, sets: bool, answer: Answer) -> Reply:
    parameters = told_of(plan, answer, sets=sets)
    outputs: list[dict[str, Any]] = []
    raw = b""
    for each in outputs_of(plan.bundle, answer, asked):
        output: dict[str, Any] = {"name": each.name, "datatype": each.datatype, "shape": each.shape}
        if asked.binary if asked.outputs is None else asked.outputs[each.name]:
            part = encode(each.values, each.datatype)
            output["parameters"] = {"binary_data_size": len(part)}
            raw += part
        else:
            output["data"] = each.values
        outputs.append(output)
    response: dict[str, Any] = {"model_name": model, "outputs": outputs, "parameters": parameters}
    if asked.id is not None:
        response["id"] = asked.id
    if version is not None:
        response["model_version"] = version
    if not asked.binary:
        return _json(response)
    text = orjson.dumps(response)
    length = (HEADER, b"%d" % len(text))
    return Reply(200, text + raw, (length,), media=b"application/octet-stream")


def _names(request: Request) -> tuple[str, str | None]:
    """Return the model's name and the version in the path, if it has one."""
    model, *version = request.path
    return model, version[0] if version else None


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value))


def _inputs(bundle: Bundle) -> list[dict[str, Any]]:
    """Return the tensors of a request as metadata describes them."""
    if bundle.matrix is not None:
        return [{"name": bundle.matrix, "datatype": bundle.inputs[0].datatype, "shape": [-1, len(bundle.inputs)]}]
    return [{"name": each.name, "datatype": each.datatype, "shape": [-1]} for each in bundle.inputs]


def _triton(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
