"""Parse hostile documents in a process of their own: bounded in time, memory and output, without environment.

The parent sends a request (one line of JSON, then the bytes) and reads one answer. A process that dies or is
too slow costs its document and nothing else: the next document gets a new one. This bounds resources; it is
no boundary against code that runs in the parser, which would have the rights of the user who builds.
"""

import json
import os
import queue
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import IO, Any

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.retrieval.model import DocumentRefused, Kind, Parsing, Reason
from holdtrue.llm.retrieval.parsing import ISOLATED, Parsed, parse

_LENGTH = struct.Struct("<Q")
# Time of day that is granted for each second of the processor: the machine may be busy.
_PATIENCE = 10.0
_START_SECONDS = 60.0
_FILES = 64


class Parsers:
    """Lend processes that parse; any number of threads may ask. Close it at the end (or use it in a `with`)."""

    def __init__(self, limits: Parsing) -> None:
        self._limits = limits
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()

    def __enter__(self) -> "Parsers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def parse(self, kind: Kind, data: bytes) -> Parsed:
        """Return the text of a document; raise DocumentRefused with the reason if it gives none."""
        if len(data) > self._limits.most_bytes:
            raise DocumentRefused.of(
                Reason.TOO_LARGE, f"It has {len(data)} bytes; at most {self._limits.most_bytes} are read."
            )
        if kind not in ISOLATED:
            return parse(kind, data, self._limits)
        with self._borrowed() as process:
            return process.parse(kind, data)

    def close(self) -> None:
        """End all processes."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().end()

    @contextmanager
    def _borrowed(self) -> Generator["_Process"]:
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            process = _Process(self._limits)
        try:
            yield process
        finally:
            if process.alive:
                self._idle.put(process)
            else:
                process.end()


class _Process:
    """One parser process, used by one thread at a time."""

    def __init__(self, limits: Parsing) -> None:
        self._limits = limits
        self._child = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
            [sys.executable, "-I", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._in: IO[bytes] = self._child.stdin
        self._out: IO[bytes] = self._child.stdout

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def parse(self, kind: Kind, data: bytes) -> Parsed:
        request = json.dumps({"kind": kind, "size": len(data), "limits": asdict(self._limits)}).encode()
        deadline = time.monotonic() + _START_SECONDS + _PATIENCE * self._limits.most_seconds
        try:
            self._in.write(request + b"\n")
            self._in.write(data)
            self._in.flush()
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
            if length > 8 * self._limits.most_characters + (1 << 20):
                self._kill()
                raise DocumentRefused.of(Reason.CRASHED, "Its parser gave more than it may.")
            answer: dict[str, Any] = json.loads(self._read(length, deadline))
        except (OSError, ValueError, EOFError):
            raise self._died() from None
        if "extra" in answer:
            raise MissingExtra.of("llm", answer["extra"])
        if "reason" in answer:
            raise DocumentRefused.of(Reason(answer["reason"]), answer["detail"])
        return Parsed(answer["title"], answer["text"], answer["kind"])

    def end(self) -> None:
        """Let the process end: it does when its input does."""
        with suppress(OSError):
            self._in.close()
        self._kill()
        self._out.close()

    def _kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def _read(self, size: int, deadline: float) -> bytes:
        pieces: list[bytes] = []
        descriptor = self._out.fileno()
        while size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, min(size, 1 << 20)) if ready else b""
            if not piece:
                raise EOFError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _died(self) -> DocumentRefused:
        slow = False
        try:
            self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            slow = True
            self._kill()
        if slow or self._child.returncode == -signal.SIGXCPU:
            return DocumentRefused.of(
                Reason.TOO_SLOW, f"To parse it takes more than {self._limits.most_seconds:g} seconds of processor time."
            )
        return DocumentRefused.of(Reason.CRASHED, f"Its parser ended with status {self._child.returncode}.")


def _serve() -> None:
    """Answer requests on standard input until it ends; what runs in the child process."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline(1 << 16):
        request = json.loads(line)
        data = source.read(request["size"])
        limits = Parsing(**request["limits"])
        _limit(limits, len(data))
        answer = json.dumps(_answer(request["kind"], data, limits)).encode()
        sink.write(_LENGTH.pack(len(answer)) + answer)
        sink.flush()


def _answer(kind: Kind, data: bytes, limits: Parsing) -> dict[str, Any]:
    try:
        parsed = parse(kind, data, limits)
    except DocumentRefused as refused:
        return {"reason": refused.reason.value, "detail": refused.facts["detail"]}
    except MissingExtra as missing:
        return {"extra": missing.facts["package"]}
    except MemoryError:
        detail = f"To parse it takes more than {limits.most_memory} bytes of memory."
        return {"reason": Reason.TOO_MUCH_MEMORY.value, "detail": detail}
    except RecursionError:
        return {"reason": Reason.MALFORMED.value, "detail": "It is nested too deeply."}
    except Exception as error:  # noqa: BLE001  # parsers of broken files raise whatever they stumble over
        return {"reason": Reason.MALFORMED.value, "detail": f"Its parser says: {type(error).__name__}: {error!s:.200}."}
    return asdict(parsed)


def _limit(limits: Parsing, size: int) -> None:
    """Bound this process: memory, files, cores, and the processor time of the next document."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.most_seconds) + 1
    bounds = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: limits.most_memory + size,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in bounds.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    _serve()
