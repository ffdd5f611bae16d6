"""A model file as a release: what is read from a path, and what is submitted so that it answers in `dev`.

A file is known by its first bytes, not by its name; pickles are refused, since loading one runs whatever is in it.
Of a folder as MLflow writes it, the one model file in it is taken, with the names of its signature.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.codec import dump
from holdtrue.core.errors import Conflict, InvalidInput, NotFound
from holdtrue.core.ids import check_name, version_id
from holdtrue.delivery import ServiceSpec
from holdtrue.features import FeatureSet, numeric
from holdtrue.governance import Policy, Rule
from holdtrue.project.model import ProjectSpec
from holdtrue.project.work import Api
from holdtrue.serving import Model, code_refused, holds_code, load_probed, runtime_of
from holdtrue.serving.declared import is_exported, package_of_program
from holdtrue.serving.package import MAGIC, kind_of_package
from holdtrue.storage import BlobStore

ENVIRONMENT: Final = "dev"
OWNER: Final = "holdtrue serve"
_LARGEST: Final = 2 << 30
_MOST_FILES: Final = 1000
_SAMPLE: Final = 64
_PICKLES: Final = (b"\x80", b"\x1f\x8b", b"BZh", b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"\xfd7zXZ")
_ENDINGS: Final = frozenset(
    {".onnx", ".htmodel", ".pt2", ".lgb", ".lightgbm", ".txt", ".xgb", ".ubj", ".ubjson", ".json", ".bst", ".skops"}
)
_UNPICKLED: Final = frozenset({".pkl", ".pickle", ".joblib", ".cloudpickle"})
_INPUTS: Final = re.compile(r"^signature:\n(?:  .*\n|    .*\n)*?  inputs: '((?:[^']|'')*)'", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServedFile:
    """Hold a model file that was read and loaded: its bytes and format, and the names of its inputs."""

    data: bytes
    format: str
    model: Model
    names: tuple[str, ...]


def read_model(path: Path, *, code: bool = True) -> ServedFile:
    """Return the model in a file or folder; raise NotFound, InvalidInput, ModelRefused, MissingExtra.

    Without `code`, a model that is code is refused before it runs.
    """
    if path.is_dir():
        file = _the_file(path)
        names = _signature(path / "MLmodel")
    elif path.is_file():
        file, names = path, ()
    else:
        raise NotFound(f"There is no file or folder at {path}.", mend="Name a model file, or a folder with one.")
    if file.stat().st_size > _LARGEST:
        raise InvalidInput(f"{file} is larger than {_LARGEST >> 30} GiB.", mend="Serve a smaller model.")
    data = file.read_bytes()
    kind = kind_of(data)
    if kind is None:
        raise _unknown(file, data)
    if kind == "skops" and is_exported(data):
        data, kind = package_of_program(data), "torch"
    if not code and holds_code(data, kind):
        raise code_refused()
    model = load_probed(data, bytes_hash(data), kind)
    if len(names) != model.features or len(set(names)) != len(names):
        names = model.names
    return ServedFile(data, kind, model, names)


def kind_of(data: bytes) -> str | None:
    """Return the format of a model file by its first bytes, None for one that is not served."""
    if data.startswith(MAGIC):
        return kind_of_package(data)
    if data.startswith(b"PK\x03\x04"):
        return "skops"
    if data.startswith(b"tree\n"):
        return "lightgbm"
    if data.startswith(b"{") and b"learner" in data[:4096]:
        return "xgboost"
    if data.startswith(b"\x08"):
        return "onnx-file"
    return None


def serve_file(api: Api, blobs: BlobStore, name: str, served: ServedFile) -> str:
    """Make the model what the service `name` of the project `name` answers with in `dev`; return its release.

    The same file again changes nothing. Raises Conflict if the project is one that a project file declares.
    """
    check_name(name, "service name")
    base = f"/api/projects/{name}"
    _check_own(api, base, name)
    api.post(f"{base}/apply", dump(_spec(name)))
    made = api.post(f"{base}/submissions", _submission(blobs, name, served))
    body = {"release": made["release"], "environment": ENVIRONMENT}
    api.post(f"{base}/services/{name}/promote", body)
    return str(made["release"])


def _check_own(api: Api, base: str, name: str) -> None:
    try:
        applied = api.get(f"{base}/versions", kind="config", name=name, limit=1)["items"]
    except NotFound:
        return
    if applied and applied[0]["content"].get("owner") != OWNER:
        raise Conflict(
            f"The project “{name}” is declared by a project file.",
            why="A model file is served in a project of its own, which has the name of the service.",
            mend="Give the service another name with --name, or serve from another data folder with --home.",
        )


def _spec(name: str) -> ProjectSpec:
    rule = Rule("it answers, alone and in a batch alike", "parity.n >= 1 && parity.max_difference <= 0.001")
    return ProjectSpec(
        name=name,
        owner=OWNER,
        risk="minimal",
        policies=(Policy(ENVIRONMENT, (rule,), approvals=0),),
        services=(ServiceSpec(name=name, model=""),),
    )


def _submission(blobs: BlobStore, name: str, served: ServedFile) -> dict[str, Any]:
    digest = blobs.put(served.data)
    output = "class" if served.model.classes else served.model.output
    features = FeatureSet((), tuple(numeric(each) for each in served.names), {}).to_json()
    model = {"format": served.format, "digest": digest, "features": list(served.names), "output": output}
    if served.model.classes:
        model["classes"] = list(served.model.classes)
    contents: Sequence[tuple[str, str, str, Any, list[str]]] = (
        ("features", "feature_view", f"{name}-features", features, []),
        ("model", "model", name, model, [digest]),
    )
    taken = served.model.matrix if served.model.matrix not in served.names else f"{served.model.matrix}-matrix"
    return {
        "release": {
            "service": name,
            "versions": {role: version_id(kind, content) for role, kind, _, content, _ in contents},
            "config": {
                "inputs": [{"name": each, "datatype": "FP32"} for each in served.names],
                "output": output,
                "matrix": taken,
            },
        },
        "versions": [
            {"kind": kind, "name": called, "content": content, "blobs": kept}
            for _, kind, called, content, kept in contents
        ],
        "evidence": [{"kind": "parity", "content": _alike(served)}],
        "environment": ENVIRONMENT,
    }


def _alike(served: ServedFile) -> dict[str, Any]:
    """Measure how much answers differ between rows alone and the same rows in a batch."""
    random = np.random.default_rng(0)
    sample = random.normal(size=(_SAMPLE, served.model.features)).astype(np.float32)
    together = served.model.score(sample)
    alone = np.concatenate([served.model.score(sample[row : row + 1]) for row in range(_SAMPLE)])
    difference = np.abs(together.astype(np.float64) - alone)
    return {
        # Of numbers as large as a regression's, a share is what rounding changes.
        "max_difference": float(np.max(difference / np.maximum(1.0, np.abs(alone)))),
        "n": _SAMPLE,
        "runtime": runtime_of(served.format),
        "why": "The file is served by its own runtime; compared are rows alone and in a batch",
    }


def _the_file(folder: Path) -> Path:
    """Return the one model file in a folder; files behind links do not count."""
    found: list[Path] = []
    pickled: list[Path] = []
    for path in _files(folder):
        if path.suffix in _UNPICKLED:
            pickled.append(path)
        elif path.suffix in _ENDINGS:
            with path.open("rb") as file:
                if kind_of(file.read(4096)) is not None:
                    found.append(path)
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(sorted(str(path.relative_to(folder)) for path in found)[:5])
        raise InvalidInput(f"There are {len(found)} model files in {folder}.", why=named, mend="Name one of them.")
    if pickled:
        raise _unpickled(pickled[0])
    raise InvalidInput(
        f"There is no model file in {folder}.",
        why="ONNX, LightGBM, XGBoost and skops files are served.",
        mend="Export the model in one of these formats.",
    )


def _files(folder: Path) -> Iterator[Path]:
    count = 0
    for here, folders, names in os.walk(folder):
        parent = Path(here)
        folders[:] = [each for each in folders if not (parent / each).is_symlink()]
        for each in sorted(names):
            count += 1
            if count > _MOST_FILES:
                raise InvalidInput(f"There are more than {_MOST_FILES} files in {folder}.", mend="Name the model file.")
            path = parent / each
            if path.is_file() and not path.is_symlink():
                yield path


def _signature(path: Path) -> tuple[str, ...]:
    """Return the names of the columns in the signature of an MLmodel file, none where it has none."""
    if not path.is_file() or path.stat().st_size > 1 << 20:
        return ()
    found = _INPUTS.search(path.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        return ()
    # YAML's quoted text: an end of line is a space, two quotes are one.
    text = re.sub(r"\s*\n\s*", " ", found[1]).replace("''", "'")
    try:
        columns = json.loads(text)
        return tuple(str(each["name"]) for each in columns)
    except (ValueError, KeyError, TypeError):
        return ()


def _unknown(file: Path, data: bytes) -> InvalidInput:
    if data.startswith(_PICKLES):
        return _unpickled(file)
    return InvalidInput(
        f"{file} is no model file that is served.",
        why="Its first bytes are those of no ONNX, LightGBM, XGBoost or skops file.",
        mend="Export the model in one of these formats.",
    )


def _unpickled(file: Path) -> InvalidInput:
    return InvalidInput(
        f"{file} looks like a pickle, which is not loaded.",
        why="Loading a pickle runs whatever code is in it.",
        mend="Save the model anew: skops.io.dump(model, …), booster.save_model(…), or as ONNX.",
    )
