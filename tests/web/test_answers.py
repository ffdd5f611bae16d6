"""The pages of applications: what is shown of their answers, and what of it does not count."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from holdtrue import delivery
from holdtrue.core.clock import microseconds
from holdtrue.delivery import Canary, ServiceSpec
from holdtrue.stats.proportions import wilson
from holdtrue.web import urls
from holdtrue.web.answers import lately
from tests.web.conftest import Site, clock_at_now, serving
from tests.web.seeding import NOW, Seeder, open_seeder

PROJECT, SERVICE = "help", "helper"
ROLLOUT = Canary(metric="answers", margin=0.1)


def answer(seeder: Seeder, number: int, release: str, checks: dict[str, float], *, days: float, left: bool) -> None:
    when = microseconds(NOW - timedelta(days=days))
    record = {
        "id": f"prd_{number}",
        "prediction_id": f"prd_{number}",
        "time": when,
        "role": "answer",
        "release": release,
        "score": None if left else min(checks.values()),
        "fallback": number == 3,
        "latency_us": 1_000_000 * (number + 1),
        "cost_micros": 500,
        "checks": orjson.dumps(checks).decode(),
    }
    writer = seeder.stores.journal.writer("answers")
    writer.append("prediction", PROJECT, SERVICE, {name: [value] for name, value in record.items()}, 1)
    writer.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve a project with one application: five answers this week, one that was left, one of last month."""
    folder: Path = tmp_path_factory.mktemp("answers")
    seeder = open_seeder(folder / "home", PROJECT)
    spec = ServiceSpec(SERVICE, SERVICE, entity="user", kind="application", rollout=ROLLOUT)
    seeder.at(NOW).write(lambda tx: delivery.declare(tx, [spec], []))
    seeder.write(lambda tx: tx.emit("project.applied", PROJECT, {"name": PROJECT}))
    for number in range(5):
        checks = {"answered": 1.0, "cited": 0.0 if number == 4 else 1.0}
        answer(seeder, number, "rel_b" if number > 2 else "rel_a", checks, days=number, left=False)
    answer(seeder, 5, "rel_a", {"answered": 1.0}, days=1, left=True)
    answer(seeder, 6, "rel_a", {"answered": 0.0}, days=30, left=False)
    writer = seeder.stores.journal.writer("said")
    for number, value in ((0, 1.0), (0, 0.0), (1, 0.5), (6, 0.0)):
        said = {"id": f"fb_{number}_{value}", "time": microseconds(NOW), "prediction_id": f"prd_{number}"}
        columns = {name: [each] for name, each in {**said, "value": value, "low": 0.0, "high": 1.0}.items()}
        writer.append("feedback", PROJECT, SERVICE, columns, 1)
    writer.close()
    view = lately(seeder.stores.journal, PROJECT, SERVICE, NOW, closely=True)
    assert view.answers == 5
    assert view.passed is not None
    assert (view.passed.value, view.passed.lower) == (0.8, wilson(4, 5).lower)
    assert view.liked is not None
    assert view.liked.value == 0.75  # the first piece of feedback on each answer
    assert [(each.release, each.answers, each.failed) for each in view.releases] == [("rel_b", 2, 1), ("rel_a", 3, 0)]
    assert [(each.median_seconds, each.cost) for each in view.releases] == [(4.5, 0.0005), (2.0, 0.0005)]
    assert [(each.name, each.answers, each.passed and each.passed.value) for each in view.checks] == [
        ("cited", 5, 0.8),
        ("answered", 5, 1.0),
    ]
    assert sum(len(each.points) for each in view.chart.series) == 5
    seeder.stores.close()
    with serving(folder / "home", {}, clock_at_now(folder)) as made:
        yield made


def test_the_list_tells_what_fits_an_application(site: Site) -> None:
    with site.client() as client:
        page = client.get(urls.overview(PROJECT)).text
    assert "Passed their checks, last 7 days" in page
    assert "0.800" in page
    assert "feedback 0.750" in page
    assert "ROC AUC" not in page
    assert "Predictions, that" not in page


def test_the_page_tells_of_each_release_and_check(site: Site) -> None:
    with site.client() as client:
        page = client.get(urls.service(PROJECT, SERVICE)).text
    for words in ("Answers that passed their checks, by day", "rel_a", "rel_b", "By check", "cited", "4.50"):
        assert words in page, words
    assert "ROC AUC" not in page
    assert "Quality by" not in page


def test_an_application_that_nobody_asked_says_so(tmp_path: Path) -> None:
    seeder = open_seeder(tmp_path / "home", PROJECT)
    view = lately(seeder.stores.journal, PROJECT, SERVICE, NOW, closely=True)
    seeder.stores.close()
    assert (view.answers, view.passed, view.liked, view.releases, view.checks) == (0, None, None, (), ())
