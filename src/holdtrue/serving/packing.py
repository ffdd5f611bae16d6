"""Choose the form in which a fitted estimator is served: the fastest one that answers as it does.

scikit-learn is compiled to ONNX and compared with the original on a sample. Where it does not convert, or the copy
decides otherwise, the original runtime serves it from a skops file, and the evidence says why. LightGBM and XGBoost
are served by their own runtimes from their own formats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import MissingExtra
from holdtrue.serving.compiling import CannotCompile, compile_model
from holdtrue.serving.runtime import load_model

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


def pack_model(estimator: Any, feature_names: Sequence[str], sample: NDArray[np.float32]) -> Packed:
    """Return the estimator in the form in which it is served, compared with itself on `sample`, float32 [n, k].

    Raises CannotCompile for what no runtime serves, and ModelRefused for what the chosen one does not load.
    """
    library = type(estimator).__module__.split(".")[0]
    if library == "lightgbm" and hasattr(estimator, "booster_"):
        data = estimator.booster_.model_to_string().encode()
        return _measured("lightgbm", data, estimator, sample, "LightGBM has a format and a runtime of its own")
    if library == "xgboost" and hasattr(estimator, "get_booster"):
        data = bytes(estimator.get_booster().save_raw("ubj"))
        return _measured("xgboost", data, estimator, sample, "XGBoost has a format and a runtime of its own")
    try:
        compiled = compile_model(estimator, feature_names, sample)
    except CannotCompile as error:
        if not _tells_two_apart(estimator):
            raise
        return _original(estimator, sample, error.why)
    if compiled.parity["changed_decisions"] > MOST_CHANGED or compiled.parity["max_difference"] > MOST_DIFFERENT:
        why = (
            f"compiled, it differs by {compiled.parity['max_difference']:.3g} and decides otherwise on "
            f"{compiled.parity['changed_decisions']:.2%} of the sample"
        )
        return _original(estimator, sample, why)
    return Packed("onnx", compiled.onnx, compiled.parity)


def _tells_two_apart(estimator: Any) -> bool:
    classes = getattr(estimator, "classes_", None)
    return classes is not None and len(classes) == 2 and hasattr(estimator, "predict_proba")


def _original(estimator: Any, sample: NDArray[np.float32], why: str) -> Packed:
    try:
        import skops.io
    except ImportError:
        raise MissingExtra.of("sklearn", "skops") from None
    return _measured("skops", skops.io.dumps(estimator), estimator, sample, why)


def _measured(format: str, data: bytes, estimator: Any, sample: NDArray[np.float32], why: str) -> Packed:
    """Load what was packed as a server does, and compare it with the estimator."""
    model = load_model(data, bytes_hash(data), format)
    sample = np.ascontiguousarray(sample, np.float32)
    parts = np.array_split(sample, -(-len(sample) // _CHUNK))
    expected = np.concatenate([estimator.predict_proba(part)[:, 1] for part in parts])
    found = np.concatenate([model.score(part) for part in parts]).astype(np.float64)
    parity = {
        "max_difference": float(np.abs(found - expected).max()),
        "changed_decisions": float(np.mean((found >= 0.5) != (expected >= 0.5))),
        "n": len(sample),
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
