"""Charts: whole SVG, inside its box, with words for everyone."""

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.web import charts
from holdtrue.web.charts import Chart, Marker, Point, Series, Threshold
from tests.sampling import examples

START = datetime(2013, 1, 15, tzinfo=UTC)
VALUES = st.one_of(st.none(), st.floats(-1e6, 1e6))
MARKERS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(list(charts.MARKER_WORDS)), st.text(max_size=20)))


def chart(values: list[float | None], markers: list[Marker] | None = None, **more: object) -> Chart:
    """Return a chart with one line, a month between two points."""
    points = [
        Point(START + timedelta(days=30 * number), value, None if value is None else value - 0.1, value)
        for number, value in enumerate(values)
    ]
    chosen = {"title": "Quality", "summary": "By month.", "series": (Series("line", "one", tuple(points)),), **more}
    return Chart(markers=tuple(markers or ()), **chosen)  # type: ignore[arg-type]  # fields by name


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(VALUES, max_size=20), MARKERS, st.booleans())
def test_a_chart_is_well_formed_and_stays_in_its_box(
    values: list[float | None], marks: list[tuple[int, charts.MarkerKind, str]], narrow: bool
) -> None:
    markers = [Marker(START + timedelta(days=day), kind, _printable(label)) for day, kind, label in marks]
    drawn = charts.svg(chart(values, markers), narrow=narrow)
    if all(value is None for value in values):
        assert drawn == ""
        return
    root = parsed(str(drawn))
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    assert root.attrib["aria-label"].startswith("Quality")
    for circle in root.iter("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= width
        assert 0 <= float(circle.attrib["cy"]) <= height
    for element in root.iter():
        assert "style" not in element.attrib


def parsed(drawn: str) -> ElementTree.Element:
    """Parse a drawing; what is not well-formed raises."""
    return ElementTree.fromstring(drawn)  # noqa: S314  # our own text


def _printable(text: str) -> str:
    """Leave out what XML cannot hold; the parser here is stricter than a browser."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_are_few_round_and_inside(low: float, room: float, most: int) -> None:
    high = low + room
    if not high > low or room < abs(low) * 1e-9:
        return
    ticks = charts.nice_ticks(low, high, most)
    assert len(ticks) <= most + 1
    slack = room * 1e-6
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@given(st.integers(0, 3_000), st.integers(2, 12))
def test_times_are_labelled_as_often_as_there_is_room(days: int, most: int) -> None:
    end = START + timedelta(days=days, hours=1)
    ticks = charts.time_ticks(START, end, most)
    assert len(ticks) <= most + 1
    assert all(START <= moment <= end for moment, _ in ticks)
    labels = [words for _, words in ticks]
    assert len(set(labels)) == len(labels) or days > 365


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("days", [2, 5, 11, 30, 60, 100, 350, 2_000])
def test_the_last_words_of_an_axis_are_not_cut(days: int, narrow: bool) -> None:
    ends = tuple(Point(datetime(2013, 9, 25, tzinfo=UTC) + timedelta(days=day), 0.5) for day in (0, days))
    for by in ("day", "week", "month"):
        drawn = Chart("Quality", "Words.", (Series("line", "one", ends),), by=by)
        root = parsed(str(charts.svg(drawn, narrow=narrow)))
        width = float(root.attrib["viewBox"].split()[2])
        for text in root.iter("text"):
            words, x = str(text.text), float(text.attrib["x"])
            half = charts.LETTER * len(words) / 2
            assert x + (0 if text.attrib["class"] != "tick tick-x" else half) <= width
            assert text.attrib["class"] != "tick tick-end" or x == width


def test_a_gap_breaks_the_line_and_a_single_point_shows_its_interval() -> None:
    drawn = str(charts.svg(chart([0.7, 0.8, None, 0.6])))
    lines = re.findall(r'class="line line-one" d="(M[^"]+)"', drawn)
    assert len([line for line in lines if "L" in line]) == 1
    assert "V" in "".join(lines)
    assert drawn.count("<circle") == 3


def test_markers_close_in_time_stand_above_one_another() -> None:
    close = [Marker(START + timedelta(hours=hour), "alarm", str(hour)) for hour in range(3)]
    drawn = str(charts.svg(chart([0.7, 0.8, 0.7], close)))
    heights = re.findall(r"translate\([\d.]+ ([\d.]+)\)", drawn)
    assert len(set(heights)) == 3


def test_the_words_of_a_chart_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    drawn = str(charts.svg(chart([0.7, 0.8], [Marker(START, "alarm", evil)], title=evil)))
    assert "<script" not in drawn
    parsed(drawn)


def test_bars_stack_and_a_threshold_is_drawn() -> None:
    points = tuple(Point(START + timedelta(days=30 * n), 10.0) for n in range(3))
    layers = (Series("in", "one", points, "bar"), Series("out", "muted", points, "bar"))
    both = Chart("Volume", "Rows.", layers, thresholds=(Threshold(15.0, "limit"),), unit="count")
    root = parsed(str(charts.svg(both)))
    bars = [element for element in root.iter("rect") if element.attrib["class"].startswith("bar-")]
    assert len(bars) == 6
    top = [float(bar.attrib["y"]) for bar in bars if bar.attrib["class"].startswith("bar-muted")]
    under = [float(bar.attrib["y"]) for bar in bars if bar.attrib["class"].startswith("bar-one")]
    assert all(a < b for a, b in zip(top, under, strict=True))
    assert "limit" in [element.text for element in root.iter("text")]


@pytest.mark.parametrize(
    ("unit", "words"),
    [("ratio", "0.250 (0.150 – 0.250)"), ("difference", "+0.250 (0.150 – 0.250)"), ("share", "25.0 % (0.150 – 0.250)")],
)
def test_the_table_says_the_same_as_the_picture(unit: charts.Unit, words: str) -> None:
    assert charts.rows(chart([0.25], unit=unit)) == [("Jan 2013", [words])]
