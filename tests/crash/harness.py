"""Kill real processes at random moments, and know afterwards what they had been promised.

A *client* is a function `module:name` taking (folder, notes, seed). It runs in a process of its own until it is
killed; it writes down each thing it is about to do (`notes.intend`) and each acknowledgement it got (`notes.done`).
After every kill a checker compares the notes with what the store under test now holds. A nursery process imports
everything once and forks the clients, so that a kill costs milliseconds.
"""

import ctypes
import importlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PR_SET_PDEATHSIG = 1
MEMORY = Path("/dev/shm")  # noqa: S108


class Notes:
    """The client's own journal: one JSON line per intent and acknowledgement, on disk before it goes on."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._descriptor, b"\n")  # a kill may have cut the last line of the client before this one

    def intend(self, key: str, **facts: Any) -> None:
        """Write down what is about to be tried."""
        self._write({"intend": key, **facts})

    def done(self, key: str, **facts: Any) -> None:
        """Write down that it was acknowledged."""
        self._write({"done": key, **facts})

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")
        os.fdatasync(self._descriptor)


@dataclass(frozen=True, slots=True)
class History:
    """What all clients of a folder intended, and what was acknowledged to them (key → facts)."""

    intended: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    @classmethod
    def read(cls, path: Path) -> "History":
        """Read notes; a line cut by a kill was neither begun nor promised to anybody."""
        history = cls()
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                note = json.loads(line)
            except json.JSONDecodeError:
                continue
            target, key = ("intended", "intend") if "intend" in note else ("acknowledged", "done")
            getattr(history, target)[note.pop(key)] = note
        return history


class Nursery:
    """A process that has imported the clients' modules and forks a client when told to."""

    def __init__(self, modules: Sequence[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYTHONWARNINGS": "error"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.harness", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        assert self._answer() == "born"

    def start(self, client: str, folder: Path, seed: int) -> int:
        """Start a client and return its pid once it runs."""
        self._tell({"client": client, "folder": str(folder), "seed": seed})
        word, pid = self._answer().split()
        assert word == "running"
        return int(pid)

    def kill(self, pid: int) -> None:
        """Kill a client with SIGKILL and wait until it is gone; a client that ended by itself is a bug in it."""
        os.kill(pid, signal.SIGKILL)
        self._tell({"wait": pid})
        assert self._answer() == f"ended {-signal.SIGKILL}", "the client ended before it was killed"

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery died; its error is above"
        return line.decode().strip()


@contextmanager
def nursery(*modules: str) -> Generator[Nursery]:
    """Keep a nursery for the time of the block."""
    home = Nursery(modules)
    try:
        yield home
    finally:
        home.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """How often to kill, when, and where: `longest` seconds at most after the client has started."""

    kills: int
    longest: float = 0.05
    per_folder: int = 10
    seed: int = field(default_factory=lambda: int(os.environ.get("CRASH_SEED", secrets.randbits(32))))


def crash(
    home: Nursery, client: str, plan: Plan, folders: Iterator[Path], check: Callable[[Path, History], None]
) -> History:
    """Start and kill `client` as planned, calling `check(folder, history)` after every kill; return the last history.

    The seed is printed, so pytest shows it with a failure; CRASH_SEED=… replays it. A folder lives through `per_folder`
    kills, so stores are also opened after many crashes in a row.
    """
    print(f"{client}: {plan.kills} kills, CRASH_SEED={plan.seed}")
    rng = random.Random(plan.seed)
    history, folder = History(), Path()
    for number in range(plan.kills):
        if number % plan.per_folder == 0:
            folder = next(folders)
        pid = home.start(client, folder, rng.getrandbits(32))
        # No event to wait for here: the point is that the moment is arbitrary.
        time.sleep(rng.uniform(0, plan.longest))
        home.kill(pid)
        history = History.read(folder / "notes")
        check(folder, history)
    return history


def crash_folders(base: Path) -> Iterator[Path]:
    """Yield fresh folders, in turn on a disk (kills land in fsync) and in memory (kills land everywhere else)."""
    number = 0
    while True:
        on_disk = number % 2 == 0 or not MEMORY.is_dir()
        folder = base / f"run-{number}" if on_disk else MEMORY / f"{base.name}-{os.getpid()}-{number}"
        folder.mkdir(mode=0o700)
        if not on_disk:
            (base / f"memory-{number}").symlink_to(folder)
        yield folder
        number += 1


def _serve(modules: Sequence[str]) -> None:
    """Be the nursery: fork a client per order on standard input, answer on standard output."""
    for module in modules:
        importlib.import_module(module)
    answers = os.dup(1)
    os.dup2(2, 1)  # what clients print must not be taken for answers
    os.write(answers, b"born\n")
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            os.write(answers, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())
        elif os.fork() == 0:
            # A client must not outlive a nursery that was killed with its test.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            module, _, name = order["client"].partition(":")
            function = getattr(importlib.import_module(module), name)
            os.write(answers, f"running {os.getpid()}\n".encode())
            function(Path(order["folder"]), Notes(Path(order["folder"]) / "notes"), order["seed"])
            os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1:])


def noted(path: Path) -> list[dict[str, str]]:
    """Return all notes in their order; a line that a kill cut short was promised to nobody."""
    notes: list[dict[str, str]] = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        with suppress(json.JSONDecodeError):
            notes.append(json.loads(line))
    return notes


def repeated(path: Path) -> list[str]:
    """Return what was begun again after it had ended once."""
    ended: set[str] = set()
    again: list[str] = []
    for note in noted(path):
        if "done" in note:
            ended.add(note["done"])
        elif note["intend"] in ended:
            again.append(note["intend"])
    return again
