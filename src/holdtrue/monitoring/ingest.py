"""Read new records of a service, join labels to predictions, and bring its windows up to date."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import microseconds
from holdtrue.monitoring.answering import answers_with
from holdtrue.monitoring.joining import coalesce, column
from holdtrue.monitoring.measuring import Answering
from holdtrue.monitoring.model import Window
from holdtrue.monitoring.quality import ALL, DAY_MICROS, Key, day_date, day_number, window_of
from holdtrue.monitoring.scored import (
    DayScores,
    Hashes,
    Labels,
    add,
    apply,
    empty_day,
    hashes,
    in_order,
    joined_days,
    unpack_labels,
    with_chances,
)
from holdtrue.monitoring.store import (
    DayKey,
    Watch,
    first_day,
    put_days,
    put_watch,
    put_windows,
    read_days,
    read_watches,
    read_windows,
    unmeasured,
)
from holdtrue.stats.arrays import Floats
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction, WriteContext

# A label is looked for at once among the predictions of so many days back; most belong to the last few. What is older
# is read so many days at a time: once a day for all that wait, and at once for those that came since, unless that was
# in vain too often on this day.
_LOOK_BACK = (3, 11, 61)
_DEEPER_DAYS = 31
_IN_VAIN = 24
_MOST_UNMEASURED = 200
_MOST_PENDING = 200_000
_PREDICTION = ("id", "time", "prediction_id", "key", "score", "fallback", "release", "role")
_CHANCE = "p_{}"
_LABEL = ("id", "time", "prediction_id", "key", "value", "known_at")


@dataclass(frozen=True, slots=True)
class Looked:
    """Tell whether labels were looked for among all predictions on this `day`, and how often in vain since then."""

    day: int
    days_first: bool
    in_vain: int

    @classmethod
    def of(cls, stored: int | None, today: int) -> "Looked":
        """Read what was stored of the last day; of another day it says nothing."""
        day, in_vain = (-1, 0) if stored is None else divmod(stored, 2 * _IN_VAIN)
        return cls(today, day != today, in_vain if day == today else 0)

    @property
    def stored(self) -> int | None:
        """Return it as one number; None if nothing was looked for on this day."""
        return None if self.days_first else self.day * 2 * _IN_VAIN + self.in_vain

    def after(self, *, in_vain: bool) -> "Looked":
        """Return it after one more time."""
        return Looked(self.day, False, self.in_vain + in_vain)


@dataclass(frozen=True, slots=True)
class Fresh:
    """Hold new predictions of one release, role and day."""

    ids: Hashes
    keys: Hashes
    scores: npt.NDArray[np.float32]
    chances: npt.NDArray[np.float32] | None = None


def due_before(now: datetime, delay_days: int) -> int:
    """Return the day number before which all labels are due, `delay_days` after the end of their day."""
    return microseconds(now) // DAY_MICROS - delay_days


def ingest(stores: Stores, project: str, watch: Watch) -> bool:
    """Read what is new for one service and store scores, labels and windows with the new cursors.

    All of it is one transaction, so a crash repeats the work and doubles nothing. Returns whether anything
    was written: not when there is nothing new, nor when another process was faster.
    """
    predictions, at_prediction = _answers(stores, project, watch)
    labels, at_label = stores.journal.tail("label", project, watch.service, watch.label_cursor, columns=_LABEL)
    now = stores.clock.now()
    horizon = due_before(now, watch.delay_days)
    unsettled = stores.ledger.read(
        lambda conn: read_windows(conn, project, watch.service, grain="day", until=day_date(horizon), unsettled=True)
    )
    behind = stores.ledger.read(lambda conn: unmeasured(conn, project, watch.service, _MOST_UNMEASURED))
    looked = Looked.of(watch.searched, microseconds(now) // DAY_MICROS)
    is_late = bool(watch.pending) and looked.days_first
    if predictions.num_rows == 0 and labels.num_rows == 0 and not unsettled and not behind and not is_late:
        return False
    read, invalid = label_arrays(labels)
    days, dirty, resting, arrived = _join(stores, project, watch, fresh_days(predictions), read)
    waiting = in_order([resting, arrived])
    everywhere = looked.days_first and waiting.n > 0
    if everywhere:
        waiting = _search_all(stores, project, watch.service, days, dirty, waiting)
        looked = looked.after(in_vain=False)
    elif arrived.n and looked.in_vain < _IN_VAIN:
        left = _search_all(stores, project, watch.service, days, dirty, arrived)
        waiting, looked = in_order([resting, left]), looked.after(in_vain=left.n == arrived.n)
    # What became known long ago is given up only when it has been looked for everywhere.
    kept, forgotten = _keep(waiting, microseconds(now), everywhere=everywhere)
    _refill(stores, project, watch.service, days, dirty, behind)
    matured = {(each.release, each.role, day_number(each.start)) for each in unsettled}
    found = _windows(stores, project, watch.service, days, dirty | matured | {*behind}, horizon)
    moved = replace(
        watch,
        searched=looked.stored,
        prediction_cursor=at_prediction,
        label_cursor=at_label,
        pending=kept.pack(),
        invalid_labels=watch.invalid_labels + invalid,
        forgotten_labels=watch.forgotten_labels + forgotten,
    )

    def store(tx: Transaction) -> bool:
        if read_watches(tx.connection, project, watch.service) != [watch]:
            return False
        put_days(tx, watch.service, {key: days[key] for key in sorted(dirty)})
        put_windows(tx, found)
        put_watch(tx, moved)
        return True

    return stores.ledger.write(WriteContext(SYSTEM, project), store)


def _answers(stores: Stores, project: str, watch: Watch) -> tuple[pa.Table, str]:
    """Return the new predictions of a service; of releases that tell several classes apart, with their chances."""

    def read(columns: Sequence[str]) -> tuple[pa.Table, str]:
        return stores.journal.tail(
            "prediction", project, watch.service, watch.prediction_cursor, columns=(*_PREDICTION, *columns)
        )

    table, cursor = read(())
    releases = set(column(table, "release", pa.string()).unique().to_pylist()) - {None}
    most = max((each.classes for each in _answering(stores, project, releases).values()), default=0)
    return read(list(map(_CHANCE.format, range(most)))) if most else (table, cursor)


def fresh_days(table: pa.Table) -> dict[DayKey, Fresh]:
    """Return the predictions of a journal table by release, role and day; a fallback's score counts as none."""
    if table.num_rows == 0:
        return {}
    names = column(table, "prediction_id", pa.string())
    ids = hash_column(coalesce(names, column(table, "id", pa.string())))
    keys = hash_column(column(table, "key", pa.string()))
    scores = pc.fill_null(column(table, "score", pa.float64()), float("nan")).to_numpy().astype(np.float32)
    fell = pc.fill_null(column(table, "fallback", pa.bool_()), False).to_numpy()
    scores = np.where(fell | ~np.isfinite(scores), np.float32(np.nan), scores)
    day = table["time"].to_numpy() // DAY_MICROS
    release = pc.fill_null(column(table, "release", pa.string()), "").to_numpy().astype(str)
    role = pc.fill_null(column(table, "role", pa.string()), "answer").to_numpy().astype(str)
    chances = _chances(table, fell)
    order = np.lexsort((day, role, release))
    release, role, day = release[order], role[order], day[order]
    changes = (release[1:] != release[:-1]) | (role[1:] != role[:-1]) | (day[1:] != day[:-1])
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), order.size]
    found: dict[DayKey, Fresh] = {}
    for begin, end in itertools.pairwise(edges):
        # Rows keep the order in which they came, so that the first of equal ids is the first that came.
        rows = np.sort(order[begin:end])
        key = (str(release[begin]), str(role[begin]), int(day[begin]))
        found[key] = Fresh(ids[rows], keys[rows], scores[rows], _present(chances[rows]))
    return found


def _chances(table: pa.Table, fell: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return the probabilities of classes that records hold, float32 [n, k], NaN where there are none."""
    names = [_CHANCE.format(place) for place in range(len(table.column_names))]
    columns = [
        pc.fill_null(column(table, name, pa.float64()), float("nan")).to_numpy()
        for name in itertools.takewhile(table.column_names.__contains__, names)
    ]
    made = np.array(columns, np.float32).reshape(len(columns), table.num_rows).T
    return np.where(fell[:, None], np.float32(np.nan), made)


def _present(chances: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """Return the probabilities of as many classes as any row has; None for none."""
    known = np.flatnonzero(np.isfinite(chances).any(axis=0))
    return chances[:, : known[-1] + 1] if known.size else None


def label_arrays(table: pa.Table) -> tuple[Labels, int]:
    """Return the labels of a journal table in the order in which they became known, and how many are invalid.

    A label is valid if its value is a finite number and it has a key or a prediction id.
    """
    value = pc.fill_null(column(table, "value", pa.float64()), float("nan")).to_numpy()
    known = coalesce(column(table, "known_at", pa.int64()), column(table, "time", pa.int64()))
    with np.errstate(over="ignore"):
        # What is too large for 32 bits becomes infinite, and so invalid.
        kept = value.astype(np.float32)
    labels = Labels(
        hash_column(column(table, "key", pa.string())),
        hash_column(column(table, "prediction_id", pa.string())),
        kept,
        pc.fill_null(known, 0).to_numpy().astype(np.int64),
    )
    valid = np.isfinite(labels.values) & ((labels.keys != 0) | (labels.ids != 0))
    return in_order([labels.take(valid)]), int(labels.n - valid.sum())


def hash_column(values: pa.ChunkedArray) -> Hashes:
    """Return the hashes of a text column, uint64[n]; each distinct text (shadows repeat them) is hashed once."""
    encoded = values.combine_chunks().dictionary_encode()
    distinct = np.append(hashes(encoded.dictionary.to_pylist()), np.uint64(0))
    return distinct[pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)]


def _join(
    stores: Stores, project: str, watch: Watch, fresh: Mapping[DayKey, Fresh], labels: Labels
) -> tuple[dict[DayKey, DayScores], set[DayKey], Labels, Labels]:
    """Return the days read, which of them changed, and the labels that find no prediction: old ones, and new ones."""
    service = watch.service
    days: dict[DayKey, DayScores] = {}
    dirty: set[DayKey] = set()
    if fresh:
        first, last = min(key[2] for key in fresh), max(key[2] for key in fresh)
        held = stores.ledger.read(lambda conn: read_days(conn, project, service, first, last + 1))
        for key, new in fresh.items():
            days[key] = add(held.get(key, empty_day()), new.ids, new.keys, new.scores, new.chances)
            dirty.add(key)
    waiting = in_order([unpack_labels(watch.pending), labels])
    waiting = _apply(days, dirty, list(fresh), waiting)
    # Labels that waited before this call have been looked for everywhere but among what is new.
    older = unpack_labels(watch.pending)
    is_old = np.isin(waiting.keys, older.keys) & np.isin(waiting.ids, older.ids)
    is_old &= np.isin(waiting.known_at, older.known_at)
    searching, resting = waiting.take(~is_old), waiting.take(is_old)
    newest = microseconds(stores.clock.now()) // DAY_MICROS + 1
    until = newest + 1
    for back in _LOOK_BACK:
        if searching.n == 0:
            break
        since, before = newest - back, until
        held = stores.ledger.read(lambda conn, a=since, b=before: read_days(conn, project, service, a, b))
        for key, scores in held.items():
            days.setdefault(key, scores)
        searching = _apply(days, dirty, list(held), searching)
        until = since
    return days, dirty, resting, searching


def _search_all(
    stores: Stores, project: str, service: str, days: dict[DayKey, DayScores], dirty: set[DayKey], waiting: Labels
) -> Labels:
    """Join labels to predictions older than those among which they were looked for; return those that found none.

    Of what is read only the days that a label changes are kept.
    """
    begun = stores.ledger.read(lambda conn: first_day(conn, project, service))
    first = None if begun is None else day_number(begun)
    until = microseconds(stores.clock.now()) // DAY_MICROS + 1 - _LOOK_BACK[-1]
    while first is not None and until > first and waiting.n:
        since = max(until - _DEEPER_DAYS, first)
        held = stores.ledger.read(lambda conn, a=since, b=until: read_days(conn, project, service, a, b))
        read = {key: days.get(key, scores) for key, scores in held.items()}
        changed: set[DayKey] = set()
        waiting = _apply(read, changed, list(held), waiting)
        days.update({key: read[key] for key in changed})
        dirty |= changed
        until = since
    return waiting


def _apply(days: dict[DayKey, DayScores], dirty: set[DayKey], among: Iterable[DayKey], labels: Labels) -> Labels:
    """Join labels to the days `among`, and return those that found no prediction there."""
    if labels.n == 0:
        return labels
    found = np.zeros(labels.n, np.bool_)
    for key in among:
        changed, hit = apply(days[key], labels)
        if hit.any():
            if changed is not days[key]:
                dirty.add(key)
            days[key] = changed
            found |= hit
    return labels.take(~found)


def _keep(waiting: Labels, now_us: int, *, everywhere: bool) -> tuple[Labels, int]:
    """Return the labels that go on waiting, and the number of those given up: too old, or too many."""
    recent = waiting.known_at >= now_us - _LOOK_BACK[-1] * DAY_MICROS
    kept = waiting.take(recent) if everywhere else waiting
    if kept.n > _MOST_PENDING:
        kept = kept.take(np.arange(kept.n - _MOST_PENDING, kept.n))
    return kept, waiting.n - kept.n


def _refill(
    stores: Stores,
    project: str,
    service: str,
    days: dict[DayKey, DayScores],
    dirty: set[DayKey],
    behind: Sequence[DayKey],
) -> None:
    """Give days of classes that were read without probabilities those that their records hold."""
    answering = _answering(stores, project, {release for release, _, _ in behind})
    wanted: dict[int, list[DayKey]] = {}
    for key in behind:
        if answering[key[0]].classes:
            wanted.setdefault(key[2], []).append(key)
    for day, keys in wanted.items():
        held = stores.ledger.read(lambda conn, a=day: read_days(conn, project, service, a, a + 1))
        lacking = {key: days.get(key, held[key]) for key in keys if key in held}
        lacking = {key: scores for key, scores in lacking.items() if scores.chances is None}
        if not lacking:
            continue
        names = [_CHANCE.format(place) for place in range(max(answering[key[0]].classes for key in lacking))]
        since, until = day * DAY_MICROS, (day + 1) * DAY_MICROS
        table = stores.journal.table(
            "prediction", project, service=service, since=since, until=until, columns=[*_PREDICTION, *names]
        )
        fresh = fresh_days(table)
        for key, scores in lacking.items():
            chances = fresh[key].chances if key in fresh else None
            if chances is not None:
                days[key] = with_chances(scores, fresh[key].ids, chances)
                dirty.add(key)


def _windows(
    stores: Stores,
    project: str,
    service: str,
    changed: Mapping[DayKey, DayScores],
    touched: set[DayKey],
    horizon: int,
) -> list[Window]:
    """Return the windows, of days and months, that hold the touched days; answers of all releases too."""
    found: list[Window] = []
    known: dict[str, Answering] = {}
    for month in sorted({day_date(day).replace(day=1) for _, _, day in touched}):
        first, last = day_number(month), day_number(_next_month(month))
        held = stores.ledger.read(lambda conn, a=first, b=last: read_days(conn, project, service, a, b))
        held.update({key: day for key, day in changed.items() if first <= key[2] < last})
        known |= _answering(stores, project, {release for release, _, _ in held} - known.keys())
        mine = {key for key in touched if first <= key[2] < last}
        for release, role in sorted({(release, role) for release, role, _ in mine}):
            key = Key(service, release, role)
            days = {day: scores for (a, b, day), scores in held.items() if (a, b) == (release, role)}
            fresh = [day for a, b, day in mine if (a, b) == (release, role)]
            halves = {day: known[release].halves(scores.scores) for day, scores in days.items()}
            found += _of(key, month, days, fresh, horizon, {release: known[release]}, halves)
        answered = [day for _, role, day in mine if role == "answer"]
        if answered:
            found += _all_answers(service, month, held, answered, horizon, found, known)
    return found


def _answering(stores: Stores, project: str, releases: set[str]) -> dict[str, Answering]:
    """Return what each release answers with; of one that is not known, a chance."""

    def look(connection: sa.Connection) -> dict[str, Answering]:
        return {release: answers_with(connection, project, release) for release in releases}

    return stores.ledger.read(look)


def _of(
    key: Key,
    month: date,
    days: Mapping[int, DayScores],
    fresh: Iterable[int],
    horizon: int,
    answering: Mapping[str, Answering],
    halves: Mapping[int, Floats],
) -> list[Window]:
    found = [
        window_of(key, "day", day_date(day), {day: days[day]}, horizon, answering, halves) for day in sorted(set(fresh))
    ]
    return [*found, window_of(key, "month", month, days, horizon, answering, halves)]


def _all_answers(
    service: str,
    month: date,
    held: Mapping[DayKey, DayScores],
    fresh: list[int],
    horizon: int,
    found: list[Window],
    known: Mapping[str, Answering],
) -> list[Window]:
    """Return the windows of what the service answered, whichever release it was."""
    releases = {release for release, role, _ in held if role == "answer"}
    if len(releases) == 1:
        mine = [each for each in found if each.role == "answer" and each.release in releases]
        return [replace(each, release=ALL) for each in mine if each.start.replace(day=1) == month]
    by_day: dict[int, list[DayScores]] = {}
    widths: dict[int, list[Floats]] = {}
    for (release, role, day), scores in sorted(held.items(), key=lambda entry: entry[0]):
        if role == "answer":
            by_day.setdefault(day, []).append(scores)
            widths.setdefault(day, []).append(known[release].halves(scores.scores))
    days = {day: joined_days(parts) for day, parts in by_day.items()}
    halves = {day: np.concatenate(parts) for day, parts in widths.items()}
    answering = {release: known[release] for release in releases}
    return _of(Key(service, ALL, "answer"), month, days, fresh, horizon, answering, halves)


def _next_month(month: date) -> date:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
