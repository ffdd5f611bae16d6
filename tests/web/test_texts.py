"""How numbers, moments and ids are written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdtrue.web import texts, urls


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (texts.ratio(0.7284), "0.728"),
        (texts.ratio(-0.5), "−0.500"),
        (texts.ratio(None), "–"),
        (texts.ratio(float("nan")), "–"),
        (texts.signed(0.0123, 2), "+0.01"),
        (texts.span(0.1, 0.2), "0.100 – 0.200"),
        (texts.span(0.1, None), ""),
        (texts.count(336_776), "336,776"),
        (texts.size(0), "0 B"),
        (texts.size(1023), "1023 B"),
        (texts.size(1024), "1.0 KiB"),
        (texts.size(5_000_000), "4.8 MiB"),
        (texts.size(9 << 50), "9,216.0 TiB"),
        (texts.compact(30_000), "30k"),
        (texts.compact(1_250_000), "1.2M"),
        (texts.compact(0), "0"),
        (texts.percent(0.055, 1), "5.5 %"),
        (texts.clock_time(datetime(2013, 9, 3, 14, 5, tzinfo=UTC)), "3 Sep 2013, 14:05"),
        (texts.month_name("2013-09"), "Sep 2013"),
        (texts.month_name("September"), "September"),
        (texts.duration(timedelta(days=3, hours=2)), "3 d 2 h"),
        (texts.duration(timedelta(minutes=61)), "1 h 1 min"),
        (texts.duration(timedelta(seconds=-5)), "0 min"),
        (texts.short("rel_1a2b3c4d5e6f7a8b"), "rel_1a2b3c4d"),
        (texts.short("ab" * 32), "abababababab"),
        (texts.short("delays"), "delays"),
        (texts.plural(0, "incident"), "no incidents"),
        (texts.plural(1, "incident"), "1 incident"),
        (texts.plural(1_200, "policy", "policies"), "1,200 policies"),
    ],
)
def test_writing(got: str, wanted: str) -> None:
    assert got == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"a": 1, "b": [True, None]}, "a: 1, b: yes, –"),
        (0.123456, "0.1235"),
        (3.1e-7, "3.1e−07"),
        (27_574, "27,574"),
        ("x" * 500, "x" * 159 + "…"),
    ],
)
def test_json_on_one_line(value: Any, wanted: str) -> None:
    assert texts.plain(value) == wanted


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (urls.overview("flight-delays"), "/projects/flight-delays"),
        (urls.service("p", "a/b"), "/projects/p/services/a%2Fb"),
        (urls.releases("p", service="s", after="rel_1"), "/projects/p/releases?service=s&after=rel_1"),
        (urls.releases("p", service=""), "/projects/p/releases"),
        (
            urls.activity("p", action="a.", object="x&y", before=3),
            "/projects/p/activity?action=a.&object=x%26y&before=3",
        ),
        (urls.of_object("p", "rel_1"), "/projects/p/releases/rel_1"),
        (urls.of_object("p", "inc_1"), "/projects/p/incidents/inc_1"),
        (urls.of_object("p", "flights"), None),
    ],
)
def test_addresses(got: str | None, wanted: str | None) -> None:
    assert got == wanted
