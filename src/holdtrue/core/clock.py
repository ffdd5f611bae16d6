"""Time is injected: nothing else in the house asks what time it is."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

# A float of seconds cannot tell microseconds apart after 2106.
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Clock(Protocol):
    """Tell the time: of day, and for measuring durations."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never go back."""
        ...


class SystemClock:
    """Tell the machine's own time."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()


class SimulatedClock:
    """Tell a time that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """Return the simulated moment, aware, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the simulated seconds since the epoch."""
        return self._now.timestamp()

    def set(self, moment: datetime) -> None:
        """Move to `moment`, which may lie in the past (tests of clock jumps need that)."""
        self._now = moment.astimezone(UTC)

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self._now += timedelta(seconds=seconds)


class Stopwatch:
    """Tell moments after a first one by the machine's own seconds.

    What is measured with it is right where the time of day is set back, or is simulated and stands still.
    """

    __slots__ = ("_began", "start")

    def __init__(self, moment: datetime) -> None:
        self.start = microseconds(moment)
        self._began = time.monotonic()

    def now(self) -> int:
        """Return the present moment in microseconds since the epoch."""
        return self.start + round((time.monotonic() - self._began) * 1_000_000)


def microseconds(moment: datetime) -> int:
    """Return whole microseconds since the epoch, the form in which records keep time."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the aware UTC moment of a count of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=int(value))
