"""Run a model that is code in a process of its own: killed and started again when it hangs, crashes or takes too much.

The process gets matrices and gives scores (`frames`), is confined before any code of the model runs (`confinement`),
and holds nothing that this one could lose. A request that it does not answer in time fails as a model fails; the worker
that asked goes on. A process that fell is replaced at once, later each time it falls again without an answer between.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from holdtrue.core.errors import MissingExtra
from holdtrue.serving.frames import BadFrame, receive_frame, send_frame
from holdtrue.serving.graph import read_graph
from holdtrue.serving.package import BadPackage, Package, unpack
from holdtrue.serving.runtime import (
    Matrix,
    Model,
    ModelFailed,
    ModelFell,
    ModelRefused,
    Vector,
    WrongShape,
    guarded,
    numbered,
    proper,
    refused,
)

CODE: Final = frozenset({"python", "torch"})
"""The formats whose models are code, and run isolated."""
_START_SECONDS: Final = 60.0
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 30.0
_ENTRY: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SECONDS: Final = (0.001, 25.0)
_MEMORY: Final = (16 << 20, 64 << 30)
_ROWS: Final = (1, 10_000)
_COLUMNS: Final = (0, 10_000)
_LONGEST_CLASS: Final = 200
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bound one call of an isolated model: seconds, bytes of memory beyond Python's own, rows, and what it gives.

    `columns` is how many numbers it gives for each row; 0 is the one score that an answer has. Of a model that tells
    classes apart it is how many there are.
    """

    seconds: float = 1.0
    memory: int = 512 << 20
    rows: int = 256
    columns: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of what it gives for one row."""
        return (self.columns,) if self.columns else ()


def check_bounds(bounds: Bounds) -> Bounds:
    """Return bounds that are within what a data plane grants; raise BadPackage for others."""
    ranges = {"seconds": _SECONDS, "memory": _MEMORY, "rows": _ROWS, "columns": _COLUMNS}
    for name, (low, high) in ranges.items():
        if not low <= getattr(bounds, name) <= high:
            raise _bad(f"{name} is {getattr(bounds, name)!r}, which is not between {low} and {high}")
    return bounds


def load_isolated(data: bytes, digest: str) -> Model:
    """Return the model in a package, which runs in a process of its own as long as the model is held.

    Raises BadPackage, ModelRefused and MissingExtra.
    """
    package = unpack(data)
    names, bounds, classes = read_about(package)
    keeper = _Keeper(data, bounds)
    try:
        features, gives = keeper.start()
        names = names or tuple(f"x{place}" for place in range(features))
        if features != len(names):
            raise refused(f"it takes {features} features and names {len(names)}")
        if gives != bounds.columns:
            # A program that says nothing of classes, and gives several numbers: of classes, or it is refused.
            classes = numbered(gives)
        handle = Isolated(keeper, of_classes=bool(classes))
        made = Model(
            digest,
            features,
            handle.score,
            names,
            "score",
            "features",
            aside=True,
            memory=bounds.memory,
            columns=0 if classes else bounds.columns,
            classes=classes,
        )
        return guarded(made)
    except Exception:
        keeper.close()
        raise


def holds_code(data: bytes, format: str) -> bool:
    """Tell whether a model is code, or a graph with a part that is; raise BadPackage."""
    if format != "graph":
        return format in CODE
    return any(each.get("format") in CODE for each in read_graph(unpack(data))[1])


def code_refused() -> ModelRefused:
    """Say that code is not run here, and how that is changed."""
    return ModelRefused(
        "This model is code, which is not run here.",
        why="Whoever operates this server has not allowed it.",
        mend='Set model_code = "isolated" in config.toml and start anew: it then runs in a confined process.',
    )


def read_about(package: Package) -> tuple[tuple[str, ...], Bounds, tuple[str, ...]]:
    """Return the names of the features, the bounds, and the classes that a package declares; raise BadPackage."""
    about = package.about
    try:
        bounds = Bounds(float(about["seconds"]), int(about["memory"]), int(about["rows"]), int(about["columns"]))
        names = tuple(about["features"])
        entry, arguments = about["entry"], about["arguments"]
        classes = tuple(about.get("classes", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(f"{error} is missing or of another kind") from None
    if not all(type(name) is str and name for name in names) or len(set(names)) != len(names):
        raise _bad("the names of its features are not different texts")
    if type(arguments) is not dict or (entry and _ENTRY.fullmatch(str(entry)) is None):
        raise _bad("its entry is not of the form module:Class with named arguments")
    return names, check_bounds(replace(bounds, columns=len(named_classes(classes, bounds)) or bounds.columns)), classes


def named_classes(classes: Sequence[Any], bounds: Bounds) -> Sequence[str]:
    """Return the names of classes that a model tells apart, none if it tells none; raise BadPackage for others."""
    if not classes:
        return ()
    if bounds.columns:
        raise _bad("it gives columns to another model, and tells classes apart")
    if len(classes) < 3 or len(set(classes)) != len(classes):
        raise _bad(f"{len(classes)} classes are not three or more of different names; of two, give the second's chance")
    if not all(type(name) is str and 0 < len(name) <= _LONGEST_CLASS for name in classes):
        raise _bad(f"a class has no name, or one of more than {_LONGEST_CLASS} letters")
    return classes


class Isolated:
    """Ask the process; when nobody holds this any more, the process ends."""

    def __init__(self, keeper: "_Keeper", *, of_classes: bool = False) -> None:
        self._keeper = keeper
        self._of_classes = of_classes
        weakref.finalize(self, keeper.close)

    def score(self, matrix: Matrix) -> Vector:
        """Return the scores of a matrix; raise ModelFailed, or ModelFell if it cost the process."""
        step = self._keeper.bounds.rows
        if len(matrix) <= step:
            scores = self._keeper.ask(matrix)
        else:
            scores = np.concatenate([self._keeper.ask(matrix[at : at + step]) for at in range(0, len(matrix), step)])
        return proper(scores) if self._of_classes else scores


class _Keeper:
    """Hold one process at a time; any number of threads may ask, one after the other."""

    def __init__(self, data: bytes, bounds: Bounds) -> None:
        self.bounds = bounds
        self._data = data
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._child: _Child | None = None
        self._closed = False
        self._falls = 0
        self._again_at = 0.0

    def start(self) -> tuple[int, int]:
        """Start the process; return how many features it takes, how many columns it gives.

        Raises ModelRefused and MissingExtra.
        """
        child = _Child(self._data, self.bounds)
        with self._changed:
            self._child = child
            self.bounds = replace(self.bounds, columns=child.gives)
        return child.features, child.gives

    def close(self) -> None:
        """End the process; no other is started."""
        with self._changed:
            self._closed, child, self._child = True, self._child, None
            self._changed.notify_all()
        if child is not None:
            child.end()

    def ask(self, matrix: Matrix) -> Vector:
        """Return the scores of a matrix of at most `bounds.rows` rows."""
        if not self._turn.acquire(timeout=self.bounds.seconds):
            raise ModelFailed("The model did not answer.", why="Others were asking it all the time that a call has.")
        try:
            child = self._present()
            try:
                scores = child.ask(matrix, self.bounds)
            except ModelFell:
                self._replace(child)
                raise
            self._falls = 0
            return scores
        finally:
            self._turn.release()

    def _present(self) -> "_Child":
        """Return the process, waiting for one that is starting for as long as a call may take."""
        with self._changed:
            wait = self.bounds.seconds
            if self._child is None and self._again_at - time.monotonic() > wait:
                wait = 0.0
            self._changed.wait_for(lambda: self._child is not None or self._closed, timeout=wait)
            if self._child is None:
                raise ModelFell("The model did not answer.", why="Its process fell, and another is not ready yet.")
            return self._child

    def _replace(self, child: "_Child") -> None:
        with self._changed:
            self._child = None
            wait = 0.0 if not self._falls else min(_FIRST_WAIT * 2.0 ** (self._falls - 1), _LONGEST_WAIT)
            self._falls += 1
            self._again_at = time.monotonic() + wait
        child.end()
        threading.Thread(target=self._revive, args=(wait,), name="model-revive", daemon=True).start()

    def _revive(self, wait: float) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, timeout=wait):
                    return
            try:
                child = _Child(self._data, self.bounds)
            except Exception:  # noqa: BLE001  # code of a model may say anything in its greeting
                # It loaded once: the machine is short of something, which may pass.
                wait = min(max(2 * wait, _FIRST_WAIT), _LONGEST_WAIT)
                continue
            with self._changed:
                if not self._closed:
                    self._child = child
                    self._changed.notify_all()
                    return
            child.end()
            return


class _Child:
    """One process that runs the model, used by one thread at a time."""

    def __init__(self, data: bytes, bounds: Bounds) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
                [sys.executable, "-IB", "-m", "holdtrue.serving.inside", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict.fromkeys(_THREADS, "1"),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._channel = ours
        try:
            self.features, self.gives = self._greet(data, bounds)
        except BaseException:
            self.end()
            raise

    def _greet(self, data: bytes, bounds: Bounds) -> tuple[int, int]:
        deadline = time.monotonic() + _START_SECONDS
        try:
            self._channel.settimeout(_START_SECONDS)
            send_frame(self._channel, asdict(bounds), data)
            told, _ = receive_frame(self._channel, 0, deadline)
        except TimeoutError:
            raise refused(f"it was not ready within {_START_SECONDS:g} seconds") from None
        except (EOFError, OSError, BadFrame):
            raise refused(f"its process {self._ending()} before it was ready") from None
        if "extra" in told:
            raise MissingExtra.of(*told["extra"])
        if "missing" in told:
            raise _unconfined(told["missing"])
        features, gives = told.get("features"), told.get("gives")
        if type(features) is not int or type(gives) is not int or not 0 <= gives <= _COLUMNS[1]:
            raise refused(f"its code says: {str(told.get('error'))[:300]}")
        return features, gives

    def ask(self, matrix: Matrix, bounds: Bounds) -> Vector:
        rows = len(matrix)
        shape = (rows, *bounds.shape)
        size = 4 * rows * max(1, bounds.columns)
        try:
            self._channel.settimeout(bounds.seconds)
            deadline = time.monotonic() + bounds.seconds
            send_frame(self._channel, {"rows": rows}, np.ascontiguousarray(matrix, np.float32).tobytes())
            told, payload = receive_frame(self._channel, size, deadline)
        except TimeoutError:
            raise _fell(f"It did not answer within {bounds.seconds:g} seconds.") from None
        except (EOFError, OSError):
            raise _fell(f"Its process {self._ending()}.") from None
        except BadFrame as error:
            raise _fell(f"It gave more than it was asked for: {error}") from None
        if told.get("over"):
            raise _fell(f"It took more than {bounds.memory >> 20} MiB of memory.")
        if "error" in told:
            raise ModelFailed("The model did not answer.", why=str(told["error"])[:300])
        if told.get("shape") != [*shape] or len(payload) != size:
            given = str(told.get("shape"))[:80]
            raise WrongShape("The model did not answer.", why=f"It gave the shape {given} for {rows} rows.")
        return np.frombuffer(payload, np.float32).reshape(shape)

    def end(self) -> None:
        """Kill the process and whatever it started."""
        self._channel.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ending(self) -> str:
        """Say how the process ended, which closed the channel."""
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(1.0)
            if status >= 0:
                return f"ended with status {status}"
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-status).name}"
        return "closed its channel"


def _fell(why: str) -> ModelFell:
    return ModelFell("The model did not answer.", why=why)


def _unconfined(missing: Any) -> ModelRefused:
    return ModelRefused(
        "A model that is code is not run on this machine.",
        why=f"Its process cannot be confined: the kernel lacks {', '.join(map(str, missing))}.",
        mend="Serve it on Linux 5.13 or later on x86_64 with Landlock enabled, or release the model in another form.",
    )


def _bad(why: str) -> BadPackage:
    return BadPackage(
        "This package of a model cannot be used.",
        why=f"In what it says of itself, {why}.",
        mend="Make it again with this version of Holdtrue.",
    )
