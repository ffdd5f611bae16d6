"""Notice that the client of a request goes away while its answer is made."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

_UNWATCHED: Final = 0.05


class Leaving:
    """Notice that a client goes away, for which nothing else of its request is waited for.

    To listen for it costs as much as a tenth of the call of a language model, so it begins only once an answer takes a
    moment, or has begun to leave.
    """

    __slots__ = ("_gone", "_loop", "_receive", "_timer", "_waiting")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, receive: Callable[[], Awaitable[Any]], gone: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._receive = receive
        self._gone = gone
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Future[Any] | None = None

    def start_later(self) -> None:
        """Listen after a moment; the request has been read whole."""
        self._timer = self._loop.call_later(_UNWATCHED, self.start)

    def start(self) -> None:
        """Listen from now on."""
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._receive())
            self._waiting.add_done_callback(self._noticed)

    def stop(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting is not None:
            self._waiting.remove_done_callback(self._noticed)
            self._waiting.cancel()

    def _noticed(self, _: object) -> None:
        self._gone()
