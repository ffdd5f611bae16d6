"""Records for the journal tests."""

from typing import Any

START = 1_356_998_400_000_000  # 2013-01-01 in microseconds since the epoch
DAY = 86_400_000_000


def columns(ids: list[str], day: int = 0, **more: Any) -> dict[str, Any]:
    """Return the columns of records with these ids, a second apart on a day of 2013."""
    return {"id": ids, "time": [START + day * DAY + row * 1_000_000 for row in range(len(ids))], **more}
