"""Child processes that do not outlive their parent, and come back when they fall over."""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_PR_SET_PDEATHSIG = 1
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 10.0
_STEADY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Command:
    """Say how one process is started: module, arguments, and whether it tells when it is ready."""

    name: str
    module: str
    arguments: tuple[str, ...]
    tells: bool = True
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Child:
    """Keep one process running."""

    def __init__(self, command: Command, monotonic: Callable[[], float]) -> None:
        self.command = command
        self.restarts = 0
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_fd = -1
        self._started = 0.0
        self._again_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Return the process's id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def ready_fd(self) -> int:
        """Return the descriptor that becomes readable when the process is ready, or -1."""
        return self._ready_fd

    def start(self) -> None:
        """Start the process in a group of its own, so that a terminal's Ctrl-C reaches it only through its
        parent.
        """
        reader, writer = os.pipe() if self.command.tells else (-1, -1)
        arguments = [sys.executable, "-m", self.command.module, *self.command.arguments]
        if self.command.tells:
            arguments += ["--ready-fd", str(writer)]
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules, no shell
            arguments,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.command.environ},
            pass_fds=(writer,) if self.command.tells else (),
            preexec_fn=_tie_to_parent(os.getpid()),  # one thread, and only system calls
            start_new_session=True,
        )
        if writer >= 0:
            os.close(writer)
        self._close_ready()
        self._ready_fd = reader
        self._started = self._monotonic()
        self._again_at = None

    def exit_status(self) -> int | None:
        """Return the status with which the process has ended, None while it runs."""
        return None if self._process is None else self._process.poll()

    def told_ready(self) -> bool:
        """Tell whether the process has said that it is ready; False after it closed the pipe unsaid."""
        if self._ready_fd < 0 or not select.select([self._ready_fd], [], [], 0)[0]:
            return False
        return os.read(self._ready_fd, 64) != b""

    def revive(self) -> bool:
        """Start a process that has ended again, later each time it falls; tell whether it was started now."""
        if self.exit_status() is None:
            return False
        now = self._monotonic()
        if self._again_at is None:
            if now - self._started > _STEADY_SECONDS:
                self.restarts = 0
            self._again_at = now + min(_FIRST_WAIT * 2**self.restarts, _LONGEST_WAIT)
            self.restarts += 1
        if self._again_at is not None and now < self._again_at:
            return False
        self.start()
        return True

    def terminate(self) -> None:
        """Ask the process to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> int | None:
        """Wait for the end of the process; kill its whole group when it takes longer than `seconds`."""
        self._close_ready()
        if self._process is None:
            return None
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()

    def _close_ready(self) -> None:
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1


def _tie_to_parent(parent: int) -> Callable[[], None]:
    """Return what a child runs before its program: be told to stop when the parent dies, even by SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            # The parent died before the line above: nobody would tell.
            os._exit(1)

    return tie
