"""All SQL of monitoring: tables, and functions that read and write them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from typing import Any, TypeVar

import sqlalchemy as sa

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import NotFound
from holdtrue.monitoring.model import (
    Alarm,
    Incident,
    IncidentState,
    Judgement,
    Measure,
    MonitorSpec,
    Outcome,
    TimelineEntry,
    Window,
)
from holdtrue.monitoring.quality import ALL, day_date, day_number
from holdtrue.monitoring.scored import DayScores, unpack
from holdtrue.stats import Interval
from holdtrue.storage.ledger import Timestamp, Transaction, insert, project_table, scoped

T = TypeVar("T")


class DayNumber(sa.types.TypeDecorator[date]):
    """Keep a date as days since 1970."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: date | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else day_number(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> date | None:
        return None if value is None else day_date(int(value))


class Number(sa.types.TypeDecorator[float]):
    """Keep a number, and NaN (not known) as NULL."""

    impl = sa.Float
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: sa.Dialect) -> float | None:
        return None if value is None or not math.isfinite(value) else float(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> float:
        return math.nan if value is None else float(value)


def _text(name: str, *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, primary_key=key, nullable=False)


def _count(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer, nullable=False)


watches = project_table(
    "watches",
    _text("service", key=True),
    sa.Column("prediction_cursor", sa.Text),
    sa.Column("label_cursor", sa.Text),
    sa.Column("pending", sa.LargeBinary, nullable=False),
    _count("delay_days"),
    _count("invalid_labels"),
    _count("forgotten_labels"),
    sa.Column("searched", sa.Integer),
)

scored_days = project_table(
    "scored_days",
    _text("service", key=True),
    sa.Column("day", sa.Integer, primary_key=True),
    _text("release", key=True),
    _text("role", key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

windows = project_table(
    "windows",
    _text("service", key=True),
    _text("release", key=True),
    _text("role", key=True),
    _text("grain", key=True),
    sa.Column("start", DayNumber, primary_key=True),
    _count("n"),
    _count("labelled"),
    _count("due"),
    _count("labelled_due"),
    _count("positives"),
    _count("corrected"),
    _count("fallbacks"),
    sa.Column("roc_auc", Number),
    sa.Column("lower", Number),
    sa.Column("upper", Number),
    _count("judged_rows"),
    sa.Column("brier", Number),
    _text("reason"),
    sa.Column("measures", sa.JSON),
    sa.Column("measured", sa.Integer),
)

MEASURED = 2
"""Windows of an earlier state of what is measured are measured again: raise it whenever a measure is added."""

monitors = project_table(
    "monitors",
    _text("name", key=True),
    _text("service"),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("last_end", DayNumber),
    sa.Column("active", sa.Boolean, nullable=False),
)

# `data` holds one number or row per day of the reference; `limits` what was promised with it.
references = project_table(
    "monitor_references",
    _text("monitor", key=True),
    _text("release", key=True),
    _text("source"),
    sa.Column("end", DayNumber, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("limits", sa.JSON, nullable=False),
    sa.Column("made_at", Timestamp, nullable=False),
)

judgements = project_table(
    "judgements",
    _text("monitor", key=True),
    sa.Column("end", DayNumber, primary_key=True),
    sa.Column("start", DayNumber, nullable=False),
    _text("service"),
    _text("metric"),
    _text("release"),
    _count("n"),
    _count("labelled"),
    sa.Column("maturity", Number),
    sa.Column("value", Number),
    sa.Column("limit", Number),
    sa.Column("reference", Number),
    sa.Column("detectable", Number),
    _text("outcome"),
    _text("reason"),
)

alarms = project_table(
    "alarms",
    _text("id", key=True),
    _text("monitor"),
    _text("service"),
    _text("metric"),
    _text("release"),
    sa.Column("start", DayNumber, nullable=False),
    sa.Column("end", DayNumber, nullable=False),
    sa.Column("value", Number, nullable=False),
    sa.Column("limit", Number, nullable=False),
    sa.Column("reference", Number, nullable=False),
    sa.Column("raised_at", Timestamp, nullable=False),
    _text("incident"),
    _text("text"),
)

incidents = project_table(
    "incidents",
    _text("id", key=True),
    _text("service"),
    _text("kind"),
    _text("title"),
    _text("state"),
    _text("owner"),
    _text("release"),
    sa.Column("opened_at", Timestamp, nullable=False),
    sa.Column("resolved_at", Timestamp),
)

incident_entries = project_table(
    "incident_entries",
    _text("incident", key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("time", Timestamp, nullable=False),
    _text("actor"),
    _text("kind"),
    _text("text"),
    sa.Column("data", sa.JSON, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Watch:
    """Hold how far a service's records have been read, and labels that found no prediction yet.

    `invalid_labels` were no numbers, `forgotten_labels` were given up after waiting for their prediction. `searched`
    tells on which day they were last looked for among all predictions, and how often in vain.
    """

    service: str
    prediction_cursor: str | None = None
    label_cursor: str | None = None
    pending: bytes = b""
    delay_days: int = 1
    invalid_labels: int = 0
    forgotten_labels: int = 0
    searched: int | None = None


@dataclass(frozen=True, slots=True)
class MonitorRow:
    """Hold a declared monitor and the end of the last window it judged."""

    spec: MonitorSpec
    last_end: date | None
    active: bool


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """Hold the days a monitor compares with; `end` is the day after the last of them."""

    monitor: str
    release: str
    source: str
    end: date
    data: dict[str, Any]
    limits: dict[str, Any]


def _upsert(tx: Transaction, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    keys = [column.name for column in table.primary_key.columns]
    statement = insert(table)
    fresh = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    full = [{"project": tx.project, **row} for row in rows]
    tx.execute(statement.on_conflict_do_update(index_elements=keys, set_=fresh), full)


def _row(table: sa.Table, value: Any) -> dict[str, Any]:
    """Return the columns of `table` that a dataclass of the same names holds."""
    held = {field.name for field in fields(value)}
    return {column.name: getattr(value, column.name) for column in table.columns if column.name in held}


def _object(cls: type[T], row: sa.Row[Any], **changed: Any) -> T:
    """Build a dataclass from the columns of the same names; `changed` replaces or adds some."""
    assert is_dataclass(cls)
    names = [field.name for field in fields(cls) if field.name not in changed and hasattr(row, field.name)]
    return cls(**{name: getattr(row, name) for name in names}, **changed)


def _where(table: sa.Table, project: str, **wanted: str | None) -> sa.Select[Any]:
    """Return the base query with those columns fixed whose wanted value is not None."""
    query = scoped(table, project)
    for name, value in wanted.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    return query


# --- how far the records are read ---------------------------------------------------------------------------


def read_watches(conn: sa.Connection, project: str, service: str | None = None) -> list[Watch]:
    """Return the watched services of a project, by name."""
    query = _where(watches, project, service=service).order_by(watches.c.service)
    return [_object(Watch, row) for row in conn.execute(query)]


def put_watch(tx: Transaction, watch: Watch) -> None:
    """Write a watch."""
    _upsert(tx, watches, [_row(watches, watch)])


def drop_watch(tx: Transaction, service: str) -> None:
    """Remove a watch."""
    tx.execute(watches.delete().where(watches.c.project == tx.project, watches.c.service == service))


# --- scores by day ------------------------------------------------------------------------------------------

DayKey = tuple[str, str, int]
"""Release, role, day number."""


def read_days(
    conn: sa.Connection,
    project: str,
    service: str,
    first: int,
    last: int,
    *,
    release: str | None = None,
    role: str | None = None,
) -> dict[DayKey, DayScores]:
    """Return the scored days from `first` to before `last`, by release, role and day number."""
    query = _where(scored_days, project, service=service, release=release, role=role).where(
        scored_days.c.day >= first, scored_days.c.day < last
    )
    return {
        (row.release, row.role, row.day): unpack(row.data)
        for row in conn.execute(query.order_by(scored_days.c.day, scored_days.c.release))
    }


def put_days(tx: Transaction, service: str, days: Mapping[DayKey, DayScores]) -> None:
    """Write scored days."""
    rows = [
        {"service": service, "day": day, "release": release, "role": role, "data": scores.pack()}
        for (release, role, day), scores in days.items()
    ]
    _upsert(tx, scored_days, rows)


# --- windows ------------------------------------------------------------------------------------------------


def put_windows(tx: Transaction, found: Iterable[Window]) -> None:
    """Write windows, replacing earlier states of the same ones."""
    rows = [
        {
            **_row(windows, each),
            "roc_auc": each.roc_auc.value,
            "lower": each.roc_auc.lower,
            "upper": each.roc_auc.upper,
            "judged_rows": each.roc_auc.n,
            "measures": [measure.to_json() for measure in each.measures],
            "measured": MEASURED,
        }
        for each in found
    ]
    _upsert(tx, windows, rows)


def unmeasured(conn: sa.Connection, project: str, service: str, limit: int) -> list[DayKey]:
    """Return days, newest first, whose windows have not got all measures, though there are their predictions."""
    days, stored = windows.c, scored_days.c
    same = [stored.project == days.project, stored.service == days.service, stored.day == days.start]
    query = (
        sa.select(days.release, days.role, stored.day)
        .join(scored_days, sa.and_(*same, stored.release == days.release, stored.role == days.role))
        .where(days.project == project, days.service == service, days.grain == "day")
        .where(sa.func.coalesce(days.measured, 0) < MEASURED)
        .order_by(stored.day.desc(), days.release, days.role)
    )
    return [(row.release, row.role, row.day) for row in conn.execute(query.limit(limit))]


def first_day(conn: sa.Connection, project: str, service: str) -> date | None:
    """Return the first day on which a service answered."""
    mine = (windows.c.project == project) & (windows.c.service == service) & (windows.c.grain == "day")
    return conn.execute(sa.select(sa.func.min(windows.c.start)).where(mine)).scalar()


def read_windows(
    conn: sa.Connection,
    project: str,
    service: str,
    *,
    grain: str | None = None,
    release: str | None = None,
    role: str | None = None,
    since: date | None = None,
    until: date | None = None,
    unsettled: bool = False,
) -> list[Window]:
    """Return windows by start, role and release; `unsettled` keeps those with labels that are not due yet.

    The windows of all answers together come only when that is the `release` asked for.
    """
    query = _where(windows, project, service=service, grain=grain, release=release, role=role)
    if release is None:
        query = query.where(windows.c.release != ALL)
    if since is not None:
        query = query.where(windows.c.start >= since)
    if until is not None:
        query = query.where(windows.c.start < until)
    if unsettled:
        query = query.where(windows.c.due < windows.c.n)
    ordered = query.order_by(windows.c.start, windows.c.role, windows.c.release)
    return [_window(row) for row in conn.execute(ordered)]


def _window(row: sa.Row[Any]) -> Window:
    # Written out: a chart reads a thousand of them, and `_object` takes five times as long.
    return Window(
        row.service,
        row.release,
        row.role,
        row.grain,
        row.start,
        row.n,
        row.labelled,
        row.due,
        row.labelled_due,
        row.positives,
        row.corrected,
        row.fallbacks,
        Interval(row.roc_auc, row.lower, row.upper, row.judged_rows),
        row.brier,
        row.reason,
        tuple(map(Measure.from_json, row.measures or ())),
    )


# --- monitors -----------------------------------------------------------------------------------------------


def read_monitors(conn: sa.Connection, project: str, *, name: str | None = None) -> list[MonitorRow]:
    """Return the monitors of a project, by name."""
    query = _where(monitors, project, name=name).order_by(monitors.c.name)
    return [MonitorRow(load(MonitorSpec, row.spec), row.last_end, row.active) for row in conn.execute(query)]


def put_monitor(tx: Transaction, row: MonitorRow) -> None:
    """Write a monitor."""
    _upsert(
        tx,
        monitors,
        [
            {
                "name": row.spec.name,
                "service": row.spec.service,
                "spec": dump(row.spec),
                "last_end": row.last_end,
                "active": row.active,
            }
        ],
    )


def set_last_end(tx: Transaction, monitor: str, end: date) -> None:
    """Remember the end of the last window that a monitor judged."""
    mine = (monitors.c.project == tx.project) & (monitors.c.name == monitor)
    tx.execute(sa.update(monitors).where(mine).values(last_end=end))


def read_references(conn: sa.Connection, project: str, monitor: str) -> list[ReferenceRow]:
    """Return the references of a monitor, the newest first."""
    query = _where(references, project, monitor=monitor)
    ordered = query.order_by(references.c.made_at.desc(), references.c.release)
    return [_object(ReferenceRow, row) for row in conn.execute(ordered)]


def put_reference(tx: Transaction, row: ReferenceRow) -> None:
    """Write a reference."""
    _upsert(tx, references, [{**_row(references, row), "made_at": tx.now}])


def drop_references(tx: Transaction, monitor: str) -> None:
    """Forget a monitor's references, when its definition has changed."""
    mine = (references.c.project == tx.project) & (references.c.monitor == monitor)
    tx.execute(sa.delete(references).where(mine))


def put_judgements(tx: Transaction, found: Iterable[Judgement]) -> None:
    """Write judgements; a later look at the same window replaces the earlier."""
    _upsert(tx, judgements, [_row(judgements, each) for each in found])


def read_judgements(
    conn: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    monitor: str | None = None,
    limit: int = 1000,
) -> list[Judgement]:
    """Return judgements, the newest first."""
    query = _where(judgements, project, service=service, monitor=monitor)
    ordered = query.order_by(judgements.c.end.desc(), judgements.c.monitor).limit(limit)
    return [_object(Judgement, row, outcome=Outcome(row.outcome)) for row in conn.execute(ordered)]


# --- alarms and incidents -----------------------------------------------------------------------------------


def put_alarm(tx: Transaction, alarm: Alarm) -> None:
    """Write an alarm."""
    _upsert(tx, alarms, [_row(alarms, alarm)])


def read_alarms(
    conn: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    incident: str | None = None,
    limit: int = 200,
    after: str | None = None,
) -> list[Alarm]:
    """Return alarms, the newest first; `after` is the last id already seen."""
    query = _where(alarms, project, service=service, incident=incident)
    if after is not None:
        query = query.where(alarms.c.id < after)
    ordered = query.order_by(alarms.c.id.desc()).limit(limit)
    return [_object(Alarm, row) for row in conn.execute(ordered)]


def read_incidents(
    conn: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    kind: str | None = None,
    state: str | None = None,
    unresolved: bool = False,
    limit: int = 200,
    after: str | None = None,
) -> list[Incident]:
    """Return incidents without their timelines, the newest first; `after` is the last id already seen."""
    query = _where(incidents, project, service=service, kind=kind, state=state)
    if after is not None:
        query = query.where(incidents.c.id < after)
    if unresolved:
        query = query.where(incidents.c.state != IncidentState.RESOLVED.value)
    ordered = query.order_by(incidents.c.id.desc()).limit(limit)
    return [_object(Incident, row, state=IncidentState(row.state)) for row in conn.execute(ordered)]


def read_incident(conn: sa.Connection, project: str, id: str) -> Incident:
    """Return one incident with its timeline, or raise NotFound."""
    row = conn.execute(_where(incidents, project, id=id)).first()
    if row is None:
        raise NotFound.of("incident", id)
    query = _where(incident_entries, project, incident=id).order_by(incident_entries.c.number)
    timeline = tuple(_object(TimelineEntry, entry) for entry in conn.execute(query))
    return _object(Incident, row, state=IncidentState(row.state), timeline=timeline)


def put_incident(tx: Transaction, incident: Incident) -> None:
    """Write an incident; its timeline is written entry by entry."""
    _upsert(tx, incidents, [_row(incidents, incident)])


def add_entry(tx: Transaction, incident: str, kind: str, text: str, data: Mapping[str, Any]) -> TimelineEntry:
    """Append an entry to an incident's timeline."""
    mine = (incident_entries.c.project == tx.project) & (incident_entries.c.incident == incident)
    last = tx.execute(sa.select(sa.func.max(incident_entries.c.number)).where(mine)).scalar()
    entry = TimelineEntry((last or 0) + 1, tx.now, tx.context.actor.id, kind, text, dict(data))
    _upsert(tx, incident_entries, [{"incident": incident, **_row(incident_entries, entry)}])
    return entry
