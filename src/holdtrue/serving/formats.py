"""Load models in the own formats of libraries: LightGBM's text, XGBoost's JSON or UBJSON, skops, and ONNX of any form.

None of them runs code from the file: LightGBM and XGBoost hold trees, skops builds objects of types it trusts and of
no other. Each library is imported where it is used. Every loader gives one score a row: the probability of class 1, or
the predicted number; of three and more classes, the probability of each.
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from holdtrue.core.errors import MissingExtra
from holdtrue.serving.onnxfile import check_onnx
from holdtrue.serving.runtime import (
    Matrix,
    Model,
    ModelFailed,
    ModelRefused,
    Vector,
    checked,
    guarded,
    numbered,
    refused,
    session_of,
)

# What skops does not trust by default and estimators of scikit-learn hold: containers of numbers, which compute.
_TRUSTED: Final = frozenset(
    {
        "functools.partial",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance32",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.tree._tree.Tree",
        "sklearn.utils.validation.check_array",
    }
)
Score = Callable[[Matrix], Any]
_FLOATS: Final[Mapping[str, Any]] = MappingProxyType({"tensor(float)": np.float32, "tensor(double)": np.float64})


def load_lightgbm(data: bytes, digest: str) -> Model:
    """Return the model in LightGBM's text format; several outputs a row are taken for classes."""
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra.of("lightgbm", "lightgbm") from None
    # LightGBM ends the process at some files that are none of its own, or cut off.
    if not data.startswith(b"tree\n") or b"\nend of trees\n" not in data:
        raise refused("it is no whole text file of LightGBM")
    try:
        booster = lightgbm.Booster(model_str=data.decode())
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError, ValueError) as error:
        raise refused(f"LightGBM says: {str(error)[:300]}") from None
    count = booster.num_model_per_iteration()
    if count != 1 and b"\nobjective=multiclass" not in data:
        raise refused("it gives several numbers for each row, and says of none that it is a probability of a class")
    names = tuple(booster.feature_name())

    def score(matrix: Matrix) -> Any:
        return booster.predict(matrix, num_threads=1, validate_features=False)

    return _model(digest, len(names), score, names, "score", classes=numbered(count) if count > 1 else ())


def load_xgboost(data: bytes, digest: str) -> Model:
    """Return the model in XGBoost's JSON or UBJSON format; several outputs a row must be classes."""
    try:
        import xgboost
    except ImportError:
        raise MissingExtra.of("xgboost", "xgboost") from None
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(data))
        booster.set_param({"nthread": 1})
        width = int(booster.num_features())
        classes = _classes_of(booster)
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise refused(f"XGBoost says: {str(error)[:300]}") from None
    names = tuple(booster.feature_names or ()) or tuple(f"f{place}" for place in range(width))

    def score(matrix: Matrix) -> Any:
        return booster.inplace_predict(matrix, missing=np.nan, validate_features=False)

    return _model(digest, width, score, names, "score", classes=classes)


def _classes_of(booster: Any) -> tuple[str, ...]:
    """Return the classes that a booster of XGBoost tells apart; one that names a class is told to weigh all."""
    told = json.loads(booster.save_config())["learner"]
    objective, about = told["objective"]["name"], told["learner_model_param"]
    if int(about.get("num_target", 1)) > 1:
        raise refused("it gives several numbers for each row")
    if not objective.startswith("multi:"):
        return ()
    booster.set_param({"objective": "multi:softprob"})
    # Two classes are the probability of the second one, as everywhere.
    return numbered(int(about["num_class"]))


def load_skops(data: bytes, digest: str) -> Model:
    """Return the scikit-learn estimator in the skops file; one with a type that skops does not trust is refused."""
    try:
        import skops.io
    except ImportError:
        raise MissingExtra.of("sklearn", "skops") from None
    try:
        found = set(skops.io.get_untrusted_types(data=data))
        if not found <= _TRUSTED:
            raise refused(f"it holds types that nobody vouches for: {', '.join(sorted(found - _TRUSTED))[:300]}")
        estimator: Any = skops.io.loads(data, trusted=sorted(found))
    except ModelRefused:
        raise
    except Exception as error:  # noqa: BLE001  # of a file that is broken, skops raises whatever it trips over
        raise refused(f"skops says: {type(error).__name__}: {str(error)[:300]}") from None
    return estimator_model(estimator, digest)


def estimator_model(estimator: Any, digest: str) -> Model:
    """Return a fitted scikit-learn estimator as a model: probability of class 1, or the predicted number."""
    width = getattr(estimator, "n_features_in_", None)
    if not isinstance(width, int):
        raise refused("it is no fitted estimator that says how many features it takes")
    given = getattr(estimator, "feature_names_in_", None)
    names = tuple(f"x{place}" for place in range(width)) if given is None else tuple(str(each) for each in given)
    classes = getattr(estimator, "classes_", None)
    if classes is not None and (len(classes) < 2 or not hasattr(estimator, "predict_proba")):
        raise refused(f"it tells {len(classes)} classes apart, and not two or more by probability")
    many = () if classes is None or len(classes) == 2 else class_names(classes)

    def predicted(matrix: Matrix) -> Any:
        return estimator.predict(_as_fitted(matrix, given))

    def probability(matrix: Matrix) -> Any:
        found = estimator.predict_proba(_as_fitted(matrix, given))
        return found if many else found[:, 1]

    return _model(digest, width, predicted if classes is None else probability, names, "score", classes=many)


def class_names(classes: Any) -> tuple[str, ...]:
    """Return the names of an estimator's classes; raise ModelRefused where it predicts several things at once."""
    names = tuple(str(each) for each in classes)
    if any(np.ndim(each) for each in classes) or len(set(names)) != len(names):
        raise refused("it predicts several things at once, or two classes have one name")
    return names


def _as_fitted(matrix: Matrix, names: Any) -> Any:
    """Return the matrix as the estimator was fitted: with names of columns if it knows some."""
    if names is None:
        return matrix
    try:
        import pandas
    except ImportError:
        # Without pandas the estimator warns of missing names, and scores by position all the same.
        return matrix
    return pandas.DataFrame(matrix, columns=names, copy=False)


def load_onnx(data: bytes, digest: str) -> Model:
    """Return an ONNX model of another library's making: a matrix in, and a probability or a number a row out.

    What a converted classifier says beside its probabilities (the label) is left alone; several numbers a row must be
    probabilities, which add up to one.
    """
    check_onnx(data)
    session = session_of(data)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in _FLOATS or len(inputs[0].shape) != 2:
        raise refused("it does not take one matrix of floats")
    width = inputs[0].shape[1]
    if not isinstance(width, int):
        raise refused("it does not say how many features it takes")
    wanted = [each for each in outputs if each.type in _FLOATS or each.type.startswith("seq(map(")]
    if len(wanted) != 1:
        raise refused(f"{len(wanted)} of its {len(outputs)} outputs are floats; one has to be")
    name, output, dtype = inputs[0].name, wanted[0].name, _FLOATS[inputs[0].type]

    def run(matrix: Matrix) -> Any:
        return session.run([output], {name: matrix.astype(dtype, copy=False)})[0]

    def score(matrix: Matrix) -> Any:
        return _columns(run(matrix))

    try:
        classes = _named(run(np.array([[0.0], [1.0]], np.float32).repeat(width, axis=1)))
    except ModelRefused:
        raise
    except Exception as error:  # noqa: BLE001  # as below: classes of a compiled module
        raise refused(f"the runtime says: {str(error)[:300]}") from None
    names = tuple(f"{name}_{place}" for place in range(width))
    return _model(digest, width, score, names, output, name, classes)


def _named(found: Any) -> tuple[str, ...]:
    """Return the classes of an answer of some rows, none if there are not more than two; refuse other numbers."""
    if isinstance(found, list):
        names = tuple(map(str, found[0]))
        return names if len(names) > 2 else ()
    if found.ndim != 2 or found.shape[1] < 2:
        return ()
    if not ((found >= 0.0).all() and np.allclose(found.sum(axis=1), 1.0, atol=1e-3)):
        raise refused("it gives several numbers for each row, which are no probabilities of classes")
    return numbered(found.shape[1]) if found.shape[1] > 2 else ()


def _columns(found: Any) -> Any:
    """Return one number a row from a vector, a column, two columns of probabilities, or maps of two classes.

    More columns, or maps of more classes, are returned as they are.
    """
    if isinstance(found, list):
        found = np.array([list(each.values()) for each in found])
    if found.ndim == 2 and found.shape[1] in (1, 2):
        return found[:, -1]
    return found


def _model(
    digest: str,
    width: int,
    score: Score,
    names: tuple[str, ...],
    output: str,
    matrix: str = "features",
    classes: tuple[str, ...] = (),
) -> Model:
    many = len(classes) if len(classes) > 2 else 0

    def safe(matrix: Matrix) -> Vector:
        try:
            found = score(matrix)
        except Exception as error:  # noqa: BLE001  # libraries raise classes of their own, and of compiled modules
            raise ModelFailed("The model did not answer.", why=str(error)[:300]) from None
        if classes and not many:
            found = np.asarray(found)[:, 1]
        return checked(np.asarray(found, np.float32), len(matrix), many)

    return guarded(Model(digest, width, safe, names, output, matrix, classes=classes if many else ()))
