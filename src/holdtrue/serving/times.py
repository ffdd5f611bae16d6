"""Moments as requests write them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput

_LIMIT: Final = 2**53  # microseconds since the epoch; the year 2255


def read_times(name: str, values: Sequence[Any]) -> list[int]:
    """Return microseconds since the epoch for integers of that unit or ISO 8601 texts.

    Text without an offset is taken as UTC. Raises InvalidInput naming the column `name`.
    """
    if len(values) == 1 and type(values[0]) is int and 0 <= values[0] <= _LIMIT:
        return [values[0]]
    try:
        times = [value if type(value) is int else _parse(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        times = [-1]
    if min(times, default=0) < 0 or max(times, default=0) > _LIMIT:
        raise InvalidInput(
            f"The column {name[:80]!r} does not hold moments.",
            why="It takes microseconds since the epoch, or text such as 2013-01-31T15:00:00Z.",
            mend="Send every value in one of these forms.",
            facts={"column": name[:80]},
        )
    return times


def _parse(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return microseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
