import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import InvalidInput
from holdtrue.serving import CannotCompile, compile_model, load_model

NAMES = ["a", "b", "c", "d"]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from holdtrue.core.canonical import bytes_hash
from tests.serving.test_compiling import NAMES, fitted, sample
from holdtrue.serving import compile_model
print([bytes_hash(compile_model(each, NAMES, sample(missing=False)).onnx) for each in fitted(missing=False)])
"""


def sample(rows: int = 3000, *, missing: bool = True) -> Any:
    random = np.random.default_rng(11)
    matrix = random.normal(size=(rows, 4)).astype(np.float32)
    # Round and repeated values lie on thresholds, where a careless conversion goes wrong.
    matrix[:, 1] = np.round(matrix[:, 1], 1)
    matrix[:, 2] = random.integers(0, 30, rows)
    if missing:
        matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def fitted(*, missing: bool) -> list[Any]:
    matrix = sample(missing=missing)
    random = np.random.default_rng(12)
    label = (np.nan_to_num(matrix[:, 0]) + random.normal(size=len(matrix)) > 0).astype(int)
    trees = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return [each.fit(matrix, label) for each in (trees, pipeline)]


def test_the_compiled_form_agrees_with_the_estimator() -> None:
    matrix = sample()
    for estimator in fitted(missing=True):
        compiled = compile_model(estimator, NAMES, matrix)
        assert compiled.parity["max_difference"] < 1e-5
        assert compiled.parity["changed_decisions"] == 0.0
        assert compiled.parity["n"] == len(matrix)
        assert compiled.parity["runtime"].startswith("onnxruntime ")
        scores = load_model(compiled.onnx, bytes_hash(compiled.onnx)).score(matrix)
        assert scores.dtype == np.float32
        assert scores.shape == (len(matrix),)
        assert np.abs(scores - estimator.predict_proba(matrix)[:, 1]).max() == pytest.approx(
            compiled.parity["max_difference"]
        )


def test_disagreement_is_measured_and_not_hidden() -> None:
    # A float32 scaler rounds values across the thresholds of trees that were grown on float64.
    matrix = sample(30_000, missing=False)
    random = np.random.default_rng(13)
    trees = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    estimator = make_pipeline(StandardScaler(), trees).fit(matrix, matrix[:, 0] + random.normal(size=30_000) > 0)
    compiled = compile_model(estimator, NAMES, matrix)
    scores = load_model(compiled.onnx, bytes_hash(compiled.onnx)).score(matrix)
    expected = estimator.predict_proba(matrix)[:, 1]
    assert compiled.parity["max_difference"] == pytest.approx(np.abs(scores - expected).max())
    assert compiled.parity["max_difference"] > 1e-3
    assert compiled.parity["changed_decisions"] == np.mean((scores >= 0.5) != (expected >= 0.5))


def test_equal_models_give_equal_bytes_in_any_process() -> None:
    here = [bytes_hash(compile_model(each, NAMES, sample(missing=False)).onnx) for each in fitted(missing=False)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "."],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "HOSTNAME": "elsewhere", "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == str(here)


def test_nothing_of_the_machine_or_the_library_is_in_the_bytes() -> None:
    data = compile_model(fitted(missing=False)[0], NAMES, sample(missing=False)).onnx
    for word in (b"skl2onnx", b"1.20", b"sklearn", b"202", b"/home", b"OnnxMl"):
        assert word not in data


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (RidgeClassifier().fit(np.eye(4), [0, 1, 1, 0]), "no probabilities"),
        (LinearRegression(), "not fitted"),
        (HistGradientBoostingClassifier(), "not fitted"),
        (DummyClassifier().fit(np.eye(4), [0, 0, 0, 0]), "1 classes"),
        (
            HistGradientBoostingClassifier(categorical_features=cast(Any, [2])).fit(
                sample(missing=False), sample(missing=False)[:, 0] > 0
            ),
            "categories",
        ),
    ],
)
def test_what_has_no_faithful_form_is_refused_by_name(estimator: Any, said: str) -> None:
    with pytest.raises(CannotCompile) as refused:
        compile_model(estimator, NAMES, sample())
    assert said in refused.value.why
    assert type(estimator).__name__ in refused.value.what


def test_an_unknown_estimator_is_refused_briefly() -> None:
    class Own:
        classes_ = (0, 1)

        def predict_proba(self, matrix: Any) -> Any:
            return np.full((len(matrix), 2), 0.5)

    with pytest.raises(CannotCompile) as refused:
        compile_model(Own(), NAMES, sample())
    assert "Own" in refused.value.what
    assert len(str(refused.value)) < 800


def test_a_forest_is_compiled_too() -> None:
    matrix = sample(missing=False)
    forest = RandomForestClassifier(n_estimators=5, max_depth=4, random_state=0).fit(matrix, matrix[:, 0] > 0)
    assert compile_model(forest, NAMES, matrix).parity["changed_decisions"] == 0.0


@pytest.mark.parametrize("matrix", [sample()[:, :3], sample()[:0], sample()[0]])
def test_a_sample_that_does_not_fit_is_refused(matrix: Any) -> None:
    with pytest.raises(InvalidInput, match="sample"):
        compile_model(fitted(missing=False)[0], NAMES, matrix)
