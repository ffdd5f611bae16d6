"""Run the code of one model in this process, which has nothing else to lose: `python -I -m holdtrue.serving.inside FD`.

The process that started this one sends the package and then matrices, and gets scores. What the code raises, prints or
exits with goes no further; what it does to this process costs this process.
"""

import importlib
import importlib.abc
import importlib.util
import io
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

import numpy as np

from holdtrue.serving.confinement import NEEDED, confine, python_folders
from holdtrue.serving.frames import receive_frame, send_frame
from holdtrue.serving.package import Package, unpack
from holdtrue.serving.tensorfile import read_tensors

WEIGHTS: Final = "weights.safetensors"
PROGRAM: Final = "program.pt2"
_MOST_PACKAGE: Final = (1 << 32) - 1
_MOST_MATRIX: Final = 1 << 30
_MOST_TEXT: Final = 300
_PATIENCE: Final = 2.0

Predict = Callable[[Any], Any]


def main() -> None:
    """Answer until the other side is gone."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.settimeout(None)
    _silence()
    try:
        head, data = receive_frame(channel, _MOST_PACKAGE)
        ready = _prepare(channel, head, unpack(data))
        del data
        while ready is not None:
            asked, matrix = receive_frame(channel, _MOST_MATRIX)
            _answer(channel, ready[0], asked, matrix, {**head, "columns": ready[1]})
    except (EOFError, OSError):
        return


def _silence() -> None:
    """Give the code nothing to read or write: no input, no output, no file but the channel."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    os.chdir("/")


def _prepare(channel: socket.socket, head: Mapping[str, Any], package: Package) -> tuple[Predict, int] | None:
    """Confine this process, load the model, and say how that went; return it with how many columns it gives."""
    if package.kind == "torch":
        try:
            torch: Any = importlib.import_module("torch")
        except ImportError:
            send_frame(channel, {"extra": ["torch", "torch"]})
            return None
        torch.set_num_threads(1)
        # Loading a program imports half of the library, which is not the model's doing.
        importlib.import_module("torch.export.pt2_archive._package")
    held = confine(head["memory"], python_folders())
    missing = [each for each in NEEDED if each not in held]
    if missing:
        send_frame(channel, {"missing": missing})
        return None
    try:
        predict, features, gives = _load(package, head["columns"])
    except BaseException as error:  # noqa: BLE001  # code of a model may raise anything, SystemExit too
        send_frame(channel, {"error": _said(error)})
        return None
    send_frame(channel, {"features": features, "gives": gives, "held": held})
    return predict, gives


def _load(package: Package, columns: int) -> tuple[Predict, int, int]:
    """Return what scores a matrix, how many features it takes, and how many columns it gives, 0 for one score."""
    about, files = package.about, package.files
    if package.kind == "torch" and PROGRAM in files:
        predict, features, gives = _program(files[PROGRAM])
        return predict, features, columns or gives
    sys.meta_path.insert(0, _Sources(files))
    module, _, name = about["entry"].partition(":")
    made = getattr(importlib.import_module(module), name)
    features = len(about["features"])
    if package.kind == "torch":
        return _network(made(**about["arguments"]), files[WEIGHTS]), features, columns
    return made(files, **about["arguments"]).predict, features, columns


def _network(network: Any, weights: bytes) -> Predict:
    torch: Any = importlib.import_module("torch")

    network.load_state_dict({name: torch.from_numpy(array) for name, array in read_tensors(weights).items()})
    network.eval()

    def predict(matrix: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(matrix)).numpy()

    return predict


def _program(data: bytes) -> tuple[Predict, int, int]:
    torch: Any = importlib.import_module("torch")

    program = torch.export.load(io.BytesIO(data))
    (taken,) = program.graph_signature.user_inputs
    (given,) = program.graph_signature.user_outputs
    shapes = {each.name: each.meta["val"].shape for each in program.graph.nodes if each.name in (taken, given)}
    features = int(shapes[taken][-1])
    # Of two columns the second is the score, as everywhere.
    gives = int(shapes[given][-1]) if len(shapes[given]) == 2 and int(shapes[given][-1]) > 2 else 0
    network = program.module()

    def predict(matrix: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(matrix)).numpy()

    return predict, features, gives


class _Sources(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import the modules of a package from its bytes: `a/b.py` is the module `a.b`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._sources = {
            name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): (name, data)
            for name, data in files.items()
            if name.endswith(".py")
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self._sources:
            is_package = self._sources[fullname][0].endswith("/__init__.py")
            return importlib.util.spec_from_loader(fullname, self, is_package=is_package)
        if any(each.startswith(f"{fullname}.") for each in self._sources):
            return importlib.util.spec_from_loader(fullname, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        name, data = self._sources.get(module.__name__, ("", b""))
        exec(compile(data, name or module.__name__, "exec"), module.__dict__)  # noqa: S102  # what this process is for


def _answer(
    channel: socket.socket, predict: Predict, asked: Mapping[str, Any], matrix: bytes, head: Mapping[str, Any]
) -> None:
    rows, columns = int(asked["rows"]), int(head["columns"])
    # A copy: libraries refuse, or warn of, arrays that may not be written to.
    given = np.frombuffer(matrix, np.float32).reshape(rows, -1).copy()
    # If the other side is gone too, nobody would end this process: the kernel does, after twice the time it has.
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * head["seconds"])
    try:
        found = np.asarray(predict(given))
        if not columns:
            found = _one_a_row(found)
        if found.shape != ((rows, columns) if columns else (rows,)):
            send_frame(channel, {"shape": [int(each) for each in found.shape][:8]})
            return
        scores = np.ascontiguousarray(found, np.float32).tobytes()
    except MemoryError:
        send_frame(channel, {"error": "MemoryError", "over": True})
        return
    except BaseException as error:  # noqa: BLE001  # as above
        send_frame(channel, {"error": _said(error)})
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    send_frame(channel, {"shape": [*found.shape]}, scores)


def _one_a_row(found: Any) -> Any:
    """Return one number a row from a vector, a column, or two columns of probabilities."""
    return found[:, -1] if found.ndim == 2 and found.shape[1] in (1, 2) else found


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_MOST_TEXT]


if __name__ == "__main__":
    main()
