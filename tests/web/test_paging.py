"""Lists are read a page at a time, each thing once; and what is empty says what to do next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue import catalog, delivery, monitoring
from holdtrue.core.errors import NotFound
from holdtrue.web import activity, incidents, releases, services, urls
from holdtrue.web.model import Frame
from holdtrue.web.render import render
from tests.web.seeding import NOW, PROJECT, SERVICE, Seeder, open_seeder

MANY = 60


@pytest.fixture
def seeder(tmp_path: Path) -> Iterator[Seeder]:
    """Open an empty project."""
    opened = open_seeder(tmp_path / "home")
    opened.at(NOW)
    yield opened
    opened.stores.close()


def test_incidents_come_each_once_over_the_pages(seeder: Seeder) -> None:
    made: set[str] = set()
    for number in range(MANY):
        # All at one moment: paging by time alone would lose some of them.
        found = seeder.write(
            lambda tx, n=number: monitoring.open_incident(
                tx, service=f"service-{n}", kind="quality", title=f"Incident {n}", text="It fell."
            )
        )
        made.add(found.id)
    pages: list[list[str]] = []
    after: str | None = None
    while True:
        page = seeder.stores.ledger.read(lambda c, cursor=after: incidents.listing(c, PROJECT, "", cursor))
        pages.append([incident.id for incident in page.incidents])
        if page.older is None:
            break
        after = pages[-1][-1]
        assert page.older == urls.incidents(PROJECT, after=after)
    assert max(map(len, pages)) == incidents.PAGE
    assert [one for page in pages for one in page] == sorted(made, reverse=True)


def test_releases_come_each_once_over_the_pages(seeder: Seeder) -> None:
    made: list[str] = []
    for number in range(MANY):
        manifest = catalog.Manifest(service=SERVICE, commit=str(number))
        made.append(seeder.write(lambda tx, m=manifest: catalog.create_release(tx, m, author="usr_ada")).id)
    seen: list[str] = []
    after: str | None = None
    for _ in range(MANY):
        page = seeder.stores.ledger.read(lambda c, cursor=after: releases.listing(c, PROJECT, "", cursor))
        assert len(page.rows) <= releases.PAGE
        seen += [row.release.id for row in page.rows]
        if page.older is None:
            break
        after = seen[-1]
        assert urls.releases(PROJECT, after=after) == page.older
    assert seen == made[::-1]


def test_the_log_comes_each_event_once_over_the_pages_and_only_of_its_project(seeder: Seeder) -> None:
    for number in range(3 * activity.PAGE + 7):
        seeder.write(lambda tx, n=number: tx.emit("project.applied", f"thing-{n}", {"n": n}))
    other = Seeder(seeder.stores, seeder.clock, "another")
    other.write(lambda tx: tx.emit("project.applied", "theirs", {}))
    seen: list[int] = []
    before: str | None = None
    while True:
        page = seeder.stores.ledger.read(lambda c, cursor=before: activity.listing(c, PROJECT, "", "", cursor))
        assert len(page.rows) <= activity.PAGE
        assert all(row.event.project == PROJECT for row in page.rows)
        seen += [row.event.seq for row in page.rows]
        if page.older is None:
            break
        before = str(seen[-1])
    expected = [event.seq for event in seeder.stores.ledger.events(PROJECT, limit=10_000)]
    assert seen == expected[::-1]


def test_a_release_of_another_project_is_not_found(seeder: Seeder) -> None:
    manifest = catalog.Manifest(service=SERVICE, commit="1")
    made = seeder.write(lambda tx: catalog.create_release(tx, manifest, author="usr_ada"))
    with pytest.raises(NotFound, match="There is no release"):
        seeder.stores.ledger.read(lambda c: releases.one(c, "another", made.id))


def test_an_empty_project_has_empty_pages(seeder: Seeder) -> None:
    read = seeder.stores.ledger.read
    overview = read(lambda c: services.overview(c, PROJECT, NOW))
    assert (overview.services, overview.incidents, overview.waiting, overview.events) == ((), (), (), ())
    assert read(lambda c: releases.listing(c, PROJECT, "", None)).rows == ()
    assert read(lambda c: incidents.listing(c, PROJECT, "", None)).incidents == ()
    assert read(lambda c: activity.listing(c, PROJECT, "", "", None)).rows == ()


def test_a_declared_service_without_release_has_a_page_that_says_how_to_go_on(seeder: Seeder) -> None:
    seeder.write(lambda tx: delivery.declare(tx, [delivery.ServiceSpec(SERVICE, "delay", key="flight")]))
    page = seeder.stores.ledger.read(lambda c: services.one(c, PROJECT, SERVICE, NOW))
    text = render("service.html", frame=Frame(SERVICE, "services", PROJECT, "Ada", NOW), page=page)
    assert f"holdtrue promote {SERVICE} RELEASE" in text
    assert "No label has come yet." in text
    assert "Nothing has been predicted yet." in text
