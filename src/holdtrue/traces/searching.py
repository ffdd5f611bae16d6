"""Find traces: candidates out of every part, the newest first, then the traces of one page, read and checked.

A sealed file with an index answers each condition from its lists of rows. Where these are not sure (two terms share a
number, or a value is longer than what is indexed), where there is no index, and where rows are live, the columns
themselves are compared. Of the traces of a page only what is shown is read; long texts stay where they are. A trace
stands where its newest span stands that meets the filter, and of a doubled span the first counts.
"""

import heapq
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from holdtrue.core.errors import InvalidInput
from holdtrue.traces.columns import containing, equal, matching
from holdtrue.traces.indexing import (
    Core,
    FileIndex,
    intersection,
    pair_term,
    pair_texts,
    term_of,
    trace_number,
    word_term,
)
from holdtrue.traces.model import Page, StoredSpan, Summary, TraceFilter
from holdtrue.traces.reading import LISTED, Located, Part, Spans
from holdtrue.traces.rules import EQUAL, gather, summary_of
from holdtrue.traces.words import Numbers, patterns_of, words

MOST_WORDS: Final = 32
_CURSOR = re.compile(r"(\d{1,18})-([0-9a-f]{10})")
_LEAST: Final = 8
_ATTRIBUTES: Final = ("attributes", "resource")


Rows = NDArray[np.int64] | None
_NO_ROWS: Final = np.empty(0, np.int64)


class Search:
    """One search of the spans of a project."""

    def __init__(
        self,
        spans: Spans,
        wanted: TraceFilter,
        among: Numbers | None = None,
        hidden: Callable[[Sequence[str]], Collection[str]] = lambda _: (),
    ) -> None:
        """`among`: only these traces, by their numbers (feedback was asked for); `hidden` names deleted ones."""
        self._hidden = hidden
        self._spans = spans
        self._wanted = wanted
        self._among = among
        self._words = list(dict.fromkeys(words(wanted.text)))[:MOST_WORDS]
        self._terms = [
            *(term_of(name, value) for name in EQUAL if (value := getattr(wanted, name)) is not None),
            *(word_term(word) for word in self._words),
            *(pair_term(name, value) for name, value in wanted.attributes.items()),
        ]
        self._matches: dict[int, Rows] = {}
        # Spans of the traces that were looked at, by trace.
        self.read: dict[str, list[StoredSpan]] = {}
        self._below = read_cursor(wanted.cursor)
        self._newest: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        # The newest part is the last of these; one older than what fills the page is not looked into.
        self._lasts = [part.core.last for part in spans.parts]
        self._ahead = sorted(range(len(spans.parts)), key=self._lasts.__getitem__)

    def page(self) -> Page:
        """Return the page that the filter asks for."""
        limit = self._wanted.limit
        items: list[tuple[int, int, Summary]] = []
        # One more than fit: whether there is a next page is an answer, too.
        while len(items) <= limit and (batch := self._next(max(limit + 1 - len(items), _LEAST))):
            items += self._checked(batch)
        shown = items[:limit]
        following = f"{shown[-1][0]}-{shown[-1][1]:010x}" if len(items) > limit else None
        return Page(tuple(summary for _, _, summary in shown), following)

    def _next(self, count: int) -> list[tuple[int, int]]:
        """Return the next (time, trace) of candidates, the newest first; fewer than `count` are the last there are.

        A candidate is next when its newest span is newer than all of the parts not looked into.
        """
        ready: list[tuple[int, int]] = []
        while True:
            bound = self._lasts[self._ahead[-1]] if self._ahead else -1
            while self._heap and len(ready) < count and -self._heap[0][0] > bound:
                time, trace = heapq.heappop(self._heap)
                if self._newest[-trace] == -time:
                    ready.append((-time, -trace))
            if len(ready) == count or not self._ahead:
                return ready
            for trace, time in self._candidates(self._ahead.pop()):
                if time > self._newest.get(trace, -1):
                    self._newest[trace] = time
                    if (time, trace) < self._below:
                        heapq.heappush(self._heap, (-time, -trace))

    def _checked(self, batch: Sequence[tuple[int, int]]) -> list[tuple[int, int, Summary]]:
        """Return the traces of these numbers that have a span which meets the filter in truth."""
        places = {trace: time for time, trace in batch}
        located = self._spans.located(np.array(list(places), np.uint64), LISTED)
        where = {(each.span.trace_id, each.span.span_id): each for each in located}
        found: list[tuple[int, int, Summary]] = []
        gathered = dict(gather([each.span for each in located]))
        deleted = self._hidden(list(gathered))
        moved: list[tuple[int, int]] = []
        for trace_id, spans in gathered.items():
            number = trace_number(trace_id)
            if number not in places or trace_id in deleted:
                continue
            times = [span.start for span in spans if self._holds(where[trace_id, span.span_id])]
            if times and max(times) < places[number]:
                moved.append((max(times), number))
            elif times:
                self.read[trace_id] = spans
                found.append((places[number], number, summary_of(spans)))
        found.sort(key=lambda item: item[:2], reverse=True)
        return self._before(found, moved) if moved else found

    def _before(
        self, found: Sequence[tuple[int, int, Summary]], moved: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, Summary]]:
        """Put traces back that stand further below than rows which do not meet the filter said, and all below them."""
        first = max(moved)
        for time, number in (*moved, *(item[:2] for item in found if item[:2] < first)):
            self._newest[number] = time
            heapq.heappush(self._heap, (-time, -number))
        return [item for item in found if item[:2] > first]

    def _holds(self, located: Located) -> bool:
        """Tell whether a span, the first of its id, meets the filter."""
        rows = self._match(located.part)
        if rows is None:
            return True
        at = int(np.searchsorted(rows, located.row))
        return at < len(rows) and int(rows[at]) == located.row

    def _candidates(self, place: int) -> list[tuple[int, int]]:
        """Return (trace, newest time) of the rows of a part that may meet the filter."""
        core, rows = self._spans.parts[place].core, self._match(place)
        times = core.times if rows is None else core.times[rows]
        traces = core.traces if rows is None else core.traces[rows]
        if not len(times):
            return []
        order = np.lexsort((times, traces))
        lasts = np.flatnonzero(np.append(traces[order][1:] != traces[order][:-1], True))
        return list(zip(traces[order][lasts].tolist(), times[order][lasts].tolist(), strict=True))

    def _match(self, place: int) -> Rows:
        """Return the rows of a part that meet the filter, ascending (None: all)."""
        if place not in self._matches:
            self._matches[place] = self._matching(self._spans.parts[place])
        return self._matches[place]

    def _matching(self, part: Part) -> Rows:
        wanted, core = self._wanted, part.core
        if wanted.service is not None and part.service != wanted.service:
            return _NO_ROWS
        if wanted.since is not None and core.last < wanted.since:
            return _NO_ROWS
        if wanted.until is not None and core.first >= wanted.until:
            return _NO_ROWS
        if not self._terms:
            return self._bounded(core, None)
        if part.index is None:
            return self._bounded(core, self._by_columns(part, None))
        rows, sure = self._by_index(part.index)
        rows = self._bounded(core, rows)
        return rows if sure or not len(rows) else self._by_columns(part, rows)

    def _bounded(self, core: Core, rows: Rows) -> Any:
        """Return of these rows those within the bounds of the filter."""
        wanted = self._wanted
        kept: list[NDArray[np.bool_]] = []
        if wanted.since is not None or wanted.until is not None:
            times = core.times if rows is None else core.times[rows]
            kept += [times >= wanted.since] if wanted.since is not None else []
            kept += [times < wanted.until] if wanted.until is not None else []
        if wanted.min_duration is not None:
            kept.append((core.durations if rows is None else core.durations[rows]) >= wanted.min_duration)
        if self._among is not None:
            kept.append(np.isin(core.traces if rows is None else core.traces[rows], self._among))
        if not kept:
            return rows
        mask = np.logical_and.reduce(kept)
        return np.flatnonzero(mask) if rows is None else rows[mask]

    def _by_index(self, index: FileIndex) -> tuple[NDArray[np.int64], bool]:
        """Return the rows that may meet the conditions on columns, and whether they surely do."""
        lists: list[NDArray[np.int64]] = []
        sure = True
        with index.opened() as descriptor:
            for term in self._terms:
                rows, exact = index.rows_with(descriptor, term)
                if not len(rows):
                    return rows, True
                lists.append(rows)
                sure &= exact
        return intersection(lists), sure

    def _by_columns(self, part: Part, among: Rows) -> NDArray[np.int64]:
        """Return of these rows those that meet the conditions on columns, compared one column after the other."""
        exact = {name: value for name in EQUAL if (value := getattr(self._wanted, name)) is not None}
        columns = [*exact, *(["text"] if self._words else [])]
        columns += _ATTRIBUTES if self._wanted.attributes else ()
        table = self._spans.table(part, columns, None if among is None else among.tolist())
        mask: NDArray[np.bool_] = np.ones(table.num_rows, np.bool_)
        for name, value in exact.items():
            mask &= equal(table, name, value)
        for word in self._words:
            mask &= containing(table, "text", word)
            if mask.any():
                mask &= having(table, word)
        for name in self._wanted.attributes:
            key = f"{orjson.dumps(name).decode()}:"
            mask &= containing(table, "attributes", key) | containing(table, "resource", key)
        rows = np.flatnonzero(mask)
        if self._wanted.attributes and len(rows):
            found = table.take(pa.array(rows))
            nothing = [None] * len(rows)
            texts = [found[name].to_pylist() if name in found.column_names else nothing for name in _ATTRIBUTES]
            rows = rows[[self._has(*each) for each in zip(*texts, strict=True)]]
        return rows if among is None else among[rows]

    def _has(self, *texts: str | None) -> bool:
        """Tell whether the attributes of a span and its resource, as JSON, hold all that is asked for."""
        have = _texts_of([orjson.loads(text) for text in texts if text], self._wanted)
        return all(value in have.get(name, ()) for name, value in self._wanted.attributes.items())


def having(table: pa.Table, word: str) -> NDArray[np.bool_]:
    """Tell which rows have a word in their text."""
    sure, maybe = (matching(table, "text", pattern) for pattern in patterns_of(word))
    open_ones = np.flatnonzero(maybe & ~sure)
    if len(open_ones):
        texts = table["text"].take(pa.array(open_ones)).to_pylist()
        sure[open_ones] = [word in words(text) for text in texts]
    return sure


def _texts_of(sources: Sequence[Mapping[str, Any]], wanted: TraceFilter) -> dict[str, list[str]]:
    """Return the texts of those attributes that a filter asks for."""
    found: dict[str, list[str]] = {}
    for attributes in sources if wanted.attributes else ():
        for name, text in pair_texts({key: attributes[key] for key in wanted.attributes if key in attributes}):
            found.setdefault(name, []).append(text)
    return found


def read_cursor(cursor: str | None) -> tuple[int, int]:
    """Return the place that a cursor stands for; InvalidInput for one that no page gave."""
    if cursor is None:
        return 1 << 62, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInput("This page does not exist.", mend="Start again at the newest trace.")
    return int(match[1]), int(match[2], 16)
