"""`holdtrue serve` with a model file, as a script uses it."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from holdtrue.server.ports import free_ports
from holdtrue.serving import PythonModel
from tests.cli.test_commands import holdtrue
from tests.cli.toys import succeed, toy_folder
from tests.serving import scorers_helper
from tests.serving.scorers import Scorer

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(200, 3)).astype(np.float32)


def write(path: Path, slope: float) -> LogisticRegression:
    """Write a converted classifier, and return the original."""
    from skl2onnx import to_onnx

    fitted = LogisticRegression(C=slope).fit(X, (X[:, 0] > 0).astype(int))
    made = to_onnx(fitted, X[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
    path.write_bytes(made.SerializeToString())  # pyright: ignore[reportAttributeAccessIssue]  # a protocol buffer
    return fitted


@contextmanager
def served(folder: Path, *arguments: str) -> Generator[int]:
    """Run the command until the block ends; give its first port."""
    port = free_ports("127.0.0.1")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    command = [sys.executable, "-m", "holdtrue", "serve", *arguments, "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert any(line.startswith("ready ") for line in process.stdout), process.stderr.read()
        yield port
    finally:
        process.terminate()
        status = process.wait(60)
        process.stdout.close()
        process.stderr.close()
    assert status == 0


def test_a_model_file_answers_as_soon_as_it_says_ready(tmp_path: Path) -> None:
    original = write(tmp_path / "model.onnx", 1.0)
    with served(tmp_path, "model.onnx", "--name", "credit", "--home", "home") as port:
        made = succeed(
            "token", "create", "--role", "service", "--project", "credit", "--json", "--home", "home", cwd=tmp_path
        )
        headers = {"authorization": f"Bearer {json.loads(made)['token']}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port + 1}", headers=headers, timeout=30) as client:
            # The data plane learns of a token at its next look.
            while client.get("/v2/models/credit").status_code == 401:
                pass
            rows = X[:5]
            tensor = {"name": "X", "datatype": "FP32", "shape": [5, 3], "data": rows.tolist()}
            answer = client.post("/v2/models/credit/infer", json={"inputs": [tensor]}).json()
            expected = original.predict_proba(rows)[:, 1]
            assert answer["outputs"][0]["data"] == pytest.approx(expected, abs=1e-6)
            assert answer["outputs"][0]["name"] == "probabilities"
            metadata = client.get("/v2/models/credit").json()
            assert metadata["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 3]}]
            assert client.post("/invocations", json={"inputs": rows.tolist()}).json()["predictions"] == pytest.approx(
                expected, abs=1e-6
            )
            named = dict(zip(("X_0", "X_1", "X_2"), rows[0].tolist(), strict=True))
            assert client.post("/predict", json=named).json()["outputs"]["probabilities"] == pytest.approx(expected[0])
            # Another file under the same name takes over in the running server.
            other = write(tmp_path / "better.onnx", 0.01)
            again = succeed("serve", "better.onnx", "--name", "credit", "--home", "home", cwd=tmp_path)
            assert "runs already" in again
            release = again.split()[1].rstrip(",")
            while client.post("/predict", json=named).json()["release"] != release:
                pass
            changed = client.post("/predict", json=named).json()["outputs"]["probabilities"]
            assert changed == pytest.approx(other.predict_proba(rows[:1])[0, 1], abs=1e-6)
        status = json.loads(succeed("status", "--json", "--home", "home", cwd=tmp_path))
        assert "dev" in json.dumps(status)


def test_what_cannot_be_served_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04K\x01.")
    done = holdtrue("serve", "model.pkl", "--name", "m", "--home", "home", cwd=tmp_path)
    assert done.returncode == 1
    assert "pickle" in done.stderr
    assert not (tmp_path / "home").exists()
    write(tmp_path / "model.onnx", 1.0)
    done = holdtrue("serve", "model.onnx", "--name", "../x", "--home", "home", cwd=tmp_path)
    assert done.returncode == 1
    code = PythonModel(Scorer, modules=[scorers_helper]).packed(["a", "b"])
    (tmp_path / "code.htmodel").write_bytes(code)
    done = holdtrue("serve", "code.htmodel", "--name", "m", "--home", "home", cwd=tmp_path)
    assert done.returncode == 1
    assert "model_code" in done.stderr
    toy = toy_folder(tmp_path / "toy") if (tmp_path / "toy").mkdir() is None else tmp_path
    succeed("apply", cwd=toy)
    done = holdtrue("serve", "../model.onnx", "--name", "toy", cwd=toy)
    assert done.returncode == 1
    assert "declared by a project file" in done.stderr
