"""NVIDIA's own HTTP client against the data plane, with binary and with JSON tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from tests.serving.plane_home import INPUTS, SERVICE, TOKEN, Home, Process, flight

KINDS: Mapping[str, Any] = {"BYTES": np.object_, "FP64": np.float64}


def credentials() -> dict[str, str]:
    """Return new headers: the client writes into those that it is given."""
    return {"authorization": f"Bearer {TOKEN}"}


def tensors(rows: list[dict[str, Any]], binary: bool, shape: tuple[int, ...] = (-1,)) -> list[Any]:
    found: list[Any] = []
    for each in INPUTS:
        values: NDArray[Any] = np.array([row[each.name] for row in rows], KINDS[each.datatype]).reshape(shape)
        tensor = triton.InferInput(each.name, list(values.shape), each.datatype)
        found.append(tensor.set_data_from_numpy(values, binary_data=binary))
    return found


def client_of(plane: Process) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"127.0.0.1:{plane.port}")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_gets_the_answers_of_json(home: Home, compression: str | None) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    rows = [flight(number) for number in range(4)]
    expected = plane.infer(rows).json()["outputs"][0]["data"]
    client = client_of(plane)
    for binary in (True, False):
        for wish in (None, triton.InferRequestedOutput("late", binary_data=binary)):
            for shape in ((-1,), (-1, 1)):
                answer = client.infer(
                    SERVICE,
                    tensors(rows, binary, shape),
                    outputs=wish and [wish],
                    request_id="r-1",
                    headers=credentials(),
                    request_compression_algorithm=compression,
                )
                found = answer.as_numpy("late")
                assert found is not None
                assert (found.dtype, found.tolist()) == (np.float32, expected)
                response = answer.get_response()
                assert response["id"] == "r-1"
                assert response["parameters"]["releases"] == ["rel_a"] * 4
    pinned = client.infer(SERVICE, tensors(rows, True), model_version="rel_a", headers=credentials())
    assert pinned.get_response()["model_version"] == "rel_a"
    records = [each["score"] for each in home.records("prediction") if each["key"] == "flight-2"]
    assert records == [expected[2]] * 10
    client.close()


def test_tritonclient_reads_health_metadata_and_configuration(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    client = client_of(plane)
    assert client.is_server_live(headers=credentials())
    assert client.is_server_ready(headers=credentials())
    assert client.is_model_ready(SERVICE, headers=credentials())
    assert client.is_model_ready(SERVICE, "rel_a", headers=credentials())
    assert not client.is_model_ready("unknown", headers=credentials())
    assert "binary_tensor_data" in client.get_server_metadata(headers=credentials())["extensions"]
    metadata = client.get_model_metadata(SERVICE, headers=credentials())
    assert [each["name"] for each in metadata["inputs"]] == [each.name for each in INPUTS]
    config = client.get_model_config(SERVICE, headers=credentials())
    assert config["input"][3] == {"name": "distance", "data_type": "TYPE_FP64", "dims": [-1]}
    assert config["output"] == [{"name": "late", "data_type": "TYPE_FP32", "dims": [-1]}]
    index = client.get_model_repository_index(headers=credentials())
    assert index == [{"name": SERVICE, "version": "rel_a", "state": "READY", "reason": ""}]
    client.close()


def test_tritonclient_understands_every_refusal(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    client = client_of(plane)

    def refused(inputs: list[Any], **options: Any) -> str:
        every: dict[str, Any] = {"headers": credentials(), **options}
        with pytest.raises(InferenceServerException) as error:
            client.infer(SERVICE, inputs, **every)
        return f"{error.value.status()} {error.value.message()}"

    assert refused(tensors([flight(1)], True)[:2]).startswith("400 The input carrier is missing")
    assert "distance" in refused(tensors([flight(1, distance=-1.0)], True))
    assert "origin" in refused(tensors([flight(1, origin="SFO")], True))
    assert refused(tensors([flight(1)], True), headers={}).startswith("401")
    assert refused(tensors([flight(1)], True), outputs=[triton.InferRequestedOutput("score")]).startswith("400")
    half = triton.InferInput("distance", [1], "FP16").set_data_from_numpy(np.array([1], np.float16))
    assert refused([*tensors([flight(1)], True)[:3], half]).startswith("400 The input 'distance' has a datatype")
    shared = triton.InferInput("distance", [1], "FP64").set_shared_memory("region", 8)
    assert refused([*tensors([flight(1)], True)[:3], shared]).startswith("400")
    gone = triton.InferenceServerClient(f"127.0.0.1:{plane.port}")
    with pytest.raises(InferenceServerException, match="404"):
        gone.infer("unknown", tensors([flight(1)], True), headers=credentials())
    assert home.records("prediction") == []
    for each in (client, gone):
        each.close()


def test_a_broken_header_gets_an_error_of_the_protocol(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    path = f"/v2/models/{SERVICE}/infer"
    for value in ("", "x", "-1", "999999999", "1", "1e3"):
        headers = {"inference-header-content-length": value}
        refused = plane.client.post(path, content=b'{"inputs": []}', headers=headers)
        assert (refused.status_code, list(refused.json())) == (400, ["error"]), value
    twice = [("inference-header-content-length", "3"), ("inference-header-content-length", "4")]
    assert plane.client.post(path, content=b"{}", headers=twice).status_code == 400
    squeezed = plane.client.post(path, content=b"{}", headers={"content-encoding": "br"})
    assert (squeezed.status_code, list(squeezed.json())) == (415, ["error"])
    assert plane.infer([flight(1)]).status_code == 200
