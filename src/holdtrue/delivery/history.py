"""What past rollouts say of the losses to come: paired differences by day, and how much traffic there is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from holdtrue import monitoring
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import NotFound
from holdtrue.delivery import reading, store
from holdtrue.delivery.losses import loss_differences
from holdtrue.delivery.model import Rollout
from holdtrue.storage import Stores

_DAY_US: Final = 86_400_000_000
_MOST_ROWS: Final = 200_000
# A row's time is the moment it is predicted for, which may be another than that of the request.
_AROUND: Final = timedelta(days=61)


@dataclass(frozen=True, slots=True)
class History:
    """Hold recorded paired losses of one rollout, challenger minus champion, by day.

    `per_day` is how many labelled rows a day had, `label_delay_hours` how late the middle one of their labels came.
    """

    rollout: str
    champion: str
    challenger: str
    rows: int
    per_day: float
    label_delay_hours: float
    days: Mapping[str, tuple[float, ...]]


def history(stores: Stores, project: str, service: str, rollout: str | None = None) -> History:
    """Return the paired losses of a rollout of `service` (None: the newest that has some); NotFound if there are none.

    The newest 200,000 rows are taken.
    """

    def look(connection: Any) -> list[Rollout]:
        if rollout is not None:
            found = store.rollout(connection, project, rollout)
            return [found] if found.service == service else []
        return store.list_rollouts(connection, project, service=service)

    for each in stores.ledger.read(look):
        made = _losses(stores, project, each)
        if made is not None:
            return made
    raise NotFound(
        f"There is no rollout of “{service}” with rows that both releases scored and whose label came.",
        why="Only such rows say how much the losses of two releases differ.",
        mend="Play synthetic effects instead: leave --history out.",
        facts={"service": service, "rollout": rollout},
    )


def moments(stores: Stores, project: str, stream: str, rollout: Rollout) -> tuple[int, int]:
    """Return from which moment to before which one, in microseconds, the rows of a rollout are predicted."""
    first = microseconds(rollout.started_at)
    last = first if rollout.ended_at is None else microseconds(rollout.ended_at)
    table = stores.journal.table(
        "prediction",
        project,
        service=stream,
        since=rollout.started_at - _AROUND,
        until=None if rollout.ended_at is None else rollout.ended_at + _AROUND,
        columns=["time", "rollout"],
    )
    if "rollout" in table.column_names:
        found = pc.call_function("min_max", [table.filter(pc.field("rollout") == rollout.id)["time"]]).as_py()
        if found["min"] is not None:
            first, last = int(found["min"]), int(found["max"])
    return first, last + 1


def _losses(stores: Stores, project: str, rollout: Rollout) -> History | None:
    stream = stores.ledger.read(
        lambda connection: reading.stream(connection, project, rollout.service, rollout.environment)
    )
    since, until = moments(stores, project, stream, rollout)
    table = monitoring.joined(
        stores, project, stream, releases=(rollout.champion, rollout.challenger), since=since, until=until
    )
    pairs = monitoring.paired(table.filter(pc.field("rollout") == rollout.id), rollout.champion, rollout.challenger)
    if pairs.n < 2:
        return None
    newest = np.argsort(pairs.times, kind="stable")[-_MOST_ROWS:]
    differences = loss_differences(rollout.canary, pairs.labels[newest], pairs.first[newest], pairs.second[newest])
    times = pairs.times[newest]
    day = times // _DAY_US
    span = max(float(times[-1] - times[0]) / _DAY_US, 1.0)
    return History(
        rollout=rollout.id,
        champion=rollout.champion,
        challenger=rollout.challenger,
        rows=int(newest.size),
        per_day=newest.size / span,
        label_delay_hours=max(float(np.median(pairs.known_at[newest] - times)) / (_DAY_US / 24), 0.0),
        days={
            str(np.datetime64(int(name), "D")): tuple(np.round(differences[day == name], 6).tolist())
            for name in np.unique(day)
        },
    )
