"""The report: one file that needs nothing but itself."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from holdtrue.core.errors import ConfigurationError
from holdtrue.web.report import render_report
from tests.web.conftest import Watched
from tests.web.samples import report_document


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_report_opens_from_disk_without_complaint(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(report_document()))
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light", offline=True
    )
    watched = Watched(context, "file://")
    page = watched.page
    page.goto(path.as_uri())
    for text in ("A year of flights out of New York", "0.784", "comparison.p_better >= 0.95", "flights@5", "prd_01"):
        expect(page.get_by_text(text).locator("visible=true").first).to_be_visible()
    page.locator("svg.plot >> visible=true").locator(":scope > .hit").nth(3).hover()
    expect(page.locator(".tip")).to_contain_text("The loop, as it answered: 0.784")
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.complaints == []
    assert watched.foreign == []
    context.close()


def test_the_report_prints(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(report_document()))
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(path.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")
    context.close()


def test_the_report_names_no_other_place() -> None:
    text = render_report(report_document())
    assert not re.search(r"(?:src|href|action)=\"(?!data:|#)", text)
    assert not re.search(r"url\(|@import|https?://", text)


def test_sections_without_content_are_left_out() -> None:
    document = report_document()
    short = {key: document[key] for key in ("title", "summary", "made_at", "months")}
    text = render_report(short)
    assert "Month by month" in text
    for heading in ("Decisions", "Rollouts", "Stopped by its contract", "Why this prediction", "Look around"):
        assert f"<h2>{heading}" not in text


def test_a_report_without_any_quality_still_has_its_table() -> None:
    text = render_report(
        {
            "title": "Nothing yet",
            "summary": "No month.",
            "made_at": "2013-01-01T00:00:00Z",
            "months": [{"month": "2013-01", "flights": 5}],
        }
    )
    assert "Nothing has been measured yet." in text
    assert "Jan 2013" in text


def test_the_totals_add_up() -> None:
    text = render_report(report_document())
    foot = text[text.index("<tfoot>") : text.index("</tfoot>")]
    assert re.findall(r">([\d,]+)</td>", foot) == ["336,776", "4", "2"]


def test_an_unknown_field_is_refused_by_name() -> None:
    document = report_document()
    document["months"][3]["trainigs"] = 1
    with pytest.raises(ConfigurationError, match="trainigs"):
        render_report(document)
