"""The journal of a data folder: open writers, seal, read."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.core.clock import Clock, microseconds
from holdtrue.storage.files import make_folder
from holdtrue.storage.journal.index import Index
from holdtrue.storage.journal.segments import Damage
from holdtrue.storage.journal.writer import SEGMENT_BYTES, SYNC_SECONDS, Mode, Writer

# Reading and sealing load pyarrow and DuckDB. The data plane only writes: they are imported where used.
if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from holdtrue.storage.journal.erasing import Erased, Found, Meant
    from holdtrue.storage.journal.holding import Holding, LiveRows, SealedPart

# Records that are searched part by part; their live rows are kept decoded.
_SEARCHED = ("span",)


class Journal:
    """Keep production records of streams (kind, project, service): append-only, deduplicated by id when read.

    Any process may write (each under its own writer name) and read; only the control plane seals.
    """

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        for name in ("live", "sealed/manifest", "sealed/tmp", "damaged"):
            make_folder(root / name)
        self._index = Index(root)
        self._writers: list[Writer] = []
        self._sealing = threading.Lock()
        self._live: LiveRows | None = None

    def writer(
        self,
        name: str,
        mode: Mode = "strict",
        *,
        segment_bytes: int = SEGMENT_BYTES,
        sync_seconds: float = SYNC_SECONDS,
    ) -> Writer:
        """Open the writer `name` of this process; Locked if a live writer has that name."""
        writer = Writer(self._root, name, mode, self._clock, segment_bytes=segment_bytes, sync_seconds=sync_seconds)
        self._writers.append(writer)
        return writer

    def close(self) -> None:
        """Close the writers opened here."""
        with ExitStack() as closing:  # one writer that fails to close keeps no other from closing
            while self._writers:
                closing.callback(self._writers.pop().close)

    def seal(self, roll: bool = True) -> int:
        """Turn closed segments into Parquet and return how many were; killed anywhere, the next call goes on.

        With `roll`, writers end their present segments first: those opened here at once, those of other
        processes within a second (for the next call). Raises StorageFull, and Corrupt for a damaged segment
        after sealing the others.
        """
        from holdtrue.storage.journal.sealing import seal_closed

        with self._sealing:
            if roll:
                for writer in self._writers:
                    writer.roll()
            return seal_closed(self._index, request_roll=roll)

    def table(
        self,
        kind: str,
        project: str,
        *,
        service: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        columns: Sequence[str] | None = None,
    ) -> "pa.Table":
        """Return the records of a stream, sealed and live, in order of arrival, the first of each id.

        `since` ≤ time < `until` (moments, or microseconds since the epoch). Columns are the union over all
        records, with nulls where a record lacks one, integers widened to float64 and mixed types to text;
        plus "service". Raises Corrupt.
        """
        from holdtrue.storage.journal.reading import Query, read_table, settled

        query = Query(
            kind,
            project,
            service,
            _micros(since),
            _micros(until),
            tuple(columns) if columns is not None else None,
        )
        return settled(lambda: read_table(self._index, query))

    def relation(
        self,
        connection: "duckdb.DuckDBPyConnection",
        kind: str,
        project: str,
        *,
        service: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
    ) -> "duckdb.DuckDBPyRelation":
        """Return the records as `table` does, as a DuckDB relation that reads only what a query needs."""
        from holdtrue.storage.journal.reading import Query
        from holdtrue.storage.journal.relation import open_relation

        return open_relation(
            self._index, connection, Query(kind, project, service, _micros(since), _micros(until), None)
        )

    def tail(
        self,
        kind: str,
        project: str,
        service: str | None,
        cursor: str | None,
        *,
        columns: Sequence[str] | None = None,
    ) -> "tuple[pa.Table, str]":
        """Return the rows appended since `cursor` (None: all there are) and the cursor for the next call.

        Each appended row comes once, sealed meanwhile or not; ids repeated by a client's retry are dropped
        within one call only. Costs what the new bytes cost, and less with only some `columns`. Raises Corrupt,
        InvalidInput (a foreign cursor).
        """
        from holdtrue.storage.journal.reading import Query, read_tail, settled

        wanted = tuple(columns) if columns is not None else None
        query = Query(kind, project, service, None, None, wanted)
        return settled(lambda: read_tail(self._index, query, cursor))

    def find(self, kind: str, project: str, id: str, *, service: str | None = None) -> dict[str, Any] | None:
        """Return the first record with that id, with its service, or None."""
        from holdtrue.storage.journal.reading import Query, find_record, settled

        query = Query(kind, project, service, None, None, None)
        return settled(lambda: find_record(self._index, query, id))

    def holding(
        self,
        kind: str,
        project: str,
        *,
        service: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
    ) -> "Holding":
        """Return the parts of a stream that may have records of that time: sealed files, and live rows decoded.

        For kinds that are searched ("span"): repeats are not dropped, and whole parts are returned. Raises Corrupt.
        """
        from holdtrue.storage.journal.holding import LiveRows
        from holdtrue.storage.journal.reading import Query

        if self._live is None:
            self._live = LiveRows(self._index, _SEARCHED)
        return self._live.holding(Query(kind, project, service, _micros(since), _micros(until), None))

    def sealed(self, kind: str) -> "list[SealedPart]":
        """Return the sealed files of a kind, of all projects."""
        from holdtrue.storage.journal.holding import SealedPart

        sealed = self._index.contents().sealed
        return [SealedPart(each.rank, file) for each in sealed for file in each.files if file.kind == kind]

    def projects(self, kind: str) -> list[str]:
        """Return the projects that have records of a kind that is searched."""
        contents = self._index.contents()
        found = {file.project for each in contents.sealed for file in each.files if file.kind == kind}
        if contents.live:
            from holdtrue.storage.journal.holding import LiveRows

            if self._live is None:
                self._live = LiveRows(self._index, _SEARCHED)
            found |= self._live.projects(kind)
        return sorted(found)

    def rows(
        self, part: "SealedPart", columns: Sequence[str] | None = None, places: Sequence[int] | None = None
    ) -> "pa.Table":
        """Return rows of a sealed file by their places in it, ascending (None: all of them). Raises Corrupt."""
        from holdtrue.storage.journal.holding import read_rows

        return read_rows(self._index, part.file, columns, places)

    def live(self) -> tuple[str, ...]:
        """Return the names of the segments that are not sealed yet."""
        return tuple(name.text for name in self._index.contents().live)

    def meant(self, meant: "Meant") -> "Found":
        """Return the sealed rows that are meant, with the columns that tell."""
        from holdtrue.storage.journal.erasing import find_sealed
        from holdtrue.storage.journal.reading import settled

        return settled(lambda: find_sealed(self._index, meant))

    def erase(self, meant: "Meant") -> "Erased":
        """Take the sealed rows that are meant out for good; killed anywhere, the next call goes on.

        What is live has to be sealed first. Raises Locked, StorageFull, and Corrupt for a damaged file.
        """
        from holdtrue.storage.journal.erasing import erase_sealed

        with self._sealing:
            return erase_sealed(self._index, meant)

    def counts(self) -> dict[str, int]:
        """Return the number of appended rows, repeats included, of each stream "kind/project/service"."""
        from holdtrue.storage.journal.reading import count_rows

        return count_rows(self._index)

    def verify(self) -> Iterator[Damage]:
        """Read every byte and yield what is damaged."""
        from holdtrue.storage.journal.sealing import verify_all

        return verify_all(self._index)

    def repair(self) -> list[Damage]:
        """Set damaged bytes aside so that all intact records can be read; return what is lost.

        Damaged Parquet files move to the folder damaged; damaged segments keep their bytes, and move there
        when sealed.
        """
        from holdtrue.storage.journal.sealing import repair_all

        with self._sealing:
            return repair_all(self._index)


def _micros(moment: datetime | int | None) -> int | None:
    return microseconds(moment) if isinstance(moment, datetime) else moment
