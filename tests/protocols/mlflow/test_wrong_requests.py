"""What no client should send, sent anyway: MLflow's own error codes, and nothing half-written."""

import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.protocols.mlflow.conftest import Server

API = "/api/2.0/mlflow"


def post(rest: httpx.Client, path: str, **body: Any) -> httpx.Response:
    """Send a request as clients do."""
    return rest.post(f"{API}/{path}", json=body)


def new_run(rest: httpx.Client) -> str:
    """Begin a run in the default experiment."""
    answer = post(rest, "runs/create", experiment_id="0")
    assert answer.status_code == 200, answer.text
    return answer.json()["run"]["info"]["run_id"]


def data_of(rest: httpx.Client, run: str) -> dict[str, Any]:
    """Return what was logged to a run."""
    return rest.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["data"]


def refused(answer: httpx.Response, code: str, status: int = 400) -> str:
    """Check a refusal's form and return its message."""
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert answer.json().keys() == {"error_code", "message"}
    return answer.json()["message"]


INVALID = "INVALID_PARAMETER_VALUE"
POINT = {"key": "m", "value": 1.0, "timestamp": 1, "step": 0}


@pytest.mark.parametrize(
    "batch",
    [
        {"metrics": [POINT] * 1001},
        {"params": [{"key": f"p{number}", "value": "1"} for number in range(101)]},
        {"tags": [{"key": f"t{number}", "value": "1"} for number in range(101)]},
        {"metrics": [POINT] * 950, "tags": [{"key": f"t{number}", "value": "1"} for number in range(51)]},
        {"metrics": [POINT, {**POINT, "value": "much"}]},
        {"metrics": [*([POINT] * 500), {**POINT, "value": "much"}]},
        {"metrics": [*([POINT] * 500), {**POINT, "step": 1 << 63}]},
        {"metrics": [POINT, {**POINT, "value": None}]},
        {"metrics": [POINT, {**POINT, "value": True}]},
        {"metrics": [POINT, {**POINT, "value": [1]}]},
        {"metrics": [POINT, {**POINT, "key": ""}]},
        {"metrics": [POINT, {**POINT, "key": "../m"}]},
        {"metrics": [POINT, {**POINT, "key": "/m"}]},
        {"metrics": [POINT, {**POINT, "key": "a//m"}]},
        {"metrics": [POINT, {**POINT, "key": "m\n"}]},
        {"metrics": [POINT, {**POINT, "key": "m" * 251}]},
        {"metrics": [POINT, {**POINT, "key": 5}]},
        {"metrics": [POINT, {**POINT, "timestamp": -1}]},
        {"metrics": [POINT, {**POINT, "timestamp": "soon"}]},
        {"metrics": [POINT, {**POINT, "timestamp": 1 << 63}]},
        {"metrics": [POINT, {**POINT, "step": 1.5}]},
        {"metrics": [POINT, {**POINT, "step": 1 << 64}]},
        {"metrics": [POINT, 5]},
        {"metrics": "m"},
        {"metrics": [POINT], "params": [{"key": "p", "value": "1"}, {"key": "p", "value": "1"}]},
        {"metrics": [POINT], "params": [{"key": "p", "value": {"a": 1}}]},
        {"metrics": [POINT], "tags": [{"value": "x"}]},
    ],
)
def test_a_batch_with_one_wrong_part_leaves_nothing(rest: httpx.Client, batch: dict[str, Any]) -> None:
    run = new_run(rest)
    refused(post(rest, "runs/log-batch", run_id=run, **batch), INVALID)
    data = data_of(rest, run)
    assert (data["metrics"], data["params"], [each["key"] for each in data["tags"]]) == ([], [], ["mlflow.runName"])


def test_long_texts_of_runs_are_cut_where_mlflow_cuts_them(rest: httpx.Client) -> None:
    run = new_run(rest)
    params, tags = [{"key": "p", "value": "x" * 6001}], [{"key": "t", "value": "ä" * 8001}]
    for _ in range(2):  # what was cut is the same again
        assert post(rest, "runs/log-batch", run_id=run, params=params, tags=tags).status_code == 200
        assert post(rest, "runs/log-parameter", run_id=run, **params[0]).status_code == 200
    data = data_of(rest, run)
    assert [len(each["value"]) for each in data["params"]] == [6000]
    assert {each["key"]: len(each["value"]) for each in data["tags"]}["t"] == 8000
    created = post(rest, "runs/create", experiment_id="0", tags=tags).json()["run"]["data"]["tags"]
    assert [len(each["value"]) for each in created if each["key"] == "t"] == [8000]
    info = post(rest, "runs/create", experiment_id="0", run_name="n" * 9000, user_id="u" * 999).json()["run"]["info"]
    assert (len(info["run_name"]), len(info["user_id"])) == (8000, 256)
    changed = post(rest, "runs/update", run_id=run, run_name="n" * 9000).json()["run_info"]
    assert len(changed["run_name"]) == 8000


def test_what_mlflow_answers_with_its_own_codes(rest: httpx.Client) -> None:
    """Found by sending the same to both servers."""
    run = new_run(rest)
    refused(post(rest, "runs/log-metric", run_id=run, key="m", value=1), INVALID)
    refused(post(rest, "runs/search", experiment_ids=["0"], order_by=["dataset.name"]), INVALID)
    for path in ("/etc", "//etc", "..", "a/%2e%2e"):
        refused(rest.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run, "path": path}), INVALID)
        refused(rest.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": path}), INVALID)
    post(rest, "registered-models/create", name="known")
    asked = {"name": "known", "alias": "none"}
    refused(rest.get("/api/2.0/mlflow/registered-models/alias", params=asked), INVALID)
    for text, found in (("experiment_id = '0'", 1), ("experiment_id IN ('0', '77')", 1), ("experiment_id != '0'", 0)):
        answer = post(rest, "experiments/search", filter=text, max_results=10)
        assert len(answer.json().get("experiments", [])) == found, text
    refused(post(rest, "experiments/search", filter="experiment_id = 'x'", max_results=10), INVALID)


def test_a_body_over_the_limit_is_refused(rest: httpx.Client) -> None:
    run = new_run(rest)
    answer = post(rest, "runs/log-batch", run_id=run, tags=[{"key": "t", "value": "x" * 2_000_000}])
    refused(answer, INVALID, 413)


def test_not_a_number_and_infinities_are_kept_as_the_protocol_writes_them(rest: httpx.Client) -> None:
    run = new_run(rest)
    values = ["NaN", "Infinity", "-Infinity", 5, "2.5", "1e400"]
    points = [{**POINT, "key": f"m{place}", "value": value} for place, value in enumerate(values)]
    assert post(rest, "runs/log-batch", run_id=run, metrics=points).json() == {}
    largest = 1.7976931348623157e308
    found = {each["key"]: each["value"] for each in data_of(rest, run)["metrics"]}
    assert found == {"m0": "NaN", "m1": largest, "m2": -largest, "m3": 5, "m4": 2.5, "m5": largest}


def test_whole_numbers_may_come_as_text_and_unknown_fields_are_ignored(rest: httpx.Client) -> None:
    run = new_run(rest)
    sent = {"run_uuid": run, "key": "m", "value": "1.5", "timestamp": "17", "step": "-3", "colour": "red"}
    assert post(rest, "runs/log-metric", **sent).status_code == 200
    assert data_of(rest, run)["metrics"] == [{"key": "m", "value": 1.5, "timestamp": 17, "step": -3}]


@pytest.mark.parametrize(
    ("path", "body", "code", "status"),
    [
        ("runs/log-metric", {"run_id": "0" * 32, **POINT}, "RESOURCE_DOES_NOT_EXIST", 404),
        ("runs/log-metric", {**POINT}, INVALID, 400),
        ("runs/log-metric", {"run_id": "../../x", **POINT}, INVALID, 400),
        ("runs/log-metric", {"run_id": 7, **POINT}, INVALID, 400),
        ("runs/create", {}, INVALID, 400),
        ("runs/create", {"experiment_id": "first"}, INVALID, 400),
        ("runs/create", {"experiment_id": "99"}, "RESOURCE_DOES_NOT_EXIST", 404),
        ("runs/create", {"experiment_id": "0", "start_time": "noon"}, INVALID, 400),
        ("runs/create", {"experiment_id": "0", "run_name": "a\r\nb"}, INVALID, 400),
        ("runs/create", {"experiment_id": "0", "tags": {"a": "b"}}, INVALID, 400),
        ("runs/update", {"run_id": "0" * 32, "status": "FINISHED"}, "RESOURCE_DOES_NOT_EXIST", 404),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 0}, INVALID, 400),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 50_001}, INVALID, 400),
        ("runs/search", {"experiment_ids": ["0"], "run_view_type": "SOME"}, INVALID, 400),
        ("runs/search", {"experiment_ids": ["0"], "page_token": "bm8="}, INVALID, 400),
        ("runs/search", {"experiment_ids": [{"id": 0}]}, INVALID, 400),
        ("runs/search", {"experiment_ids": ["0"], "order_by": ["metrics.a SIDEWAYS"]}, INVALID, 400),
        ("experiments/create", {"name": ""}, INVALID, 400),
        ("experiments/create", {"name": "x" * 501}, INVALID, 400),
        ("experiments/create", {"name": ["x"]}, INVALID, 400),
        ("experiments/delete", {"experiment_id": "99"}, "RESOURCE_DOES_NOT_EXIST", 404),
        ("registered-models/create", {"name": "a/b"}, INVALID, 400),
        ("registered-models/create", {"name": " "}, INVALID, 400),
        ("registered-models/create", {"name": 5}, INVALID, 400),
        ("registered-models/rename", {"name": "nothing", "new_name": "x"}, "RESOURCE_DOES_NOT_EXIST", 404),
        ("logged-models", {"experiment_id": "0", "name": "a/b"}, INVALID, 400),
        ("nothing/here", {}, "RESOURCE_DOES_NOT_EXIST", 404),
        ("issues/create", {"name": "questions"}, "NOT_IMPLEMENTED", 501),
        ("unified-traces", {}, "NOT_IMPLEMENTED", 501),
        ("gateway/endpoints/create", {}, "NOT_IMPLEMENTED", 501),
        ("mcp-servers", {}, "NOT_IMPLEMENTED", 501),
        ("traces", {}, "NOT_IMPLEMENTED", 501),
    ],
)
def test_mistakes_have_the_codes_that_clients_know(
    rest: httpx.Client, path: str, body: dict[str, Any], code: str, status: int
) -> None:
    refused(rest.post(f"{API}/{path}", json=body), code, status)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"5", b"\xff", b'{"a":' * 100 + b"1" + b"}" * 100])
def test_bodies_that_are_no_objects_are_refused(rest: httpx.Client, body: bytes) -> None:
    answer = rest.post(f"{API}/runs/create", content=body, headers={"content-type": "application/json"})
    refused(answer, INVALID)


def test_without_a_token_the_answer_is_in_the_protocols_form(server: Server) -> None:
    for path in ("/version", f"{API}/experiments/search", "/ajax-api/2.0/mlflow/experiments/search"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")


def test_a_viewer_writes_nothing(server: Server, project: str) -> None:
    with server.rest(server.token(project, "viewer")) as viewer:
        refused(post(viewer, "experiments/create", name="e"), "PERMISSION_DENIED", 403)
        refused(post(viewer, "registered-models/create", name="m"), "PERMISSION_DENIED", 403)
        refused(viewer.put("/api/2.0/mlflow-artifacts/artifacts/0/x", content=b"x"), "PERMISSION_DENIED", 403)
        assert viewer.get(f"{API}/experiments/get", params={"experiment_id": "0"}).status_code == 200


def test_the_longest_filters_and_orders_are_answered(rest: httpx.Client) -> None:
    run = new_run(rest)
    metrics = [{**POINT, "key": f"m{number}"} for number in range(64)]
    assert post(rest, "runs/log-batch", run_id=run, metrics=metrics).status_code == 200
    wish: dict[str, Any] = {
        "experiment_ids": ["0"],
        "filter": " AND ".join(f"metrics.m{number} > 0.5" for number in range(64)),
        "order_by": [f"metrics.m{number}" for number in range(16)],
    }
    found = post(rest, "runs/search", **wish).json()["runs"]
    assert [each["info"]["run_id"] for each in found] == [run]
    wish["filter"] = wish["filter"].replace("m63 > 0.5", "m63 > 1.5")
    assert post(rest, "runs/search", **wish).json()["runs"] == []
    refused(post(rest, "runs/search", **(wish | {"order_by": [*wish["order_by"], "status"]})), INVALID)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "experiments/search", {"order_by": ["name", "tags.team"]}),
        ("GET", "registered-models/search", {"order_by": ["tags.team DESC"]}),
        ("GET", "model-versions/search", {"order_by": ["tags.team"]}),
        ("POST", "runs/search", {"experiment_ids": ["0"], "order_by": ["dataset.name"]}),
    ],
)
def test_an_order_by_what_has_none_is_refused(rest: httpx.Client, method: str, path: str, body: dict[str, Any]) -> None:
    sent = rest.get(f"{API}/{path}", params=body) if method == "GET" else rest.post(f"{API}/{path}", json=body)
    message = refused(sent, INVALID)
    assert "at sign 1:" in message
    assert "name" in message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("metrics.acc >> 3", 14),
        ("metrics.acc = 'high'", 15),
        ("params.a > '3'", 1),
        ("params.a = 3", 12),
        ("metrics.acc > 1 OR metrics.b > 2", 17),
        ("metrics.acc > 1 AND", 20),
        ("metrcs.acc > 1", 1),
        ("attributes.colour = 'red'", 1),
        ("params.a = 'open", 12),
        ("run_id IN ('a', 'b'", 20),
        ("params.a LIKE", 14),
        ("metrics.a LIKE '1%'", 1),
        ("params.a RLIKE 'x'", 1),
        ("tags.a IS EMPTY", 11),
        ("(metrics.a > 1)", 1),
        ("metrics.a > 1; DROP TABLE runs", 14),
    ],
)
def test_a_filter_with_a_mistake_is_pointed_at(rest: httpx.Client, text: str, place: int) -> None:
    message = refused(post(rest, "runs/search", experiment_ids=["0"], filter=text), INVALID)
    assert f"at sign {place}:" in message
    shown, pointer = message.splitlines()[1:3]
    assert shown == text
    assert pointer == " " * (place - 1) + "^"


TRAVERSALS = [
    "..", "../x", "0/../../x", "%2e%2e/x", "0/%2e%2e/%2e%2e/x", "%252e%252e/x", "0/%252e%252e%252fx", "0/%5c..%5cx",
    "0/a%5Cb", "%2fetc%2fpasswd", "%2Fetc/passwd", "C:/x", "c%3A/x", "0/%00", "0/a%0Ab", "0/./x", "0/%ff", "0/%252fx",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_spelling_of_an_artifact_leads_out(server: Server, token: str, path: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        status = raw(
            server, method, f"/api/2.0/mlflow-artifacts/artifacts/{path}", token, b"x" if method == "PUT" else b""
        )
        assert status == 400, (method, path)
    with server.rest(token) as rest:
        assert rest.get("/api/2.0/mlflow-artifacts/artifacts").json() == {"files": []}


@pytest.mark.parametrize("path", ["../x", "/etc", "a\\b", "a/../../b", "%2e%2e", "a//b"])
def test_no_listing_leads_out(rest: httpx.Client, path: str) -> None:
    run = new_run(rest)
    for address, names in (("/api/2.0/mlflow-artifacts/artifacts", {}), (f"{API}/artifacts/list", {"run_id": run})):
        answer = rest.get(address, params={**names, "path": path})
        assert answer.status_code == 400 or answer.json().get("files") == []


def until(true: Callable[[], bool]) -> None:
    """Look again and again until something in the server's folder is so."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def raw(server: Server, method: str, target: str, token: str, body: bytes) -> int:
    """Send exactly these bytes and return the status; 0 if there is none."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        answer = connection.recv(65_536)
    return int(answer.split()[1]) if answer else 0


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(server: Server, token: str, rest: httpx.Client) -> None:
    blobs = server.home / "blobs"
    before = sorted(path.name for path in blobs.rglob("*") if path.is_file())
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"PUT /api/2.0/mlflow-artifacts/artifacts/0/half.bin HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 1000000\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"x" * 200_000)
        until(lambda: any((blobs / "tmp").iterdir()))
    until(lambda: not any((blobs / "tmp").iterdir()))
    assert rest.get("/api/2.0/mlflow-artifacts/artifacts").json() == {"files": []}
    assert sorted(path.name for path in blobs.rglob("*") if path.is_file()) == before


def test_downloads_are_inert(rest: httpx.Client) -> None:
    page = b"<script>alert(1)</script>"
    assert rest.put("/api/2.0/mlflow-artifacts/artifacts/0/page.html", content=page).status_code == 200
    answer = rest.get("/api/2.0/mlflow-artifacts/artifacts/0/page.html")
    assert answer.content == page
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


def test_a_part_needs_its_own_secret(server: Server, rest: httpx.Client) -> None:
    begun = rest.post("/api/2.0/mlflow-artifacts/mpu/create/0/x", json={"path": "big.bin", "num_parts": 2}).json()
    address = begun["credentials"][0]["url"]
    for wrong in (
        address.replace("part=1", "part=3"),
        address.replace("secret=", "secret=a"),
        address.replace("project=", "project=x"),
        address.split("&secret")[0],
    ):
        assert httpx.put(wrong, content=b"x").status_code in (400, 403)
    etag = httpx.put(address, content=b"one").headers["etag"]
    parts = [{"part_number": 1, "etag": etag}, {"part_number": 2, "etag": etag}]
    done = {"path": "big.bin", "upload_id": begun["upload_id"], "parts": parts}
    refused(rest.post("/api/2.0/mlflow-artifacts/mpu/complete/0/x", json=done), INVALID)
    assert rest.get("/api/2.0/mlflow-artifacts/artifacts").json() == {"files": []}
    assert rest.post("/api/2.0/mlflow-artifacts/mpu/abort/0/x", json=done).status_code == 200
    assert httpx.put(address, content=b"x").status_code == 403


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd", "/etc/passwd", "http://10.0.0.1/m", "s3://bucket/m", "\\\\host\\share", "dbfs:/x",
        "mlflow-artifacts:/../x", "mlflow-artifacts:/0/x#y", "mlflow-artifacts:/0/x?y", "mlflow-artifacts:/a;b",
        "mlflow-artifacts:/0/%2e%2e/x", "mlflow-artifacts://host/x", "runs:/nothing/m", "models:/nothing/1",
        "runs:/" + "0" * 32 + "/../x", "m\x00",
    ],
)  # fmt: skip
def test_a_version_comes_from_this_server_or_not_at_all(rest: httpx.Client, source: str) -> None:
    post(rest, "registered-models/create", name="m")
    answer = post(rest, "model-versions/create", name="m", source=source)
    assert (answer.status_code, answer.json()["error_code"]) in ((400, INVALID), (404, "RESOURCE_DOES_NOT_EXIST"))
    assert rest.get(f"{API}/model-versions/search", params={"filter": "name='m'"}).json()["model_versions"] == []


@pytest.mark.parametrize("location", ["s3://bucket/x", "file:///etc", "/etc", "mlflow-artifacts:/../x", "runs:/a/b"])
def test_artifacts_stand_where_this_server_keeps_them(rest: httpx.Client, location: str) -> None:
    refused(post(rest, "experiments/create", name="e", artifact_location=location), INVALID)
    assert post(rest, "experiments/create", name="e", artifact_location="mlflow-artifacts:/own").status_code == 200


@pytest.mark.parametrize("key", ["__proto__", "constructor.prototype.x", "__class__", "a.b", "naïve", "日本"])
def test_keys_are_data(rest: httpx.Client, key: str) -> None:
    run, other = new_run(rest), new_run(rest)
    assert post(rest, "runs/log-parameter", run_id=run, key=key, value="${7*7}").status_code == 200
    assert post(rest, "runs/set-tag", run_id=run, key=key, value="{{7*7}}").status_code == 200
    data = data_of(rest, run)
    assert data["params"] == [{"key": key, "value": "${7*7}"}]
    assert {"key": key, "value": "{{7*7}}"} in data["tags"]
    assert data_of(rest, other)["params"] == []
    found = post(rest, "runs/search", experiment_ids=["0"], filter=f"params.`{key}` = '${{7*7}}'").json()["runs"]
    assert [each["info"]["run_id"] for each in found] == [run]


def test_nothing_of_another_project_can_be_reached(server: Server, rest: httpx.Client) -> None:
    """Every kind of id: the answer is that of a missing one, and nothing is written."""
    run = new_run(rest)
    post(rest, "runs/log-metric", run_id=run, **POINT)
    model = post(rest, "logged-models", experiment_id="0", name="m").json()["model"]["info"]["model_id"]
    post(rest, "registered-models/create", name="m")
    rest.put(f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/a.txt", content=b"mine")
    upload = rest.post("/api/2.0/mlflow-artifacts/mpu/create/0/x", json={"path": "b", "num_parts": 1}).json()[
        "upload_id"
    ]
    with server.rest(server.token("elsewhere")) as other:
        missing = "f" * 32
        for known, unknown in ((run, missing), (model, f"m-{missing}")):
            for ask in _asks(known, unknown, upload):
                answers = [ask(other, each).json() for each in (known, unknown)]
                texts = [str(answer).replace(known, "ID").replace(unknown, "ID") for answer in answers]
                assert texts[0] == texts[1]
        assert post(other, "runs/search", experiment_ids=["0"]).json() == {"runs": []}
        assert other.get(f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/a.txt").status_code == 404
        gone = {"path": "b", "upload_id": upload, "parts": []}
        assert other.post("/api/2.0/mlflow-artifacts/mpu/abort/0/x", json=gone).status_code == 404
    assert [each["key"] for each in data_of(rest, run)["metrics"]] == ["m"]


def _asks(known: str, unknown: str, upload: str) -> list[Any]:
    if known.startswith("m-"):
        base = f"{API}/logged-models"
        return [
            lambda rest, each: rest.get(f"{base}/{each}"),
            lambda rest, each: rest.patch(f"{base}/{each}", json={"status": "LOGGED_MODEL_READY"}),
            lambda rest, each: rest.request("DELETE", f"{base}/{each}"),
            lambda rest, each: rest.get(f"{base}/{each}/artifacts/directories"),
            lambda rest, each: rest.patch(f"{base}/{each}/tags", json={"tags": [{"key": "a", "value": "b"}]}),
        ]
    return [
        lambda rest, each: rest.get(f"{API}/runs/get", params={"run_id": each}),
        lambda rest, each: post(rest, "runs/update", run_id=each, status="FAILED"),
        lambda rest, each: post(rest, "runs/delete", run_id=each),
        lambda rest, each: post(rest, "runs/log-metric", run_id=each, **POINT),
        lambda rest, each: post(rest, "runs/log-batch", run_id=each, metrics=[POINT]),
        lambda rest, each: post(rest, "runs/log-inputs", run_id=each, datasets=[]),
        lambda rest, each: post(rest, "runs/set-tag", run_id=each, key="a", value="b"),
        lambda rest, each: rest.get(f"{API}/metrics/get-history", params={"run_id": each, "metric_key": "m"}),
        lambda rest, each: rest.get(f"{API}/metrics/get-history-bulk", params={"run_id": each, "metric_key": "m"}),
        lambda rest, each: rest.get(f"{API}/artifacts/list", params={"run_id": each}),
    ]
