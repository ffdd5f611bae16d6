"""Load a model file in a process of its own first: a native parser that falls over takes only that process with it.

`python -m holdtrue.serving.probe FORMAT` reads the file from standard input and prints one line of JSON.
"""

import resource
import subprocess
import sys
import time
from typing import Final

import numpy as np
import orjson

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import HoldtrueError, MissingExtra
from holdtrue.serving.runtime import Model, ModelRefused, load_model, refused

_SECONDS: Final = 60
_LONG: Final = 0.001
_PROBED: Final = frozenset({"lightgbm", "xgboost", "skops", "graph"})


def load_probed(data: bytes, digest: str, format: str) -> Model:
    """Return a model as `load_model` does, after another process has loaded it where its parser is native.

    Only bytes that have the digest reach any parser. Raises what `load_model` raises.
    """
    if format in _PROBED and bytes_hash(data) == digest:
        _probe(data, format)
    return load_model(data, digest, format)


def resident_bytes() -> int:
    """Return how much memory this process has resident; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def takes_long(model: Model) -> bool:
    """Tell whether a model takes so long for a row that an event loop should not wait for it.

    Measured is the processor's time of this thread, which others on the machine do not stretch; the least of three.
    """
    row = np.zeros((1, model.features), np.float32)
    times: list[float] = []
    for _ in range(3):
        began = time.thread_time()
        model.score(row)
        times.append(time.thread_time() - began)
    return min(times) > _LONG


def _probe(data: bytes, format: str) -> None:
    """Raise ModelRefused or MissingExtra if another process cannot load the file."""
    command = [sys.executable, "-m", "holdtrue.serving.probe", format]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(part for part in sys.path if part)}
    try:
        done = subprocess.run(  # noqa: S603  # our own module; the file goes in as bytes
            command, input=data, capture_output=True, env=environment, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise refused(f"it was not loaded within {_SECONDS} seconds") from None
    if done.returncode != 0:
        raise refused(f"the library that reads {format} files fell over it (status {done.returncode})")
    told = orjson.loads(done.stdout.splitlines()[-1])
    if told.get("extra"):
        raise MissingExtra.of(*told["extra"])
    if told.get("error"):
        raise ModelRefused(**told["error"])


def main() -> int:
    """Load the file on standard input; say how that went."""
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    data = sys.stdin.buffer.read()
    told: dict[str, object] = {}
    try:
        load_model(data, bytes_hash(data), sys.argv[1])
    except MissingExtra as error:
        told["extra"] = [error.facts["extra"], error.facts["package"]]
    except HoldtrueError as error:
        told["error"] = {"what": error.what, "why": error.why, "mend": error.mend}
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
