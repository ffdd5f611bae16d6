from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from holdtrue import monitoring
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, InvalidInput, NotFound
from holdtrue.monitoring import IncidentState, MonitorSpec, Outcome
from holdtrue.storage.ledger import Transaction
from tests.monitoring.production import CONTEXT, PROJECT, SERVICE, SPEC, Production, day

VOLUME = MonitorSpec("delay-volume", SERVICE, metric="volume", window="7d", alarms_per_quarter=0.25)


def events(production: Production, action: str) -> list[Any]:
    return production.stores.ledger.events(PROJECT, action=action, limit=1000)


def test_a_stable_service_is_learned_judged_weekly_and_raises_nothing(production: Production) -> None:
    production.declare(replace(SPEC, alarms_per_quarter=0.05))
    assert production.live(86, 1.2) == []
    looks = production.judgements()
    assert [look.end for look in looks] == [day(7 * week).date() for week in range(1, 13)]
    assert [look.outcome for look in looks] == [Outcome.WAITING] * 4 + [Outcome.OK] * 8
    assert "14 of 28 days" in looks[1].reason
    assert all(look.limit < look.reference < 1 for look in looks[4:])
    assert all(look.maturity == 1.0 for look in looks[4:])


def test_a_decay_is_found_in_a_few_weeks_and_becomes_alarm_incident_and_trigger(production: Production) -> None:
    production.declare(replace(SPEC, alarms_per_quarter=0.5))
    assert production.live(42, 1.2) == []
    alarms = production.live(28, 0.5)
    assert len(alarms) >= 2
    first = alarms[0]
    assert first.raised_at <= day(42 + 21)
    assert first.value < first.limit < first.reference
    ledger = production.stores.ledger
    incident = ledger.read(lambda conn: monitoring.incident(conn, PROJECT, first.incident))
    assert (incident.kind, incident.state, incident.release) == ("quality", IncidentState.OPEN, "rel_a")
    assert [entry.data["alarm"] for entry in incident.timeline] == [alarm.id for alarm in alarms]
    assert {alarm.incident for alarm in alarms} == {incident.id}
    assert "0.5 times a quarter" in first.text
    raised = events(production, "trigger.raised")
    assert [event.object for event in raised] == [alarm.id for alarm in alarms]
    assert raised[0].payload["service"] == SERVICE
    assert raised[0].payload["reason"] == "quality"
    listed = ledger.read(lambda conn: monitoring.alarms(conn, PROJECT, incident=incident.id))
    assert [alarm.id for alarm in reversed(listed)] == [alarm.id for alarm in alarms]


def test_the_monitor_states_how_often_it_will_be_wrong(production: Production) -> None:
    production.declare(SPEC)
    production.live(35, 1.2)
    said = production.stores.ledger.read(lambda conn: monitoring.promise(conn, PROJECT, SPEC.name))
    assert said[0]["expected_per_quarter"] == pytest.approx(1.0, rel=0.01)
    assert said[0]["days"] == 28
    assert 0 < said[0]["detectable"] < 0.2
    with pytest.raises(NotFound):
        production.stores.ledger.read(lambda conn: monitoring.promise(conn, PROJECT, "nothing"))


def test_labels_that_do_not_come_are_a_reason_to_wait_not_an_alarm(production: Production) -> None:
    production.declare(SPEC)
    production.live(35, 1.2)
    assert production.live(21, 0.0, labelled=0.3) == []
    last = production.judgements()[-1]
    assert last.outcome is Outcome.WAITING
    assert "labels that are due have come" in last.reason


def test_a_window_that_waited_is_judged_once_its_labels_are_in(production: Production) -> None:
    production.declare(SPEC)
    production.live(41, 1.2)
    held: list[tuple[list[str], list[float]]] = []
    for _ in range(7):
        y = production.rng.random(120) < 0.3
        held.append((production.predict(list(y * 0.5 + 0.5 * production.rng.random(120))), [float(each) for each in y]))
        production.clock.advance(seconds=86_400)
        production.run()
    production.clock.advance(seconds=2 * 86_400)
    production.run()
    waiting = production.judgements()[-1]
    assert waiting.outcome is Outcome.WAITING
    for keys, values in held:
        production.label(keys, values)
    production.run()
    judged = production.judgements()[-1]
    assert (judged.end, judged.outcome) == (waiting.end, Outcome.OK)
    assert judged.labelled > waiting.labelled


def test_days_of_one_class_are_a_reason_to_wait(production: Production) -> None:
    production.declare(SPEC)
    production.live(35, 1.2)
    for _ in range(15):
        keys = production.predict([0.4] * 120)
        production.clock.advance(seconds=86_400)
        production.label(keys, [0.0] * 120)
        production.run()
    assert "all of one class" in production.judgements()[-1].reason


def test_too_few_rows_are_a_reason_to_wait(production: Production) -> None:
    production.declare(replace(SPEC, min_rows=5000))
    production.live(42, 1.2)
    assert "5000 are asked for" in production.judgements()[-1].reason


def test_a_new_release_is_held_to_its_forerunner_until_it_has_a_reference_of_its_own(production: Production) -> None:
    production.declare(SPEC)
    production.live(35, 1.2, release="rel_a")
    production.live(14, 1.3, release="rel_b")
    look = production.judgements()[-1]
    assert (look.release, look.outcome) == ("rel_b", Outcome.OK)
    assert "rel_a" in look.reason
    production.live(28, 1.3, release="rel_b")
    own = production.judgements()[-1]
    assert (own.release, own.reason) == ("rel_b", "")
    assert own.reference > look.reference


def test_a_worse_new_release_is_found_before_it_has_a_reference(production: Production) -> None:
    production.declare(replace(SPEC, alarms_per_quarter=0.5))
    production.live(35, 1.2, release="rel_a")
    alarms = production.live(21, 0.3, release="rel_b")
    assert alarms[0].release == "rel_b"


def test_a_reference_from_evaluation_spares_the_month_of_learning(production: Production) -> None:
    production.declare(SPEC)
    rng = np.random.default_rng(1)
    y = rng.random(3000) < 0.3
    score = 1 / (1 + np.exp(-(1.2 * y + rng.normal(size=3000) - 1)))
    times = int(day(-20).timestamp() * 1e6) + np.arange(3000) * (20 * 86_400_000_000 // 3000)

    def give(tx: Transaction) -> tuple[str, ...]:
        return monitoring.set_reference(tx, SERVICE, "rel_a", y, score, times)

    assert production.stores.ledger.write(CONTEXT, give) == (SPEC.name,)
    alarms = production.live(21, 0.2)
    assert alarms
    assert alarms[0].raised_at <= day(15)
    with pytest.raises(InvalidInput, match="at least 7 days"):
        production.stores.ledger.write(
            CONTEXT, lambda tx: monitoring.set_reference(tx, SERVICE, "rel_b", y[:300], score[:300], times[:300])
        )


def test_a_fall_in_volume_is_an_alarm_that_trains_nothing(production: Production) -> None:
    production.declare(VOLUME)
    assert production.live(42, 1.0) == []
    alarms = production.live(14, 1.0, n=60)
    assert [alarm.metric for alarm in alarms] == ["volume"] * len(alarms)
    assert alarms
    assert events(production, "trigger.raised") == []
    found = production.stores.ledger.read(lambda conn: monitoring.incidents(conn, PROJECT, kind="volume"))
    assert found[0].title == f"Fewer predictions than usual at {SERVICE}"


def test_a_service_that_falls_silent_is_noticed(production: Production) -> None:
    production.declare(VOLUME)
    production.live(42, 1.0)
    alarms = []
    for _ in range(8):
        production.clock.advance(seconds=86_400)
        alarms += production.run()
    assert alarms


def test_a_worse_brier_score_is_an_alarm_above_its_limit(production: Production) -> None:
    production.declare(MonitorSpec("delay-brier", SERVICE, metric="brier", min_rows=100, alarms_per_quarter=0.5))
    assert production.live(42, 1.2) == []
    alarms = production.live(21, -1.5)
    assert alarms
    assert alarms[0].value > alarms[0].limit > alarms[0].reference > 0
    assert "above its limit" in alarms[0].text


def test_weeks_without_a_pass_are_judged_in_the_next_one(production: Production) -> None:
    production.declare(SPEC)
    production.live(35, 1.2)
    production.clock.advance(seconds=21 * 86_400)
    production.run()
    ends = [look.end for look in production.judgements()]
    assert ends == [day(7 * week).date() for week in range(1, 8)]
    assert "no predictions" in production.judgements()[-1].reason
    production.clock.set(production.clock.now() - timedelta(days=30))  # a clock that jumps back does no harm
    assert production.run() == []


def test_the_same_records_give_the_same_judgements(production: Production) -> None:
    production.declare(SPEC)
    production.live(42, 1.2)
    before = production.judgements()

    def restart(tx: Transaction) -> None:
        monitoring.declare(tx, [])
        monitoring.declare(tx, [replace(SPEC, name="twin")])

    production.stores.ledger.write(CONTEXT, restart)
    production.run()
    twins = [replace(look, monitor=SPEC.name) for look in production.judgements() if look.monitor == "twin"]
    judged = [look for look in before if look.outcome is not Outcome.WAITING]
    assert judged
    assert [look for look in twins if look.outcome is not Outcome.WAITING] == judged


def test_declaring_again_changes_nothing_and_leaving_out_switches_off(production: Production) -> None:
    ledger = production.stores.ledger
    assert ledger.write(CONTEXT, lambda tx: monitoring.declare(tx, [SPEC, VOLUME])) == (SPEC.name, VOLUME.name)
    assert ledger.write(CONTEXT, lambda tx: monitoring.declare(tx, [SPEC, VOLUME])) == ()
    assert ledger.write(CONTEXT, lambda tx: monitoring.declare(tx, [SPEC])) == (VOLUME.name,)
    assert ledger.read(lambda conn: monitoring.monitors(conn, PROJECT)) == [SPEC]
    changed = replace(SPEC, alarms_per_quarter=2.0)
    assert ledger.write(CONTEXT, lambda tx: monitoring.declare(tx, [changed])) == (SPEC.name,)
    assert Counter(event.action for event in ledger.events(PROJECT)) == {
        "monitor.declared": 3,
        "monitor.removed": 1,
    }


def test_a_specification_survives_json_and_refuses_what_it_does_not_know() -> None:
    assert load(MonitorSpec, dump(SPEC)) == SPEC
    with pytest.raises(ConfigurationError, match="alarm_per_quarter"):
        load(MonitorSpec, {**dump(SPEC), "alarm_per_quarter": 1})
    for wrong in (
        {"metric": "f1"},
        {"window": "14"},
        {"every": "0d"},
        {"label_delay": "soon"},
        {"alarms_per_quarter": 0.0},
        {"reference_days": 3},
        {"min_maturity": 1.5},
    ):
        with pytest.raises(ConfigurationError):
            load(MonitorSpec, {**dump(SPEC), **wrong})
