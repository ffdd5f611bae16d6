from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sqlalchemy.exc import IntegrityError

from holdtrue import catalog, monitoring
from holdtrue.monitoring import Window, store
from holdtrue.monitoring.ingest import ingest
from holdtrue.storage.ledger import Transaction
from tests.monitoring.production import CONTEXT, PROJECT, SERVICE, SPEC, Production, day


def only(found: list[Window]) -> Window:
    assert len(found) == 1
    return found[0]


def counts(production: Production) -> dict[str, int]:
    return dict(production.stores.ledger.read(lambda conn: monitoring.label_counts(conn, PROJECT, SERVICE)))


def test_quality_follows_labels_as_they_come_in(production: Production) -> None:
    production.declare(SPEC)
    keys = production.predict([0.1, 0.9, 0.8, 0.2, 0.5])
    production.run()
    window = only(production.windows(grain="day"))
    assert (window.n, window.labelled, window.due, window.reason) == (5, 0, 0, "no labels yet")
    production.clock.set(day(1) + timedelta(hours=1))
    production.label(keys[:4], [0, 1, 0, 0])
    production.run()
    window = only(production.windows(grain="day"))
    assert (window.labelled, window.due) == (4, 0)
    assert window.roc_auc.value == 1.0
    production.clock.set(day(2))
    production.run()  # no new record: but the labels of the first day are due by now
    window = only(production.windows(grain="day"))
    assert (window.due, window.labelled_due, window.maturity) == (5, 4, pytest.approx(0.8))
    month = only(production.windows(grain="month"))
    assert (month.due, month.maturity) == (5, pytest.approx(0.8))


def test_labels_may_come_before_their_predictions_are_read(production: Production) -> None:
    production.declare(SPEC)
    production.label(["key-0", "key-1", "never"], [1, 0, 1])
    production.run()
    assert counts(production)["waiting"] == 3
    production.clock.advance(seconds=3600)
    production.predict([0.9, 0.1])
    production.run()
    assert only(production.windows(grain="day")).labelled == 2
    assert counts(production)["waiting"] == 1
    production.clock.advance(seconds=62 * 86_400)
    production.predict([0.5])
    production.run()
    assert counts(production) == {"invalid": 0, "waiting": 0, "forgotten": 1}


def test_labels_find_predictions_of_weeks_ago(production: Production) -> None:
    production.declare(SPEC)
    keys = production.predict([0.9, 0.1])
    production.run()
    for number in (5, 30, 50):
        production.clock.set(day(number))
        production.predict([0.5])
        production.run()
    production.label(keys, [1, 0])
    production.run()
    first = [window for window in production.windows(grain="day") if window.start == day(0).date()]
    assert only(first).labelled == 2
    march = [window for window in production.windows(grain="month") if window.start == day(0).date()]
    assert only(march).labelled == 2


def test_repeated_labels_count_once_and_the_correction_known_last_wins(production: Production) -> None:
    production.declare(SPEC)
    keys = production.predict([0.9, 0.1, 0.2])
    production.clock.advance(seconds=3600)
    production.label(keys, [1, 0, 0])
    production.label(keys, [1, 0, 0])
    production.run()
    late = production.clock.now() + timedelta(hours=2)
    production.label(keys[1:2], [1], known_at=late)
    production.label(keys[1:2], [0], known_at=late - timedelta(minutes=5))
    production.run()
    window = only(production.windows(grain="day"))
    assert (window.labelled, window.positives, window.corrected) == (3, 2, 1)


def test_labels_name_predictions_by_id_as_well(production: Production) -> None:
    production.declare(SPEC)
    production.predict([0.9, 0.1], key=None)
    production.label(["x", "y"], [1, 0], key=None, prediction_id=["prd_0", "prd_1"])
    production.run()
    assert only(production.windows(grain="day")).roc_auc.value == 1.0


def test_keys_that_are_numbers_are_joined_as_their_text(production: Production) -> None:
    production.declare(SPEC)
    production.predict([0.9, 0.1], key=[17, 18])
    production.label(["17", "18"], [1, 0])
    production.run()
    assert only(production.windows(grain="day")).labelled == 2


def test_labels_that_are_no_numbers_are_counted_and_left_out(production: Production) -> None:
    production.declare(SPEC)
    keys = production.predict([0.9, 0.1, 0.3, 0.2])
    production.label(keys, [1, None, "late", True])
    production.label(keys[:1], [1e300])
    production.run()
    assert counts(production)["invalid"] == 3
    assert only(production.windows(grain="day")).positives == 2


def test_records_without_label_or_score_columns_do_no_harm(production: Production) -> None:
    production.declare(SPEC)
    production.writer.append("prediction", PROJECT, SERVICE, {"id": ["a"], "time": [int(day(0).timestamp() * 1e6)]}, 1)
    production.writer.append("label", PROJECT, SERVICE, {"id": ["b"], "time": [0]}, 1)
    production.run()
    window = only(production.windows(grain="day"))
    assert (window.n, window.fallbacks, window.labelled) == (1, 1, 0)
    assert counts(production)["invalid"] == 1


def test_shadows_are_judged_on_the_same_labels(production: Production) -> None:
    production.declare(SPEC)
    keys = production.predict([0.9, 0.1, 0.4], release="rel_a", shadow="rel_b")
    production.label(keys, [1, 0, 0])
    production.run()
    by_role = {window.role: window for window in production.windows(grain="month")}
    assert by_role["shadow"].release == "rel_b"
    assert by_role["shadow"].roc_auc.value == by_role["answer"].roc_auc.value == 1.0


def test_all_answers_of_several_releases_are_one_more_release(production: Production) -> None:
    production.declare(SPEC)
    first = production.predict([0.9, 0.8, 0.3], release="rel_a")
    second = production.predict([0.2, 0.6, 0.7], release="rel_b")
    production.label(first + second, [1, 0, 0, 0, 1, 0])
    production.run()
    assert {window.release for window in production.windows(grain="day")} == {"rel_a", "rel_b"}
    together = only(production.windows(grain="day", release="all"))
    assert together.n == 6
    assert together.roc_auc.value == pytest.approx(roc_auc_score([1, 0, 0, 0, 1, 0], [0.9, 0.8, 0.3, 0.2, 0.6, 0.7]))
    assert only(production.windows(grain="month", release="all")).roc_auc.value == together.roc_auc.value


def test_answers_of_the_fallback_are_counted_apart(production: Production) -> None:
    production.declare(SPEC)
    keys = production.predict([0.9, 0.2, 0.2, 0.1], fallback=[False, True, True, False])
    production.label(keys, [1, 1, 0, 0])
    production.run()
    window = only(production.windows(grain="day"))
    assert (window.n, window.fallbacks, window.roc_auc.value, window.roc_auc.n) == (4, 2, 1.0, 2)


def test_running_again_at_once_changes_nothing(production: Production) -> None:
    production.declare(SPEC)
    production.live(3, 1.5)
    before = production.windows(), production.stores.ledger.events(PROJECT, limit=1000)
    assert production.run() == []
    assert (production.windows(), production.stores.ledger.events(PROJECT, limit=1000)) == before


def test_many_small_steps_end_where_one_large_step_ends(production: Production) -> None:
    production.declare(SPEC)
    production.live(20, 1.5, shadow="rel_b", labelled=0.9)
    stepwise = production.windows()
    again = monitoring.MonitorSpec("other", "delay")
    fresh = production.stores.ledger

    def restart(tx: Transaction) -> None:
        for table in (store.scored_days, store.windows, store.watches):
            tx.execute(table.delete())
        monitoring.watch(tx, SERVICE, delay_days=again.delay_days)

    fresh.write(CONTEXT, restart)
    production.stores.journal.seal()
    production.run()
    at_once = production.windows()
    assert len(at_once) == len(stepwise)
    for one, other in zip(stepwise, at_once, strict=True):
        assert one.to_json() == other.to_json()


def test_what_is_stored_equals_what_the_journal_says(production: Production) -> None:
    production.declare(SPEC)
    production.live(10, 1.0, shadow="rel_b", labelled=0.8)
    table = monitoring.joined(production.stores, PROJECT, SERVICE)
    for release in ("rel_a", "rel_b"):
        rows = table.filter(np.array(table["release"].to_pylist()) == release).to_pydict()
        known = [number for number, label in enumerate(rows["label"]) if label is not None]
        month = only(production.windows(grain="month", release=release))
        assert (month.n, month.labelled) == (len(rows["label"]), len(known))
        assert month.roc_auc.value == pytest.approx(
            roc_auc_score([rows["label"][k] for k in known], [rows["score"][k] for k in known]), abs=1e-6
        )


def test_a_service_without_monitors_can_be_watched(production: Production) -> None:
    production.stores.ledger.write(CONTEXT, lambda tx: monitoring.watch(tx, SERVICE))
    production.label(production.predict([0.9, 0.1]), [1, 0])
    assert production.run() == []
    rows = production.stores.ledger.read(lambda conn: monitoring.quality(conn, PROJECT, SERVICE))
    assert rows[0]["roc_auc"] == 1.0
    assert rows[0]["window"] == "2013-03"
    volumes = production.stores.ledger.read(lambda conn: monitoring.volume(conn, PROJECT, SERVICE))
    assert (volumes[0]["window"], volumes[0]["n"]) == ("2013-03-01", 2)


def test_projects_do_not_see_each_other(production: Production) -> None:
    production.declare(SPEC)
    production.live(1, 1.0)
    assert production.stores.ledger.read(lambda conn: monitoring.windows(conn, "other", SERVICE)) == []
    assert monitoring.run_due(production.stores, "other") == []


def test_a_pass_that_another_one_overtook_writes_nothing(production: Production) -> None:
    production.declare(SPEC)
    ledger = production.stores.ledger
    stale = ledger.read(lambda conn: store.read_watches(conn, PROJECT))[0]
    keys = production.predict([0.9, 0.1])
    production.run()
    production.label(keys, [1, 0])
    assert ingest(production.stores, PROJECT, stale) is False
    assert only(production.windows(grain="day")).labelled == 0
    production.run()
    assert only(production.windows(grain="day")).labelled == 2


def test_a_pass_that_could_not_be_written_is_repeated_whole(production: Production) -> None:
    production.declare(SPEC)
    keys = production.predict([0.9, 0.1])
    production.label(keys, [1, 0])
    ledger = production.stores.ledger
    words = {
        "sqlite": ("BEGIN SELECT RAISE(ABORT, 'no'); END", ""),
        "postgresql": ("FOR EACH ROW EXECUTE FUNCTION never_changed()", " ON windows"),
    }
    refuse, of = words[ledger.read(lambda conn: conn.dialect.name)]
    statement = f"CREATE TRIGGER refuse BEFORE INSERT ON windows {refuse}"
    ledger.write(CONTEXT, lambda tx: tx.connection.exec_driver_sql(statement))
    with pytest.raises(IntegrityError):
        production.run()
    assert ledger.read(lambda conn: store.read_days(conn, PROJECT, SERVICE, 0, 99_999)) == {}
    ledger.write(CONTEXT, lambda tx: tx.connection.exec_driver_sql(f"DROP TRIGGER refuse{of}"))
    production.run()
    assert only(production.windows(grain="day")).roc_auc.value == 1.0


def test_numbers_as_keys_survive_the_journal_making_floats_of_them(production: Production) -> None:
    production.declare(SPEC)
    production.predict([0.9, 0.1, 0.2], key=[17, 18, 2.5])
    production.label(["17", "18", "2.5"], [1, 0, 0])
    production.run()
    assert only(production.windows(grain="day")).labelled == 3


def released(production: Production, content: dict[str, Any], **config: Any) -> str:
    """Return a release whose model says what it answers with."""

    def work(tx: Transaction) -> str:
        model = catalog.register(tx, "model", "delay", content)
        manifest = catalog.Manifest(SERVICE, "4f1c9a7", "b7" * 8, {"model": model.id}, config)
        return catalog.create_release(tx, manifest, author="usr_ada", run=None).id

    return production.stores.ledger.write(CONTEXT, work)


def test_a_release_of_numbers_is_measured_with_its_ranges_also_beside_one_without(production: Production) -> None:
    production.stores.ledger.write(CONTEXT, lambda tx: monitoring.watch(tx, SERVICE))
    sure = released(production, {"number": True}, ranges={"confidence": 0.9, "edges": [], "halves": [2.0]})
    plain = released(production, {"number": True, "digest": "other"})
    for release, off in ((sure, (1.0, 3.0)), (plain, (0.0, 8.0))):
        production.label(production.predict([10.0, 20.0], release=release), [10.0 + off[0], 20.0 + off[1]])
    production.run()
    found = {
        each.release: {measure.name: measure for measure in each.measures}
        for release in (None, "all")
        for each in production.windows(grain="month", release=release)
    }
    assert {name: each["mae"].interval.value for name, each in found.items()} == {sure: 2.0, plain: 4.0, "all": 3.0}
    assert "coverage" not in found[plain]
    for each in (found[sure], found["all"]):
        assert (each["coverage"].interval.value, each["coverage"].interval.n) == (0.5, 2)
        assert each["coverage"].promised == 0.9


def test_a_release_of_classes_is_measured_by_what_was_said(production: Production) -> None:
    production.stores.ledger.write(CONTEXT, lambda tx: monitoring.watch(tx, SERVICE))
    release = released(production, {"classes": ["a", "b", "c"]})
    production.label(production.predict([0.0, 1.0, 2.0, 2.0], release=release), [0, 1, 2, 1])
    production.run()
    (window,) = production.windows(grain="day")
    assert (window.quality.name, window.quality.interval.value) == ("accuracy", 0.75)
    assert np.isnan(window.roc_auc.value)
    assert window.measure("log_loss") is None


def test_the_chances_of_classes_that_records_hold_are_measured(production: Production) -> None:
    production.stores.ledger.write(CONTEXT, lambda tx: monitoring.watch(tx, SERVICE))
    release = released(production, {"classes": ["a", "b", "c"]})
    chances = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
    keys: list[str] = []
    for rows in (slice(0, 1), slice(1, 3)):
        columns = {f"p_{place}": chances[rows, place].tolist() for place in range(3)}
        keys += production.predict([float(each) for each in chances[rows].argmax(axis=1)], release=release, **columns)
        production.run()
    production.label(keys, [0, 2, 2])
    production.run()
    for window in (*production.windows(), *production.windows(release="all")):
        assert [each.name for each in window.measures] == ["accuracy", "macro_f1", "log_loss", "brier"]
        found = [window.measure(name) for name in ("log_loss", "brier")]
        whole = brier_score_loss([0, 2, 2], chances, labels=[0, 1, 2])
        expected = [log_loss([0, 2, 2], chances, labels=[0, 1, 2]), whole / 2]
        assert [each.interval.value for each in found if each] == pytest.approx(expected, rel=1e-5)


def test_windows_of_classes_read_before_their_chances_were_get_them_from_their_records(production: Production) -> None:
    production.stores.ledger.write(CONTEXT, lambda tx: monitoring.watch(tx, SERVICE))
    release = released(production, {"classes": ["a", "b", "c"]})
    bare = production.predict([1.0, 2.0], release=release)
    keys: list[str] = []
    for number in range(3):
        production.clock.set(day(number))
        chances = {f"p_{place}": [0.6 if place == number else 0.2] * 4 for place in range(3)}
        keys += production.predict([float(number)] * 4, release=release, shadow="rel_other", **chances)
    production.run()
    production.label([*bare, *keys], [1, 1, *[0, 1, 2, 0] * 3])
    production.run()
    made = production.windows()
    assert all(each.measure("log_loss") for each in made if each.release == release)

    def forget(tx: Transaction) -> None:
        tx.execute(store.windows.update().values(measures=None, measured=1))
        held = store.read_days(tx.connection, PROJECT, SERVICE, 0, 10**6)
        store.put_days(tx, SERVICE, {key: replace(scores, chances=None) for key, scores in held.items()})

    production.stores.ledger.write(CONTEXT, forget)
    production.run()
    assert production.windows() == made


def test_a_label_of_months_ago_is_counted_in_the_window_of_its_prediction(production: Production) -> None:
    production.declare(SPEC)
    old = production.predict([0.9, 0.1, 0.4])
    production.clock.set(day(45))
    middle = production.predict([0.8])
    production.run()
    production.clock.set(day(200))
    production.predict([0.5])
    production.label(old[:2], [1, 0])
    production.run()
    (first,) = production.windows(grain="day", until=day(1).date())
    assert (first.labelled, first.roc_auc.value) == (2, 1.0)
    # What comes later on that day is found as well, and what is not is not given up before the next one.
    production.label([*old[2:], *middle, "nobody"], [0, 1, 1], known_at=day(30))
    production.run()
    assert counts(production) == {"invalid": 0, "waiting": 1, "forgotten": 0}
    production.run()
    assert counts(production) == {"invalid": 0, "waiting": 1, "forgotten": 0}
    production.clock.set(day(201))
    production.run()
    assert counts(production) == {"invalid": 0, "waiting": 0, "forgotten": 1}
    assert [each.labelled for each in production.windows(grain="day", until=day(100).date())] == [3, 1]
    (month, *_) = production.windows(grain="month", release="all")
    assert (month.start, month.labelled, month.maturity) == (day(0).date(), 3, 1.0)


def test_labels_of_nothing_are_looked_for_everywhere_a_bounded_number_of_times_a_day(production: Production) -> None:
    production.declare(SPEC)
    old = production.predict([0.9, 0.1])
    production.run()
    production.clock.set(day(200))
    production.predict([0.5])
    for number in range(30):
        production.label([f"nobody-{number}"], [1])
        production.run()
    assert counts(production) == {"invalid": 0, "waiting": 30, "forgotten": 0}
    production.label(old[:1], [1])
    production.run()
    assert counts(production)["waiting"] == 31
    # The next day begins anew, and finds what waits.
    production.clock.set(day(201))
    production.run()
    assert counts(production) == {"invalid": 0, "waiting": 30, "forgotten": 0}
    production.label(old[1:], [0])
    production.run()
    (first,) = production.windows(grain="day", until=day(1).date())
    assert (first.labelled, first.roc_auc.value) == (2, 1.0)


def test_windows_that_were_there_get_their_measures_though_nothing_new_comes(production: Production) -> None:
    production.declare(SPEC)
    production.live(40, 1.5)
    made = production.windows()
    assert all(each.measure("log_loss") for each in made if not each.reason)

    def forget(tx: Transaction) -> None:
        tx.execute(store.windows.update().values(measures=None, measured=None))

    production.stores.ledger.write(CONTEXT, forget)
    assert not any(each.measures for each in production.windows())
    production.run()
    assert production.windows() == made
    # Once is enough.
    before = production.stores.ledger.events(PROJECT, limit=1000)
    (watch,) = production.stores.ledger.read(lambda conn: store.read_watches(conn, PROJECT))
    assert not ingest(production.stores, PROJECT, watch)
    assert production.stores.ledger.events(PROJECT, limit=1000) == before
