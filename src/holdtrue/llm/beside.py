"""Tell of calls in a process of their own: what a worker hands to it, how that travels, and what comes back.

A worker sends batches of calls over a socket, each with its length before it, and gets for each batch how many calls it
had and how many of them could not be kept. A batch that is not answered comes back when the process falls: its spans
have ids of their calls' making, so that one that was told of already is stored once.
"""

import asyncio
import logging
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import orjson

from holdtrue.llm.gateway import Attempt, CallFacts, Operation, Outcome, Usage

_LENGTH: Final = struct.Struct("<I")
_DONE: Final = struct.Struct("<II")
# Beyond so many calls without an answer, or bytes that were not taken, the process is behind.
_UNANSWERED: Final = 500
_PENDING: Final = 8 << 20
_AGAIN_SECONDS: Final = 30.0

Done = Callable[[int, int], None]


def encode_calls(calls: Sequence[CallFacts]) -> bytes:
    """Return calls as JSON; raise TypeError for one that has no such form."""
    # Counts of tokens and attempts are named tuples, too, about which orjson asks.
    return orjson.dumps([tuple(each) for each in calls], default=_plain)


def decode_calls(data: bytes | bytearray) -> list[CallFacts]:
    """Return the calls of `encode_calls`."""
    return [_facts(row) for row in orjson.loads(data)]


def _plain(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return list(value)
    raise TypeError


def _facts(row: list[Any]) -> CallFacts:
    facts = CallFacts._make(row)
    return facts._replace(
        operation=Operation(facts.operation),
        outcome=Outcome(facts.outcome),
        finish_reasons=tuple(facts.finish_reasons),
        usage=Usage(*facts.usage),
        attempts=tuple(Attempt(*each) for each in facts.attempts),
    )


async def serve_calls(channel: socket.socket, tell: Callable[[list[CallFacts]], Awaitable[int]]) -> None:
    """Let `tell` store the calls that come, and say so; return once the worker has gone.

    `tell` returns how many of its calls could not be kept.
    """
    # Not a stream: one that can't write an answer to a worker that was killed forgets what that worker had sent.
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    with channel, suppress(asyncio.IncompleteReadError, ConnectionError):
        await _answer(channel, 0, 0)
        while True:
            (length,) = _LENGTH.unpack(await _read(loop, channel, _LENGTH.size))
            calls = decode_calls(await _read(loop, channel, length))
            await _answer(channel, len(calls), await tell(calls))


async def _read(loop: asyncio.AbstractEventLoop, channel: socket.socket, size: int) -> bytearray:
    """Return the next `size` bytes; raise IncompleteReadError if fewer come."""
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = await loop.sock_recv_into(channel, view[got:])
        if not count:
            raise asyncio.IncompleteReadError(bytes(data[:got]), size)
        got += count
    return data


async def _answer(channel: socket.socket, count: int, dropped: int) -> None:
    """Say what was seen to, unless nobody is left to hear it: what that worker had sent is still to be read."""
    with suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(channel, _DONE.pack(count, dropped))


class Beside:
    """Hold the process: started when it is wanted, and again, not at once, after it fell."""

    def __init__(self, arguments: Sequence[str], done: Done, back: Callable[[list[CallFacts]], None]) -> None:
        """`arguments` are the interpreter's; the number of a socket is put after them.

        `done` is told how many calls have been seen to, and how many of them could not be kept; `back` is given those
        that the process fell with.
        """
        self._arguments = arguments
        self._done = done
        self._back = back
        # The open one, and the same once it is ready to be told.
        self._open: _Line | None = None
        self._line: _Line | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._log = logging.getLogger("holdtrue.dataplane")

    def begin(self) -> None:
        """Start the process, unless it is there, has fallen lately, or has no second core to run on."""
        loop = asyncio.get_running_loop()
        if self._open is None and self._starting is None and loop.time() >= self._not_before:
            self._not_before = loop.time() + _AGAIN_SECONDS
            if len(os.sched_getaffinity(0)) > 1:
                self._starting = loop.create_task(self._start())

    def hand(self, calls: list[CallFacts]) -> bool:
        """Send calls to the process; False if it isn't ready, is behind, or can't be told of one of them."""
        return self._line is not None and self._line.hand(calls)

    async def close(self, seconds: float) -> None:
        """Wait until the process has told of everything, but no longer than `seconds`, and end it."""
        if self._starting is not None:
            await asyncio.wait([self._starting], timeout=seconds)
        self._not_before = float("inf")
        opened = self._open
        if opened is not None:
            # It may fall over meanwhile, and is open no longer then.
            await opened.drain(seconds)
            opened.close()
        if self._process is not None:
            await asyncio.to_thread(_end, self._process, seconds)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = [sys.executable, *self._arguments, str(theirs.fileno())]
                self._process = await asyncio.to_thread(_launch, command, theirs.fileno())
            loop = asyncio.get_running_loop()
            _, self._open = await loop.create_connection(lambda: _Line(self), sock=ours)
        except OSError as error:
            ours.close()
            self._log.warning("No process could be started to tell of calls: %s", error)
        finally:
            self._starting = None

    def ready(self, line: "_Line") -> None:
        """Note that the process waits for calls."""
        self._line = line

    def done(self, count: int, dropped: int) -> None:
        """Note that the process has seen to so many calls."""
        self._done(count, dropped)

    def fell(self, calls: list[CallFacts]) -> None:
        """Note that the process has gone, and what it had not seen to."""
        self._open = self._line = None
        if calls:
            self._back(calls)
        process = self._process
        if process is not None and process.poll() is None:
            # It ends by itself, or is ended: nobody waits for it here.
            asyncio.get_running_loop().run_in_executor(None, _end, process, 1.0)


class _Line(asyncio.Protocol):
    """Hold the worker's end of the socket, and the batches that have no answer yet."""

    def __init__(self, owner: Beside) -> None:
        self._owner = owner
        self._transport: asyncio.WriteTransport | None = None
        self._sent: deque[list[CallFacts]] = deque()
        self._waiting = 0
        self._came = b""
        self._empty = asyncio.Event()
        self._empty.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has one of its own, with the same methods.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        while len(self._came) >= _DONE.size:
            count, dropped = _DONE.unpack_from(self._came)
            self._came = self._came[_DONE.size :]
            if count:
                self._sent.popleft()
                self._waiting -= count
                self._owner.done(count, dropped)
            else:
                self._owner.ready(self)
        if not self._sent:
            self._empty.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        back = [each for calls in self._sent for each in calls]
        self._sent.clear()
        self._empty.set()
        self._owner.fell(back)

    def hand(self, calls: list[CallFacts]) -> bool:
        transport = self._transport
        if transport is None or self._waiting > _UNANSWERED or transport.get_write_buffer_size() > _PENDING:
            return False
        try:
            data = encode_calls(calls)
        except TypeError:  # orjson.JSONEncodeError is one: half of a surrogate pair, or an integer beyond 64 bits
            return False
        self._sent.append(calls)
        self._waiting += len(calls)
        self._empty.clear()
        transport.writelines([_LENGTH.pack(len(data)), data])
        return True

    async def drain(self, seconds: float) -> None:
        """Wait for the answers that are missing, but no longer than `seconds`."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return

    def close(self) -> None:
        """Say that nothing more comes."""
        if self._transport is not None:
            self._transport.close()


def _launch(command: list[str], descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(descriptor,))  # noqa: S603  # our own module


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for the end of a process that has been told of it; kill it if that takes too long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
