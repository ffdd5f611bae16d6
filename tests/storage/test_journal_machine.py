"""The journal does what a list in memory would, through rolls, sealing, crashes of writers and reopening."""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import Journal, Writer
from tests.sampling import examples
from tests.storage.records import DAY, START

SERVICES = ("a", "b")
VALUES = st.one_of(st.none(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))


class JournalMachine(RuleBasedStateMachine):
    """One writer, two services; the twin is the list of all appended rows."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC))
        self.rows: list[dict[str, Any]] = []
        self.cursor: str | None = None
        self.tailed: list[str] = []
        self.appended = 0
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.folder / "journal", self.clock)
        self.writer: Writer = self.journal.writer("w", "fast", segment_bytes=700)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.journal.close()
            shutil.rmtree(self.folder)

    @rule(
        service=st.sampled_from(SERVICES),
        days=st.lists(st.integers(0, 3), min_size=1, max_size=4),
        repeat=st.booleans(),
        extra=st.sampled_from(["x", "y"]),
        value=VALUES,
        data=st.data(),
    )
    def append(
        self,
        service: str,
        days: list[int],
        repeat: bool,
        extra: str,
        value: float | None,
        data: st.DataObject,
    ) -> None:
        ids = [f"{self.appended}.{row}" for row in range(len(days))]
        mine = [row["id"] for row in self.rows if row["service"] == service]
        if repeat and mine:
            ids[-1] = data.draw(st.sampled_from(mine))
        times = [START + day * DAY for day in days]
        self.writer.append("event", "project", service, {"id": ids, "time": times, extra: value}, len(ids))
        self.appended += 1
        self.rows.extend(
            {"service": service, "id": name, "time": time, extra: value} for name, time in zip(ids, times, strict=True)
        )

    @rule()
    def roll(self) -> None:
        self.writer.roll()
        self.clock.advance(1)

    @rule()
    def seal(self) -> None:
        self.journal.seal()

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.open()

    @rule()
    def tail(self) -> None:
        table, self.cursor = self.journal.tail("event", "project", "a", self.cursor)
        self.tailed.extend(table["id"].to_pylist())
        wanted = [row["id"] for row in self.rows if row["service"] == "a"]
        # Repeats within one call are dropped, so compare what is new to the twin.
        assert list(dict.fromkeys(self.tailed)) == list(dict.fromkeys(wanted))
        assert len(self.tailed) <= len(wanted)
        assert self.journal.tail("event", "project", "a", self.cursor)[0].num_rows == 0

    @rule(service=st.sampled_from([None, *SERVICES]), since=st.integers(0, 4), until=st.integers(0, 4))
    def table(self, service: str | None, since: int, until: int) -> None:
        limits = (START + since * DAY, START + until * DAY)
        table = self.journal.table("event", "project", service=service, since=limits[0], until=limits[1])
        self.compare(table.to_pylist(), service, limits)

    @precondition(lambda self: self.rows)
    @rule()
    def relation(self) -> None:
        relation = self.journal.relation(duckdb.connect(), "event", "project", service="a")
        found = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
        self.compare(found, "a", (0, START * 2), ordered=False)

    def compare(
        self, found: list[dict[str, Any]], service: str | None, limits: tuple[int, int], ordered: bool = True
    ) -> None:
        first: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.rows:
            if (service is None or row["service"] == service) and limits[0] <= row["time"] < limits[1]:
                first.setdefault(row["id"], row)
        present = [{key: value for key, value in row.items() if value is not None} for row in found]
        wanted = [{key: value for key, value in row.items() if value is not None} for row in first.values()]
        if not ordered:
            present.sort(key=lambda row: row["id"])
            wanted.sort(key=lambda row: row["id"])
        assert present == wanted

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        wanted = data.draw(st.sampled_from(self.rows))
        first = next(row for row in self.rows if (row["id"], row["service"]) == (wanted["id"], wanted["service"]))
        found = self.journal.find("event", "project", wanted["id"], service=wanted["service"])
        assert found is not None
        assert {key: value for key, value in found.items() if value is not None} == {
            key: value for key, value in first.items() if value is not None
        }

    @rule()
    def counts(self) -> None:
        assert sum(self.journal.counts().values()) == len(self.rows)


JournalMachine.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=25, deadline=None)
TestJournalMachine = JournalMachine.TestCase
