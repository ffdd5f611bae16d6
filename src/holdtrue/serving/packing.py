"""Choose the form in which a fitted estimator is served: the fastest one that answers as it does.

scikit-learn is compiled to ONNX and compared with the original on a sample. Where it does not convert, or the copy
decides otherwise, the original runtime serves it from a skops file, and the evidence says why. LightGBM and XGBoost
are served by their own runtimes from their own formats, code and PyTorch from a package in a process of its own, and
several models as one graph, each part in its own best form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import MissingExtra
from holdtrue.serving.compiling import CannotCompile, compile_model, expected_scores, is_regressor, parity_of, quantised
from holdtrue.serving.declared import Ensemble, Processed, PythonModel, Stack, TorchModel, is_network, is_program, told
from holdtrue.serving.graph import FEATURES
from holdtrue.serving.package import Package, pack
from holdtrue.serving.runtime import ModelRefused, load_model

MOST_CHANGED: Final = 0.001
"""The share of rows on the other side of 0.5 beyond which a compiled copy is not the same model."""
MOST_DIFFERENT: Final = 0.01
"""The difference of a probability beyond which it is not, on any row of the sample."""
_CHUNK: Final = 65536
_RUNTIMES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "lightgbm": ("lightgbm", "lightgbm"),
        "xgboost": ("xgboost", "xgboost"),
        "skops": ("sklearn", "scikit-learn"),
        "python": ("numpy", "isolated Python, numpy"),
        "torch": ("torch", "isolated PyTorch"),
        "graph": ("numpy", "graph, numpy"),
    }
)


@dataclass(frozen=True, slots=True)
class Packed:
    """Hold a model's file, its format, and the measured parity with the estimator.

    `parity` has `max_difference`, `changed_decisions`, `n`, `runtime`, and for an original runtime `why`.
    """

    format: str
    data: bytes
    parity: Mapping[str, Any]


def pack_model(
    estimator: Any,
    feature_names: Sequence[str],
    sample: NDArray[np.float32],
    *,
    quantise: bool = False,
    number: bool = False,
) -> Packed:
    """Return the estimator in the form in which it is served, compared with itself on `sample`, float32 [n, k].

    With `quantise`, a compiled model is served with weights of eight bits if it still answers as the original does.
    Code and PyTorch do not say that they answer with a `number`, and are compared by its spread if it is said here.
    Raises CannotCompile for what no runtime serves, and ModelRefused for what the chosen one does not load.
    """
    if is_program(estimator) or is_network(estimator):
        estimator = TorchModel(estimator)
    if isinstance(estimator, PythonModel):
        why = "A class in Python has no compiled form; it runs in a process of its own"
        return _measured("python", estimator.packed(feature_names), estimator, sample, why, number=number)
    if isinstance(estimator, TorchModel):
        why = "PyTorch has a runtime of its own, which runs in a process of its own"
        return _measured("torch", estimator.packed(feature_names), estimator, sample, why, number=number)
    if isinstance(estimator, Ensemble | Stack | Processed):
        return _graph(estimator, feature_names, sample, quantise)
    library = type(estimator).__module__.split(".")[0]
    if library == "lightgbm" and hasattr(estimator, "booster_"):
        data = estimator.booster_.model_to_string().encode()
        return _measured("lightgbm", data, estimator, sample, "LightGBM has a format and a runtime of its own")
    if library == "xgboost" and hasattr(estimator, "get_booster"):
        data = bytes(estimator.get_booster().save_raw("ubj"))
        return _measured("xgboost", data, estimator, sample, "XGBoost has a format and a runtime of its own")
    return _compiled(estimator, feature_names, sample, quantise)


def _compiled(estimator: Any, feature_names: Sequence[str], sample: NDArray[np.float32], quantise: bool) -> Packed:
    """Return an estimator of scikit-learn as ONNX, or as it is where the copy is not the same model."""
    try:
        compiled = compile_model(estimator, feature_names, sample)
    except CannotCompile as error:
        if not _tells_apart(estimator):
            raise
        return _original(estimator, sample, error.why)
    if _differs(compiled.parity):
        return _original(estimator, sample, f"compiled, it {_said(compiled.parity)}")
    if not quantise:
        return Packed("onnx", compiled.onnx, compiled.parity)
    try:
        small = quantised(compiled.onnx)
        measured = _measured("onnx", small, estimator, sample, "Weights of eight bits")
    except (CannotCompile, ModelRefused) as error:
        return Packed("onnx", compiled.onnx, {**compiled.parity, "quantised": {"used": False, "why": error.why}})
    sizes = {"bytes": len(small), "bytes_before": len(compiled.onnx)}
    found = {**sizes, **{name: measured.parity[name] for name in ("max_difference", "changed_decisions")}}
    if _differs(measured.parity):
        why = f"With weights of eight bits, it {_said(measured.parity)}."
        return Packed("onnx", compiled.onnx, {**compiled.parity, "quantised": {"used": False, "why": why, **found}})
    parity = {name: value for name, value in measured.parity.items() if name != "why"}
    return Packed("onnx", small, {**parity, "quantised": {"used": True, **found}})


def _differs(parity: Mapping[str, Any]) -> bool:
    return parity["changed_decisions"] > MOST_CHANGED or parity["max_difference"] > MOST_DIFFERENT


def _said(parity: Mapping[str, Any]) -> str:
    return (
        f"differs by {parity['max_difference']:.3g} and decides otherwise on "
        f"{parity['changed_decisions']:.2%} of the sample"
    )


def _graph(
    whole: Ensemble | Stack | Processed, feature_names: Sequence[str], sample: NDArray[np.float32], quantise: bool
) -> Packed:
    """Return several models as one package, each part in its own best form, and the whole compared with itself."""
    parts: dict[str, Packed] = {}
    nodes: list[dict[str, Any]] = []

    def add(name: str, model: Any, columns: Sequence[str], rows: NDArray[np.float32], reads: Sequence[str]) -> None:
        part = (
            _part(model, columns, rows)
            if _gives_columns(model)
            else pack_model(model, columns, rows, quantise=quantise)
        )
        parts[name] = part
        nodes.append({"name": name, "model": name, "format": part.format, "reads": [*reads]})

    if isinstance(whole, Processed):
        columns, rows, reads = feature_names, sample, FEATURES
        if whole.before is not None:
            add("before", whole.before, columns, rows, [reads])
            columns, rows, reads = _numbered(whole.before.columns), whole.before.predict(rows), "before"
            rows = rows.astype(np.float32)
        add("model", whole.model, columns, rows, [reads])
        if whole.after is not None:
            scores = told(whole.model, rows).astype(np.float32)
            columns = ["score"] if scores.shape[1] == 1 else _numbered(scores.shape[1])
            add("after", whole.after, columns, scores, ["model"])
    else:
        for name, member in whole.members.items():
            add(name, member, feature_names, sample, [FEATURES])
        if isinstance(whole, Ensemble):
            nodes.append(whole.node())
        else:
            after = [*feature_names] if whole.features else []
            reads = [*whole.members, *([FEATURES] if whole.features else [])]
            stacked = whole.columns(sample)
            plain = len(whole.members) + len(after) == stacked.shape[1]
            columns = [*whole.members, *after] if plain else _numbered(stacked.shape[1])
            add("final", whole.final, columns, stacked, reads)
    about = {"features": [*feature_names], "nodes": nodes}
    data = pack(Package("graph", about, {name: part.data for name, part in parts.items()}))
    made = _measured("graph", data, whole, sample, "Each part is served in its own best form")
    said = {name: {"format": part.format, **part.parity} for name, part in parts.items()}
    return Packed("graph", data, {**made.parity, "parts": said})


def _gives_columns(model: Any) -> bool:
    return isinstance(model, PythonModel) and model.columns > 0


def _part(model: PythonModel, columns: Sequence[str], rows: NDArray[np.float32]) -> Packed:
    """Return what comes before a model: several numbers a row, compared with itself number by number."""
    data = model.packed(columns)
    loaded = load_model(data, bytes_hash(data), "python", part=True)
    found = np.concatenate([loaded.score(part) for part in np.array_split(rows, -(-len(rows) // _CHUNK))])
    difference = np.abs(found.astype(np.float64) - model.predict(rows))
    parity = {"max_difference": float(np.nanmax(difference, initial=0.0)), "n": len(rows)}
    return Packed("python", data, {**parity, "runtime": runtime_of("python")})


def _numbered(count: int) -> list[str]:
    return [f"x{place}" for place in range(count)]


def _tells_apart(estimator: Any) -> bool:
    classes = getattr(estimator, "classes_", None)
    if is_regressor(estimator):
        return True
    return classes is not None and len(classes) >= 2 and hasattr(estimator, "predict_proba")


def _original(estimator: Any, sample: NDArray[np.float32], why: str) -> Packed:
    try:
        import skops.io
    except ImportError:
        raise MissingExtra.of("sklearn", "skops") from None
    return _measured("skops", skops.io.dumps(estimator), estimator, sample, why)


def _measured(
    format: str, data: bytes, estimator: Any, sample: NDArray[np.float32], why: str, *, number: bool = False
) -> Packed:
    """Load what was packed as a server does, and compare it with the estimator."""
    model = load_model(data, bytes_hash(data), format)
    sample = np.ascontiguousarray(sample, np.float32)
    parts = np.array_split(sample, -(-len(sample) // _CHUNK))
    expected = expected_scores(estimator, sample)
    found = np.concatenate([model.score(part) for part in parts]).astype(np.float64)
    if found.shape != expected.shape:
        raise CannotCompile(
            f"The model {type(estimator).__name__} cannot be served.",
            why=f"It answers in the shape {expected.shape[1:]}, and as packed in the shape {found.shape[1:]}.",
            mend="Return a fitted classifier that gives a probability for each of its classes.",
        )
    parity = {
        **parity_of(found, expected, number=number or is_regressor(estimator)),
        "runtime": runtime_of(format),
        "why": f"{why[:1].upper()}{why[1:]}"[:500],
    }
    return Packed(format, data, parity)


def runtime_of(format: str) -> str:
    """Return the library and version that serves a format."""
    from importlib import import_module

    module, name = _RUNTIMES.get(format, ("onnxruntime", "onnxruntime"))
    # Asked of the module, since distributions of other names bring it, too (xgboost-cpu).
    return f"{name} {import_module(module).__version__}"
