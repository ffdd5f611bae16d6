"""Child processes that do not outlive their parent, and come back when they fall over; signals to wait for."""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

_PR_SET_PDEATHSIG = 1
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 10.0
_STEADY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Command:
    """Say how one process is started: module, arguments, whether it tells when it is ready, and what it inherits.

    One that `leads` has a group of its own, so that a terminal's Ctrl-C reaches it only through its parent; others are
    killed together with their parent's group.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    tells: bool = True
    leads: bool = True
    inherits: tuple[int, ...] = ()
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
        """Start the process."""
        reader, writer = os.pipe() if self.command.tells else (-1, -1)
        arguments = [sys.executable, "-m", self.command.module, *self.command.arguments]
        if self.command.tells:
            arguments += ["--ready-fd", str(writer)]
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules, no shell
            arguments,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.command.environ},
            pass_fds=(*self.command.inherits, writer) if self.command.tells else self.command.inherits,
            preexec_fn=_tie_to_parent(os.getpid()),  # one thread, and only system calls
            start_new_session=self.command.leads,
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
        """Start a process that has ended again, later each time it falls; tell whether it was started now.

        One that somebody killed, as the kernel does when memory ends, has not fallen.
        """
        status = self.exit_status()
        if status is None:
            return False
        now = self._monotonic()
        if self._again_at is None:
            if now - self._started > _STEADY_SECONDS or status == -signal.SIGKILL:
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
        """Wait for the end of the process; kill it, with the group that it leads, if it takes longer than `seconds`."""
        self._close_ready()
        if self._process is None:
            return None
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            if self.command.leads:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
            return self._process.wait()

    def _close_ready(self) -> None:
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1


class Signals:
    """Turn signals into a descriptor that can be waited for together with others."""

    def __init__(self) -> None:
        self.stopped = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        os.set_blocking(self._reader, False)
        self._before: list[tuple[signal.Signals, Callable[..., object] | int | None]] = []

    def __enter__(self) -> "Signals":
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before.append((number, signal.signal(number, self._stop)))
        # A handler of its own makes the end of a child interrupt the wait.
        self._before.append((signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda *_: None)))
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before:
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, seconds: float, others: Sequence[int] = ()) -> None:
        """Wait for a signal, one of the other descriptors, or the time."""
        ready, _, _ = select.select([self._reader, *others], [], [], seconds)
        if self._reader in ready:
            os.read(self._reader, 1024)

    def _stop(self, *_: object) -> None:
        self.stopped = True


def supervise(children: Sequence[Child], signals: Signals) -> None:
    """Start again what falls over, until told to stop."""
    while not signals.stopped:
        down = False
        for child in children:
            status = child.exit_status()
            if status is None:
                continue
            if child.revive():
                print(
                    f"The {child.command.name} ended (status {status}) and was started again.",
                    file=sys.stderr,
                    flush=True,
                )
            else:
                down = True
        if not signals.stopped:
            signals.wait(0.05 if down else 30.0)


def stop(children: Sequence[Child], monotonic: Callable[[], float], seconds: float) -> None:
    """Stop all children together, and kill what takes longer than `seconds`."""
    until = monotonic() + seconds
    for child in reversed(children):
        child.terminate()
    for child in children:
        child.wait(until - monotonic())


def _tie_to_parent(parent: int) -> Callable[[], None]:
    """Return what a child runs before its program: be told to stop when the parent dies, even by SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            # The parent died before the line above: nobody would tell.
            os._exit(1)

    return tie
