"""The circuit breaker of a provider: after many failures it is left alone for a while, then tried once."""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from holdtrue.core.errors import StateError

_WINDOW: Final = 20
_FAILURES: Final = 5
_FIRST_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0


class BreakerState(StrEnum):
    """Name whether a provider is asked: always, not at all, or by one call that tries it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


BREAKER_MOVES: dict[BreakerState, frozenset[BreakerState]] = {
    BreakerState.CLOSED: frozenset({BreakerState.OPEN}),
    BreakerState.OPEN: frozenset({BreakerState.HALF_OPEN}),
    BreakerState.HALF_OPEN: frozenset({BreakerState.CLOSED, BreakerState.OPEN}),
}


class Breaker:
    """Guard one provider.

    It opens when at least five, and at least half, of the last twenty calls failed; after five seconds (twice
    as long each time, up to a minute) one call may try, and decides.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.state = BreakerState.CLOSED
        self._monotonic = monotonic
        self._failed: deque[bool] = deque(maxlen=_WINDOW)
        self._wait = _FIRST_WAIT
        self._until = 0.0
        self._trying = False

    def admits(self) -> bool:
        """Tell whether a call may go to the provider; whoever is told yes must report how it went."""
        if self.state is BreakerState.OPEN and self._monotonic() >= self._until:
            self._move(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN and not self._trying:
            self._trying = True
            return True
        return self.state is BreakerState.CLOSED

    def seconds_left(self) -> float:
        """Return how long it stays open at most."""
        return max(0.0, self._until - self._monotonic()) if self.state is BreakerState.OPEN else 0.0

    def succeeded(self) -> None:
        """Note that the provider answered, be it with a refusal."""
        self._failed.append(False)
        self._trying = False
        if self.state is BreakerState.HALF_OPEN:
            self._move(BreakerState.CLOSED)
            self._failed.clear()
            self._wait = _FIRST_WAIT

    def failed(self) -> None:
        """Note that the provider was not reached, took too long, or failed."""
        self._failed.append(True)
        self._trying = False
        failures = sum(self._failed)
        if self.state is BreakerState.HALF_OPEN:
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            self._open()
        elif self.state is BreakerState.CLOSED and failures >= _FAILURES and 2 * failures >= len(self._failed):
            self._open()

    def abandoned(self) -> None:
        """Note that a call ended before it could tell anything: its client went away."""
        self._trying = False

    def _open(self) -> None:
        self._move(BreakerState.OPEN)
        self._until = self._monotonic() + self._wait

    def _move(self, wanted: BreakerState) -> None:
        if wanted not in BREAKER_MOVES[self.state]:
            raise StateError.of("circuit breaker", self.state.value, wanted.value)
        self.state = wanted


class RetryBudget:
    """Keep retries below a tenth of the requests, with ten in hand for quiet times.

    When a provider fails altogether, retries would only multiply its load.
    """

    _MOST: Final = 10.0
    _SHARE: Final = 0.1

    def __init__(self) -> None:
        self._left = self._MOST

    def note_request(self) -> None:
        """Count a request that came in."""
        self._left = min(self._MOST, self._left + self._SHARE)

    def take(self) -> bool:
        """Take the right to one retry, if there is one."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
