"""Use cases of traces: find one, search them, keep their indexes, join what people said about them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.storage import Stores, make_folder
from holdtrue.traces import feedback as said
from holdtrue.traces import infos
from holdtrue.traces.indexing import NEEDED, build_index, remove_others, trace_number, usable_index, write_index
from holdtrue.traces.measures import Measure, Point, check, facts, needs_spans, points
from holdtrue.traces.model import KIND, Feedback, Page, StoredSpan, Trace, TraceFilter
from holdtrue.traces.reading import MEASURED, WHOLE, Spans
from holdtrue.traces.rules import nested, summary_of
from holdtrue.traces.searching import Search
from holdtrue.traces.words import Numbering, Numbers

MOST_SPANS: Final = 10_000
MOST_PAGE: Final = 500
_SECONDS: Final = 2.0


def index_folder(home: Path) -> Path:
    """Return the folder of the search indexes of a data folder."""
    return home / "traces" / "index"


def find_trace(stores: Stores, project: str, trace_id: str) -> Trace:
    """Return a trace of `project` with all its spans (the first ten thousand); raise NotFound."""
    traces = np.array([trace_number(trace_id)], np.uint64)
    found = Spans(stores.journal, index_folder(stores.home), project).of_traces(traces, WHOLE)
    spans = [span for span in found if span.trace_id == trace_id]
    if not spans or stores.ledger.read(lambda c: infos.hidden(c, project, [trace_id])):
        raise no_trace()
    spans.sort(key=lambda span: (span.start, span.span_id))
    about = _about(stores, project, {trace_id: spans})[trace_id]
    shown = [span for span, _ in nested(spans[:MOST_SPANS])]
    return Trace(replace(summary_of(spans), feedback=about), tuple(shown), about)


def find_anywhere(stores: Stores, trace_id: str) -> Trace:
    """Return the trace of whichever project has it; NotFound, or InvalidInput if several do."""
    found: list[Trace] = []
    for project in stores.journal.projects(KIND):
        try:
            found.append(find_trace(stores, project, trace_id))
        except NotFound:
            continue
    if not found:
        raise no_trace()
    if len(found) > 1:
        raise InvalidInput("Several projects have a trace of this id.", mend="Name one: ?project=NAME")
    return found[0]


def no_trace() -> NotFound:
    """Return the one answer for a trace that is not there and for one that is another project's."""
    return NotFound("There is no trace of this id here.", mend="List what there is: holdtrue traces")


def search(stores: Stores, wanted: TraceFilter) -> Page:
    """Return a page of the traces that meet a filter, the newest first, with their feedback; InvalidInput."""
    if not 1 <= wanted.limit <= MOST_PAGE:
        raise InvalidInput(f"The limit {wanted.limit} cannot be used.", mend=f"Give a number from 1 to {MOST_PAGE}.")
    spans = Spans(stores.journal, index_folder(stores.home), wanted.project)
    among = None
    if wanted.feedback is not None:
        among = _rated(stores, spans, wanted)
    chosen = Search(
        spans, wanted, among, lambda ids: stores.ledger.read(lambda c: infos.hidden(c, wanted.project, ids))
    )
    page = chosen.page()
    about = _about(stores, wanted.project, {each.trace_id: chosen.read[each.trace_id] for each in page.items})
    return Page(tuple(replace(each, feedback=about[each.trace_id]) for each in page.items), page.next)


def spans_of(stores: Stores, project: str, trace_ids: Sequence[str]) -> dict[str, list[StoredSpan]]:
    """Return the spans of several traces by trace, in the order of their starts; of each the first ten thousand."""
    found: dict[str, list[StoredSpan]] = {trace_id: [] for trace_id in trace_ids}
    numbers = np.array(sorted({trace_number(each) for each in found}), np.uint64)
    for span in Spans(stores.journal, index_folder(stores.home), project).of_traces(numbers, WHOLE):
        if span.trace_id in found:
            found[span.trace_id].append(span)
    for spans in found.values():
        spans.sort(key=lambda span: (span.start, span.span_id))
        del spans[MOST_SPANS:]
    return found


def measure(
    stores: Stores, project: str, experiments: Sequence[int], when: tuple[int, int], wish: Measure
) -> list[Point]:
    """Return aggregates over the traces of experiments that began between two moments (ms); raise InvalidInput."""
    wish = check(wish)
    found = stores.ledger.read(lambda c: infos.within(c, project, experiments, *when))
    spans: dict[str, list[StoredSpan]] = {each.id: [] for each in found}
    if spans and needs_spans(wish):
        numbers = np.array(sorted({trace_number(each) for each in spans}), np.uint64)
        columns = (*MEASURED, "attributes") if wish.view == "SPANS" else MEASURED
        for span in Spans(stores.journal, index_folder(stores.home), project).of_traces(numbers, columns):
            if span.trace_id in spans:
                spans[span.trace_id].append(span)
    return points(wish, facts(wish, found, spans))


def _about(stores: Stores, project: str, traces: Mapping[str, Sequence[StoredSpan]]) -> dict[str, tuple[Feedback, ...]]:
    """Return the feedback on traces, and those of their assessments that are numbers, in order of time."""
    found = said.of_traces(stores.journal, project, traces)
    judged = stores.ledger.read(lambda c: infos.opinions(c, project, list(traces)))
    return {
        trace: tuple(sorted((*about, *judged.get(trace, ())), key=lambda each: each.time))
        for trace, about in found.items()
    }


def _rated(stores: Stores, spans: Spans, wanted: TraceFilter) -> Numbers:
    """Return the numbers of the traces that have the feedback that is asked for."""
    asked = wanted.feedback
    assert asked is not None
    found = said.matching(stores.journal, wanted.project, asked)
    traces = {trace_number(each.trace_id) for each in found if each.trace_id}
    judged = stores.ledger.read(lambda c: infos.rated(c, wanted.project, asked))
    traces |= {trace_number(each) for each in judged}
    for column, values in (
        ("span_id", {each.span_id for each in found if each.span_id and not each.trace_id}),
        ("prediction_id", {each.prediction_id for each in found if each.prediction_id and not each.trace_id}),
    ):
        traces |= spans.traces_with(column, sorted(values))
    return np.array(sorted(traces), np.uint64)


def refresh(stores: Stores, monotonic: Callable[[], float], seconds: float = _SECONDS) -> int:
    """Make the indexes that are missing, for at most so many seconds, and remove those of no file; return how many.

    Killed anywhere it leaves whole indexes only; searches read a file that has none.
    """
    folder = make_folder(index_folder(stores.home))
    sealed = stores.journal.sealed(KIND)
    started = monotonic()
    made = 0
    numbering: Numbering | None = None
    # The newest first: that is where searches look first, too.
    for part in sorted(sealed, key=lambda each: (each.file.day, each.rank), reverse=True):
        if usable_index(folder, part.file.digest) is not None:
            continue
        if monotonic() - started > seconds:
            break
        numbering = numbering or Numbering()
        write_index(folder, part.file.digest, build_index(stores.journal.rows(part, NEEDED), numbering))
        made += 1
    return made + remove_others(folder, (part.file.digest for part in sealed))
