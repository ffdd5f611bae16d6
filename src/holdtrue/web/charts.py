"""Charts as SVG text: geometry in attributes, looks in the stylesheet, no style attribute anywhere.

Why not a charting library: docs/decisions/0003-charts.md.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from holdtrue.web import texts

Tone = Literal["one", "two", "three", "muted"]
Form = Literal["line", "bar"]
MarkerKind = Literal["alarm", "retrain", "promotion", "rollback", "refusal", "quarantine", "approval"]
Unit = Literal["ratio", "number", "count", "difference", "share"]

MARKER_WORDS: dict[MarkerKind, str] = {
    "alarm": "alarm",
    "retrain": "retrain",
    "promotion": "promotion",
    "rollback": "rollback",
    "refusal": "refusal",
    "quarantine": "quarantine",
    "approval": "approval",
}
# Shapes differ as well as colours, so that no meaning hangs on colour alone.
_SHAPES: dict[MarkerKind, str] = {
    "alarm": "M0-6.5 7 6H-7Z",
    "retrain": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z",
    "promotion": "M0-6 6 0H2.6V6H-2.6V0H-6Z",
    "rollback": "M0 6-6 0H-2.6V-6H2.6V0H6Z",
    "refusal": "M-5.5-3.2-3.2-5.5 0-2.3 3.2-5.5 5.5-3.2 2.3 0 5.5 3.2 3.2 5.5 0 2.3-3.2 5.5-5.5 3.2-2.3 0Z",
    "quarantine": "M-5-5H5V5H-5Z",
    "approval": "M0-6.5 6.5 0 0 6.5-6.5 0Z",
}
_LANE = 18.0
LETTER = 7.5
"""What a letter of the words on an axis takes at most, on average."""
_DAY_SECONDS = 86_400.0
# How far the time of one point of a chart reaches, half of it on each side.
_DAYS = {"month": 30.0, "week": 8.0, "day": 1.0}


Place = datetime | int


@dataclass(frozen=True, slots=True)
class Point:
    """Place one value at a moment or a step; `y` None leaves a gap. `lower` and `upper` bound its interval."""

    x: Place
    y: float | None
    lower: float | None = None
    upper: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Name one line with its interval band, or one layer of stacked bars."""

    name: str
    tone: Tone
    points: tuple[Point, ...]
    form: Form = "line"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """Mark something that happened at a moment."""

    x: datetime
    kind: MarkerKind
    label: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """Draw a horizontal line that a value should not cross."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Describe a chart over time, or over steps: what it shows, in words too, for readers who do not see it.

    `low` draws it less high, for charts that stand beside a more important one.
    """

    title: str
    summary: str
    series: tuple[Series, ...]
    markers: tuple[Marker, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    unit: Unit = "ratio"
    by: Literal["month", "week", "day", "step"] = "month"
    low: bool = False


@dataclass(frozen=True, slots=True)
class _Frame:
    """Hold the box of the plot in SVG units, and the data range it maps."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    start: float
    end: float
    low: float
    high: float
    compact: bool

    def x(self, place: Place) -> float:
        share = (_at(place) - self.start) / (self.end - self.start)
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


def svg(chart: Chart, *, narrow: bool = False) -> Markup:
    """Draw `chart` for a wide page, or for one as narrow as a phone; empty when it has no value."""
    frame = _frame(chart, narrow)
    if frame is None:
        return Markup("")
    body = [
        *_grid(chart, frame),
        *_thresholds(chart, frame),
        *_bars(chart, frame),
        *(part for series in chart.series if series.form == "line" for part in _line(series, frame)),
        *_markers(chart, frame),
        *_hits(chart, frame),
    ]
    label = f"{chart.title}. {chart.summary}"
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        "plot plot-narrow" if narrow else "plot plot-wide",
        _number(frame.width),
        _number(frame.height),
        label,
        Markup("").join(body),
    )


def sparkline(points: Sequence[Point], label: str) -> Markup:
    """Draw a small line with its band and a dot at the last value; empty with fewer than two values."""
    known = [point for point in points if point.y is not None]
    if len(known) < 2:
        return Markup("")
    low, high = _padded(known)
    frame = _Frame(120, 32, 3, 5, 4, 4, _at(known[0].x), _at(known[-1].x), low, high, compact=True)
    parts = _line(Series("", "one", tuple(points)), frame, dots=False)
    last = known[-1]
    parts.append(_dot(frame, last, "dot dot-one"))
    return Markup('<svg class="spark" viewBox="0 0 120 32" role="img" aria-label="{}">{}</svg>').format(
        label, Markup("").join(parts)
    )


def whisker(
    value: float, lower: float | None, upper: float | None, low: float, high: float, other: float | None = None
) -> Markup:
    """Draw one interval on the scale from `low` to `high`; `other` is a value to compare it with."""
    width = 160.0
    room = max(high - low, 1e-9)

    def at(number: float) -> str:
        return _number(6 + (width - 12) * min(1.0, max(0.0, (number - low) / room)))

    line, beside = Markup(""), Markup("")
    if other is not None:
        beside = Markup('<circle class="whisker-other" cx="{}" cy="9" r="3"/>').format(at(other))
    if lower is not None and upper is not None:
        line = Markup('<path class="whisker-line" d="M{} 5V13M{} 9H{}M{} 5V13"/>').format(
            at(lower), at(lower), at(upper), at(upper)
        )
    return Markup(
        '<svg class="whisker" viewBox="0 0 160 18" aria-hidden="true"><path class="whisker-rail" d="M6 9H154"/>'
        '{}{}<circle class="whisker-dot" cx="{}" cy="9" r="3.5"/></svg>'
    ).format(beside, line, at(value))


def share_bar(shares: Iterable[tuple[Tone, float]]) -> Markup:
    """Draw shares (each between 0 and 1) side by side in one bar."""
    parts: list[Markup] = []
    x = 0.0
    for tone, share in shares:
        width = 200 * min(1.0, max(0.0, share))
        parts.append(
            Markup('<rect class="bar-{}" x="{}" y="0" width="{}" height="8"/>').format(tone, _number(x), _number(width))
        )
        x += width
    return Markup(
        '<svg class="share" viewBox="0 0 200 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="bar-rail" x="0" y="0" width="200" height="8"/>{}</svg>'
    ).format(Markup("").join(parts))


def marker_icon(kind: MarkerKind) -> Markup:
    """Draw the sign of one kind of marker, for legends and tables."""
    return Markup('<svg class="icon marker-{}" viewBox="-8 -8 16 16" aria-hidden="true"><path d="{}"/></svg>').format(
        kind, _SHAPES[kind]
    )


def rows(chart: Chart) -> list[tuple[str, list[str]]]:
    """Return the chart's numbers as a table: per moment its words, then one cell per series."""
    moments = _moments(chart)
    tables = [{point.x: point for point in series.points} for series in chart.series]
    found: list[tuple[str, list[str]]] = []
    for moment in moments:
        cells = [_words(chart, table[moment]) if moment in table else texts.MISSING for table in tables]
        found.append((_moment_words(chart, moment), cells))
    return found


def marker_kinds(chart: Chart) -> list[MarkerKind]:
    """Return the kinds of marker a chart shows, in the order of the legend."""
    shown = {marker.kind for marker in chart.markers}
    return [kind for kind in MARKER_WORDS if kind in shown]


def _frame(chart: Chart, narrow: bool) -> _Frame | None:
    points = [point for series in chart.series for point in series.points if point.y is not None]
    if not points:
        return None
    places = [_at(each.x) for each in (*points, *chart.markers)]
    start, end = min(places), max(places)
    margin = (
        _DAYS[chart.by] * _DAY_SECONDS / 2 if chart.by != "step" else max((end - start) * 0.02, abs(end) * 1e-9, 0.5)
    )
    if any(series.form == "bar" for series in chart.series):
        most = max(_stacks(chart).values()) or 1.0
        low, high = 0.0, most if chart.unit == "share" else most * 1.06
    else:
        low, high = _padded(points, [threshold.y for threshold in chart.thresholds])
    width, height = (400.0, 260.0) if narrow else (1000.0, 300.0)
    height -= 90.0 if chart.low else 0.0
    frame = _Frame(
        width=width,
        height=height,
        left=46,
        right=10,
        top=14,
        bottom=28,
        start=start - margin,
        end=end + margin,
        low=low,
        high=high,
        compact=narrow,
    )
    return replace(frame, top=14 + _LANE * max(_lanes(chart.markers, frame), default=-1) + _LANE)


def _padded(points: Iterable[Point], also: Iterable[float] = ()) -> tuple[float, float]:
    values = [
        value
        for point in points
        for value in (point.y, point.lower, point.upper)
        if value is not None and math.isfinite(value)
    ]
    values += also
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or max(0.05, abs(high) * 1e-6)
    return low - room, high + room


def _grid(chart: Chart, frame: _Frame) -> list[Markup]:
    parts: list[Markup] = []
    right = frame.width - frame.right
    for value in nice_ticks(frame.low, frame.high, 5 if frame.compact else 6):
        y = _number(frame.y(value))
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(_number(frame.left), y, _number(right)))
        parts.append(
            Markup('<text class="tick tick-y" x="{}" y="{}" dy="4">{}</text>').format(
                _number(frame.left - 8), y, _axis(chart.unit, value, frame.high - frame.low)
            )
        )
    floor = frame.height - frame.bottom
    for place, words in _ticks(chart, frame):
        x = frame.x(place)
        parts.append(
            Markup('<path class="tick-mark" d="M{} {}v5"/>').format(_number(x), _number(floor)),
        )
        # Words that would be cut at the right edge end there.
        is_cut = x + LETTER * len(words) / 2 > frame.width
        parts.append(
            Markup('<text class="tick {}" x="{}" y="{}">{}</text>').format(
                "tick-end" if is_cut else "tick-x", _number(frame.width if is_cut else x), _number(floor + 20), words
            )
        )
    return parts


def _thresholds(chart: Chart, frame: _Frame) -> list[Markup]:
    return [
        Markup('<path class="threshold" d="M{} {}H{}"/><text class="tick tick-end" x="{}" y="{}">{}</text>').format(
            _number(frame.left),
            _number(frame.y(threshold.y)),
            _number(frame.width - frame.right),
            _number(frame.width - frame.right - 4),
            _number(frame.y(threshold.y) - 6),
            threshold.label,
        )
        for threshold in chart.thresholds
    ]


def _line(series: Series, frame: _Frame, *, dots: bool = True) -> list[Markup]:
    parts: list[Markup] = []
    for run in _runs(series.points):
        banded = [point for point in run if point.lower is not None and point.upper is not None]
        if len(banded) > 1:
            upper = [(frame.x(point.x), frame.y(point.upper or 0.0)) for point in banded]
            lower = [(frame.x(point.x), frame.y(point.lower or 0.0)) for point in reversed(banded)]
            parts.append(Markup('<path class="band band-{}" d="{}Z"/>').format(series.tone, _path(upper + lower)))
        elif banded and dots:
            parts.append(_error_bar(frame, banded[0], series.tone))
        line = [(frame.x(point.x), frame.y(point.y or 0.0)) for point in run]
        classes = f"line line-{series.tone}{' line-dashed' if series.dashed else ''}"
        parts.append(Markup('<path class="{}" d="{}"/>').format(classes, _path(line)))
    if dots:
        # Daily points lie too close for dots to tell anything.
        small = len(series.points) > 60
        parts += [
            _dot(frame, point, f"dot dot-{series.tone}{' dot-small' if small else ''}")
            for point in series.points
            if point.y is not None
        ]
    return parts


def _error_bar(frame: _Frame, point: Point, tone: Tone) -> Markup:
    return Markup('<path class="line line-{}" d="M{} {}V{}"/>').format(
        tone,
        _number(frame.x(point.x)),
        _number(frame.y(point.lower or 0.0)),
        _number(frame.y(point.upper or 0.0)),
    )


def _dot(frame: _Frame, point: Point, classes: str) -> Markup:
    return Markup('<circle class="{}" cx="{}" cy="{}" r="3"/>').format(
        classes, _number(frame.x(point.x)), _number(frame.y(point.y or 0.0))
    )


def _bars(chart: Chart, frame: _Frame) -> list[Markup]:
    layers = [series for series in chart.series if series.form == "bar"]
    # Beyond some dozens, gaps between bars would flicker rather than separate.
    tight = any(len(series.points) > 60 for series in layers)
    days = {"month": 24.0, "week": 6.2, "day": 1.02 if tight else 0.8, "step": 0.0}[chart.by]
    width = days * _DAY_SECONDS / (frame.end - frame.start) * (frame.width - frame.left - frame.right)
    base: dict[Place, float] = {}
    parts: list[Markup] = []
    for series in layers:
        for point in series.points:
            if not point.y:
                continue
            floor = base.get(point.x, 0.0)
            base[point.x] = floor + point.y
            top = frame.y(floor + point.y)
            parts.append(
                Markup('<rect class="bar-{}{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                    series.tone,
                    " tight" if tight else "",
                    _number(frame.x(point.x) - width / 2),
                    _number(top),
                    _number(width),
                    _number(frame.y(floor) - top),
                )
            )
    return parts


def _lanes(markers: Sequence[Marker], frame: _Frame) -> list[int]:
    """Return the lane of each marker, so that two close in time stand above one another."""
    ends: list[float] = []
    lanes: list[int] = []
    for marker in sorted(markers, key=lambda each: each.x):
        x = frame.x(marker.x)
        lane = next((number for number, end in enumerate(ends) if x - end >= 15), len(ends))
        if lane == len(ends):
            ends.append(x)
        ends[lane] = x
        lanes.append(lane)
    return lanes


def _markers(chart: Chart, frame: _Frame) -> list[Markup]:
    ordered = sorted(chart.markers, key=lambda each: each.x)
    parts: list[Markup] = []
    for marker, lane in zip(ordered, _lanes(chart.markers, frame), strict=True):
        x, y = frame.x(marker.x), 12 + _LANE * lane
        tip = f"{texts.day(marker.x)}\n{marker.label}"
        parts.append(
            Markup(
                '<g class="marker marker-{}"><path class="marker-stem" d="M{} {}V{}"/>'
                '<path transform="translate({} {})" d="{}"/>'
                '<rect class="hit" x="{}" y="{}" width="18" height="18"><title>{}</title></rect></g>'
            ).format(
                marker.kind,
                _number(x),
                _number(y + 8),
                _number(frame.height - frame.bottom),
                _number(x),
                _number(y),
                _SHAPES[marker.kind],
                _number(x - 9),
                _number(y - 9),
                tip,
            )
        )
    return parts


def _hits(chart: Chart, frame: _Frame) -> list[Markup]:
    """Return one invisible column per moment that carries the words to show there."""
    table = rows(chart)
    places = [frame.x(moment) for moment in _moments(chart)]
    edges = [frame.left, *((a + b) / 2 for a, b in pairwise(places)), frame.width - frame.right]
    parts: list[Markup] = []
    for (words, cells), place, left, right in zip(table, places, edges[:-1], edges[1:], strict=True):
        lines = [f"{series.name}: {cell}" for series, cell in zip(chart.series, cells, strict=True)]
        tip = "\n".join([words, *lines])
        parts.append(
            Markup(
                '<rect class="hit" x="{}" y="{}" width="{}" height="{}" data-at="{}"><title>{}</title></rect>'
            ).format(
                _number(left),
                _number(frame.top),
                _number(max(right - left, 0.1)),
                _number(frame.height - frame.bottom - frame.top),
                _number(place),
                tip,
            )
        )
    return parts


def _runs(points: Iterable[Point]) -> list[list[Point]]:
    """Cut points into runs without gaps."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if point.y is None:
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def _stacks(chart: Chart) -> dict[Place, float]:
    heights: dict[Place, float] = {}
    for series in chart.series:
        for point in series.points:
            heights[point.x] = heights.get(point.x, 0.0) + (point.y or 0.0)
    return heights


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round values between `low` and `high`, at steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(10, 2 - math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, last + 1)]


def _ticks(chart: Chart, frame: _Frame) -> list[tuple[Place, str]]:
    """Return the places to label on the axis below."""
    most = 5 if frame.compact else 12
    if chart.by != "step":
        start, end = (datetime.fromtimestamp(edge, UTC) for edge in (frame.start, frame.end))
        return [*time_ticks(start, end, most)]
    steps = {round(value) for value in nice_ticks(frame.start, frame.end, most)}
    return [(step, texts.compact(step)) for step in sorted(steps) if frame.start <= step <= frame.end]


def time_ticks(start: datetime, end: datetime, most: int) -> list[tuple[datetime, str]]:
    """Return moments to label between `start` and `end`: months where they fit, else days."""
    months = (end.year - start.year) * 12 + end.month - start.month
    if months >= 3:
        step = next(size for size in (1, 2, 3, 6, 12, 24, 60, 120) if months / size <= most or size == 120)
        found: list[tuple[datetime, str]] = []
        for number in range(start.year * 12 + start.month - 1, end.year * 12 + end.month):
            moment = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
            if number % step == 0 and start <= moment <= end:
                with_year = not found or moment.month == 1
                found.append((moment, f"{moment:%b %Y}" if with_year else f"{moment:%b}"))
        return found
    days = max(1, math.ceil((end - start) / timedelta(days=1) / most))
    moment = datetime(start.year, start.month, start.day, tzinfo=UTC)
    ticks: list[tuple[datetime, str]] = []
    while moment <= end:
        if moment >= start:
            ticks.append((moment, f"{moment.day} {moment:%b}"))
        moment += timedelta(days=days)
    return ticks


def _axis(unit: Unit, value: float, room: float) -> str:
    if unit == "count":
        return texts.compact(value)
    if unit == "share":
        return texts.percent(value)
    if unit == "number":
        return texts.compact(value) if abs(value) >= 1_000 else f"{value:.6g}".replace("-", "−")
    return texts.ratio(value, 3 if room < 0.05 else 2)


def _words(chart: Chart, point: Point) -> str:
    if point.y is None:
        return point.note or texts.MISSING
    words = _value(chart.unit, point.y)
    interval = texts.span(point.lower, point.upper, None if chart.unit == "number" else 3)
    return " ".join(part for part in (words, f"({interval})" if interval else "", point.note) if part)


def _value(unit: Unit, value: float) -> str:
    match unit:
        case "count":
            return texts.count(value)
        case "share":
            return texts.percent(value, 1)
        case "difference":
            return texts.signed(value)
        case "ratio":
            return texts.ratio(value)
        case "number":
            return texts.number(value)


def _moment_words(chart: Chart, moment: Place) -> str:
    if isinstance(moment, int):
        return f"step {texts.count(moment)}"
    match chart.by:
        case "month":
            return texts.month(moment)
        case "week":
            return f"week of {texts.day(moment - timedelta(days=moment.weekday()))}"
        case _:
            return texts.day(moment)


def _moments(chart: Chart) -> list[Place]:
    """Return every place that has a point, in order."""
    return sorted({point.x for series in chart.series for point in series.points}, key=_at)


def _at(place: Place) -> float:
    """Return where a moment (in seconds) or a step stands on its axis."""
    return float(place) if isinstance(place, int) else place.timestamp()


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in places)


def _number(value: float) -> str:
    """Write a coordinate with a tenth of a unit, finer than a screen shows."""
    return f"{value:.1f}".removesuffix(".0")
