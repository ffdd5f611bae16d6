"""Evaluation datasets are cleaned page by page, go on where they were, and let nobody back in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.actor import SYSTEM
from holdtrue.data import erasure
from holdtrue.delivery.privacy import erasing
from holdtrue.delivery.privacy.model import Erase, Progress
from holdtrue.storage import Stores
from holdtrue.storage.ledger import WriteContext
from holdtrue.tracking import cases
from holdtrue.tracking.cases import importing
from holdtrue.tracking.cases.model import RECORDS_AT_ONCE
from tests.web.seeding import open_seeder

CONTEXT = WriteContext(SYSTEM, "desk")
ASKED = Erase("user", "u-17", "request 17")
MANY = 3 * RECORDS_AT_ONCE


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Open a data folder with two evaluation datasets, in which every tenth record is of one user."""
    opened = open_seeder(tmp_path / "home", CONTEXT.project).stores
    for name in ("first", "second"):
        made = opened.ledger.write(CONTEXT, lambda tx, n=name: cases.create(tx, n, (), ())).id
        sent = [{"inputs": {"number": number, "user": f"u-{17 if number % 10 == 0 else 1}"}} for number in range(MANY)]
        opened.ledger.write(CONTEXT, lambda tx, own=made, rows=sent: cases.upsert(tx, own, rows, opened.home))
    yield opened
    opened.close()


def users(stores: Stores) -> list[list[str]]:
    """Return the users that the records of each dataset name."""
    found, _ = stores.ledger.read(lambda c: cases.search(c, CONTEXT.project, [], "", 10, ["name"], ""))
    every: list[list[str]] = []
    for each in found:
        rows, _ = stores.ledger.read(lambda c, own=each.id: cases.records(c, CONTEXT.project, own, 50_000, ""))
        assert len(rows) == each.count
        every.append([str(row.inputs["user"]) for row in rows])
    return every


class Ticking:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        """Return one second more than before."""
        self.looks += 1
        return float(self.looks)


def once(stores: Stores) -> Progress:
    """Go on with the erasure for three looks at the clock, which are two pages."""
    return erasing.erase(stores, CONTEXT, ASKED, 3.0)


def ids(stores: Stores) -> list[str]:
    """Return the ids of the datasets, by name."""
    found, _ = stores.ledger.read(lambda c: cases.search(c, CONTEXT.project, [], "", 10, ["name"], ""))
    return [each.id for each in found]


def test_an_erasure_goes_on_at_the_page_it_was_at_and_nobody_comes_back_behind_it(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ticking()
    monkeypatch.setattr(erasing, "SystemClock", lambda: clock)
    left: list[int] = []
    found = once(stores)
    while "cases" in found.remaining and len(left) < 20:
        # What is written before and behind the place meets the list, in outputs, expectations, tags and lists too.
        for own in ids(stores):
            rows: list[dict[str, Any]] = [
                {"inputs": {"user": "u-17", "again": len(left)}},
                {"inputs": {"user": "u-1", "asked": len(left)}, "outputs": {"of": [{"user": ["u-2", "u-17"]}]}},
                {"inputs": {"user": "u-1", "asked": len(left) + 1000}, "expectations": {"user": "u-17"}},
                {"inputs": {"user": "u-1", "asked": len(left) + 2000}, "tags": {"user": "u-17"}},
                {"inputs": {"user": "u-1", "kept": len(left)}},
            ]
            new = stores.ledger.write(CONTEXT, lambda tx, i=own, r=rows: cases.upsert(tx, i, r, stores.home))
            assert new == (1, 0, 4)
        left.append(sum(each.count("u-17") for each in users(stores)))
        found = once(stores)
    found = next(each for each in (once(stores) for _ in range(20)) if each.state == "done")
    # Two datasets of three pages: what is left falls from call to call, and never rises.
    assert left[:2] == [40, 20]
    assert left == sorted(left, reverse=True)
    assert found.found["cases"] == {"records": 2 * MANY // 10}
    assert "looked" not in found.found
    assert all("u-17" not in each for each in users(stores))
    assert [each.count("u-1") for each in users(stores)] == [MANY * 9 // 10 + len(left)] * 2
    events = stores.ledger.events(CONTEXT.project, limit=10_000)
    assert (
        sum(e.payload.get("removed", 0) for e in events if e.action == "evaluation_dataset.changed") == 2 * MANY // 10
    )
    assert all("u-17" not in str(each.payload) for each in events)


def test_a_broken_off_erasure_forgets_no_page_and_counts_each_record_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = cases.remove_records
    calls: list[str] = []

    def breaks(tx: Any, id: str, records: Any) -> int:
        calls.append(id)
        gone = removed(tx, id, records)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return gone

    monkeypatch.setattr(cases, "remove_records", breaks)
    with pytest.raises(OSError, match="disk is gone"):
        erasing.erase(stores, CONTEXT, ASKED)
    # Of the page that broke nothing went; those before it are noted.
    assert sum(each.count("u-17") for each in users(stores)) == (2 * MANY - 2 * RECORDS_AT_ONCE) // 10
    [noted] = stores.ledger.read(lambda c: erasure.erasures(c, CONTEXT.project))
    assert noted.found["looked"]["records"] == 2 * RECORDS_AT_ONCE // 10
    assert noted.found["looked"]["after"][1] == 2 * RECORDS_AT_ONCE
    found = erasing.erase(stores, CONTEXT, ASKED)
    assert found.state == "done"
    assert found.found["cases"] == {"records": 2 * MANY // 10}
    assert all("u-17" not in each for each in users(stores))


def test_what_another_system_sends_meets_the_list_too(stores: Stores) -> None:
    assert erasing.erase(stores, CONTEXT, ASKED).state == "done"
    [own, _] = ids(stores)
    sent = tuple(
        importing.ImportedRecord(f"dr-{number}", {"user": name, "number": 9000 + number})
        for number, name in enumerate(("u-17", "u-18", "u-17", "u-19"))
    )
    hashes = stores.ledger.write(CONTEXT, lambda tx: importing.bring_records(tx, own, sent, stores.home))
    assert list(hashes) == ["dr-1", "dr-3"]
    assert "u-17" not in users(stores)[0]
    # In another project the same name is somebody else.
    other = WriteContext(SYSTEM, "other")
    made = stores.ledger.write(other, lambda tx: cases.create(tx, "theirs", (), ())).id
    rows = [{"inputs": {"user": "u-17"}}]
    assert stores.ledger.write(other, lambda tx: cases.upsert(tx, made, rows, stores.home)) == (1, 0, 0)
