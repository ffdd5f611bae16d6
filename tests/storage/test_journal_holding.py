"""The parts of a stream: what a search looks into, file by file and live."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import Corrupt
from holdtrue.storage import Journal
from holdtrue.storage.journal.holding import SealedPart
from tests.storage.records import DAY, START


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Open an empty journal."""
    opened = Journal(tmp_path / "journal", SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
    yield opened
    opened.close()


def columns(first: int, count: int, **more: Any) -> dict[str, Any]:
    """Return records `first` and following, a second apart."""
    numbers = range(first, first + count)
    return {
        "id": [f"s{number}" for number in numbers],
        "time": [START + number * 1_000_000 for number in numbers],
        "text": [f"text {number}" for number in numbers],
        **more,
    }


def ids(journal: Journal, **query: Any) -> list[str]:
    """Return the ids of all parts, in order of arrival."""
    holding = journal.holding("span", "project", **query)
    found: list[str] = []
    for part in sorted((*holding.sealed, *holding.live), key=lambda each: each.rank):
        table = journal.rows(part) if isinstance(part, SealedPart) else part.table
        found += table["id"].to_pylist()
    return found


def test_every_row_is_in_one_part_live_or_sealed(journal: Journal) -> None:
    writer = journal.writer("w", "strict")
    other = journal.writer("v", "strict")
    wanted: list[str] = []
    for turn in range(6):
        writer.append("span", "project", "a", columns(turn * 10, 3), 3)
        other.append("prediction", "project", "a", columns(0, 1), 1)
        wanted += [f"s{turn * 10 + number}" for number in range(3)]
        assert ids(journal) == wanted
        if turn in (1, 3):
            journal.seal()
            assert ids(journal) == wanted
    assert ids(journal, service="b") == []
    assert ids(journal, since=START + DAY) == ids(journal)[-6:]  # live parts are given whole
    assert journal.projects("span") == ["project"]
    assert journal.projects("prediction") == ["project"]


def test_a_look_reads_only_what_is_new_and_forgets_what_was_sealed(journal: Journal) -> None:
    writer = journal.writer("w", "strict")
    writer.append("span", "project", "a", columns(0, 2), 2)
    assert ids(journal) == ["s0", "s1"]
    (live,) = journal.holding("span", "project").live
    writer.append("span", "project", "a", columns(2, 1, extra=1.5), 1)
    (later,) = journal.holding("span", "project").live
    # The first look's table is not read again, and a new column is null in old rows.
    assert live.table.num_rows == 2
    assert later.table["extra"].to_pylist() == [None, None, 1.5]
    assert later.table["_row"].to_pylist() == [0, 1, 2]
    journal.seal()
    holding = journal.holding("span", "project")
    assert (len(holding.sealed), holding.live) == (1, ())


def test_rows_are_read_by_their_places_out_of_the_row_groups_that_have_them(journal: Journal) -> None:
    writer = journal.writer("w", "strict")
    for start in range(0, 5000, 1000):
        writer.append("span", "project", "a", columns(start, 1000, wide="x" * 4000), 1000)
    journal.seal()
    (part,) = journal.sealed("span")
    for places in ([], [0], [4999], [1023, 1024], [0, 1, 2047, 2048, 3500, 4999], list(range(0, 5000, 97))):
        found = journal.rows(part, ("id", "unknown"), places)
        assert found.column_names == ["id", "_row"]
        assert found["id"].to_pylist() == [f"s{place}" for place in places]
    assert journal.rows(part, ("time",)).num_rows == 5000


def test_wide_records_have_small_row_groups_and_narrow_ones_large(journal: Journal, tmp_path: Path) -> None:
    writer = journal.writer("w", "strict")
    for start in range(0, 6000, 1000):
        writer.append("span", "project", "wide", columns(start, 1000, wide=["y" * 3000] * 1000), 1000)
        writer.append("span", "project", "narrow", columns(start, 1000), 1000)
    journal.seal()
    groups: dict[str, int] = {}
    for path in (tmp_path / "journal" / "sealed").rglob("*.parquet"):
        service = next(part for part in path.parts if part.startswith("service="))
        groups[service] = pq.ParquetFile(path).metadata.row_group(0).num_rows
    assert groups == {"service=wide": 1024, "service=narrow": 6000}


def test_a_damaged_file_is_named(journal: Journal, tmp_path: Path) -> None:
    writer = journal.writer("w", "strict")
    writer.append("span", "project", "a", columns(0, 3), 3)
    journal.seal()
    (part,) = journal.sealed("span")
    (path,) = (tmp_path / "journal" / "sealed").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Corrupt, match="is damaged"):
        journal.rows(part, None, [0])
