"""Models in the own formats of libraries answer as the libraries themselves do; what could run code is refused."""

import io
import pickle
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
import pytest
import skops.io
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt, MissingExtra
from holdtrue.serving import CannotCompile, load_model, pack_model
from holdtrue.serving import packing as packing_module
from holdtrue.serving.compiling import Compiled, compile_model
from holdtrue.serving.onnxfile import UnsafeModel
from holdtrue.serving.probe import load_probed
from holdtrue.serving.runtime import ModelRefused

RANDOM = np.random.default_rng(11)
X = RANDOM.normal(size=(600, 4)).astype(np.float32)
Y = (X[:, 0] - X[:, 1] ** 2 + RANDOM.normal(size=600) > -0.5).astype(int)
NAMES = ["a", "b", "c", "d"]
HOLES = np.where(RANDOM.random(X.shape) < 0.2, np.nan, X).astype(np.float32)


def loaded(data: bytes, format: str) -> Any:
    return load_model(data, bytes_hash(data), format)


def lgbm() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=20, verbosity=-1, n_jobs=1).fit(X, Y)


def xgb() -> Any:
    return xgboost.XGBClassifier(n_estimators=20, nthread=1).fit(X, Y)


def test_lightgbm_answers_as_its_estimator_does_row_by_row() -> None:
    estimator = lgbm()
    model = loaded(estimator.booster_.model_to_string().encode(), "lightgbm")
    assert model.features == 4
    for row in HOLES[:50]:
        expected = np.float32(estimator.booster_.predict(row.reshape(1, -1))[0])
        assert model.score(row.reshape(1, -1))[0] == expected
    named = lightgbm.train({"verbosity": -1}, lightgbm.Dataset(X, Y.astype(float), feature_name=NAMES), 5)
    regression = loaded(named.model_to_string().encode(), "lightgbm")
    assert regression.names == tuple(NAMES)
    assert regression.score(X) == pytest.approx(np.asarray(named.predict(X)), rel=1e-6)


@pytest.mark.parametrize("kind", ["json", "ubj"])
def test_xgboost_answers_as_its_estimator_does(kind: str) -> None:
    estimator = xgb()
    model = loaded(bytes(estimator.get_booster().save_raw(kind)), "xgboost")
    assert (model.features, model.names) == (4, ("f0", "f1", "f2", "f3"))
    assert model.score(HOLES) == pytest.approx(estimator.predict_proba(HOLES)[:, 1], abs=1e-7)
    one_by_one = [model.score(row.reshape(1, -1))[0] for row in HOLES[:50]]
    assert one_by_one == model.score(HOLES[:50]).tolist()


def test_skops_answers_as_the_estimator_does() -> None:
    classifier = make_pipeline(StandardScaler(), KNeighborsClassifier(7)).fit(X, Y)
    model = loaded(skops.io.dumps(classifier), "skops")
    assert model.score(X) == pytest.approx(classifier.predict_proba(X)[:, 1])
    regressor = RandomForestRegressor(5, random_state=0).fit(X, X[:, 0])
    assert loaded(skops.io.dumps(regressor), "skops").score(X) == pytest.approx(regressor.predict(X), abs=1e-6)


def test_an_estimator_that_was_fitted_with_names_is_asked_with_names() -> None:
    import pandas as pd

    fitted = KNeighborsClassifier(3).fit(pd.DataFrame(X, columns=NAMES), Y)
    model = loaded(skops.io.dumps(fitted), "skops")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.score(X[:9]) == pytest.approx(fitted.predict_proba(pd.DataFrame(X[:9], columns=NAMES))[:, 1])
    assert model.names == tuple(NAMES)


def test_a_file_with_types_that_skops_does_not_trust_is_refused() -> None:
    pipeline = make_pipeline(FunctionTransformer(np.exp), LogisticRegression()).fit(X, Y)
    pipeline.steps[0][1].func = sys.exit
    with pytest.raises(ModelRefused, match="not served") as refused:
        loaded(skops.io.dumps(pipeline), "skops")
    assert "nobody vouches" in refused.value.why


# Each file is tried in a process of its own, which loads the library anew.
_SLOW = [pytest.param(each, marks=pytest.mark.long) for each in ("xgboost", "skops")]


@pytest.mark.parametrize("format", ["lightgbm", "onnx-file", *_SLOW])
def test_files_of_another_kind_are_refused(format: str) -> None:
    good = {
        "lightgbm": lgbm().booster_.model_to_string().encode(),
        "xgboost": bytes(xgb().get_booster().save_raw("ubj")),
        "skops": skops.io.dumps(LogisticRegression().fit(X, Y)),
        "onnx-file": compile_model(LogisticRegression().fit(X, Y), NAMES, X).onnx,
    }
    other = {"lightgbm": "xgboost", "xgboost": "lightgbm", "skops": "onnx-file", "onnx-file": "skops"}[format]
    wrong = [pickle.dumps({"a": 1}), good[format][: len(good[format]) // 2], good[other]]
    for data in wrong:
        with pytest.raises((ModelRefused, UnsafeModel)):
            load_probed(data, bytes_hash(data), format)
    assert loaded(good[format], format).features == 4
    with pytest.raises(ModelRefused, match="not served"):
        loaded(good[format], "pickle")


def test_a_file_that_a_native_parser_falls_over_takes_no_server_with_it() -> None:
    whole = lgbm().booster_.model_to_string()
    assert load_probed(whole.encode(), bytes_hash(whole.encode()), "lightgbm").features == 4
    for broken in (
        whole.replace("num_leaves=", "num_leaves=9", 1).encode(),
        whole.replace("split_feature=", "split_feature=99999 ", 1).encode(),
    ):
        with pytest.raises(ModelRefused):
            load_probed(broken, bytes_hash(broken), "lightgbm")
    with pytest.raises(Corrupt):
        load_probed(whole.encode()[:-1], bytes_hash(whole.encode()), "lightgbm")
    garbage = b"\x80\x04K\x01."
    for kind in ("xgboost", "skops"):
        with pytest.raises(ModelRefused):
            load_probed(garbage, bytes_hash(garbage), kind)


def converted(estimator: Any, **options: Any) -> bytes:
    from skl2onnx import to_onnx

    made: Any = to_onnx(estimator, X[:1], options=options.get("options"), target_opset={"": 17, "ai.onnx.ml": 3})
    return made.SerializeToString()


def test_onnx_of_another_librarys_making_is_served() -> None:
    classifier, regressor = LogisticRegression().fit(X, Y), RandomForestRegressor(5, random_state=0).fit(X, X[:, 0])
    expected = pytest.approx(classifier.predict_proba(X)[:, 1], abs=1e-6)
    plain = loaded(converted(classifier, options={"zipmap": False}), "onnx-file")
    assert plain.score(X) == expected
    assert (plain.matrix, plain.output, plain.names) == ("X", "probabilities", ("X_0", "X_1", "X_2", "X_3"))
    assert loaded(converted(classifier), "onnx-file").score(X) == expected
    assert loaded(converted(regressor), "onnx-file").score(X) == pytest.approx(regressor.predict(X), abs=1e-5)


def test_what_converts_is_compiled_and_what_does_not_is_served_by_its_own_runtime() -> None:
    compiled = pack_model(HistGradientBoostingClassifier(max_iter=5).fit(X, Y), NAMES, X)
    assert compiled.format == "onnx"
    assert "why" not in compiled.parity
    options: dict[str, Any] = {"categorical_features": [0]}
    categorical = HistGradientBoostingClassifier(max_iter=5, **options)
    table = X.copy()
    table[:, 0] = np.digitize(X[:, 0], [-1, 0, 1])
    original = pack_model(categorical.fit(table, Y), NAMES, table)
    assert original.format == "skops"
    assert "categories" in original.parity["why"]
    assert original.parity["runtime"].startswith("scikit-learn ")
    assert original.parity["max_difference"] < 1e-6
    with pytest.raises(CannotCompile):
        pack_model(RidgeClassifier().fit(X, Y), NAMES, X)


@pytest.mark.parametrize(("make", "format"), [(lgbm, "lightgbm"), (xgb, "xgboost")])
def test_boosted_trees_are_served_from_their_own_formats(make: Any, format: str) -> None:
    packed = pack_model(make(), NAMES, X)
    assert packed.format == format
    assert packed.parity["runtime"].startswith(f"{format} ")
    assert packed.parity["changed_decisions"] == 0.0
    assert packed.parity["max_difference"] < 1e-6
    assert loaded(packed.data, format).score(X) == pytest.approx(make().predict_proba(X)[:, 1], abs=1e-6)


def test_a_copy_that_decides_otherwise_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, Y)
    lying: Mapping[str, Any] = {"max_difference": 0.2, "changed_decisions": 0.04, "n": 600, "runtime": "r"}
    monkeypatch.setattr(packing_module, "compile_model", lambda *_: Compiled(b"", lying))
    packed = pack_model(estimator, NAMES, X)
    assert packed.format == "skops"
    assert "4.00% of the sample" in packed.parity["why"]
    assert packed.parity["max_difference"] < 1e-6


@pytest.mark.parametrize(("format", "package"), [("lightgbm", "lightgbm"), ("xgboost", "xgboost"), ("skops", "skops")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    format: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.io", None)
    with pytest.raises(MissingExtra) as missing:
        loaded(b"x", format)
    extra = "sklearn" if format == "skops" else format
    assert missing.value.mend == f"pip install 'holdtrue[{extra}]'"


def test_nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was loaded")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    for packed in (pack_model(lgbm(), NAMES, X), pack_model(xgb(), NAMES, X)):
        loaded(packed.data, packed.format)
    loaded(skops.io.dumps(make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(X, Y)), "skops")
    with pytest.raises(ModelRefused):
        loaded(io.BytesIO(b"\x80\x04K\x01.").getvalue(), "skops")
