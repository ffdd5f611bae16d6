import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation import MissingLabels, OneClass, compare, days, evaluate, label_column, mean_interval

N = 6000
RNG = np.random.default_rng(0)
DAY = np.sort(RNG.integers(0, 30, N))
TIMES = np.datetime64("2013-03-01", "us") + DAY.astype("timedelta64[D]")
LOGIT = RNG.normal(size=N) - 1.0
Y = (RNG.random(N) < 1 / (1 + np.exp(-LOGIT))).astype(float)
WEAK = 1 / (1 + np.exp(-(LOGIT + 1.5 * RNG.normal(size=N))))
STRONG = 1 / (1 + np.exp(-(LOGIT + 0.5 * RNG.normal(size=N))))
ORIGIN = RNG.choice(["EWR", "JFK", "LGA"], N, p=[0.6, 0.38, 0.02])


def test_metrics_are_those_of_scikit_learn_inside_their_intervals() -> None:
    found = evaluate(Y, STRONG, times=TIMES)
    for interval, theirs in (
        (found.metric.roc_auc, roc_auc_score(Y, STRONG)),
        (found.metric.brier, brier_score_loss(Y, STRONG)),
        (found.metric.log_loss, log_loss(Y, STRONG)),
    ):
        assert interval.value == pytest.approx(theirs)
        assert interval.lower < interval.value < interval.upper
        assert interval.n == N
    assert found.blocks == 30
    assert found.base_rate == pytest.approx(Y.mean())


def test_the_baseline_says_the_base_rate_to_everyone() -> None:
    found = evaluate(Y, STRONG)
    assert found.baseline.roc_auc.value == found.baseline.roc_auc.lower == 0.5
    assert found.baseline.brier.value == pytest.approx(Y.mean() * (1 - Y.mean()))
    assert found.metric.brier.value < found.baseline.brier.value
    assert evaluate(Y, STRONG, baseline=0.5).baseline.brier.value == pytest.approx(0.25)
    assert evaluate(Y, STRONG, baseline=WEAK).baseline.roc_auc.value == pytest.approx(roc_auc_score(Y, WEAK))


def test_slices_are_judged_apart_and_small_ones_only_counted() -> None:
    found = evaluate(Y, STRONG, slices={"origin": ORIGIN}, times=TIMES, min_slice=200)
    assert [entry.value for entry in found.slices] == ["EWR", "JFK"]
    assert found.skipped_slices == 1
    ewr = ORIGIN == "EWR"
    assert found.slices[0].roc_auc.value == pytest.approx(roc_auc_score(Y[ewr], STRONG[ewr]))
    assert found.slices[0].base_rate == pytest.approx(Y[ewr].mean())


def test_a_slice_of_one_class_has_a_reason_instead_of_a_number() -> None:
    labels = np.where(ORIGIN == "EWR", 0.0, Y)
    found = evaluate(labels, STRONG, slices={"origin": ORIGIN})
    ewr = found.to_json()["slices"][0]
    assert ewr["roc_auc"] is None
    assert "all of class 0" in ewr["reason"]


def test_evidence_is_plain_json_with_the_names_that_rules_read() -> None:
    content = evaluate(Y, STRONG, slices={"origin": ORIGIN}, times=TIMES).to_json()
    assert json.loads(canonical_bytes(content)) == json.loads(json.dumps(content))
    assert set(content["metric"]) == set(content["baseline"]) == {"roc_auc", "brier", "log_loss"}
    assert set(content["metric"]["roc_auc"]) == {"value", "lower", "upper", "n"}
    assert {"slice", "value", "n", "roc_auc", "lower", "upper"} <= set(content["slices"][0])


def test_rows_without_a_label_are_left_out_and_counted() -> None:
    some = Y.copy()
    some[::10] = np.nan
    found = evaluate(some, STRONG, slices={"origin": ORIGIN}, times=TIMES)
    assert found.left_out == 600
    assert found.n == N - 600
    known = ~np.isnan(some)
    assert found.metric.roc_auc.value == pytest.approx(roc_auc_score(Y[known], STRONG[known]))
    as_objects = np.array([None if np.isnan(value) else int(value) for value in some], dtype=object)
    assert evaluate(as_objects, STRONG).n == N - 600


@pytest.mark.parametrize("labels", [np.full(N, np.nan), []])
def test_no_label_at_all_is_an_error_that_says_so(labels: list[float]) -> None:
    with pytest.raises(MissingLabels, match="no label"):
        evaluate(labels, STRONG[: len(labels)])


def test_a_missing_label_column_is_named_with_what_is_there() -> None:
    with pytest.raises(MissingLabels) as caught:
        label_column({"origin": ORIGIN, "score": STRONG}, "late")
    assert "“late”" in caught.value.what
    assert "origin, score" in caught.value.why


def test_other_bad_input_is_named() -> None:
    with pytest.raises(OneClass):
        evaluate(np.zeros(N), STRONG)
    broken = STRONG.copy()
    broken[3] = np.nan
    with pytest.raises(InvalidInput, match="not finite"):
        evaluate(Y, broken)
    with pytest.raises(InvalidInput, match="“score” has shape"):
        evaluate(Y, STRONG[:-1])
    with pytest.raises(InvalidInput, match="“origin” has shape"):
        evaluate(Y, STRONG, slices={"origin": ORIGIN[:-1]})
    with pytest.raises(InvalidInput, match="cut into days"):
        evaluate(Y, STRONG, times=STRONG)
    with pytest.raises(InvalidInput, match="not probabilities"):
        evaluate(Y, STRONG * 2)


def test_days_are_the_same_from_moments_and_from_microseconds() -> None:
    assert (days(TIMES) == days(TIMES.astype("datetime64[us]").astype(np.int64))).all()
    assert days(np.array([-1, 0, 86_400_000_000 - 1, 86_400_000_000])).tolist() == [-1, 0, 0, 1]


def test_a_better_challenger_is_better_whichever_metric_is_asked() -> None:
    for metric in ("roc_auc", "brier", "log_loss"):
        found = compare(Y, WEAK, STRONG, TIMES, metric=metric, draws=500)
        assert found.p_better > 0.99, metric
        assert (found.lower > 0) == (metric == "roc_auc")
        assert found.difference == pytest.approx(found.challenger - found.champion)
        assert "30 days" in found.method
        other = found.others[0]
        assert other["lower"] == pytest.approx(found.lower, abs=0.35 * (found.upper - found.lower))
        assert compare(Y, STRONG, WEAK, TIMES, metric=metric, draws=500).p_better < 0.01


def test_equal_scores_have_even_odds() -> None:
    found = compare(Y, STRONG, STRONG, TIMES, draws=200)
    assert found.difference == 0.0
    assert found.p_better == pytest.approx(0.5)


def test_the_same_rows_and_seed_give_the_same_evidence() -> None:
    first = compare(Y, WEAK, STRONG, TIMES, draws=200).to_json()
    assert compare(Y, WEAK, STRONG, TIMES, draws=200).to_json() == first
    assert canonical_bytes(first)


def test_without_times_the_method_is_delong() -> None:
    found = compare(Y, WEAK, STRONG)
    assert found.method == "DeLong"
    assert found.blocks == 0
    assert compare(Y, WEAK, STRONG, TIMES[:1].repeat(N)).method == "DeLong"


def test_confidence_in_an_equal_challenger_is_spread_evenly() -> None:
    rng = np.random.default_rng(1)
    chances = []
    for _ in range(150):
        day = np.repeat(np.arange(20), 30)
        y = rng.random(day.size) < 0.3
        common = rng.normal(size=day.size) + y + rng.normal(size=20)[day]
        one, two = (1 / (1 + np.exp(-(common + rng.normal(size=day.size)))) for _ in range(2))
        chances.append(compare(y, one, two, day.astype("datetime64[D]"), draws=200).p_better)
    above = np.mean(np.array(chances) > 0.95)
    assert above < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(chances) == pytest.approx(0.5, abs=0.1)


def test_an_unknown_metric_names_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        compare(Y, WEAK, STRONG, metric="f1")
    assert "brier, log_loss, roc_auc" in caught.value.why


def test_a_mean_of_nothing_or_of_one_row_has_no_interval() -> None:
    assert mean_interval(np.zeros(0)).n == 0
    assert np.isnan(mean_interval(np.array([0.3])).lower)
