"""Runs are picked, compared and priced on pages: by keyboard, with whatever address somebody makes up."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from holdtrue import tracking
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import Batch, Metric, NewRun, Pair, artifacts
from holdtrue.web import runs, urls
from tests.web.conftest import Site, clock_at_now, serving, signed_in
from tests.web.seeding import NOW, PROJECT, Seeder, open_seeder
from tests.web.training import SETTINGS, seed_runs

MANY, LONG = "many", "long"


def seed_many(tx: Transaction) -> dict[str, str]:
    """Write fifty runs of ten settings, with values that have no room in a sum or are none."""
    made: dict[str, str] = {}
    for number in range(50):
        run = tracking.create_run(tx, NewRun(0, "ada", f"many-{number}", 1000 + number)).info.id
        value = 1.7e308 if number % 10 == 9 else 1e-300 * number
        points = [Metric("odd", step, 1000 + step, value, int(number == 0)) for step in (0, 2**62)]
        points += [Metric("alone", 0, 1000, float(number), 0), *(Metric(f"m{each}", 0, 0, 1.0, 0) for each in range(9))]
        params = (Pair("setting", str(number % 10)), Pair("random_state", str(number // 10)))
        tracking.log(tx, Batch(run, tuple(points), params))
        made[f"many-{number}"] = run
    return made


def seed_long(tx: Transaction) -> dict[str, str]:
    """Write two runs whose names have no place to break and are as long as they may be."""
    home = tracking.create_experiment(tx, "e" * 500).id
    made: dict[str, str] = {}
    for number in range(2):
        run = tracking.create_run(tx, NewRun(home, "u" * 256, "<b>" + "n" * 8000, 1000 + number)).info.id
        points = [Metric("m" * 250, step, 1000 + step, 1.0 * number, 0) for step in range(3)]
        tags = (Pair("t" * 250, "<i>" + "v" * 7997), Pair("mlflow.note.content", "<b>first</b>\n" + "w" * 7000))
        tracking.log(tx, Batch(run, tuple(points), (Pair("p" * 250, str(number) + "v" * 5999),), tags))
        place = tracking.find_run_info(tx.connection, tx.project, run).artifact_uri.removeprefix("mlflow-artifacts:/")
        for file in range(101 * number):
            artifacts.keep(tx, f"{place}/plots/{'f' * 200}{file}<u>.png", "0" * 64, 2048)
        made[f"long-{number}"] = run
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve a project with runs, one with fifty, and one with none."""
    folder = tmp_path_factory.mktemp("runs")
    seeder = open_seeder(folder / "home").at(NOW)
    ids = seed_runs(seeder)
    ids |= Seeder(seeder.stores, seeder.clock, MANY).write(seed_many)
    ids |= Seeder(seeder.stores, seeder.clock, LONG).write(seed_long)
    seeder.stores.close()
    with serving(folder / "home", ids, clock_at_now(folder)) as served:
        yield served


def test_runs_are_picked_by_the_keyboard_and_compared_at_an_address_to_keep(browser: Browser, site: Site) -> None:
    watched = signed_in(browser, site)
    page = watched.page
    page.goto(site.url + urls.runs(PROJECT, experiment="delays", order="metrics.auc DESC"))
    for name in ("gbm-0", "gbm-1", "linear-0"):
        page.get_by_label(f"Pick {name}").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Compare the picked runs").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Comparison of 3 runs")
    picked = [site.ids[name] for name in ("gbm-1", "gbm-0", "linear-0")]
    assert page.url == site.url + urls.comparison(PROJECT, picked)
    page.get_by_role("combobox", name="Metric").select_option("log_loss")
    page.get_by_label("Best is the").select_option("lowest")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("row", name="A kind = gbm").first).to_contain_text("best")
    page.get_by_role("link", name="leave out linear-0").click()
    expect(page.locator("h1")).to_have_text("Comparison of 2 runs")
    expect(page.get_by_label("Best is the")).to_have_value("lowest")
    expect(page.get_by_text("leave out")).to_have_count(0)
    page.get_by_role("link", name="Add runs").click()
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(2)
    assert watched.complaints == []
    page.context.close()


def test_what_is_picked_on_one_page_is_kept_on_the_next(browser: Browser, site: Site) -> None:
    watched = signed_in(browser, site)
    page = watched.page
    page.goto(site.url + urls.runs(MANY))
    expect(page.locator("tbody tr")).to_have_count(runs.PAGE)
    page.get_by_label("Pick many-49").check()
    page.get_by_role("button", name="Older, keeping what is picked").click()
    expect(page.locator("tbody tr")).to_have_count(50 - runs.PAGE)
    page.get_by_label("Pick many-3", exact=True).check()
    page.get_by_role("button", name="Compare the picked runs").click()
    expect(page.locator("h1")).to_have_text("Comparison of 2 runs")
    page.get_by_role("link", name="Add runs").click()
    expect(page.get_by_text("Picked on other pages: many-3")).to_be_visible()
    page.get_by_role("link", name="leave out many-3").click()
    expect(page.get_by_text("Picked on other pages")).to_have_count(0)
    expect(page.get_by_label("Pick many-49")).to_be_checked()
    assert watched.complaints == []
    page.context.close()


def test_the_links_that_mlflows_client_prints_lead_to_pages(browser: Browser, site: Site) -> None:
    watched = signed_in(browser, site)
    page, own = watched.page, site.ids["gbm-1"]
    # Two projects have runs here, so the reader chooses one; of one project the first page leads on by itself.
    page.goto(f"{site.url}/#/experiments/1/runs/{own}")
    page.get_by_role("link", name=PROJECT).click()
    expect(page.locator("h1")).to_have_text("gbm-1")
    assert page.url == site.url + urls.run(PROJECT, own)
    page.goto(f"{site.url}{urls.overview(PROJECT)}#/experiments/1")
    expect(page.locator("h1")).to_have_text("Runs")
    expect(page.get_by_label("Experiment")).to_have_value("delays")
    page.goto(f"{site.url}{urls.overview(PROJECT)}#/experiments/1/runs/../../javascript:alert(1)")
    expect(page.locator("h1")).to_have_text("Services")
    assert watched.complaints == []
    page.context.close()


def test_the_longest_names_fit_into_every_window(browser: Browser, site: Site) -> None:
    page = signed_in(browser, site).page
    ids = [site.ids["long-0"], site.ids["long-1"]]
    for width in (1280, 380):
        page.set_viewport_size({"width": width, "height": 800})
        for path in (urls.runs(LONG), urls.run(LONG, ids[1]), urls.comparison(LONG, ids)):
            page.goto(site.url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.context.close()


def test_a_run_shows_its_note_tags_and_files(browser: Browser, site: Site) -> None:
    page = signed_in(browser, site).page
    page.goto(site.url + urls.run(LONG, site.ids["long-1"]))
    expect(page.get_by_text("<b>first</b>")).to_be_visible()
    expect(page.get_by_role("heading", name="Tags")).to_be_visible()
    expect(page.get_by_text("mlflow.runName")).to_have_count(0)
    expect(page.get_by_role("row", name="plots/ff")).to_have_count(100)
    expect(page.get_by_role("row", name="plots/ff").first).to_contain_text("2.0 KiB")
    expect(page.get_by_text("There are more.")).to_contain_text(f"mlflow artifacts download -r {site.ids['long-1']}")
    page.goto(site.url + urls.run(LONG, site.ids["long-0"]))
    expect(page.get_by_role("heading", name="Files")).to_have_count(0)
    page.context.close()


def test_fifty_runs_are_compared_whatever_their_values(site: Site) -> None:
    ids = [own for name, own in site.ids.items() if name.startswith("many-")]
    with site.client() as client:
        answer = client.get(urls.comparison(MANY, ids, metric="odd"))
        short = client.get(urls.comparison(MANY, ids, metric="alone"))
    assert answer.status_code == 200
    assert "Comparison of 50 runs" in answer.text
    assert "here are 10 settings" in answer.text
    assert "Without a number for odd: many-0." in answer.text
    assert "The first six settings are drawn, 4 are not." in answer.text
    assert "Not ended yet: 50 runs." in answer.text
    assert "by step" not in short.text


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("", 400, "A comparison takes 2 to 200 runs."),
        ("runs={gbm-0}", 400, "A comparison takes 2 to 200 runs."),
        ("runs={gbm-0},{gbm-0},", 400, "each counted once"),
        ("pick.{gbm-0}=1", 400, "A comparison takes 2 to 200 runs."),
        ("runs={gbm-0},unknown", 404, "Run with id=unknown not found."),
        ("runs={gbm-0},{many-1}", 404, "not found."),
        ("runs={gbm-0},..%2F..%2Fetc", 400, "Invalid"),
        ("runs={gbm-0},{gbm-1}&metric=a/../b", 400, "Invalid value"),
        ("runs={gbm-0},{gbm-1}&best=middle", 400, "The best value is the highest or the lowest."),
        ("runs={gbm-0},{gbm-1}&runs=x", 400, "A field of the query comes twice."),
        ("runs={gbm-0},{gbm-1}&metric=nobody", 200, "Without a number for nobody: gbm-0, gbm-1."),
        ("runs=" + ",".join(f"r{number}" for number in range(201)), 400, "201 were named"),
    ],
)
def test_an_address_that_somebody_made_up_is_answered_with_what_is_wrong(
    site: Site, query: str, status: int, told: str
) -> None:
    for name, own in site.ids.items():
        query = query.replace(f"{{{name}}}", own)
    with site.client() as client:
        answer = client.get(f"{urls.comparison(PROJECT)}?{query.removeprefix('?')}", follow_redirects=True)
    assert answer.status_code == status
    assert told in answer.text
    assert site.ids["many-1"] not in answer.text or status == 404


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"filter": "metrics.auc >> 3"}, 400, "Invalid filter string at sign 14"),
        ({"order": "metrics"}, 400, "Invalid"),
        ({"filter": "<img src=x onerror=alert(1)>"}, 400, "&lt;img src=x onerror=alert(1)&gt;"),
        ({"experiment": "nobody's"}, 404, "Could not find experiment"),
        ({"after": "x"}, 400, "page token"),
        ({"experiment_id": "77"}, 404, "No Experiment with id=77 exists."),
        ({"experiment_id": "x"}, 400, "Invalid"),
        ({"experiment_id": "1"}, 200, 'value="delays"'),
        ({"picked": "unknown"}, 404, "Run with id=unknown not found."),
        ({"filter": "metrics.auc > 5"}, 200, "No run meets all of this."),
    ],
)
def test_what_is_wrong_with_a_search_is_told_beside_it(
    site: Site, fields: dict[str, str], status: int, told: str
) -> None:
    with site.client() as client:
        answer = client.get(urls.runs(PROJECT, **fields))
    assert answer.status_code == status
    assert told in answer.text


def test_a_project_without_runs_says_how_to_log_the_first(site: Site) -> None:
    with site.client() as client:
        answer = client.get(urls.runs("nothing-yet"))
        lost = client.get(urls.run(PROJECT, site.ids["many-1"]))
    assert "MLFLOW_TRACKING_URI" in answer.text
    assert lost.status_code == 404
    assert len(SETTINGS) == 3
