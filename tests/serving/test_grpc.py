"""The Open Inference Protocol over gRPC with the real client: the same answers, refusals, records and limits."""

import asyncio
import json
import select
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import MissingExtra
from holdtrue.protocols import oipgrpc
from holdtrue.protocols.oipmessages import MESSAGES, messages
from holdtrue.serving import Engine, Limits, Plane, read_access
from holdtrue.serving.contributions import background_of
from holdtrue.stats.conformal import Sets
from holdtrue.storage import Journal
from tests.server.certificates import self_signed
from tests.serving.plane_home import INPUTS, OTHER, PROJECT, ROOT, SERVICE, TOKEN, Home, Process, flight, free_port
from tests.serving.test_robust import PATH, open_request

# Its classes are made when it is imported, which no type checker sees.
service_pb2: Any = triton.service_pb2
Client = triton.InferenceServerClient
Connect = Callable[..., tuple[Process, Any]]
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def token(secret: str = TOKEN, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", **more}


@pytest.fixture
def connect(home: Home) -> Iterator[Connect]:
    """Start a data plane that also answers gRPC, and a client of it."""
    clients: list[Any] = []

    def start(**variables: str) -> tuple[Process, Any]:
        port = free_port()
        plane = home.start("--grpc-port", str(port), **variables)
        client: Any = Client(f"127.0.0.1:{port}")
        clients.append(client)

        def up() -> bool:
            with suppress(InferenceServerException):
                return bool(client.is_server_live(headers=token()))
            return False

        plane.until(up)
        return plane, client

    yield start
    for each in clients:
        each.close()


def tensors(rows: list[dict[str, Any]]) -> list[Any]:
    made: list[Any] = []
    for each in INPUTS:
        values = [row[each.name] for row in rows]
        data = np.array(values, np.object_ if each.datatype == "BYTES" else np.float64)
        tensor: Any = triton.InferInput(each.name, [len(rows)], each.datatype)
        made.append(tensor.set_data_from_numpy(data))
    return made


def typed(rows: list[dict[str, Any]], **changes: Any) -> Any:
    """Return a request whose values are typed contents, which tritonclient never sends."""
    request = service_pb2.ModelInferRequest(model_name=SERVICE, id="typed", **changes)
    for each in INPUTS:
        tensor = request.inputs.add(name=each.name, datatype=each.datatype, shape=[len(rows)])
        values = [row[each.name] for row in rows]
        if each.datatype == "BYTES":
            tensor.contents.bytes_contents.extend(value.encode() for value in values)
        else:
            tensor.contents.fp64_contents.extend(values)
    return request


def call(plane: Process, client: Any, request: Any, **more: str) -> Any:
    send = client._channel.unary_unary(
        METHOD,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    return send(request, metadata=tuple(token(**more).items()))


def test_every_message_has_the_numbers_that_the_real_client_has() -> None:
    kinds = messages()
    nested = {
        "InferInputTensor": service_pb2.ModelInferRequest.InferInputTensor,
        "InferRequestedOutputTensor": service_pb2.ModelInferRequest.InferRequestedOutputTensor,
        "InferOutputTensor": service_pb2.ModelInferResponse.InferOutputTensor,
        "TensorMetadata": service_pb2.ModelMetadataResponse.TensorMetadata,
        "ModelIndex": service_pb2.RepositoryIndexResponse.ModelIndex,
    }

    def said(message: Any) -> list[tuple[Any, ...]]:
        return [(each.name, each.number, each.type, each.is_repeated) for each in message.DESCRIPTOR.fields]

    for name in MESSAGES:
        real = nested.get(name) or getattr(service_pb2, name)
        assert said(getattr(kinds, name)) == said(real), name


def test_tritonclient_gets_over_grpc_what_http_answers(home: Home, connect: Connect) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane, client = connect()
    rows = [flight(number) for number in range(4)]
    expected = plane.infer(rows).json()["outputs"][0]["data"]
    answer = client.infer(SERVICE, tensors(rows), request_id="r-1", headers=token())
    found = answer.as_numpy("late")
    assert (found.dtype, found.tolist()) == (np.float32, expected)
    response = answer.get_response(as_json=True)
    assert response["id"] == "r-1"
    ids = json.loads(response["parameters"]["prediction_ids"]["string_param"])
    assert json.loads(response["parameters"]["releases"]["string_param"]) == ["rel_a"] * 4
    plain = call(plane, client, typed(rows))
    assert [*plain.outputs[0].contents.fp32_contents] == expected
    assert not plain.raw_output_contents
    pinned = client.infer(SERVICE, tensors(rows), model_version="rel_a", headers=token(**{"x-request-id": "outer"}))
    assert pinned.get_response().model_version == "rel_a"
    kept = home.records("prediction")
    assert {each["prediction_id"] for each in kept if each["request_id"] == "r-1"} == set(ids)
    assert {"outer", "r-1", "typed"} <= {each["request_id"] for each in kept}
    assert len(kept) == 16


def test_over_grpc_too_an_answer_says_why_and_how_sure_it_is_and_a_retry_is_the_same(
    home: Home, connect: Connect
) -> None:
    kept, sets = home.blobs.put(background_of(np.zeros((4, 6), np.float32))), Sets(0.9, 0.6, 0.4)
    home.publish(home.bundle("rel_a", "champion", background=kept, sets=sets))
    _, client = connect()

    def told() -> dict[str, Any]:
        answer = client.infer(
            SERVICE,
            tensors([flight(1)]),
            parameters={"contributions": True, "sets": True},
            headers=token(**{"idempotency-key": "order-1"}),
        )
        said = {name: json.loads(each.string_param) for name, each in answer.get_response().parameters.items()}
        return {**said, "score": float(answer.as_numpy("late")[0])}

    found = told()
    (why,) = found["contributions"]
    assert why["base"] + sum(why["values"].values()) == pytest.approx(found["score"], abs=1e-5)
    assert found["sets"] == [sets.of(found["score"])]
    assert told()["prediction_ids"] == found["prediction_ids"]
    assert len(home.records("prediction")) == 1


def test_tritonclient_reads_health_metadata_and_the_repository(home: Home, connect: Connect) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    _, client = connect()
    assert client.is_server_ready(headers=token())
    assert client.is_model_ready(SERVICE, headers=token())
    assert not client.is_model_ready("unknown", headers=token())
    assert client.get_server_metadata(headers=token()).name == "holdtrue"
    metadata = client.get_model_metadata(SERVICE, "rel_a", headers=token(), as_json=True)
    assert [each["name"] for each in metadata["inputs"]] == [each.name for each in INPUTS]
    assert metadata["versions"] == ["rel_a"]
    index = client.get_model_repository_index(headers=token(), as_json=True)
    assert index["models"] == [{"name": SERVICE, "version": "rel_a", "state": "READY"}]


def test_a_call_is_held_to_what_http_is_held_to(home: Home, connect: Connect) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane, client = connect()

    def refused(request: Any, **more: str) -> str:
        with pytest.raises(grpc.RpcError) as error:
            call(plane, client, request, **more)
        return f"{error.value.code().name} {error.value.details()}"

    good = [flight(1)]
    assert refused(typed(good), authorization="Bearer wrong").startswith("UNAUTHENTICATED")
    assert refused(typed(good), authorization=f"Bearer {OTHER}").startswith("NOT_FOUND")
    assert refused(typed(good), authorization=f"Bearer {ROOT}", **{"x-holdtrue-project": "nobody"})[:9] == "NOT_FOUND"
    assert "origin" in refused(typed([flight(1, origin="SFO")]))
    assert "infinite" in refused(typed([flight(1, distance=float("inf"))]))
    assert refused(typed(good), **{"x-request-timeout-ms": "soon"}).startswith("INVALID_ARGUMENT")
    wrong_shape = typed(good)
    wrong_shape.inputs[3].shape[0] = 2
    assert "distance" in refused(wrong_shape)
    wrong_kind = typed(good)
    wrong_kind.inputs[3].ClearField("contents")
    wrong_kind.inputs[3].contents.fp32_contents.append(1.0)
    assert "another kind" in refused(wrong_kind)
    both = typed(good)
    both.raw_input_contents.extend([b""] * len(both.inputs))
    assert "twice" in refused(both)
    few = typed([])
    few.raw_input_contents.append(b"")
    assert "raw contents" in refused(few)
    cut = typed([])
    cut.raw_input_contents.extend([b"\x01"] * len(cut.inputs))
    for each in cut.inputs:
        each.shape[0] = 1
    assert refused(cut).startswith("INVALID_ARGUMENT")
    texts = typed(good)
    texts.inputs[0].contents.bytes_contents[0] = b"\xff"
    assert "UTF-8" in refused(texts)
    missing = typed(good)
    del missing.inputs[3]
    assert "distance is missing" in refused(missing)
    asks = typed(good)
    asks.parameters["classification"].int64_param = 3
    assert refused(asks).startswith("INVALID_ARGUMENT")
    large = typed(good)
    large.inputs[0].contents.bytes_contents[0] = b"x" * (17 << 20)
    assert refused(large).startswith("RESOURCE_EXHAUSTED")
    assert home.records("prediction") == []
    assert [*call(plane, client, typed([flight(1, distance=float("nan"))])).outputs[0].shape] == [1]
    assert home.records("prediction")[0]["x_distance"] is None
    root = call(plane, client, typed(good), authorization=f"Bearer {ROOT}", **{"x-holdtrue-project": PROJECT})
    assert root.model_name == SERVICE


def test_what_http_gives_on_request_grpc_gives_too(home: Home, connect: Connect) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane, client = connect()
    asks = typed([flight(1)])
    asks.parameters["contributions"].bool_param = True
    over_http = plane.infer([flight(1)], parameters={"contributions": True})
    if over_http.status_code == 200:
        told = json.loads(call(plane, client, asks).parameters["contributions"].string_param)
        assert told == over_http.json()["parameters"]["contributions"]
    else:
        with pytest.raises(grpc.RpcError) as error:
            call(plane, client, asks)
        assert error.value.details() == over_http.json()["error"]
    again = [call(plane, client, typed([flight(2)]), **{"idempotency-key": "k"}) for _ in range(2)]
    assert len({each.parameters["prediction_ids"].string_param for each in again}) == 1


def test_bytes_that_are_no_message_are_refused(home: Home, connect: Connect) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    _, client = connect()
    send = client._channel.unary_unary(METHOD)
    for data in (b"\xff\xff\xff", b"\x0a\xff", b"\x2a\x02\x0a\x05"):
        with pytest.raises(grpc.RpcError) as error:
            send(data, metadata=tuple(token().items()))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as error:
        send(b"\xff\xff\xff")
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_load_is_shed_as_over_http_and_told_when_to_come_back(home: Home, connect: Connect) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane, client = connect(HOLDTRUE_DATA_REQUESTS="1")
    body = json.dumps({"inputs": []}).encode()
    under_way = [open_request(plane, PATH, body)]

    def shed() -> Any:
        try:
            call(plane, client, typed([flight(1)]))
        except grpc.RpcError as error:
            return error
        return None

    def held() -> bool:
        # Which of the two came first is open: if the one over HTTP was shed, it is sent again.
        if select.select(under_way, [], [], 0)[0]:
            under_way.pop().close()
            under_way.append(open_request(plane, PATH, body))
        return shed() is not None

    plane.until(held)
    error = shed()
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert ("retry-after", "1") in [(each.key, each.value) for each in error.trailing_metadata()]
    under_way.pop().close()
    plane.until(lambda: shed() is None)


def test_the_port_speaks_tls_where_there_is_a_certificate(home: Home, tmp_path: Path) -> None:
    self_signed(tmp_path, "localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    journal = Journal(home.path / "journal", SystemClock())
    writer = journal.writer("test", "fast")
    engine = Engine(home.clock, writer, lambda _: lambda *_: {}, strict=False)
    plane = Plane(engine, [], hosts=[], errors={}, lifespan=lambda _: nullcontext(), limits=Limits())
    plane.set_access(read_access(home.path / "routing" / "access.json"))
    port = free_port()

    async def main() -> bool:
        async with oipgrpc.listener(oipgrpc.Listen("127.0.0.1", port, certificate, key))(plane, engine):
            trust = grpc.ssl_channel_credentials(certificate.read_bytes())
            async with grpc.aio.secure_channel(f"localhost:{port}", trust) as channel:
                live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                answer = await live(b"", metadata=tuple(token().items()), timeout=20)
            async with grpc.aio.insecure_channel(f"localhost:{port}") as plain:
                call = plain.unary_unary("/inference.GRPCInferenceService/ServerLive")
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(b"", metadata=tuple(token().items()), timeout=20)
            return messages().ServerLiveResponse.FromString(answer).live

    assert asyncio.run(main())
    writer.close()
    journal.close()


def test_what_grpc_needs_is_named_if_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="grpcio"):
        oipgrpc.check_installed()
