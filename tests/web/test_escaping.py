"""What users write is shown as they wrote it, and never runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from holdtrue.web import urls
from holdtrue.web.report import render_report
from tests.web.conftest import Site, Watched, clock_at_now, serving, signed_in
from tests.web.payloads import PAYLOADS
from tests.web.samples import report_document
from tests.web.seeding import NOW, SERVICE, Seeder, open_seeder, seed_texts
from tests.web.tracing import seed_trace
from tests.web.training import seed_runs

# What a report's reader parses rather than shows.
PARSED = {"time", "month", "made_at", "kind", "outcome", "started", "ended", "found", "mended"}


# Five at a time find what one at a time finds, in a tenth of the pages; the long run looks at each alone.
TOGETHER = [" ".join(PAYLOADS[place : place + 5]) for place in range(0, len(PAYLOADS), 5)]
ADDED = "img, iframe, object, embed, base, video, audio, math, marquee, meta[http-equiv]:not([content^=default])"
CHOICES = [pytest.param(TOGETHER, id="together"), pytest.param(list(PAYLOADS), id="each", marks=pytest.mark.long)]


@pytest.fixture(scope="module", params=CHOICES)
def poisoned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve projects, each with one text in every field that a user can write."""
    folder = tmp_path_factory.mktemp("poisoned")
    first = open_seeder(folder / "home", "project-0")
    ids: dict[str, str] = {}
    for number, text in enumerate(request.param):
        seeder = Seeder(first.stores, first.clock, f"project-{number}").at(NOW)
        found = {**seed_texts(seeder, text), "trace": seed_trace(seeder, text), **seed_runs(seeder, text)}
        ids |= {f"{name}-{number}": value for name, value in found.items()} | {f"text-{number}": text}
    first.stores.close()
    with serving(folder / "home", ids, clock_at_now(folder)) as site:
        yield site


def test_there_are_fifty_different_payloads() -> None:
    assert len(set(PAYLOADS)) == 50


def test_nothing_that_users_write_runs_in_the_pages(browser: Browser, poisoned: Site) -> None:
    watched = signed_in(browser, poisoned)
    texts = {int(name[5:]): text for name, text in poisoned.ids.items() if name.startswith("text-")}
    for number, text in texts.items():
        project = f"project-{number}"
        shown = 0
        for path in (
            urls.overview(project),
            urls.service(project, SERVICE),
            urls.release(project, poisoned.ids[f"release-{number}"]),
            urls.incidents(project),
            urls.incident(project, poisoned.ids[f"incident-{number}"]),
            urls.traces(project),
            urls.traces(project, text=text, attribute=f"{text}={text}", service=text),
            urls.trace(project, poisoned.ids[f"trace-{number}"]),
            urls.trace(project, poisoned.ids[f"trace-{number}"], "4".zfill(16)),
            urls.runs(project, experiment=text),
            urls.run(project, poisoned.ids[f"gbm-0-{number}"]),
            urls.comparison(project, [poisoned.ids[f"{each}-{number}"] for each in ("gbm-0", "linear-0")]),
            urls.activity(project, object=text),
            urls.activity(project),
        ):
            answer = watched.page.goto(poisoned.url + path)
            assert answer is not None
            assert answer.status == 200, path
            # An injected element need not run to be a hole: everything a payload could add is looked for.
            assert watched.page.locator(ADDED).count() == 0
            assert watched.page.locator("script:not([src])").count() == 0
            shown += _visible(text) in _visible(watched.page.locator("main").text_content() or "")
        assert shown >= 7, text
    assert watched.complaints == []
    assert watched.foreign == []
    watched.page.context.close()


@pytest.mark.parametrize("texts", CHOICES)
def test_nothing_in_a_report_runs(browser: Browser, tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "report.html"
    context = browser.new_context()
    watched = Watched(context, "file://")
    for text in texts:
        path.write_text(render_report(_poisoned(report_document(), text)))
        watched.page.goto(path.as_uri())
        assert watched.page.locator(ADDED).count() == 0
        assert watched.page.locator("script, style").count() == 2
        shown = _visible(watched.page.locator("main").text_content() or "")
        assert shown.count(_visible(text)) > 20
    assert watched.complaints == []
    assert watched.foreign == []
    context.close()


def _poisoned(value: Any, payload: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _poisoned(item, payload, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_poisoned(item, payload, key) for item in value]
    return payload if isinstance(value, str) and key not in PARSED else value


def _visible(text: str) -> str:
    """Return a text without white space, which pages and line separators treat in ways of their own."""
    return "".join(text.split())
