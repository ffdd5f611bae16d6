"""Every page, served by the real server and looked at with a real browser."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from holdtrue.web import urls
from tests.web.conftest import Site, Watched, signed_in
from tests.web.seeding import PROJECT, SERVICE
from tests.web.tracing import TRACE

PAGES = {
    "overview": (urls.overview(PROJECT), "Services", ["delays", "canary at 5 %", "waits for approval", "0.728"]),
    "service": (
        urls.service(PROJECT, SERVICE),
        SERVICE,
        ["Answering now", "Rollout under way", "Quality by month", "Volume by month", "delay-quality", "rolled back"],
    ),
    "releases": (urls.releases(PROJECT), "Releases", ["waiting approval", "refused", "Answers in production"]),
    "release": (
        "{last}",
        "rel_",
        ["good enough", "metric.roc_auc.lower >= 0.65", "ROC AUC", "0.757 – 0.773", "Rosa", "flights@", "delay@5"],
    ),
    "refused": ("{worse}", "rel_", ["better than the champion", "failed", "comparison.p_better: 0.12"]),
    "incidents": (urls.incidents(PROJECT), "Incidents", ["Quality of delays fell below its limit", "open"]),
    "incident": ("{incident}", "Quality of delays", ["Timeline", "Storms over the whole coast", "0.712"]),
    "activity": (urls.activity(PROJECT), "Activity", ["rollout promoted", "decision refused", "approval given"]),
    "prediction": (
        urls.prediction(PROJECT, "prd_1"),
        "Why this prediction?",
        ["0.4137", "EWR", "71.6", "delay@2", "allowed for production", "3 windows", "better than the champion", "Rosa"],
    ),
    "traces": (
        urls.traces(PROJECT),
        "Traces",
        ["answer", "Is UA1545 late today?", "guide", "1.4.2", "error", "helpful: yes", "876"],
    ),
    "trace": (
        urls.trace(PROJECT, TRACE),
        "answer",
        ["Is UA1545 late today?", "calls delay_of", "It leaves on time.", "812 → 64", "Right at once.", "as JSON"],
    ),
    "runs": (
        urls.runs(PROJECT),
        "Runs",
        ["gbm-0", "finished", "auc = 0.7494", "rate = 0.05", "Compare the picked runs", "1 min 35 s"],
    ),
    "runs-empty": (urls.runs(PROJECT, filter="metrics.auc > 2"), "Runs", ["No run meets all of this."]),
    "run": (
        "{gbm-1}",
        "gbm-1",
        ["62 % of the machine", "≈ 24 kJ (GPU)", "flights", "assumed to have held", "log_loss"],
    ),
    "comparison": (
        "{runs}",
        "Comparison of 7 runs",
        [
            "kind = gbm, rate = 0.05",
            "0.7450 – 0.7599",
            "different",
            "one seed only",
            "A above C",
            "2 commits",
            "812 MiB",
        ],
    ),
    "traces-empty": (urls.traces(PROJECT, text="nowhere"), "Traces", ["No trace has a span that meets all of this."]),
    "sign-in": (urls.sign_in(), "Sign in", ["holdtrue up", "holdtrue token create"]),
}


@pytest.fixture(scope="module", params=[(1280, "light"), (390, "dark")], ids=["wide-light", "phone-dark"])
def reader(request: pytest.FixtureRequest, browser: Browser, year: Site) -> Iterator[Watched]:
    """Read the year's pages on a desk by day and on a phone by night."""
    width, scheme = request.param
    watched = signed_in(browser, year, width=width, scheme=scheme)
    yield watched
    watched.page.context.close()


def address(site: Site, path: str) -> str:
    """Return a page's address; `{name}` stands for the page of something that was seeded."""
    name = path.strip("{}")
    if name == path:
        return site.url + path
    if name == "runs":
        return site.url + urls.comparison(PROJECT, [own for each, own in site.ids.items() if each[-2:-1] == "-"])
    make = urls.run if name[-2:-1] == "-" else urls.incident if name == "incident" else urls.release
    return site.url + make(PROJECT, site.ids[name])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_complaint_and_says_what_it_should(
    name: str, reader: Watched, year: Site, tmp_path: Path
) -> None:
    path, title, texts = PAGES[name]
    reader.complaints.clear()
    answer = reader.page.goto(address(year, path))
    assert answer is not None
    assert answer.status == 200
    expect(reader.page.locator("h1")).to_contain_text(title)
    for text in texts:
        expect(reader.page.get_by_text(text).locator("visible=true").first).to_be_visible()
    assert reader.complaints == []
    assert reader.foreign == []
    width = reader.page.viewport_size
    assert width is not None
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= width["width"]
    picture = tmp_path / f"{name}.png"
    reader.page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 5_000


def test_the_first_page_leads_to_the_only_project(reader: Watched, year: Site) -> None:
    reader.page.goto(year.url)
    assert reader.page.url == year.url + urls.overview(PROJECT)


def test_every_link_of_every_page_leads_somewhere(year: Site) -> None:
    seen: set[str] = set()
    ahead = [urls.overview(PROJECT)]
    with year.client() as client, httpx.Client() as _:
        while ahead:
            path = ahead.pop()
            if path in seen:
                continue
            seen.add(path)
            answer = client.get(path)
            assert answer.status_code in (200, 303), path
            ahead += [link for link in _links(answer.text) if link.startswith("/") and link not in seen]
    assert len(seen) > 15


def _links(page: str) -> list[str]:
    return [part.partition('"')[0].replace("&amp;", "&") for part in page.split('href="')[1:]]


def test_a_chart_tells_its_values_under_the_pointer_and_by_arrow_keys(reader: Watched, year: Site) -> None:
    page = reader.page
    page.goto(year.url + urls.service(PROJECT, SERVICE))
    chart = page.locator("figure.chart").first
    plot = chart.locator("svg.plot >> visible=true")
    tip = chart.locator(".tip")
    expect(tip).to_be_hidden()
    plot.locator(":scope > .hit").nth(1).hover()
    expect(tip).to_contain_text("Apr 2013")
    expect(tip).to_contain_text("What was answered: 0.784 (0.775 – 0.793)")
    plot.focus()
    page.keyboard.press("ArrowRight")
    expect(tip).to_contain_text("Mar 2013")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    chart.locator("xpath=following-sibling::details[1]/summary").click()
    expect(page.get_by_role("row", name="Mar 2013 0.754 (0.745 – 0.763)")).to_be_visible()
    assert reader.complaints == []


def test_the_keyboard_reaches_the_content_first_and_focus_is_seen(reader: Watched, year: Site) -> None:
    page = reader.page
    page.goto(year.url + urls.overview(PROJECT))
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(style) == "solid"
    for _ in range(4):
        page.keyboard.press("Tab")
        assert page.evaluate(style) == "solid"


def test_filters_narrow_the_activity(reader: Watched, year: Site) -> None:
    page = reader.page
    page.goto(year.url + urls.activity(PROJECT))
    page.get_by_label("Kind of event").select_option("approval.")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(4)
    page.get_by_label("About").fill("nothing-of-this-name")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No event matches.")).to_be_visible()
    assert reader.complaints == []


def test_conditions_narrow_the_traces(reader: Watched, year: Site) -> None:
    page = reader.page
    page.goto(year.url + urls.traces(PROJECT))
    page.get_by_label("Words").fill("UA1545 late")
    page.get_by_label("Status").select_option("ok")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Since")).to_be_hidden()
    page.get_by_text("More conditions").click()
    page.get_by_label("Attribute").fill("a.b[0]=other")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No trace has a span that meets all of this.")).to_be_visible()
    # What was asked for stays in the form, and the rarer conditions stay open.
    expect(page.get_by_label("Words")).to_have_value("UA1545 late")
    expect(page.get_by_label("Attribute")).to_have_value("a.b[0]=other")
    assert reader.complaints == []


def test_a_span_is_opened_by_the_keyboard(reader: Watched, year: Site) -> None:
    page = reader.page
    page.goto(year.url + urls.trace(PROJECT, TRACE))
    expect(page.locator("#span h2")).to_have_text("chat small")
    expect(page.locator(".waterfall tbody tr")).to_have_count(4)
    page.get_by_role("link", name="execute_tool delay_of").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#span h2")).to_have_text("execute_tool delay_of")
    expect(page.get_by_text("error – no such flight")).to_be_visible()
    expect(page.locator(".waterfall [aria-current]")).to_have_text("execute_tool delay_of")
    expect(page.get_by_role("img", name="starts after 60 ms, takes 140 ms")).to_be_visible()
    assert reader.complaints == []


def test_a_project_without_spans_says_how_to_send_the_first(browser: Browser, year: Site) -> None:
    watched = signed_in(browser, year)
    watched.page.goto(year.url + urls.traces("nothing-yet"))
    expect(watched.page.get_by_text("No span has come yet.")).to_be_visible()
    expect(watched.page.get_by_text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")).to_be_visible()
    assert watched.complaints == []
    watched.page.context.close()


def test_who_is_not_signed_in_learns_how(browser: Browser, year: Site) -> None:
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(year.url + urls.overview(PROJECT))
    assert answer is not None
    assert answer.status == 401
    expect(page.locator("h1")).to_have_text("Sign in")
    # The stylesheet is public too, or the page would be bare.
    assert page.evaluate("getComputedStyle(document.querySelector('.top')).borderBottomStyle") == "solid"
    context.close()


def test_what_does_not_exist_is_a_page_too(reader: Watched, year: Site) -> None:
    answer = reader.page.goto(year.url + urls.release(PROJECT, "rel_0"))
    assert answer is not None
    assert answer.status == 404
    expect(reader.page.locator("h1")).to_contain_text("There is no release")
    expect(reader.page.get_by_role("link", name="To the first page")).to_be_visible()


@pytest.mark.parametrize("path", ["?before=x", "?before=99999999999999999999", "?before=-1"])
def test_an_invented_page_of_the_log_is_refused(year: Site, path: str) -> None:
    with year.client() as client:
        answer = client.get(urls.activity(PROJECT) + path)
    assert answer.status_code == 400
