"""Models that a training function may return beside estimators: code in Python, PyTorch, and several models as one.

Each behaves as a fitted classifier does (`predict_proba`), which is what parity is measured against, and is packed into
one file that holds all of it.
"""

import importlib
import inspect
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import ConfigurationError, MissingExtra
from holdtrue.serving.isolated import Bounds, check_bounds, named_classes
from holdtrue.serving.package import Package, pack
from holdtrue.serving.tensorfile import write_tensors

WEIGHTS: Final = "weights.safetensors"
PROGRAM: Final = "program.pt2"
_TORCH_MEMORY: Final = 1024


@dataclass(frozen=True, slots=True)
class PythonModel:
    """Declare a model that is a class: made with its files and arguments, its `predict` maps float32 [n, k] to [n].

    The source of the module of `entry`, and of `modules`, goes into the release with `files`; nothing else of the
    project does. It runs in a process of its own, which is killed when one call of up to `rows` rows takes more than
    `seconds`, or more than `memory_mb` beyond what Python itself needs. With `columns` it gives [n, columns], as what
    comes before another model may; with `classes`, three or more names, the probability of each, [n, classes].
    """

    entry: type
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    modules: Sequence[ModuleType] = ()
    seconds: float = 1.0
    memory_mb: int = 512
    rows: int = 256
    columns: int = 0
    classes: Sequence[str] = ()

    def predict(self, matrix: NDArray[np.float32]) -> NDArray[Any]:
        """Return what the class gives in this process, [n], [n, columns] or [n, classes]."""
        found = np.asarray(self.entry(dict(self.files), **self.arguments).predict(matrix))
        return found[:, -1] if not self.columns and not self.classes and found.ndim == 2 else found

    def predict_proba(self, matrix: NDArray[np.float32]) -> NDArray[Any]:
        """Return the probabilities of both classes, [n, 2], or of all, [n, classes]."""
        return self.predict(matrix) if self.classes else _both(self.predict(matrix))

    def packed(self, names: Sequence[str]) -> bytes:
        """Return the package, which takes the features `names`."""
        bounds = check_bounds(Bounds(self.seconds, self.memory_mb << 20, self.rows, self.columns))
        sources = _sources(self.entry, self.modules)
        _check_made(self.entry, self.arguments)
        about = _about(names, bounds, _entry(self.entry), self.arguments, self.classes)
        return pack(Package("python", about, {**self.files, **sources}))


@dataclass(frozen=True, slots=True)
class TorchModel:
    """Declare a PyTorch module, rebuilt as its class with `arguments` and given its weights; or an exported program.

    Of a module the source of its class and the weights are released, the weights as safetensors; it maps float32
    [n, k] to [n] or [n, 1], with `classes` to the probability of each, [n, classes]. Bounds are as those of
    `PythonModel`, memory beyond what PyTorch itself needs.
    """

    network: Any
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    modules: Sequence[ModuleType] = ()
    seconds: float = 1.0
    memory_mb: int = _TORCH_MEMORY
    rows: int = 256
    classes: Sequence[str] = ()

    def predict_proba(self, matrix: NDArray[np.float32]) -> NDArray[Any]:
        """Return the probabilities of both classes, [n, 2], or of all, as PyTorch computes them in this process."""
        torch = _torch()
        network = self.network.module() if _is_program(self.network) else self.network
        with torch.inference_mode():
            given = network(torch.from_numpy(np.ascontiguousarray(matrix))).numpy()
        if given.ndim == 2 and given.shape[1] > 2:
            return given
        return _both(given[:, -1] if given.ndim == 2 else given)

    def packed(self, names: Sequence[str]) -> bytes:
        """Return the package, which takes the features `names`."""
        torch = _torch()
        bounds = check_bounds(Bounds(self.seconds, self.memory_mb << 20, self.rows))
        if _is_program(self.network):
            out = io.BytesIO()
            torch.export.save(self.network, out)
            about = _about(names, bounds, "", {}, self.classes)
            return pack(Package("torch", about, {PROGRAM: out.getvalue()}))
        weights = {name: each.detach().cpu().numpy() for name, each in self.network.state_dict().items()}
        kind = type(self.network)
        about = _about(names, bounds, _entry(kind), self.arguments, self.classes)
        return pack(Package("torch", about, {**_sources(kind, self.modules), WEIGHTS: write_tensors(weights)}))


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Declare several fitted models that answer together: by the mean of their scores, weighted or not, or by vote.

    A vote's score is the share of members whose own score is at least `at`. Of members that tell several classes apart
    the mean is that of each class, and a vote the share of members that say it.
    """

    members: Mapping[str, Any]
    how: str = "mean"
    weights: Mapping[str, float] | None = None
    at: float = 0.5

    def __post_init__(self) -> None:
        if self.how not in ("mean", "vote"):
            raise _unclear(f"members answer together by mean or vote, not by {self.how[:40]!r}")
        if not self.members:
            raise _unclear("it has no members")
        weights = self.weights
        if weights is None:
            return
        if self.how == "vote" or not weights.keys() <= self.members.keys():
            raise _unclear("weights are for the members of a mean, by their names")
        if min(weights.values(), default=0.0) < 0 or sum(weights.values()) <= 0:
            raise _unclear("weights are 0 or more, and not all 0")

    def predict_proba(self, matrix: NDArray[np.float32]) -> NDArray[Any]:
        """Return the probabilities of both classes, [n, 2], or of all, [n, classes]."""
        given = np.stack([each.predict_proba(matrix) for each in self.members.values()])
        shares = np.array([self.share(name) for name in self.members])
        if given.shape[2] > 2:
            if self.how == "vote":
                return (given.argmax(axis=2)[:, :, None] == np.arange(given.shape[2])).mean(axis=0)
            return np.tensordot(shares, given, axes=1)
        scores = given[:, :, -1]
        if self.how == "vote":
            return _both((scores >= self.at).mean(axis=0))
        return _both(shares @ scores)

    def share(self, name: str) -> float:
        """Return the share of the mean that a member has."""
        weights = self.weights or dict.fromkeys(self.members, 1.0)
        return weights.get(name, 0.0) / sum(weights.values())

    def node(self) -> dict[str, Any]:
        """Return the node of a graph that combines the members."""
        names = [*self.members]
        if self.how == "vote":
            return {"name": "answer", "vote": names, "at": self.at}
        return {"name": "answer", "mean": names, "weights": [self.share(name) for name in names]}


@dataclass(frozen=True, slots=True)
class Stack:
    """Declare a model `final` that was fitted on the scores of others, and with `features` on the features after them.

    The columns of `final` are the scores of the members in their order (of several classes, the probability of each),
    then the features.
    """

    members: Mapping[str, Any]
    final: Any
    features: bool = False

    def __post_init__(self) -> None:
        if not self.members or "final" in self.members:
            raise _unclear("it has no members, or one that is called “final” as its last model is")

    def columns(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what `final` reads, float32 [n, members (+ k)]: what it has to be fitted on."""
        scores = [told(each, matrix) for each in self.members.values()]
        return np.column_stack([*scores, matrix] if self.features else scores).astype(np.float32)

    def predict_proba(self, matrix: NDArray[np.float32]) -> NDArray[Any]:
        """Return the probabilities of both classes, [n, 2]."""
        return self.final.predict_proba(self.columns(matrix))


@dataclass(frozen=True, slots=True)
class Processed:
    """Declare what comes before and after a fitted model, both pinned in its release.

    `before` maps the features to the columns that the model was fitted on, [n, before.columns]; `after` maps its
    scores, [n, 1], or the probabilities of several classes, [n, classes], to the answer.
    """

    model: Any
    before: PythonModel | None = None
    after: PythonModel | None = None

    def __post_init__(self) -> None:
        if self.before is not None and self.before.columns < 1:
            raise ConfigurationError(
                "What comes before a model does not say how many columns it gives.",
                mend="Declare it as PythonModel(…, columns=N).",
            )

    def predict_proba(self, matrix: NDArray[np.float32]) -> NDArray[Any]:
        """Return the probabilities of both classes, [n, 2]."""
        given = matrix if self.before is None else self.before.predict(matrix).astype(np.float32)
        if self.after is None:
            return self.model.predict_proba(given)
        return self.after.predict_proba(told(self.model, given).astype(np.float32))


def told(model: Any, matrix: NDArray[np.float32]) -> NDArray[Any]:
    """Return what a fitted model tells other models: its score, [n, 1], or the probability of each of its classes."""
    found = np.asarray(model.predict_proba(matrix))
    return found if found.shape[1] > 2 else found[:, -1:]


def is_exported(data: bytes) -> bool:
    """Tell whether an archive is one that PyTorch exported a program to."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith("/archive_format") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def package_of_program(data: bytes) -> bytes:
    """Return an exported program as a package that names no features: the program itself says how many it takes."""
    bounds = Bounds(memory=_TORCH_MEMORY << 20)
    return pack(Package("torch", _about((), bounds, "", {}), {PROGRAM: data}))


def is_program(model: Any) -> bool:
    """Tell whether a model is a program that PyTorch exported; PyTorch is not imported for that."""
    return _is_program(model)


def _is_program(model: Any) -> bool:
    torch = sys.modules.get("torch.export")
    return torch is not None and isinstance(model, torch.ExportedProgram)


def is_network(model: Any) -> bool:
    """Tell whether a model is a PyTorch module; PyTorch is not imported for that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _both(scores: Any) -> NDArray[Any]:
    one = np.asarray(scores, np.float64)
    return np.column_stack([1.0 - one, one])


def _about(
    names: Sequence[str], bounds: Bounds, entry: str, arguments: Mapping[str, Any], classes: Sequence[str] = ()
) -> dict[str, Any]:
    told = {"classes": [*named_classes(tuple(classes), bounds)]} if classes else {}
    return {
        **told,
        "features": [*names],
        "entry": entry,
        "arguments": dict(arguments),
        "seconds": bounds.seconds,
        "memory": bounds.memory,
        "rows": bounds.rows,
        "columns": bounds.columns,
    }


def _entry(kind: type) -> str:
    if kind.__qualname__ != kind.__name__ or kind.__module__ == "__main__":
        raise _not_importable(kind)
    return f"{kind.__module__}:{kind.__name__}"


def _check_made(kind: type, arguments: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a class that cannot be made with its files and arguments, or predicts nothing."""
    try:
        inspect.signature(kind).bind({}, **arguments)
    except TypeError as error:
        named = "".join(f", {name}" for name in arguments)
        raise ConfigurationError(
            f"The class {kind.__name__} cannot be made with its files and arguments.",
            why=f"Python says: {error}.",
            mend=f"Let it take them: def __init__(self, files{named}).",
        ) from None
    except ValueError:
        # A class that is not written in Python does not say what it takes; its process will tell.
        pass
    if not callable(getattr(kind, "predict", None)):
        raise ConfigurationError(
            f"The class {kind.__name__} has no method predict.",
            mend="Write def predict(self, X), which maps float32 [n, k] to [n].",
        )


def _sources(kind: type, modules: Sequence[ModuleType]) -> dict[str, bytes]:
    """Return the source of the class's module and of others, each under the name by which it is imported."""
    found: dict[str, bytes] = {}
    for module in (sys.modules[kind.__module__], *modules):
        source = inspect.getsourcefile(module)
        # A project file declares data and rules, and needs all of Holdtrue: it is no part of a model.
        if source is None or module.__name__.startswith("holdtrue_project_"):
            raise _not_importable(kind)
        tail = "/__init__.py" if hasattr(module, "__path__") else ".py"
        found[module.__name__.replace(".", "/") + tail] = Path(source).read_bytes()
    return found


def _unclear(why: str) -> ConfigurationError:
    return ConfigurationError(
        "Several models cannot answer as one as it is declared.",
        why=f"{why[:1].upper()}{why[1:]}.",
        mend="Correct Ensemble(…) or Stack(…) in the training function.",
    )


def _not_importable(kind: type) -> ConfigurationError:
    return ConfigurationError(
        f"The class {kind.__name__} cannot be released as a model.",
        why="It runs in a process of its own, which imports its module and nothing else of the project.",
        mend="Define it at the top of a module beside the project file, and import it from there.",
    )


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torch.export")
    except ImportError:
        raise MissingExtra.of("torch", "torch") from None
    return torch
