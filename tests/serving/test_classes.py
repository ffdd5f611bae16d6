"""Models of three classes: compiled and packed alike, and answered in every form of a request over real sockets."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import skops.io
import xgboost
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

from holdtrue.core.canonical import bytes_hash
from holdtrue.features import FeatureSet, numeric
from holdtrue.serving import Arm, Bundle, Input, ModelFile, Route, Snapshot, load_model, pack_model, write_snapshot
from holdtrue.serving.contributions import background_of
from holdtrue.serving.probe import load_probed
from holdtrue.serving.runtime import ModelRefused
from holdtrue.stats.conformal import ClassSets, Ranges
from tests.serving.plane_home import PROJECT, TOKEN, Home, Process, free_port

WINE: Any = load_wine()
X = WINE.data.astype(np.float32)
Y = WINE.target
NAMES = [f"x{place}" for place in range(X.shape[1])]
CLASSES = ("barolo", "grignolino", "barbera")


@pytest.mark.parametrize(
    ("estimator", "format"),
    [
        (HistGradientBoostingClassifier(max_iter=5, random_state=0), "onnx"),
        (RandomForestClassifier(5, random_state=0), "onnx"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "onnx"),
        (KNeighborsClassifier(5), "onnx"),
        (lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1, n_jobs=1), "lightgbm"),
        (xgboost.XGBClassifier(n_estimators=3, nthread=1), "xgboost"),
    ],
)
def test_what_is_packed_gives_the_probability_of_each_class(estimator: Any, format: str) -> None:
    fitted = estimator.fit(X, Y)
    packed = pack_model(fitted, NAMES, X)
    assert packed.format == format
    assert packed.parity["changed_decisions"] == 0.0
    assert packed.parity["max_difference"] < 1e-5
    model = load_model(packed.data, bytes_hash(packed.data), format)
    assert model.classes == ("0", "1", "2")
    assert model.score(X) == pytest.approx(fitted.predict_proba(X), abs=1e-5)


def converted(estimator: Any, options: Any = None) -> bytes:
    made: Any = to_onnx(estimator, X[:1], options=options)
    return bytes(made.SerializeToString())


def test_a_file_tells_its_classes() -> None:
    named = RandomForestClassifier(3, random_state=0).fit(X, np.array(CLASSES)[Y])
    skopsed = skops.io.dumps(named)
    model = load_probed(skopsed, bytes_hash(skopsed), "skops")
    assert model.classes == tuple(sorted(CLASSES))
    assert model.score(X) == pytest.approx(named.predict_proba(X), abs=1e-6)
    for options, classes in (({"zipmap": False}, ("0", "1", "2")), ({}, tuple(sorted(CLASSES)))):
        data = converted(named, {id(named): options})
        model = load_model(data, bytes_hash(data), "onnx-file")
        assert (model.classes, model.score(X).shape) == (classes, (len(X), 3))
    # A booster that names a class is asked for the probabilities of all.
    booster = xgboost.train({"objective": "multi:softmax", "num_class": 3}, xgboost.DMatrix(X, label=Y), 2)
    data = bytes(booster.save_raw("ubj"))
    found = load_model(data, bytes_hash(data), "xgboost").score(X)
    assert found.argmax(axis=1).tolist() == booster.predict(xgboost.DMatrix(X)).astype(int).tolist()
    assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_several_numbers_that_are_no_classes_are_refused() -> None:
    two = np.column_stack([X[:, 0], X[:, 1]])
    trees = ExtraTreesRegressor(2, random_state=0).fit(X, two)
    onnx = converted(trees)
    twice = xgboost.train({"num_target": 2}, xgboost.DMatrix(X, label=two), 1)
    for data, kind in (
        (onnx, "onnx-file"),
        (bytes(twice.save_raw("ubj")), "xgboost"),
        (skops.io.dumps(trees), "skops"),
    ):
        with pytest.raises(ModelRefused):
            load_model(data, bytes_hash(data), kind)


@pytest.fixture(scope="module")
def packed() -> dict[str, Any]:
    forest = RandomForestClassifier(10, random_state=0).fit(X, Y)
    line = LinearRegression().fit(X[:, :12], X[:, 12])
    return {
        "forest": pack_model(forest, NAMES, X),
        "trees": pack_model(lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1, n_jobs=1).fit(X, Y), NAMES, X),
        "line": pack_model(line, NAMES[:12], X[:, :12]),
        "expected": forest.predict_proba(X),
        "numbers": line.predict(X[:, :12]),
    }


@pytest.fixture
def plane(home: Home, packed: dict[str, Any]) -> tuple[Process, int]:
    """A data plane with two models of classes, one that always fails, and one of a number."""
    background = home.blobs.put(background_of(X))
    sets = ClassSets(0.9, (0.4, 0.4, 0.4))

    def bundle(service: str, model: str, width: int = 13, **more: Any) -> Bundle:
        names = NAMES[:width]
        return Bundle(
            release=f"rel_{service}",
            project=PROJECT,
            service=service,
            inputs=tuple(Input(name, "FP64") for name in names),
            contract=None,
            features=FeatureSet((), tuple(numeric(name) for name in names), {}).to_json(),
            model=ModelFile(packed[model].format, home.blobs.put(packed[model].data)),
            output="grape",
            **more,
        )

    bundles = [
        bundle("forest", "forest", classes=CLASSES, class_sets=sets, background=background),
        bundle("trees", "trees", classes=CLASSES),
        bundle("line", "line", 12, ranges=Ranges(0.9, (700.0,), (100.0, 200.0))),
        bundle("misnamed", "forest"),
    ]
    constant = {"forest": 2.0, "misnamed": 1.0}
    routes = {
        f"{PROJECT}/{each.service}": Route(
            PROJECT,
            each.service,
            None,
            None,
            (Arm("champion", each.release, 100.0),),
            fallback=constant.get(each.service),
            abstain=(0.0, 0.5) if each.service == "forest" else None,
        )
        for each in bundles
    }
    home.sequence += 1
    snapshot = Snapshot(home.sequence, home.clock.now(), routes, {each.release: each for each in bundles})
    write_snapshot(home.path / "routing" / "current.json", snapshot)
    port = free_port()
    process = home.start("--grpc-port", str(port))
    process.until(lambda: home.acks().get("sequence") == 1)
    return process, port


def row(number: int, width: int = 13) -> dict[str, float]:
    return dict(zip(NAMES[:width], X[number, :width].astype(float).tolist(), strict=True))


def test_every_form_answers_with_a_class_and_the_probability_of_each(
    plane: tuple[Process, int], packed: dict[str, Any]
) -> None:
    process, port = plane
    client, chances = process.client, packed["expected"][0].tolist()
    asked = {"x-holdtrue-sets": "true", "x-holdtrue-contributions": "true"}
    one = client.post("/predict/forest", json=row(0), headers=asked).json()
    assert one["outputs"] == {"grape": "barolo"}
    assert one["probabilities"] == pytest.approx(dict(zip(CLASSES, chances, strict=True)), abs=1e-5)
    assert (one["set"], one["abstained"], one["contributions"]["class"]) == (["barolo"], False, "barolo")
    told = one["contributions"]
    assert told["base"] + sum(told["values"].values()) == pytest.approx(chances[0], abs=1e-5)
    many = {"dataframe_records": [row(0), row(100)]}
    invoked = client.post("/invocations/forest", json=many, headers={"x-holdtrue-sets": "true"}).json()
    assert invoked["predictions"] == ["barolo", "grignolino"]
    assert invoked["classes"] == list(CLASSES)
    assert invoked["probabilities"][1] == pytest.approx(packed["expected"][100].tolist(), abs=1e-5)
    exact = client.post("/predict/trees", json=row(0), headers={"x-holdtrue-contributions": "true"}).json()
    assert exact["contributions"]["class"] == exact["outputs"]["grape"] == "barolo"
    described = client.get("/predict/forest/openapi.json").json()["components"]["schemas"]["Answer"]["properties"]
    assert described["outputs"]["properties"]["grape"]["enum"] == list(CLASSES)
    records = process.home.records("prediction", "forest")
    first = next(each for each in records if each["id"] == one["prediction_id"])
    assert (first["score"], first["fallback"]) == (0.0, False)
    assert [first[f"p_{place}"] for place in range(3)] == pytest.approx(chances, abs=1e-5)
    _with_triton(process, port, packed)


def _with_triton(process: Process, port: int, packed: dict[str, Any]) -> None:
    """Ask the protocol with its own clients: JSON and binary over HTTP, and gRPC."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    for kind, address in ((triton_http, process.port), (triton_grpc, port)):
        client: Any = kind.InferenceServerClient(f"127.0.0.1:{address}")
        tensors: list[Any] = []
        for name in NAMES:
            tensor: Any = kind.InferInput(name, [2], "FP64")
            tensor.set_data_from_numpy(np.array([row(0)[name], row(100)[name]]))
            tensors.append(tensor)
        answer: Any = client.infer("forest", tensors, headers={**headers})
        assert [each.decode() for each in answer.as_numpy("grape")] == ["barolo", "grignolino"]
        found = answer.as_numpy("grape_probabilities")
        assert found == pytest.approx(packed["expected"][[0, 100]], abs=1e-5)
        wanted = [kind.InferRequestedOutput("grape_probabilities")]
        only: Any = client.infer("forest", tensors, outputs=wanted, headers={**headers})
        assert only.as_numpy("grape") is None
        assert only.as_numpy("grape_probabilities").shape == (2, 3)
        client.close()
    described = process.client.get("/v2/models/forest").json()["outputs"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in described] == [
        ("grape", "BYTES", [-1]),
        ("grape_probabilities", "FP32", [-1, 3]),
    ]


def test_what_a_service_of_classes_cannot_do_is_said(plane: tuple[Process, int]) -> None:
    process, _ = plane
    client = process.client
    # A release that says nothing of the classes that its model tells apart is not loaded: its constant answers.
    ack = process.home.acks()
    assert "classes apart" in str(ack)
    refused = client.post("/predict/trees", json=row(0), headers={"x-holdtrue-sets": "true"})
    assert refused.json()["error"]["code"] == "no_prediction_sets"
    body = {
        "outputs": [{"name": "score"}],
        "inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in row(0).items()],
    }
    assert "grape_probabilities" in client.post("/v2/models/forest/infer", json=body).json()["error"]
    labels = {"service": "forest", "labels": [{"key": "a", "value": "barbera"}, {"key": "b", "value": 1}]}
    assert client.post("/labels", json=labels).status_code == 200
    assert [each["value"] for each in process.home.records("label", "forest")] == [2, 1]
    wrong = client.post("/labels", json={"service": "forest", "labels": [{"key": "a", "value": "merlot"}]})
    assert wrong.status_code == 400
    assert "barolo" in wrong.json()["error"]["what"]


def test_a_number_is_answered_with_how_far_off_it_may_be(plane: tuple[Process, int], packed: dict[str, Any]) -> None:
    process, _ = plane
    told = [
        process.client.post("/predict/line", json=row(at, 12), headers={"x-holdtrue-sets": "true"}).json()
        for at in (0, 100)
    ]
    for each, at in zip(told, (0, 100), strict=True):
        score = each["outputs"]["grape"]
        assert score == pytest.approx(packed["numbers"][at], rel=1e-4)
        half = 200.0 if score >= 700.0 else 100.0
        assert each["set"] == pytest.approx([score - half, score + half], rel=1e-6)
