"""Read spans back: parts of the journal to look into, rows of them, spans and traces out of rows."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from holdtrue.storage import Journal
from holdtrue.storage.journal.holding import LivePart, SealedPart
from holdtrue.traces.columns import among
from holdtrue.traces.indexing import Core, FileIndex, term_of, trace_numbers, usable_index
from holdtrue.traces.model import KIND, StoredSpan
from holdtrue.traces.words import Numbering, Numbers

# A column that is not read is not decoded: a page of traces may lie in as many files as it has lines.
LISTED: Final = (
    "id",
    "time",
    "end",
    "trace_id",
    "span_id",
    "parent_id",
    "name",
    "status",
    "release",
    "model",
    "input_tokens",
    "output_tokens",
    "cost",
    "user",
    "session",
    "prediction_id",
    "input",
)
MEASURED: Final = (
    "id",
    "time",
    "end",
    "trace_id",
    "span_id",
    "parent_id",
    "name",
    "status",
    "operation",
    "provider",
    "model",
    "input_tokens",
    "output_tokens",
    "cost",
)
WHOLE: Final = (
    *LISTED,
    "kind",
    "message",
    "prompt",
    "operation",
    "provider",
    "output",
    "scope",
    "clamped",
    "redacted",
    "dropped",
    "attributes",
    "events",
    "links",
    "resource",
)
_CORE: Final = ("trace_id", "time", "duration")
_THREADS: Final = 2
_ROW: Final = "_row"


@dataclass(slots=True)
class Part:
    """One part of the spans of a project: a sealed file, with its index if it has one, or live rows."""

    held: SealedPart | LivePart
    index: FileIndex | None
    core: Core

    @property
    def service(self) -> str:
        """Return the service whose spans these are."""
        return self.held.service


@dataclass(frozen=True, slots=True)
class Located:
    """Hold a span with its place: which part it is in, and which row of that."""

    span: StoredSpan
    part: int
    row: int


@dataclass(frozen=True, slots=True)
class _Job:
    """Some rows of a part that are to be read."""

    place: int
    part: Part
    rows: list[int]
    columns: Sequence[str]


class Spans:
    """The spans of a project at one moment."""

    def __init__(self, journal: Journal, folder: Path, project: str) -> None:
        """Look at what there is; `folder` holds the indexes."""
        self._journal = journal
        holding = journal.holding(KIND, project)
        numbering = Numbering() if holding.live else None
        held = sorted((*holding.sealed, *holding.live), key=lambda each: each.rank)
        self.parts = [self._part(folder, each, numbering) for each in held]

    def _part(self, folder: Path, held: SealedPart | LivePart, numbering: Numbering | None) -> Part:
        if isinstance(held, SealedPart):
            index = usable_index(folder, held.file.digest)
            if index is not None:
                return Part(held, index, index.core)
            table = self._journal.rows(held, _CORE)  # without an index, the file itself has everything
        else:
            table = held.table
        return Part(held, None, core_of(table, numbering or Numbering()))

    def table(self, part: Part, columns: Sequence[str], places: Sequence[int] | None = None) -> pa.Table:
        """Return rows of a part by their places, ascending (None: all), with those columns that it has."""
        if isinstance(part.held, SealedPart):
            return self._journal.rows(part.held, columns, places)
        table = part.held.table
        table = table.select([name for name in table.column_names if name in columns or name == _ROW])
        return table if places is None else table.take(pa.array(places, pa.int64()))

    def of_traces(self, traces: Numbers, columns: Sequence[str]) -> list[StoredSpan]:
        """Return all spans of some traces (by their numbers), the first of each id; and those of equal number."""
        return [each.span for each in self.located(traces, columns)]

    def located(self, traces: Numbers, columns: Sequence[str]) -> list[Located]:
        """Return the same with the place of each."""
        jobs: list[_Job] = []
        for place, part in enumerate(self.parts):
            present = traces[part.core.which(traces)]
            if len(present):
                rows = sorted(row for trace in present.tolist() for row in part.core.rows_of(trace))
                jobs.append(_Job(place, part, rows, columns))
        found: dict[str, Located] = {}
        # Parts are in order of arrival, and so are the rows of each.
        for job, table in zip(jobs, self._read(jobs), strict=True):
            order = np.argsort(table[_ROW].to_numpy(), kind="stable")
            for at, row in zip(order.tolist(), table.take(pa.array(order)).to_pylist(), strict=True):
                if row["id"] not in found:
                    found[row["id"]] = Located(span_of(row, job.part.service), job.place, job.rows[at])
        return list(found.values())

    def traces_with(self, column: str, values: Sequence[str]) -> set[int]:
        """Return the numbers of the traces that have a span with one of `values` in a column."""
        found: set[int] = set()
        for part in self.parts if values else ():
            if part.index is not None:
                with part.index.opened() as descriptor:
                    lists = [part.index.rows_with(descriptor, term_of(column, value)) for value in values]
                rows = np.concatenate([each for each, _ in lists])
            else:
                rows = np.flatnonzero(among(self.table(part, (column,)), column, values))
            found.update(part.core.traces[rows].tolist())
        return found

    def _read(self, jobs: Sequence["_Job"]) -> Iterable[pa.Table]:
        def read(job: _Job) -> pa.Table:
            return self.table(job.part, job.columns, job.rows)

        if len(jobs) < 3:
            return [read(job) for job in jobs]
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(read, jobs))


def core_of(table: pa.Table, numbering: Numbering) -> Core:
    """Return the core of rows that have no index."""
    return Core.of(
        table["time"].to_numpy().astype(np.int64),
        table["duration"].to_numpy().astype(np.int64),
        trace_numbers(table, numbering),
    )


def span_of(row: Mapping[str, Any], service: str) -> StoredSpan:
    """Return the span that a record says."""
    get = row.get
    return StoredSpan(
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        parent_id=get("parent_id"),
        service=service,
        name=get("name") or "",
        kind=get("kind") or "unspecified",
        start=row["time"],
        end=row["end"],
        status=get("status") or "unset",
        message=get("message") or "",
        release=get("release"),
        prompt=get("prompt"),
        operation=get("operation"),
        provider=get("provider"),
        model=get("model"),
        input_tokens=get("input_tokens"),
        output_tokens=get("output_tokens"),
        cost=get("cost"),
        user=get("user"),
        session=get("session"),
        prediction_id=get("prediction_id"),
        input=get("input"),
        output=get("output"),
        scope=get("scope") or "",
        clamped=bool(get("clamped")),
        redacted=get("redacted") or 0,
        dropped=get("dropped") or 0,
        attributes=_object(get("attributes")),
        resource=_object(get("resource")),
        events=tuple(_list(get("events"))),
        links=tuple(_list(get("links"))),
        text=get("text") or "",
    )


def _object(text: str | None) -> dict[str, Any]:
    return orjson.loads(text) if text else {}


def _list(text: str | None) -> list[dict[str, Any]]:
    return orjson.loads(text) if text else []
