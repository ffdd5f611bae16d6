"""Comparisons hold whatever the numbers, in both directions; sampled curves keep to the same steps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger import Ledger, Transaction
from holdtrue.tracking import Batch, Metric, NewRun, create_run, log, sampled
from holdtrue.tracking.comparing import compare, interval_of, lowest_is_best, named_runs
from holdtrue.tracking.model import LARGEST
from tests.sampling import examples
from tests.tracking.conftest import CONTEXT
from tests.tracking.test_recording import made

ODD = st.sampled_from([0.0, 5e-324, 1e-300, 1e-85, 2e-85, 0.5, 0.5000000000000001, 1e200, 1.7e308, -1.7e308, LARGEST])


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(ODD, min_size=4, max_size=6), st.booleans())
def test_no_value_breaks_a_comparison(values: list[float], lowest: bool) -> None:
    runs = [made(place, value, kind=str(place // 2), seed=str(place)) for place, value in enumerate(values)]
    found = compare(runs, "auc", lowest=lowest)
    assert len(found.left_out) == values.count(LARGEST)
    means = [each.mean for each in found.settings]
    assert means == sorted(means, reverse=not lowest)
    for each in found.contrasts:
        assert each.p is None or 0 <= each.p <= 1
        assert each.interval is None or -LARGEST <= each.interval[0] <= each.difference <= each.interval[1] <= LARGEST


def test_the_lowest_may_be_the_best_and_the_test_is_the_same() -> None:
    values = {"a": [0.40, 0.42, 0.41], "b": [0.50, 0.52, 0.51]}
    runs = [
        made(10 * place + seed, value, kind=kind, seed=str(seed))
        for place, (kind, own) in enumerate(values.items())
        for seed, value in enumerate(own)
    ]
    up, down = compare(runs, "auc"), compare(runs, "auc", lowest=True)
    assert [each.params["kind"] for each in up.settings] == ["b", "a"]
    assert [each.params["kind"] for each in down.settings] == ["a", "b"]
    assert down.contrasts[0].difference == pytest.approx(-up.contrasts[0].difference)
    expected = stats.ttest_ind(values["a"], values["b"], equal_var=False)[1]
    assert (up.contrasts[0].p, down.contrasts[0].p) == (pytest.approx(expected), pytest.approx(expected))


@pytest.mark.parametrize("text", ["", "one", "one,one", ",,one,", ",".join(map(str, range(201)))])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="2 to 200 runs"):
        named_runs(text)


def test_words_for_the_best_are_two() -> None:
    assert [lowest_is_best(word) for word in ("", "highest", "lowest")] == [False, False, True]
    with pytest.raises(InvalidInput, match="highest or the lowest"):
        lowest_is_best("least")
    assert interval_of([1.0]) is None


@pytest.fixture(scope="module")
def long_runs(ledger: Ledger) -> list[str]:
    """Log two runs, of which one has steps that the other lacks."""

    def work(tx: Transaction) -> list[str]:
        found: list[str] = []
        for own in (range(1, 1001), range(0, 1000, 7)):
            found.append(create_run(tx, NewRun(0)).info.id)
            for start in range(0, len(own), 500):
                log(tx, Batch(found[-1], tuple(Metric("m", each, 0, each / 2, 0) for each in own[start : start + 500])))
        return found

    return ledger.write(CONTEXT, work)


def test_sampled_curves_keep_their_ends_and_the_same_steps(ledger: Ledger, long_runs: list[str]) -> None:
    found = ledger.read(lambda c: sampled(c, CONTEXT.project, long_runs, "m", 50))
    first, second = ([point[0] for point in found[run]] for run in long_runs)
    assert (first[0], first[-1], second[0], second[-1]) == (1, 1000, 0, 994)
    assert len(first) <= 54
    assert set(second) - {0, 994} <= set(first)
    assert all(value == step / 2 for points in found.values() for step, _, value, _ in points)
    within = ledger.read(lambda c: sampled(c, CONTEXT.project, long_runs, "m", 5000, (10, 1000)))
    assert [point[0] for point in within[long_runs[0]]] == list(range(10, 1001))
