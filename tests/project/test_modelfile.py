"""Model files as they come: known by their bytes, taken from folders as MLflow writes them, never unpickled."""

import json
import pickle
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.project.modelfile import kind_of, read_model
from holdtrue.serving import PythonModel, compile_model
from holdtrue.serving.package import BadPackage
from holdtrue.serving.runtime import ModelRefused
from tests.serving import scorers_helper
from tests.serving.scorers import Scorer

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(200, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
NAMES = ["age", "owner's income", "debt"]


@pytest.fixture(scope="module")
def onnx() -> bytes:
    """A small compiled model."""
    return compile_model(LogisticRegression().fit(X, Y), ["a", "b", "c"], X).onnx


def mlflow_folder(folder: Path, data: bytes, name: str, columns: Any) -> Path:
    """Write a folder as MLflow does, with the signature as its YAML writer puts it."""
    folder.mkdir()
    (folder / name).write_bytes(data)
    quoted = json.dumps(columns).replace("'", "''")
    middle = quoted.index(", ") + 1
    text = f"artifact_path: m\nflavors:\n  x:\n    data: {name}\nsignature:\n  inputs: '{quoted[:middle]}\n"
    text += f"    {quoted[middle + 1 :]}'\n  outputs: null\n  params: null\nutc_time_created: now\n"
    (folder / "MLmodel").write_text(text)
    (folder / "conda.yaml").write_text("name: x\n")
    (folder / "input_example.json").write_text('{"columns": []}')
    return folder


def test_a_file_is_known_by_its_bytes(tmp_path: Path, onnx: bytes) -> None:
    booster = lightgbm.train({"verbosity": -1}, lightgbm.Dataset(X, Y), 3)
    trees = xgboost.XGBClassifier(n_estimators=2).fit(X, Y).get_booster()
    assert kind_of(onnx) == "onnx-file"
    assert kind_of(booster.model_to_string().encode()) == "lightgbm"
    assert kind_of(bytes(trees.save_raw("json"))) == kind_of(bytes(trees.save_raw("ubj"))) == "xgboost"
    (tmp_path / "model.pkl").write_bytes(onnx)
    served = read_model(tmp_path / "model.pkl")
    assert (served.format, served.names) == ("onnx-file", ("features_0", "features_1", "features_2"))


def test_a_package_is_served_under_the_names_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "model.htmodel"
    path.write_bytes(PythonModel(Scorer, modules=[scorers_helper], seconds=5.0).packed(["way", "amount"]))
    assert kind_of(path.read_bytes()[:4096]) == "python"
    served = read_model(tmp_path)
    assert (served.format, served.names, served.model.output) == ("python", ("way", "amount"), "score")
    with pytest.raises(ModelRefused, match="code"):
        read_model(path, code=False)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadPackage):
        read_model(path)


def test_a_folder_of_mlflow_is_served_with_the_names_of_its_signature(tmp_path: Path, onnx: bytes) -> None:
    columns = [{"type": "double", "name": name, "required": True} for name in NAMES]
    folder = mlflow_folder(tmp_path / "m", onnx, "model.onnx", columns)
    served = read_model(folder)
    assert served.names == tuple(NAMES)
    assert served.data == onnx
    (folder / "data").mkdir()
    (folder / "data" / "other.onnx").write_bytes(onnx)
    with pytest.raises(InvalidInput, match="2 model files"):
        read_model(folder)
    fewer = mlflow_folder(tmp_path / "n", onnx, "model.onnx", columns[:2])
    assert read_model(fewer).names == ("features_0", "features_1", "features_2")
    tensors = mlflow_folder(tmp_path / "t", onnx, "model.onnx", [{"type": "tensor", "tensor-spec": {"dtype": "x"}}])
    assert read_model(tensors).names == ("features_0", "features_1", "features_2")


def test_pickles_and_strangers_are_refused_before_anything_reads_them(tmp_path: Path, onnx: bytes) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(InvalidInput, match="no model file"):
        read_model(tmp_path / "m")
    (tmp_path / "m" / "model.pkl").write_bytes(pickle.dumps(LogisticRegression()))
    for path in (tmp_path / "m", tmp_path / "m" / "model.pkl"):
        with pytest.raises(InvalidInput, match="pickle") as refused:
            read_model(path)
        assert "skops" in refused.value.mend
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InvalidInput, match="no model file that is served"):
        read_model(tmp_path / "text")
    with pytest.raises(NotFound):
        read_model(tmp_path / "nothing")
    (tmp_path / "half.onnx").write_bytes(onnx[: len(onnx) // 2])
    with pytest.raises((ModelRefused, InvalidInput)):
        read_model(tmp_path / "half.onnx")
    (tmp_path / "m" / "model.pkl").unlink()
    (tmp_path / "elsewhere.onnx").write_bytes(onnx)
    (tmp_path / "m" / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(InvalidInput, match="no model file"):
        read_model(tmp_path / "m")
