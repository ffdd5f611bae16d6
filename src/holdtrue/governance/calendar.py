"""When changes may be made: freezes close an environment for a time, windows open it only at certain hours."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from holdtrue.core.errors import ConfigurationError
from holdtrue.governance.model import ChangeFrozen, ChangeWindow, Policy

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def closed(policy: Policy, now: datetime) -> ChangeFrozen | None:
    """Return why nothing may be changed in the policy's environment now, None if it may."""
    for freeze in policy.freezes:
        if freeze.begin <= now < freeze.end:
            return ChangeFrozen.of(policy.environment, f"It is frozen: {freeze.reason}", freeze.end)
    if not policy.windows or any(_is_open(window, now) for window in policy.windows):
        return None
    when = "; ".join(told(window) for window in policy.windows)
    return ChangeFrozen.of(
        policy.environment, f"Changes are made there at these times only: {when}", _next(policy, now)
    )


def told(window: ChangeWindow) -> str:
    """Return a window in words."""
    return f"{', '.join(window.days)} from {_clock(window.begin)} to {_clock(window.end)} ({window.zone})"


def check_calendar(policy: Policy) -> None:
    """Raise ConfigurationError for a freeze or a window that makes no sense."""
    for freeze in policy.freezes:
        if freeze.begin.tzinfo is None or freeze.end.tzinfo is None or not freeze.begin < freeze.end:
            raise _bad(policy, f"A freeze lasts from {freeze.begin} to {freeze.end}.", "Let it end after it begins.")
        if not freeze.reason.strip():
            raise _bad(policy, "A freeze has no reason.", "Say why: who is stopped by it will read it.")
    for window in policy.windows:
        if not window.days or not set(window.days) <= set(DAYS):
            raise _bad(policy, f"A window is on {', '.join(window.days) or 'no day'}.", f"Days are {', '.join(DAYS)}.")
        if not 0.0 <= window.begin < window.end <= 24.0:
            raise _bad(
                policy,
                f"A window is from {window.begin:g} to {window.end:g} o'clock.",
                "Use hours from 0 to 24, in order.",
            )
        try:
            ZoneInfo(window.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise _bad(policy, f"There is no time zone “{window.zone}”.", "Name one such as Europe/Vienna.") from None


def _is_open(window: ChangeWindow, now: datetime) -> bool:
    here = now.astimezone(ZoneInfo(window.zone))
    hour = here.hour + here.minute / 60.0 + here.second / 3600.0
    return DAYS[here.weekday()] in window.days and window.begin <= hour < window.end


def _next(policy: Policy, now: datetime) -> datetime | None:
    """Return the quarter of an hour at which the next window opens, within two weeks."""
    first = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
    return next((each for each in _quarters(first) if any(_is_open(window, each) for window in policy.windows)), None)


def _quarters(first: datetime) -> Iterator[datetime]:
    for number in range(1, 14 * 24 * 4 + 1):
        yield first + number * timedelta(minutes=15)


def _clock(hour: float) -> str:
    return f"{int(hour):02d}:{round(hour % 1 * 60):02d}"


def _bad(policy: Policy, why: str, mend: str) -> ConfigurationError:
    return ConfigurationError(f"The calendar of {policy.environment} cannot be used.", why=why, mend=mend)
