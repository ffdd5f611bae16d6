"""Classes that are released as models in tests: one that misbehaves on request, and steps before and after others."""

import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.serving.scorers_helper import double


def _thread() -> None:
    thread = threading.Thread(target=time.monotonic)
    thread.start()
    thread.join()


FORBIDDEN: Mapping[str, Callable[[], object]] = {
    "read a file": lambda: Path("/etc/passwd").read_bytes(),
    "list a folder": lambda: os.listdir("/root"),
    "write a file": lambda: Path("/tmp/model").write_bytes(b"x"),  # noqa: S108
    "open a connection": socket.socket,
    "start a program": lambda: subprocess.run(["/bin/true"], check=False),
    "fork": os.fork,
    "signal": lambda: os.kill(os.getppid(), 0),
    "read its parent": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
}


def _eat() -> None:
    list(map(bytearray, [1 << 28] * 64))


WAYS: Mapping[float, Callable[[], object]] = {
    1.0: lambda: [][1],
    2.0: lambda: time.sleep(600),
    3.0: _eat,
    4.0: lambda: ctypes.string_at(0),
    5.0: lambda: os._exit(7),
    6.0: lambda: sys.exit(3),
    7.0: _thread,
}


class Scorer:
    """Score by a weight from a file; the first feature says how to misbehave, if it is one of `WAYS`."""

    def __init__(self, files: Mapping[str, bytes], at: float = 0.0) -> None:
        self._weight = np.frombuffer(files["weight.f32"], np.float32)[0] if "weight.f32" in files else np.float32(0.5)
        self._at = at

    def predict(self, matrix: np.ndarray) -> Any:
        for value in matrix[:, 0].tolist():
            if value in WAYS:
                WAYS[value]()
            if value == 8.0:
                return np.zeros(len(matrix) + 1)
            if value == 9.0:
                return ["no", "numbers"]
        return double(matrix[:, 1] * self._weight) + self._at


class Forbidden:
    """Try what a confined process may not do; say what it could do all the same."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.done: list[str] = []
        for name, attempt in FORBIDDEN.items():
            try:
                attempt()
            except OSError:
                continue
            self.done.append(name)

    def predict(self, matrix: np.ndarray) -> Any:
        if self.done:
            raise RuntimeError(", ".join(self.done))
        return matrix[:, 0]


class Broken:
    """Fail before any request."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        raise RuntimeError("no weights")

    def predict(self, matrix: np.ndarray) -> Any:
        return matrix[:, 0]


class Wider:
    """Give three columns for two: what comes before a model."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        pass

    def predict(self, matrix: np.ndarray) -> Any:
        return np.column_stack([matrix, matrix[:, 0] * matrix[:, 1]])


class Rounded:
    """Round scores to tenths: what comes after a model."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        pass

    def predict(self, scores: np.ndarray) -> Any:
        return np.round(scores[:, 0], 1)


class Logistic:
    """Score by the first feature alone."""

    def __init__(self, files: Mapping[str, bytes], scale: float = 1.0) -> None:
        self._scale = scale

    def predict(self, matrix: np.ndarray) -> Any:
        return 1 / (1 + np.exp(-self._scale * matrix[:, 0]))


class Colours:
    """Give the probabilities of three classes; of some amounts, numbers that are none."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        pass

    def predict(self, matrix: np.ndarray) -> Any:
        weight = np.exp(np.column_stack([matrix, np.zeros(len(matrix))]))
        found = weight / weight.sum(axis=1, keepdims=True)
        for number, amount in enumerate(matrix[:, 1].tolist()):
            if amount == 70.0:
                found[number] = [2.0, 1.0, 0.0]
            if amount == 80.0:
                found[number] = [1.5, -0.5, 0.0]
            if amount == 90.0:
                return found[:, :2]
        return found


class Sharper:
    """Make the likely class likelier: what comes after a model of classes."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        pass

    def predict(self, chances: np.ndarray) -> Any:
        found = chances**2 + 1e-9
        return found / found.sum(axis=1, keepdims=True)


class Large:
    """Give numbers with more digits than an answer has."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        pass

    def predict(self, matrix: np.ndarray) -> Any:
        return matrix[:, 1].astype(np.float64) * (1e6 / 3)


class Bare:
    """Take no files, as a model has to."""

    def predict(self, X: Any) -> Any:
        return X[:, 0]


class Mute:
    """Take files, and predict nothing."""

    def __init__(self, files: Any) -> None:
        self.files = files
