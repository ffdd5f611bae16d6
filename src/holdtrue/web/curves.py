"""Draw the history of a metric by step: one line for each setting, the mean of its runs with its interval."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from holdtrue import tracking
from holdtrue.tracking.comparing import interval_of
from holdtrue.web import texts
from holdtrue.web.charts import Chart, Point, Series, Tone

MOST_LINES: Final = 6
_MOST_POINTS: Final = 100
_TONES: Final[tuple[Tone, ...]] = ("one", "two", "three")
# What is larger has no room on an axis of doubles.
_DRAWABLE: Final = 1e300


def of_runs(
    connection: sa.Connection, project: str, key: str, settings: Sequence[tuple[str, Sequence[str]]]
) -> Chart | None:
    """Return the curves of the first six settings (name, ids of runs); None if nobody logged two steps.

    A long history is thinned out to about 100 steps, the same for all runs.
    """
    drawn = settings[:MOST_LINES]
    runs = [run for _, ids in drawn for run in ids]
    points = tracking.sampled(connection, project, runs, key, _MOST_POINTS)
    # Of several points at one step the newest counts, and the store gives them in order.
    values = {
        run: {step: value for step, _, value, nan in found if not nan and abs(value) < _DRAWABLE}
        for run, found in points.items()
    }
    steps = sorted({step for own in values.values() for step in own})
    if len(steps) < 2:
        return None
    lines = [
        Series(texts.plain(name), _TONES[place % len(_TONES)], _line(ids, values, steps), dashed=place >= len(_TONES))
        for place, (name, ids) in enumerate(drawn)
    ]
    repeated = any(len(ids) > 1 for _, ids in drawn)
    thinned = any(len(found) >= _MOST_POINTS for found in points.values())
    summary = ["Mean of the runs of each setting by step, with its 95 % interval." if repeated else "Value by step."]
    summary += [f"Of a long history about {_MOST_POINTS} steps are drawn."] if thinned else []
    return Chart(texts.metric(key), " ".join(summary), tuple(lines), unit="number", by="step")


def _line(ids: Sequence[str], values: dict[str, dict[int, float]], steps: Sequence[int]) -> tuple[Point, ...]:
    points: list[Point] = []
    for step in steps:
        found = [values[run][step] for run in ids if step in values[run]]
        if not found:
            continue
        scale = max(map(abs, found)) or 1.0
        interval = interval_of([each / scale for each in found], scale)
        lower, upper = interval or (None, None)
        note = "" if len(found) == len(ids) else f"{len(found)} of {texts.plural(len(ids), 'run')}"
        points.append(Point(step, sum(each / len(found) for each in found), lower, upper, note))
    return tuple(points)
