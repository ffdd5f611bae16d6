"""Find traces: candidates out of every part, the newest first, then the traces of one page, read and checked.

A sealed file with an index answers each condition from its lists of rows; without one, and where rows are live, the
columns themselves are compared. Either way a page's spans are read whole and held against the filter again, so that an
index can cost a look but never change an answer. A trace stands where its newest span stands that meets the filter.
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
from holdtrue.traces.indexing import Core, intersection, pair_term, pair_texts, term_of, word_term
from holdtrue.traces.model import Page, StoredSpan, Summary, TraceFilter
from holdtrue.traces.reading import LISTED, Part, Spans
from holdtrue.traces.rules import EQUAL, gather, meets, summary_of
from holdtrue.traces.words import Numbers, patterns_of, words

MOST_WORDS: Final = 32
_CURSOR = re.compile(r"(\d{1,18})-([0-9a-f]{10})")
_LEAST: Final = 8
_ATTRIBUTES: Final = ("attributes", "resource")


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
        columns = [*LISTED]
        if self._words:
            columns.append("text")
        if wanted.attributes:
            columns += _ATTRIBUTES
        self._columns = tuple(columns)
        # Spans of the traces that were looked at, by trace.
        self.read: dict[str, list[StoredSpan]] = {}
        self._below = read_cursor(wanted.cursor)
        self._newest: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        # The newest part is the last of these; one older than what fills the page is not looked into.
        self._ahead = sorted(spans.parts, key=lambda part: part.core.last)

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
            bound = self._ahead[-1].core.last if self._ahead else -1
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
        found: list[tuple[int, int, Summary]] = []
        gathered = dict(gather(self._spans.of_traces(np.array(list(places), np.uint64), self._columns)))
        deleted = self._hidden(list(gathered))
        for trace_id, spans in gathered.items():
            if trace_id in deleted:
                continue
            number = term_of("trace_id", trace_id)
            if number in places and any(self._meets(span) for span in spans):
                self.read[trace_id] = spans
                found.append((places[number], number, summary_of(spans)))
        return sorted(found, key=lambda item: item[:2], reverse=True)

    def _meets(self, span: StoredSpan) -> bool:
        said = frozenset(words(span.text)) if self._words else frozenset[str]()
        return meets(span, self._wanted, self._words, _texts_of((span.attributes, span.resource), self._wanted), said)

    def _candidates(self, part: Part) -> list[tuple[int, int]]:
        """Return (trace, newest time) of the rows of a part that may meet the filter."""
        wanted, core = self._wanted, part.core
        if wanted.service is not None and part.service != wanted.service:
            return []
        if wanted.since is not None and core.last < wanted.since:
            return []
        if wanted.until is not None and core.first >= wanted.until:
            return []
        rows = self._by_index(part) if part.index is not None else self._by_columns(part)
        if rows is not None and not len(rows):
            return []
        times = core.times if rows is None else core.times[rows]
        traces = core.traces if rows is None else core.traces[rows]
        kept = self._bounded(core, rows, times, traces)
        if kept is not None:
            times, traces = times[kept], traces[kept]
        if not len(times):
            return []
        order = np.lexsort((times, traces))
        lasts = np.flatnonzero(np.append(traces[order][1:] != traces[order][:-1], True))
        return list(zip(traces[order][lasts].tolist(), times[order][lasts].tolist(), strict=True))

    def _bounded(
        self, core: Core, rows: NDArray[np.int64] | None, times: NDArray[np.int64], traces: Numbers
    ) -> NDArray[np.bool_] | None:
        wanted = self._wanted
        kept: list[NDArray[np.bool_]] = []
        if wanted.since is not None:
            kept.append(times >= wanted.since)
        if wanted.until is not None:
            kept.append(times < wanted.until)
        if wanted.min_duration is not None:
            durations = core.durations if rows is None else core.durations[rows]
            kept.append(durations >= wanted.min_duration)
        if self._among is not None:
            kept.append(np.isin(traces, self._among))
        return np.logical_and.reduce(kept) if kept else None

    def _by_index(self, part: Part) -> NDArray[np.int64] | None:
        if not self._terms:
            return None
        assert part.index is not None
        lists: list[NDArray[np.int64]] = []
        with part.index.opened() as descriptor:
            for term in self._terms:
                rows = part.index.rows_with(descriptor, term)
                if not len(rows):
                    return rows
                lists.append(rows)
        return intersection(lists)

    def _by_columns(self, part: Part) -> NDArray[np.int64] | None:
        """Return the rows that meet the conditions on columns, compared one column after the other."""
        exact = {name: value for name in EQUAL if (value := getattr(self._wanted, name)) is not None}
        if not self._terms:
            return None
        columns = [*exact, *(["text"] if self._words else [])]
        columns += _ATTRIBUTES if self._wanted.attributes else ()
        table = self._spans.table(part, columns)
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
        if not self._wanted.attributes or not len(rows):
            return rows
        found = table.take(pa.array(rows))
        texts = [found[name].to_pylist() if name in found.column_names else [None] * len(rows) for name in _ATTRIBUTES]
        return rows[[self._has(*each) for each in zip(*texts, strict=True)]]

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
