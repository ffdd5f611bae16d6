"""The use cases of monitoring: declare, run what is due, read what was found."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from holdtrue.core.actor import SYSTEM
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.core.ids import check_name, new_id
from holdtrue.monitoring import store
from holdtrue.monitoring.answering import answers_with
from holdtrue.monitoring.casework import open_incident
from holdtrue.monitoring.ingest import due_before, ingest
from holdtrue.monitoring.judging import Progress, judge, reference_row, sentence
from holdtrue.monitoring.model import Alarm, Incident, Judgement, MonitorSpec, Outcome, Window
from holdtrue.monitoring.quality import DAY_MICROS, EPOCH, day_statistic
from holdtrue.monitoring.scored import DayScores, unpack_labels
from holdtrue.monitoring.store import MonitorRow, Watch
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction, WriteContext

_TITLES = {"volume": "Fewer predictions than usual at {}", "roc_auc": "Quality of {} is falling"}


def declare(tx: Transaction, specs: Iterable[MonitorSpec]) -> tuple[str, ...]:
    """Make `specs` the monitors of the project and return the names that changed; others are switched off.

    A monitor whose definition changed learns its reference again.
    """
    wanted = {spec.name: spec for spec in specs}
    present = {row.spec.name: row for row in store.read_monitors(tx.connection, tx.project)}
    changed: list[str] = []
    for name, spec in sorted(wanted.items()):
        row = present.get(name)
        if row is not None and row.spec == spec and row.active:
            continue
        if row is not None and row.spec != spec:
            store.drop_references(tx, name)
        store.put_monitor(tx, MonitorRow(spec, row.last_end if row else None, True))
        watch(tx, spec.service, delay_days=spec.delay_days)
        payload = {"service": spec.service, "metric": spec.metric, "alarms_per_quarter": spec.alarms_per_quarter}
        tx.emit("monitor.declared", name, payload)
        changed.append(name)
    for name, row in sorted(present.items()):
        if name not in wanted and row.active:
            store.put_monitor(tx, replace(row, active=False))
            tx.emit("monitor.removed", name, {"service": row.spec.service})
            changed.append(name)
    return tuple(changed)


def watch(tx: Transaction, service: str, *, delay_days: int = 1) -> None:
    """Follow a service's records, with or without monitors; labels are due `delay_days` after their day."""
    check_name(service, "service name")
    present = store.read_watches(tx.connection, tx.project, service)
    if not present:
        store.put_watch(tx, Watch(service, delay_days=delay_days))
    elif present[0].delay_days < delay_days:
        store.put_watch(tx, replace(present[0], delay_days=delay_days))


def unwatch(tx: Transaction, service: str) -> None:
    """Follow a service's records no longer; what was counted stays."""
    store.drop_watch(tx, service)


def set_reference(
    tx: Transaction,
    service: str,
    release: str,
    y: npt.ArrayLike,
    score: npt.ArrayLike,
    times: npt.ArrayLike,
    *,
    source: str = "evaluation",
) -> tuple[str, ...]:
    """Give the quality monitors of a service what is normal for `release`; return their names.

    `y` (0/1) and `score` float[n] are rows the release was not trained on, `times` int64[n] microseconds. At
    least 7 days are needed; fewer raise InvalidInput.
    """
    labels = np.asarray(y, np.float32)
    moments = np.asarray(times, np.int64)
    values = np.asarray(score, np.float32)
    if not labels.shape == moments.shape == values.shape:
        raise InvalidInput("Labels, scores and times differ in length.", mend="Give one of each for every row.")
    days: dict[int, DayScores] = {}
    for day in np.unique(moments // DAY_MICROS).tolist():
        rows = moments // DAY_MICROS == day
        blank = np.zeros(int(rows.sum()), np.uint64)
        days[day] = DayScores(blank, blank, values[rows], labels[rows], moments[rows])
    done: list[str] = []
    for row in store.read_monitors(tx.connection, tx.project):
        if row.spec.service != service or row.spec.metric == "volume":
            continue
        made = reference_row(row.spec, release, source, EPOCH, day_statistic(row.spec, days))
        if made is None:
            raise InvalidInput(
                f"These rows cannot be the reference of the monitor “{row.spec.name}”.",
                why=f"They span {len(days)} days; at least 7 days with both classes are needed.",
                mend="Evaluate on a longer period.",
            )
        store.put_reference(tx, made)
        tx.emit("monitor.reference_set", row.spec.name, {"release": release, "source": source, **made.limits})
        done.append(row.spec.name)
    return tuple(done)


def run_due(stores: Stores, project: str) -> list[Alarm]:
    """Take in new records of all watched services, judge the windows that are due, and raise alarms.

    An alarm opens an incident or joins the open one, and an alarm about quality emits `trigger.raised` with
    the alarm's id. Costs what is new; running it again at once does nothing.
    """
    for each in stores.ledger.read(lambda conn: store.read_watches(conn, project)):
        ingest(stores, project, each)
    raised: list[Alarm] = []
    for row in stores.ledger.read(lambda conn: store.read_monitors(conn, project)):
        if row.active:
            raised += _run_monitor(stores, project, row)
    return raised


def _run_monitor(stores: Stores, project: str, row: MonitorRow) -> list[Alarm]:
    due = due_before(stores.clock.now(), 0 if row.spec.metric == "volume" else row.spec.delay_days)
    progress = stores.ledger.read(lambda conn: judge(conn, project, row, due))
    if progress is None:
        return []
    return stores.ledger.write(WriteContext(SYSTEM, project), lambda tx: _record(tx, row, progress))


def _record(tx: Transaction, row: MonitorRow, progress: Progress) -> list[Alarm]:
    present = store.read_monitors(tx.connection, tx.project, name=row.spec.name)
    if not present or present[0] != row:
        return []
    for look in progress.looks:
        if look.learned is not None:
            store.put_reference(tx, look.learned)
            promise = {"release": look.learned.release, "source": look.learned.source, **look.learned.limits}
            tx.emit("monitor.reference_set", row.spec.name, promise)
    store.put_judgements(tx, [look.judgement for look in progress.looks])
    if row.last_end != progress.last_end:
        store.set_last_end(tx, row.spec.name, progress.last_end)
    return [_raise(tx, row.spec, look.judgement) for look in progress.looks if look.judgement.outcome is Outcome.ALARM]


def _raise(tx: Transaction, spec: MonitorSpec, found: Judgement) -> Alarm:
    text = sentence(spec, found)
    kind = "volume" if spec.metric == "volume" else "quality"
    alarm_id = new_id("alm", tx.now)
    incident = open_incident(
        tx,
        service=spec.service,
        kind=kind,
        title=_TITLES.get(spec.metric, _TITLES["roc_auc"]).format(spec.service),
        text=text,
        release=found.release,
        data={"alarm": alarm_id, **found.to_json()},
    )
    alarm = Alarm(
        id=alarm_id,
        monitor=spec.name,
        service=spec.service,
        metric=spec.metric,
        release=found.release,
        start=found.start,
        end=found.end,
        value=found.value,
        limit=found.limit,
        reference=found.reference,
        raised_at=tx.now,
        incident=incident.id,
        text=text,
    )
    store.put_alarm(tx, alarm)
    facts = {"service": spec.service, "monitor": spec.name, "incident": incident.id, "release": found.release}
    tx.emit("alarm.raised", alarm_id, {**facts, "judgement": found.to_json()}, reason=text)
    if kind == "quality":
        tx.emit("trigger.raised", alarm_id, {**facts, "reason": "quality", "alarm": alarm_id}, reason=text)
    return alarm


# --- reading ------------------------------------------------------------------------------------------------


def windows(
    conn: sa.Connection,
    project: str,
    service: str,
    *,
    grain: str | None = None,
    release: str | None = None,
    role: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> list[Window]:
    """Return what is known of a service's releases by day or month; release "all" is every answer together."""
    return store.read_windows(conn, project, service, grain=grain, release=release, role=role, since=since, until=until)


def quality(
    conn: sa.Connection, project: str, service: str, *, grain: str = "month", release: str | None = None
) -> list[dict[str, Any]]:
    """Return the flat rows of `windows`, as tables and pages show them."""
    return [each.to_json() for each in windows(conn, project, service, grain=grain, release=release)]


def volume(conn: sa.Connection, project: str, service: str, *, grain: str = "day") -> list[dict[str, Any]]:
    """Return how many rows each release answered or shadowed in each window."""
    names = ("window", "grain", "release", "role", "n", "labelled", "maturity", "fallbacks")
    return [{name: row[name] for name in names} for row in quality(conn, project, service, grain=grain)]


def monitors(conn: sa.Connection, project: str, *, service: str | None = None) -> list[MonitorSpec]:
    """Return the active monitors of a project."""
    rows = store.read_monitors(conn, project)
    return [row.spec for row in rows if row.active and service in (None, row.spec.service)]


def promise(conn: sa.Connection, project: str, monitor: str) -> list[dict[str, Any]]:
    """Return a monitor's references, newest first: limit, and how many false alarms to expect."""
    if not store.read_monitors(conn, project, name=monitor):
        raise NotFound.of("monitor", monitor)
    return [
        {"release": each.release, "source": each.source, "until": each.end.isoformat(), **each.limits}
        for each in store.read_references(conn, project, monitor)
    ]


def judgements(
    conn: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    monitor: str | None = None,
    limit: int = 1000,
) -> list[Judgement]:
    """Return a monitor's looks at windows, the newest first."""
    return store.read_judgements(conn, project, service=service, monitor=monitor, limit=limit)


def alarms(
    conn: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    incident: str | None = None,
    limit: int = 200,
    after: str | None = None,
) -> list[Alarm]:
    """Return alarms, the newest first; `after` is the last id already seen."""
    return store.read_alarms(conn, project, service=service, incident=incident, limit=limit, after=after)


def incidents(
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
    """Return incidents without timelines, the newest first; `after` is the last id already seen."""
    return store.read_incidents(
        conn,
        project,
        service=service,
        kind=kind,
        state=state,
        unresolved=unresolved,
        limit=limit,
        after=after,
    )


def measured_by(conn: sa.Connection, project: str, release: str) -> str:
    """Return the name of what a release's answers are measured by first, also before any label is in."""
    return answers_with(conn, project, release).measure


def incident(conn: sa.Connection, project: str, id: str) -> Incident:
    """Return one incident with its timeline, or raise NotFound."""
    return store.read_incident(conn, project, id)


def label_counts(conn: sa.Connection, project: str, service: str) -> Mapping[str, int]:
    """Return how many labels were invalid, still wait for their prediction, or were given up."""
    present = store.read_watches(conn, project, service)
    if not present:
        raise NotFound.of("watched service", service)
    return {
        "invalid": present[0].invalid_labels,
        "waiting": unpack_labels(present[0].pending).n,
        "forgotten": present[0].forgotten_labels,
    }
