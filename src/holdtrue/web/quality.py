"""Charts of a service's quality over time: chances by area, classes by accuracy, numbers by how far off they were."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from types import MappingProxyType
from typing import Final

from holdtrue.monitoring import Window
from holdtrue.web import texts
from holdtrue.web.charts import Chart, Marker, Point, Series, Threshold, Tone, Unit

ALL: Final = "all"
"""The release by which monitoring names all answers together."""
_SHADOWS: Final = 2
_COVERAGE: Final = "coverage"


@dataclass(frozen=True, slots=True)
class _Kind:
    """Say how answers that are measured by a measure first are drawn: the lines, what they are, and on what scale."""

    lines: Mapping[str, str]
    summary: str
    unit: Unit = "ratio"


_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "roc_auc": _Kind(
            {"roc_auc": "What was answered"},
            "Area under the ROC curve of what was answered, with 95 % intervals; signs mark what happened.",
        ),
        "accuracy": _Kind(
            {"accuracy": "Right answers", "macro_f1": "Mean F1 of the classes"},
            "Share of right answers, and the mean over classes of F1, which rare classes count as much in as common "
            "ones; with 95 % intervals. Signs mark what happened.",
        ),
        "mae": _Kind(
            {"mae": "Mean absolute error", "rmse": "Root mean squared error"},
            "How far off the answers were, less is better, with 95 % intervals; signs mark what happened.",
            "number",
        ),
    }
)
_TONES: Final[tuple[Tone, ...]] = ("one", "two", "three", "muted")


def over_time(
    windows: Sequence[Window],
    labels: Mapping[str, str],
    markers: Sequence[Marker],
    *,
    by_day: bool,
    measure: str = "roc_auc",
) -> Chart:
    """Return the chart of quality; `labels` are how releases are called, `markers` what happened meanwhile.

    `measure` is what will be shown when a label is in.
    """
    shown = [window for window in windows if not window.reason and math.isfinite(window.quality.interval.value)]
    first = max(shown, key=lambda window: window.start).quality.name if shown else measure
    kind = _KINDS.get(first, _KINDS["roc_auc"])
    shown = [window for window in shown if window.quality.name == first]
    totals = {window.start: window.n for window in shown if window.release == ALL}
    # What a rollout scored on the side for some days says nothing over time; a release that shadows for long does.
    shown = [each for each in shown if each.role == "answer" or each.n > totals.get(each.start, 0) / 2]
    shadows = Counter(window.release for window in shown if window.role == "shadow")
    lasting = [release for release, windows in shadows.most_common(_SHADOWS) if windows > 2]
    answered = together(window for window in shown if window.role == "answer")
    lines = list(kind.lines.items())
    series = [
        Series(words, tone, _points(answered, name, by_day=by_day))
        for tone, (name, words) in zip(_TONES, lines, strict=False)
    ]
    for tone, release in zip(_TONES[len(lines) :], lasting, strict=False):
        mine = [window for window in shown if window.release == release and window.role == "shadow"]
        points = _points(mine, first, by_day=by_day)
        series.append(Series(f"{labels[release]}, in the shadow", tone, points, dashed=True))
    moments = (point.x for each in series for point in each.points)
    begin = min((each for each in moments if isinstance(each, datetime)), default=None)
    return Chart(
        title=f"Quality by {'day' if by_day else 'month'}",
        summary=kind.summary,
        series=tuple(series),
        markers=tuple(each for each in markers if begin and each.x >= begin - timedelta(days=31)),
        unit=kind.unit,
        by="day" if by_day else "month",
    )


def coverage(windows: Iterable[Window], *, by_day: bool) -> Chart | None:
    """Return how often the ranges of numbers held the truth, beside what was promised; None where none was given."""
    shown = [window for window in together(windows) if window.measure(_COVERAGE) is not None]
    if not shown:
        return None
    last = shown[-1].measure(_COVERAGE)
    promised = None if last is None else last.promised
    return Chart(
        title=f"Ranges that held the truth, by {'day' if by_day else 'month'}",
        summary="Share of labelled answers whose range held the number that came, with 95 % intervals.",
        series=(Series("Held the truth", "one", _points(shown, _COVERAGE, by_day=by_day)),),
        thresholds=() if promised is None else (Threshold(promised, f"promised {texts.percent(promised)}"),),
        unit="share",
        low=True,
        by="day" if by_day else "month",
    )


def losses(windows: Iterable[Window], *, by_day: bool) -> Chart | None:
    """Return how far probabilities were from what came; None where none were given."""
    shown = [window for window in together(windows) if window.measure("log_loss") is not None]
    if not shown:
        return None
    return Chart(
        title=f"Probabilities and what came, by {'day' if by_day else 'month'}",
        summary="Log loss and Brier score of the probabilities, less is better, with 95 % intervals.",
        series=(
            Series("Log loss", "one", _points(shown, "log_loss", by_day=by_day)),
            Series("Brier score", "two", _points(shown, "brier", by_day=by_day)),
        ),
        low=True,
        by="day" if by_day else "month",
    )


def columns(windows: Iterable[Window]) -> tuple[str, ...]:
    """Return the names of all that windows are measured by, the most telling first."""
    names = {name: None for window in windows for name in (window.quality.name, *_names(window))}
    # A window without labels does not say what it will be measured by.
    telling = [name for name in names if name in _KINDS and name != "roc_auc"]
    return tuple(name for name in names if name != "roc_auc" or not telling)


def _names(window: Window) -> list[str]:
    return [each.name for each in window.measures]


def together(windows: Iterable[Window]) -> list[Window]:
    """Return the windows of all answers together, by time."""
    return sorted((window for window in windows if window.release == ALL), key=lambda window: window.start)


def moment(start: date) -> datetime:
    """Return the moment at which a window begins."""
    return datetime.combine(start, time(), UTC)


def middle(window: Window, *, by_day: bool) -> datetime:
    """Return the moment at which a window is drawn."""
    return moment(window.start) + (timedelta(hours=12) if by_day else timedelta(days=14))


def _points(windows: Sequence[Window], name: str, *, by_day: bool) -> tuple[Point, ...]:
    found: list[Point] = []
    for window in windows:
        measure = window.measure(name)
        if measure is None:
            continue
        note = f"{texts.percent(window.maturity)} of labels in" if window.maturity < 1 else ""
        each = measure.interval
        found.append(Point(middle(window, by_day=by_day), each.value, each.lower, each.upper, note))
    return tuple(found)
