"""Rows are taken out of sealed files; everything else reads as before, in the same order, from the same places."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import Journal
from holdtrue.storage.journal.erasing import Meant, same_text
from tests.sampling import examples
from tests.storage.records import columns


def of(value: str, kind: str = "event") -> Meant:
    """Return the records whose customer is `value`."""
    return Meant(kind, "shop", ("customer",), lambda _, table: same_text(table, "customer", [value]))


def add(journal: Journal, ids: list[str], customers: list[Any], *, day: int = 0, service: str = "orders") -> None:
    """Append one frame."""
    writer = journal._writers[0] if journal._writers else journal.writer("w", "fast")  # pyright: ignore[reportPrivateUsage]
    writer.append("event", "shop", service, columns(ids, day, customer=customers), len(ids))


def kept(journal: Journal) -> list[str]:
    return journal.table("event", "shop")["id"].to_pylist()


def test_only_the_entity_s_rows_go_and_counts_digests_and_cursors_hold(journal: Journal) -> None:
    add(journal, ["a", "b", "c"], ["eve", "bob", "eve"])
    add(journal, ["d", "e"], ["bob", "eve"], day=3)
    _, cursor = journal.tail("event", "shop", "orders", None)
    journal.seal()
    add(journal, ["f"], ["bob"])
    journal.seal()
    done = journal.erase(of("eve"))
    assert (done.rows, done.files) == (3, 2)
    assert kept(journal) == ["b", "d", "f"]
    assert journal.counts() == {"event/shop/orders": 3}
    assert list(journal.verify()) == []
    assert journal.find("event", "shop", "a") is None
    found = journal.find("event", "shop", "b")
    assert found is not None
    assert found["customer"] == "bob"
    assert journal.tail("event", "shop", "orders", cursor)[0]["id"].to_pylist() == ["f"]
    assert journal.tail("event", "shop", "orders", None)[0]["id"].to_pylist() == ["b", "d", "f"]
    assert journal.erase(of("eve")).rows == 0
    files = list((journal._root / "sealed").glob("kind=event/**/*.parquet"))  # pyright: ignore[reportPrivateUsage]
    assert {each for file in files for each in pq.ParquetFile(file).read()["customer"].to_pylist()} == {"bob"}
    assert len(files) == 3


def test_a_file_of_nothing_else_goes_and_its_segment_stays_known(journal: Journal) -> None:
    add(journal, ["a"], ["eve"])
    journal.seal()
    journal.erase(of("eve"))
    assert kept(journal) == []
    add(journal, ["b"], ["bob"])
    assert journal.seal() == 1
    assert kept(journal) == ["b"]
    assert list(journal.verify()) == []


def test_what_a_first_record_hid_does_not_come_to_light(journal: Journal) -> None:
    """A client reused an id: the second record was never seen, and is not seen when the first is erased."""
    add(journal, ["a"], ["eve"])
    journal.seal()
    add(journal, ["a", "b"], ["bob", "bob"])
    journal.seal()
    journal.erase(of("eve"))
    assert kept(journal) == ["b"]


def test_numbers_and_texts_are_one_name(journal: Journal) -> None:
    add(journal, ["a", "b"], [7, 8])
    add(journal, ["c"], [7.5])
    add(journal, ["d"], ["7"])
    journal.seal()
    assert journal.erase(of("7")).rows == 2
    assert sorted(kept(journal)) == ["b", "c"]


def test_another_process_sees_that_files_were_replaced(journal: Journal, clock: SimulatedClock) -> None:
    add(journal, ["a", "b"], ["eve", "bob"])
    journal.seal()
    other = Journal(journal._root, clock)  # pyright: ignore[reportPrivateUsage]
    assert kept(other) == ["a", "b"]
    journal.erase(of("eve"))
    assert kept(other) == ["b"]
    assert other.counts() == {"event/shop/orders": 1}


def test_a_reader_that_knew_the_old_file_reads_the_new_one(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a look at the manifests and the read of a file, that file is replaced."""
    add(journal, ["a", "b"], ["eve", "bob"])
    journal.seal()
    from holdtrue.storage.journal import reading

    once = [True]
    real = reading.read_sealed

    def late(*arguments: Any) -> pa.Table:
        if once.pop() if once else False:
            journal.erase(of("eve"))
        return real(*arguments)

    monkeypatch.setattr(reading, "read_sealed", late)
    assert kept(journal) == ["b"]
    assert once == []


def test_what_a_killed_process_left_behind_is_removed(journal: Journal) -> None:
    add(journal, ["a", "b"], ["eve", "bob"])
    journal.seal()
    (file,) = (journal._root / "sealed").glob("kind=event/**/*.parquet")  # pyright: ignore[reportPrivateUsage]
    stray = file.with_name("w-000001.deadbeef-9.parquet")
    stray.write_bytes(file.read_bytes())
    journal.erase(of("eve"))
    assert not stray.exists()
    assert not file.exists()
    assert kept(journal) == ["b"]


ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["eve", "bob", None]), st.integers(0, 2)), max_size=12)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, max_size=4))
def test_what_is_left_is_what_was_seen_without_the_entity(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, str | None, int]]]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"), SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
    try:
        for batch in batches:
            for number, customer, day in batch:
                add(journal, [f"r{number}"], [customer], day=day)
            journal.seal()
        before = journal.table("event", "shop")
        seen = list(before["id"].to_pylist())
        if "customer" in before.column_names and before["customer"].type != pa.null():
            seen = before.filter(pc.fill_null(pc.not_equal(before["customer"], "eve"), True))["id"].to_pylist()  # pyright: ignore
        journal.erase(of("eve"))
        # A hidden repeat that was the entity's goes too, which nobody can see.
        assert kept(journal) == seen
        assert list(journal.verify()) == []
    finally:
        journal.close()
