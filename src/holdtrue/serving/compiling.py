"""Compile a fitted scikit-learn estimator to ONNX, and measure how well the copy agrees with it."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import InvalidInput, MissingExtra
from holdtrue.serving.runtime import load_model

INPUT: Final = "features"
OUTPUT: Final = "score"
_OPSET: Final = {"": 17, "ai.onnx.ml": 3}
_IR_VERSION: Final = 8
_CHUNK: Final = 65536
_NOTICED: Final = 0.01


class CannotCompile(InvalidInput):
    """An estimator has no faithful ONNX form."""

    code = "cannot_compile"


@dataclass(frozen=True, slots=True)
class Compiled:
    """Hold a compiled model: ONNX bytes that map float32 [n, k] to the probability of class 1, float32 [n].

    Of three and more classes it is the probability of each, float32 [n, classes]; of a regressor the number.

    `parity` compares it with the estimator on a sample: `max_difference` of the probability, `changed_decisions` as the
    share of rows on the other side of 0.5 (of several classes: of another class; of numbers: off by more than 1 % of
    their standard deviation, in which `max_difference` is told then), `n` rows, and the `runtime`.
    """

    onnx: bytes
    parity: Mapping[str, Any]


def compile_model(estimator: Any, feature_names: Sequence[str], sample: NDArray[np.float32]) -> Compiled:
    """Compile a fitted classifier or regressor and measure its parity on `sample`, float32 [n, features].

    Equal estimators give equal bytes: nothing of the machine, the time or the library's version goes in.
    Raises CannotCompile naming the estimator and the step that failed.
    """
    sample = np.ascontiguousarray(sample, np.float32)
    _check(estimator, feature_names, sample)
    data = _convert(estimator, len(feature_names))
    model = load_model(data, bytes_hash(data))
    measured = model.score(sample).astype(np.float64)
    if not np.isfinite(measured).all():
        raise _cannot(estimator, "the compiled form gives values that are not finite")
    parity = parity_of(measured, expected_scores(estimator, sample), number=is_regressor(estimator))
    return Compiled(onnx=data, parity={**parity, "runtime": f"onnxruntime {_version('onnxruntime')}"})


def expected_scores(estimator: Any, sample: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what an estimator answers: a probability or number [n], or probabilities of classes [n, classes].

    Scoring in pieces, as ONNX Runtime does, keeps the estimator's float64 copy of the sample small.
    """
    parts = np.array_split(sample, -(-len(sample) // _CHUNK))
    if is_regressor(estimator):
        return np.concatenate([np.asarray(estimator.predict(part), np.float64) for part in parts])
    found = np.concatenate([np.asarray(estimator.predict_proba(part), np.float64) for part in parts])
    return found if found.shape[1] > 2 else found[:, 1]


def parity_of(found: NDArray[np.float64], expected: NDArray[np.float64], *, number: bool = False) -> dict[str, Any]:
    """Return how far scores [n] or [n, classes] lie from those expected, and on what share they decide otherwise."""
    if number:
        spread = float(expected.std()) or 1.0
        found, expected = found / spread, expected / spread
        changed = np.abs(found - expected) > _NOTICED
    elif expected.ndim == 2:
        changed = found.argmax(axis=1) != expected.argmax(axis=1)
    else:
        changed = (found >= 0.5) != (expected >= 0.5)
    return {
        "max_difference": float(np.abs(found - expected).max()),
        "changed_decisions": float(np.mean(changed)),
        "n": len(expected),
    }


def is_regressor(estimator: Any) -> bool:
    """Tell whether a fitted estimator predicts a number and no probability."""
    told = not hasattr(estimator, "predict_proba") and getattr(estimator, "classes_", None) is None
    return told and hasattr(estimator, "predict")


def quantised(data: bytes) -> bytes:
    """Return a compiled model with weights of eight bits; raise CannotCompile if it has no matrix products.

    What is quantised, and how, is ONNX Runtime's dynamic quantisation: weights beforehand, activations as they come.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise MissingExtra.of("sklearn", "onnxruntime") from None
    proto: Any = onnx.load_from_string(data)
    kinds = {node.op_type for node in proto.graph.node}
    if kinds.isdisjoint({"MatMul", "Gemm"}):
        raise _cannot_quantise("it has no matrix products, whose weights are what is quantised")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        try:
            quantize_dynamic(proto, target, weight_type=QuantType.QInt8)
            made: Any = onnx.load(target)
        except Exception as error:
            # As of the converter: the library raises what it trips over.
            raise _cannot_quantise(f"{type(error).__name__}: {str(error)[:200]}") from error
    if kinds == {node.op_type for node in made.graph.node}:
        raise _cannot_quantise("none of its matrix products has constant weights")
    _anonymous(made)
    return bytes(made.SerializeToString(deterministic=True))


def _cannot_quantise(why: str) -> CannotCompile:
    return CannotCompile(
        "The model cannot be quantised.",
        why=f"{why[:1].upper()}{why[1:]}.",
        mend="Release it without: the compiled model is served as it is.",
    )


def _check(estimator: Any, feature_names: Sequence[str], sample: NDArray[np.float32]) -> None:
    if sample.ndim != 2 or len(sample) == 0 or sample.shape[1] != len(feature_names):
        raise InvalidInput(
            "The sample for measuring parity does not fit the features.",
            why=f"It has the shape {sample.shape}; there are {len(feature_names)} features.",
            mend="Pass a float32 matrix with one column per feature and at least one row.",
        )
    if is_regressor(estimator):
        if getattr(estimator, "n_features_in_", None) is None:
            raise _cannot(estimator, "it is not fitted")
        return
    if not hasattr(estimator, "predict_proba"):
        raise _cannot(estimator, "it gives no probabilities")
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise _cannot(estimator, "it is not fitted")
    if len(classes) < 2:
        raise _cannot(estimator, f"it knows {len(classes)} classes, not two or more")
    if any(np.ndim(each) for each in classes):
        raise _cannot(estimator, "it predicts several things at once")
    for step in _steps(estimator):
        # skl2onnx reads the threshold of a categorical split as a number, and answers wrongly without a word.
        categorical = getattr(step, "is_categorical_", None)
        if categorical is not None and np.any(categorical):
            raise _cannot(step, "it splits on categories, which ONNX trees cannot; use ordinal codes instead")


def _steps(estimator: Any) -> list[Any]:
    return [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]


def _convert(estimator: Any, width: int) -> bytes:
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError:
        raise MissingExtra.of("sklearn", "skl2onnx") from None
    try:
        proto: Any = convert_sklearn(
            estimator,
            name="holdtrue",
            initial_types=[(INPUT, FloatTensorType([None, width]))],
            options=None if is_regressor(estimator) else {"zipmap": False},
            target_opset=dict(_OPSET),
            custom_conversion_functions=_converters(),
        )
    except Exception as error:
        # The library raises many classes, and prints whole tree ensembles in their messages.
        raise _cannot(estimator, f"{type(error).__name__}: {str(error)[:200]}") from error
    _only_score(proto, 0 if is_regressor(estimator) else len(estimator.classes_))
    _anonymous(proto)
    return bytes(proto.SerializeToString(deterministic=True))


class _PlainNumbers:
    """Pass nodes on to skl2onnx's container with Python numbers in their attributes.

    With scikit-learn 1.9, skl2onnx 1.20 puts NumPy integers and booleans into the lists that describe trees,
    and ONNX refuses them.
    """

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *positional: Any, **attributes: Any) -> None:
        plain = {name: _plain(value) for name, value in attributes.items()}
        self._container.add_node(*positional, **plain)


def _plain(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(item, np.generic | bool) for item in value):
        numbers = [item.item() if isinstance(item, np.generic) else item for item in value]
        return [int(item) if isinstance(item, bool) else item for item in numbers]
    return value


def _converters() -> dict[type, Callable[[Any, Any, Any], None]]:
    from skl2onnx.common._registration import get_converter
    from sklearn import ensemble, tree

    def convert(scope: Any, operator: Any, container: Any) -> None:
        get_converter(operator.type)(scope, operator, _PlainNumbers(container))

    kinds: tuple[type, ...] = (
        ensemble.HistGradientBoostingClassifier,
        ensemble.GradientBoostingClassifier,
        ensemble.RandomForestClassifier,
        ensemble.ExtraTreesClassifier,
        tree.DecisionTreeClassifier,
        ensemble.HistGradientBoostingRegressor,
        ensemble.GradientBoostingRegressor,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesRegressor,
        tree.DecisionTreeRegressor,
    )
    return dict.fromkeys(kinds, convert)


def _only_score(proto: Any, classes: int) -> None:
    """Make the probability of class 1, float32 [n], or of each of several classes the only output; 0: a number [n]."""
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    probabilities = graph.output[-1].name
    del graph.output[:]
    if classes > 2:
        graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, classes]))
        graph.node.append(helper.make_node("Identity", [probabilities], [OUTPUT], "all_classes"))
        _drop_unused(graph)
        return
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None]))
    if not classes:
        graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
        graph.node.append(helper.make_node("Reshape", [probabilities, "flat"], [OUTPUT], "one_a_row"))
        _drop_unused(graph)
        return
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "class_one"))
    graph.node.append(helper.make_node("Gather", [probabilities, "class_one"], [OUTPUT], "take_class_one", axis=1))
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    """Remove nodes whose outputs nobody reads; the label's branch is one."""
    needed, kept = {OUTPUT}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    ordered = list(reversed(kept))
    del graph.node[:]
    graph.node.extend(ordered)
    constants = [each for each in graph.initializer if each.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _anonymous(proto: Any) -> None:
    """Take out what tells of the machine or the library that made the file."""
    proto.ir_version = _IR_VERSION
    proto.producer_name, proto.producer_version, proto.domain = "holdtrue", "", ""
    proto.doc_string, proto.graph.doc_string, proto.model_version = "", "", 0
    del proto.metadata_props[:]
    used = {node.domain for node in proto.graph.node}
    kept = sorted(
        ((each.domain, each.version) for each in proto.opset_import if each.domain in used | {""}),
    )
    del proto.opset_import[:]
    for domain, version in kept:
        entry = proto.opset_import.add()
        entry.domain, entry.version = domain, version


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _cannot(estimator: Any, why: str) -> CannotCompile:
    name = type(estimator).__name__
    return CannotCompile(
        f"The model {name} cannot be compiled.",
        why=f"{why[:1].upper()}{why[1:]}.",
        mend="Use HistGradientBoostingClassifier, LogisticRegression, or a pipeline that ends in one.",
        facts={"estimator": name},
    )
