"""Run models: bytes in, verified, one function from features to scores out.

What Holdtrue compiles is ONNX of one form; other formats are loaded by `formats`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt, HoldtrueError, InvalidInput, MissingExtra
from holdtrue.serving.onnxfile import check_onnx

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]
FORMATS = ("onnx", "onnx-file", "lightgbm", "xgboost", "skops", "python", "torch", "graph")
"""The formats of model files that are served."""
_ROUNDING = 1e-3


class ModelRefused(InvalidInput):
    """A model file cannot be served."""

    code = "model_refused"


class ModelFailed(HoldtrueError):
    """A loaded model did not answer."""

    code = "model_failed"
    status = 500


class WrongShape(ModelFailed):
    """A model did not answer with one score for each row."""

    code = "wrong_shape"


class ModelFell(ModelFailed):
    """The process of an isolated model hung, died or took more than it may; another takes its place."""

    code = "model_fell"


@dataclass(frozen=True, slots=True)
class Model:
    """Hold one loaded model; `score` maps float32 [n, features] to float32 [n].

    `names` are those of its features, `output` that of its answer, and `matrix` that of the tensor which holds all
    features, as far as the file tells. With `aside`, scoring waits for another process or takes long, and nobody's
    event loop may wait for it; `memory` is how many bytes it may take beside this process. Within a graph, a model may
    give `columns` numbers for each row; 0 is the one score that an answer has. A model that tells three or more
    `classes` apart gives the probability of each, float32 [n, classes], and has their names.
    """

    digest: str
    features: int
    score: Callable[[Matrix], Vector]
    names: tuple[str, ...] = ()
    output: str = ""
    matrix: str = ""
    aside: bool = False
    memory: int = 0
    columns: int = 0
    classes: tuple[str, ...] = ()


def load_model(data: bytes, digest: str, format: str = "onnx", *, part: bool = False) -> Model:
    """Return the model in `data`, whose BLAKE3 must be `digest`.

    `format` is one of `FORMATS`: onnx as Holdtrue compiles it, onnx-file of any other making. The digest is computed
    over the very bytes that are handed to the runtime. A `part` of a graph may give several numbers for each row.
    Raises Corrupt, ModelRefused, UnsafeModel, BadPackage or MissingExtra; there is no other loader to fall back to.
    """
    if bytes_hash(data) != digest:
        raise Corrupt(
            "A model's bytes are not those that were approved.",
            why=f"The file of blob {digest[:16]} has another digest.",
            mend="Restore the blob from a backup, or release the model again.",
            facts={"digest": digest},
        )
    if format != "onnx":
        model = _loader(format)(data, digest)
        if model.columns and not part:
            raise refused("it gives several numbers for each row, and is part of no graph that makes one of them")
        return model
    check_onnx(data)
    session = session_of(data)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
        raise refused("it does not take one float32 matrix")
    if len(outputs) != 1 or outputs[0].type != "tensor(float)":
        raise refused("it does not answer with one float32 tensor")
    width = inputs[0].shape[1]
    if not isinstance(width, int):
        raise refused("it does not say how many features it takes")
    told = outputs[0].shape
    classes = numbered(told[1]) if len(told) == 2 and isinstance(told[1], int) and told[1] > 2 else ()
    score = _scorer(session, inputs[0].name, outputs[0].name, len(classes))
    return guarded(Model(digest, width, score, classes=classes))


def numbered(count: int) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers."""
    return tuple(map(str, range(count)))


def _loader(format: str) -> Callable[[bytes, str], Model]:
    """Return what loads a format; raise ModelRefused for an unknown one."""
    if format in ("python", "torch"):
        from holdtrue.serving.isolated import load_isolated

        return load_isolated
    if format == "graph":
        from holdtrue.serving.graph import load_graph

        return load_graph
    from holdtrue.serving import formats

    loaders = {
        "onnx-file": formats.load_onnx,
        "lightgbm": formats.load_lightgbm,
        "xgboost": formats.load_xgboost,
        "skops": formats.load_skops,
    }
    if format not in loaders:
        raise refused(f"its format {format[:60]!r} is unknown")
    return loaders[format]


def guarded(model: Model) -> Model:
    """Return the model after it has answered once; raise ModelRefused if it cannot."""
    try:
        answer = model.score(np.zeros((2, model.features), np.float32))
    except ModelFailed as error:
        raise refused(error.why) from None
    if model.classes:
        try:
            proper(answer)
        except ModelFailed as error:
            raise refused(error.why) from None
    return model


def session_of(data: bytes) -> Any:
    """Return an ONNX Runtime session over a file's bytes."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra.of("sklearn", "onnxruntime") from None
    options = onnxruntime.SessionOptions()
    # One request is one small matrix: a second thread costs more than it brings, and workers share the cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # the runtime raises classes of its own compiled module
        raise refused(f"the runtime says: {str(error)[:300]}") from None


def _scorer(session: Any, input_name: str, output_name: str, classes: int) -> Callable[[Matrix], Vector]:
    # The session's own inner one, where it has it: what the outer one checks at each call is true of these calls.
    run, outputs = getattr(session, "_sess", session).run, [output_name]

    def score(matrix: Matrix) -> Vector:
        try:
            scores = run(outputs, {input_name: matrix}, None)[0]
        except Exception as error:  # noqa: BLE001  # the runtime raises classes of its own compiled module
            raise ModelFailed("The model did not answer.", why=str(error)[:300]) from None
        return checked(scores, len(matrix), classes)

    return score


def checked(scores: Any, rows: int, classes: int = 0) -> Vector:
    """Return scores that are one for each row, or of `classes` one for each of them; raise WrongShape for others."""
    shape = getattr(scores, "shape", None)
    if shape != ((rows, classes) if classes else (rows,)):
        raise WrongShape("The model did not answer.", why=f"It gave the shape {shape} for {rows} rows.")
    return scores


def proper(chances: Vector) -> Vector:
    """Return float32 [n, classes] whose rows are probabilities: none below 0, together 1; raise ModelFailed for others.

    Off by a thousandth is taken for rounding.
    """
    least, sums = chances.min(axis=1), chances.sum(axis=1)
    # Written so that what is no number is no probability either.
    wrong = ~((least >= -_ROUNDING) & (np.abs(sums - 1.0) <= _ROUNDING))
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        why = f"the least is {least[place]:.4g}, their sum {sums[place]:.4g}"
        raise ModelFailed("The model did not answer.", why=f"Its numbers for a row are no probabilities: {why}.")
    return chances


def held_to_chances(model: Model, release: str) -> Model:
    """Return a model of an event whose scores are probabilities, or NaN: what is beyond [0, 1] is no answer.

    Off by a thousandth is taken for rounding, and mended. What Holdtrue compiled itself need not be held to it.
    """
    log = logging.getLogger("holdtrue.dataplane")

    def score(matrix: Matrix) -> Vector:
        scores = checked(model.score(matrix), len(matrix))
        # Written so that what is no number is no probability either.
        if scores.size == 0 or (scores.min() >= 0.0 and scores.max() <= 1.0):
            return scores
        near = (scores >= -_ROUNDING) & (scores <= 1.0 + _ROUNDING)
        if not near.all():
            first = scores[np.flatnonzero(~near)[0]]
            log.error("The model of release %s failed: It gave %g, which is no probability.", release, first)
        return np.where(near, np.clip(scores, 0.0, 1.0), np.float32(np.nan))

    return replace(model, score=score)


def refused(why: str) -> ModelRefused:
    """Say why a model is not served."""
    return ModelRefused(
        "This model is not served.",
        why=f"As loaded, {why}." if not why.endswith(".") else why,
        mend="Compile it again with this version of Holdtrue and release it anew.",
    )
