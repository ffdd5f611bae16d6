from dataclasses import replace
from datetime import date
from typing import Any, Literal

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from holdtrue.monitoring import Measure, MonitorSpec, Window
from holdtrue.monitoring.measuring import CLASSES, NUMBER, Answering
from holdtrue.monitoring.quality import (
    DayStatistic,
    Key,
    day_date,
    day_number,
    day_statistic,
    window_of,
)
from holdtrue.monitoring.scored import DayScores
from holdtrue.stats import clopper_pearson
from holdtrue.stats.conformal import Ranges, covered_ranges

KEY = Key("delay", "rel_a", "answer")
RNG = np.random.default_rng(0)


def scored(n: int, rate: float = 0.4, labelled: float = 1.0) -> DayScores:
    labels = (RNG.random(n) < rate).astype(np.float32)
    scores = np.clip(np.round(0.3 * labels + RNG.random(n) * 0.7, 2), 0, 1).astype(np.float32)
    labels[int(labelled * n) :] = np.nan
    ids = RNG.integers(1, 2**63, n).astype(np.uint64)
    return DayScores(ids, ids, scores, labels, np.zeros(n, np.int64))


DAYS = {number: scored(60 + number, rate=0.1 + 0.05 * number) for number in range(10)}


def whole(days: dict[int, DayScores]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([day.labels for day in days.values()]), np.concatenate([day.scores for day in days.values()])


def test_a_month_has_the_quality_of_all_its_rows() -> None:
    window = window_of(KEY, "month", date(1970, 1, 1), DAYS, due_before=100)
    y, score = whole(DAYS)
    assert window.roc_auc.value == pytest.approx(roc_auc_score(y, score))
    assert window.brier == pytest.approx(brier_score_loss(y, score), abs=1e-6)
    assert window.quality.name == "roc_auc"
    for name, value in (("log_loss", log_loss(y, score)), ("brier", brier_score_loss(y, score))):
        found = window.measure(name)
        assert found is not None
        assert found.interval.value == pytest.approx(value, abs=1e-6)
        assert found.interval.lower < value < found.interval.upper
        assert found.interval.n == y.size
    assert window.measure("mae") is None
    assert window.base_rate == pytest.approx(y.mean())
    assert window.maturity == 1.0
    assert window.roc_auc.lower < window.roc_auc.value < window.roc_auc.upper


def test_maturity_counts_only_labels_that_are_due() -> None:
    days = {0: scored(100, labelled=0.9), 1: scored(100, labelled=0.5)}
    window = window_of(KEY, "month", date(1970, 1, 1), days, due_before=1)
    assert (window.n, window.labelled, window.due, window.labelled_due) == (200, 140, 100, 90)
    assert window.maturity == pytest.approx(0.9)
    assert np.isnan(window_of(KEY, "day", date(1970, 1, 2), {1: days[1]}, due_before=1).maturity)


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        (scored(20, labelled=0.0), "no labels yet"),
        (scored(20, rate=0.0), "all of class 0"),
        (scored(20, rate=1.0), "all of class 1"),
        (scored(0), "no predictions"),
    ],
)
def test_quality_that_is_not_defined_is_null_with_its_reason(day: DayScores, reason: str) -> None:
    row = window_of(KEY, "day", date(1970, 1, 1), {0: day}, due_before=5).to_json()
    assert row["roc_auc"] is row["lower"] is None
    assert reason in row["reason"]


def test_labels_that_are_no_classes_are_no_quality() -> None:
    day = scored(20)
    odd = DayScores(day.ids, day.keys, day.scores, np.full(20, 7.0, np.float32), day.known_at)
    assert window_of(KEY, "day", date(1970, 1, 1), {0: odd}, due_before=5).reason == "labels are not 0 or 1"


def test_one_label_that_is_no_class_does_not_hide_what_the_others_say() -> None:
    day = scored(60)
    labels = day.labels.copy()
    labels[3] = 2.0
    odd = DayScores(day.ids, day.keys, day.scores, labels, day.known_at)
    without = np.arange(60) != 3
    rest = DayScores(
        day.ids[without], day.keys[without], day.scores[without], day.labels[without], day.known_at[without]
    )
    one, other = (window_of(KEY, "day", date(1970, 1, 1), {0: each}, due_before=5) for each in (odd, rest))
    assert one.reason == ""
    assert (one.roc_auc, one.brier, one.measures) == (other.roc_auc, other.brier, other.measures)
    assert one.labelled == other.labelled + 1


def test_answers_of_the_fallback_count_but_are_not_the_models_quality() -> None:
    day = scored(50)
    scores = day.scores.copy()
    scores[:10] = np.nan
    window = window_of(
        KEY, "day", date(1970, 1, 1), {0: DayScores(day.ids, day.keys, scores, day.labels, day.known_at)}, due_before=5
    )
    assert (window.n, window.fallbacks, window.roc_auc.n) == (50, 10, 40)
    assert window.roc_auc.value == pytest.approx(roc_auc_score(day.labels[10:], day.scores[10:]))


def test_the_area_within_days_weighs_each_day_by_its_pairs() -> None:
    found = day_statistic(MonitorSpec("m", "delay"), DAYS)
    wins = total = 0.0
    for day in DAYS.values():
        m = float(day.labels.sum())
        wins += roc_auc_score(day.labels, day.scores) * m * (day.n - m)
        total += m * (day.n - m)
    assert found.value == pytest.approx(wins / total)
    assert found.days == 10
    for number, day in DAYS.items():
        single = day_statistic(MonitorSpec("m", "delay"), {number: day})
        assert single.value == pytest.approx(roc_auc_score(day.labels, day.scores))


def test_the_area_over_a_window_is_that_of_all_its_rows() -> None:
    y, score = whole(DAYS)
    found = day_statistic(MonitorSpec("m", "delay", within="window"), DAYS)
    assert found.value == pytest.approx(roc_auc_score(y, score))


def test_brier_is_negated_so_that_lower_is_worse() -> None:
    y, score = whole(DAYS)
    found = day_statistic(MonitorSpec("m", "delay", metric="brier"), DAYS)
    assert found.value == pytest.approx(-brier_score_loss(y, score), abs=1e-6)


def test_days_of_one_class_have_no_pairs_and_are_left_out() -> None:
    days = {**DAYS, 10: scored(30, rate=0.0), 11: scored(30, labelled=0.0)}
    assert day_statistic(MonitorSpec("m", "delay"), days).days == 10
    assert day_statistic(MonitorSpec("m", "delay"), {11: days[11]}).days == 0


@pytest.mark.parametrize("within", ["day", "window"])
def test_a_reference_survives_being_stored(within: Literal["day", "window"]) -> None:
    found = day_statistic(MonitorSpec("m", "delay", within=within), DAYS)
    again = DayStatistic.from_json(found.to_json())
    counts = np.random.default_rng(1).integers(0, 3, (20, 10)).astype(float)
    assert (again.statistic()(counts) == found.statistic()(counts)).all()


def test_days_have_numbers_and_numbers_days() -> None:
    assert day_date(day_number(date(2013, 3, 1))) == date(2013, 3, 1)
    assert day_number(date(1970, 1, 1)) == 0


OF_CLASSES = {"rel_a": Answering(CLASSES)}


def answered(scores: Any, labels: Any) -> DayScores:
    ids = np.arange(1, len(scores) + 1, dtype=np.uint64)
    known = np.zeros(len(scores), np.int64)
    return DayScores(ids, ids, np.asarray(scores, np.float32), np.asarray(labels, np.float32), known)


def measured(window: Window) -> dict[str, Measure]:
    return {each.name: each for each in window.measures}


def test_answers_of_classes_are_measured_by_accuracy_and_macro_f1() -> None:
    random = np.random.default_rng(4)
    days: dict[int, DayScores] = {}
    for day in range(15765, 15785):
        labels = random.integers(0, 3, 80)
        said = np.where(random.random(80) < 0.7, labels, random.integers(0, 3, 80)).astype(float)
        said[0] = np.nan
        days[day] = answered(said, np.where(random.random(80) < 0.9, labels, np.nan))
    scores = np.concatenate([each.scores for each in days.values()])
    labels = np.concatenate([each.labels for each in days.values()])
    known = np.isfinite(scores) & np.isfinite(labels)
    month = window_of(KEY, "month", date(2013, 3, 1), days, 16000, OF_CLASSES)
    found = measured(month)
    assert (month.reason, month.quality.name, month.n) == ("", "accuracy", 1600)
    assert found["accuracy"].interval.value == pytest.approx(accuracy_score(labels[known], scores[known]))
    f1 = found["macro_f1"].interval
    assert f1.value == pytest.approx(f1_score(labels[known], scores[known], average="macro"))
    assert f1.n == found["accuracy"].interval.n == int(known.sum())
    assert f1.value - 0.06 < f1.lower < f1.value < f1.upper < f1.value + 0.06
    assert np.isnan(month.roc_auc.value)
    # A day has as few rows as it has, and its interval says so.
    one = measured(window_of(KEY, "day", date(2013, 3, 1), {15765: days[15765]}, 16000, OF_CLASSES))[
        "macro_f1"
    ].interval
    assert one.upper - one.lower > 2 * (f1.upper - f1.lower)
    told = month.to_json()["measures"]
    assert [Measure.from_json(each) for each in told] == list(month.measures)


def test_probabilities_of_classes_are_measured_by_log_loss_and_brier_score() -> None:
    random = np.random.default_rng(6)
    days: dict[int, DayScores] = {}
    for day in range(15765, 15785):
        chances = random.dirichlet([1.0, 2.0, 0.5], 50).astype(np.float32)
        labels = np.array([random.choice(3, p=row / row.sum()) for row in chances.astype(float)], np.float32)
        labels[:5] = np.nan
        chances[5:9] = np.nan  # the fallback answered these
        days[day] = replace(answered(chances.argmax(axis=1), labels), chances=chances)
    month = window_of(KEY, "month", date(2013, 3, 1), days, 16000, OF_CLASSES)
    found = measured(month)
    assert [*found] == ["accuracy", "macro_f1", "log_loss", "brier"]
    labels = np.concatenate([each.labels for each in days.values()])
    chances = np.concatenate([each.chances for each in days.values() if each.chances is not None])
    known = np.isfinite(labels) & np.isfinite(chances[:, 0])
    y, p = labels[known].astype(int), chances[known].astype(float)
    p /= p.sum(axis=1, keepdims=True)
    for name, value in (("log_loss", log_loss(y, p)), ("brier", brier_score_loss(y, p) / 2)):
        interval = found[name].interval
        assert interval.value == pytest.approx(value, rel=1e-5)
        assert interval.lower < value < interval.upper
        assert interval.n == int(known.sum()) == 20 * 41
    assert found["accuracy"].interval.n == 20 * 45
    # Without probabilities, as an older record has none, there is nothing to measure them by.
    bare = {day: replace(each, chances=None) for day, each in days.items()}
    assert [*measured(window_of(KEY, "month", date(2013, 3, 1), bare, 16000, OF_CLASSES))] == ["accuracy", "macro_f1"]


def test_a_label_that_no_class_has_costs_as_much_as_a_class_that_was_ruled_out() -> None:
    chances = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    day = replace(answered([0, 0, 0], [0, 1, 7]), chances=chances)
    found = measured(window_of(KEY, "day", date(2013, 3, 1), {15765: day}, 16000, OF_CLASSES))
    worst = -np.log(np.finfo(np.float32).eps)
    assert found["log_loss"].interval.value == pytest.approx(2 * worst / 3, rel=1e-5)
    assert found["brier"].interval.value == pytest.approx(2 / 3)
    same = log_loss([0, 1, 2], np.column_stack([chances, np.zeros(3)]).astype(np.float32))
    assert found["log_loss"].interval.value == pytest.approx(same, rel=1e-5)


def test_answers_of_numbers_are_measured_by_their_errors_and_by_what_their_ranges_held() -> None:
    random = np.random.default_rng(5)
    ranges = Ranges(0.9, (100.0,), (1.64, 16.4))
    small, large = random.uniform(0, 90, 400), random.uniform(110, 200, 400)
    scores = np.concatenate([small, large]).astype(np.float32)
    labels = scores + np.concatenate([random.normal(size=400), 10 * random.normal(size=400)]).astype(np.float32)
    day = answered(scores, labels)
    answering = {"rel_a": Answering(NUMBER, ranges)}
    halves = {15765: answering["rel_a"].halves(day.scores)}
    found = measured(window_of(KEY, "day", date(2013, 3, 1), {15765: day}, 16000, answering, halves))
    off = np.abs(scores.astype(float) - labels)
    assert found["mae"].interval.value == pytest.approx(off.mean())
    assert found["rmse"].interval.value == pytest.approx(np.sqrt(np.square(off).mean()))
    assert found["rmse"].interval.lower < found["rmse"].interval.value < found["rmse"].interval.upper
    expected = covered_ranges(ranges, day.scores, day.labels)
    assert found["coverage"].interval.to_json() == {key: expected[key] for key in ("value", "lower", "upper", "n")}
    assert found["coverage"].promised == 0.9
    # What said no range has none that could hold, and nothing is promised for it.
    silent = measured(window_of(KEY, "day", date(2013, 3, 1), {15765: day}, 16000, {"rel_a": Answering(NUMBER)}))
    assert [*silent] == ["mae", "rmse"]


def test_of_ranges_that_fail_on_some_days_a_month_is_less_sure_than_of_as_many_rows() -> None:
    days = {day: answered(np.zeros(50), np.full(50, 3.0 if day % 7 == 0 else 0.5)) for day in range(15765, 15793)}
    answering = {"rel_a": Answering(NUMBER, Ranges(0.9, (), (1.0,)))}
    halves = {day: answering["rel_a"].halves(each.scores) for day, each in days.items()}
    found = measured(window_of(KEY, "month", date(2013, 3, 1), days, 16000, answering, halves))["coverage"].interval
    exact = clopper_pearson(24 * 50, 28 * 50)
    assert found.value == pytest.approx(6 / 7)
    assert found.lower < exact.lower - 0.05
    assert found.upper > exact.upper + 0.05


def test_losses_of_classes_and_numbers_are_monitored() -> None:
    day = answered([0, 2, 1, 2], [0, 1, 1, np.nan])
    nothing = window_of(KEY, "day", date(2013, 3, 1), {15765: answered([1, 2], [np.nan] * 2)}, 0, OF_CLASSES)
    assert (nothing.reason, nothing.measures) == ("no labels yet", ())
    error = day_statistic(MonitorSpec("m", "delay", metric="error"), {1: day})
    assert (error.numerators.tolist(), error.denominators.tolist()) == ([-1.0], [3.0])
    distance = day_statistic(MonitorSpec("m", "delay", metric="mae"), {1: replace(day, scores=day.scores * 10)})
    assert distance.value == pytest.approx(-(0 + 19 + 9) / 3)
