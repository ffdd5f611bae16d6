"""The circuit breaker and the budget of retries."""

import itertools

import pytest

from holdtrue.core.errors import StateError
from holdtrue.llm.gateway.breaker import BREAKER_MOVES, Breaker, BreakerState, RetryBudget


class Timer:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[Breaker, Timer]:
    timer = Timer()
    breaker = Breaker(timer)
    for _ in range(5):
        assert breaker.admits()
        breaker.failed()
    return breaker, timer


@pytest.mark.parametrize(("current", "wanted"), list(itertools.product(BreakerState, BreakerState)))
def test_only_the_moves_of_the_table_are_made(current: BreakerState, wanted: BreakerState) -> None:
    breaker = Breaker(Timer())
    breaker.state = current
    if wanted in BREAKER_MOVES[current]:
        breaker._move(wanted)  # pyright: ignore[reportPrivateUsage]  # the one door of every move
        assert breaker.state is wanted
    else:
        with pytest.raises(StateError):
            breaker._move(wanted)  # pyright: ignore[reportPrivateUsage]  # as above


def test_it_opens_after_five_failures_and_lets_one_call_try_later() -> None:
    breaker, timer = opened()
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admits()
    assert breaker.seconds_left() == 5.0
    timer.now += 5.0
    assert breaker.admits()
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.admits()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admits()


def test_it_waits_twice_as_long_when_the_trial_fails_up_to_a_minute() -> None:
    breaker, timer = opened()
    for wait in (10.0, 20.0, 40.0, 60.0, 60.0):
        timer.now += breaker.seconds_left()
        assert breaker.admits()
        breaker.failed()
        assert breaker.seconds_left() == wait


def test_a_trial_that_was_abandoned_leaves_the_place_to_another() -> None:
    breaker, timer = opened()
    timer.now += 5.0
    assert breaker.admits()
    breaker.abandoned()
    assert breaker.admits()


def test_few_failures_among_many_successes_do_not_open_it() -> None:
    breaker = Breaker(Timer())
    for _ in range(40):
        for failed in (True, False, False):
            assert breaker.admits()
            (breaker.failed if failed else breaker.succeeded)()
    assert breaker.state is BreakerState.CLOSED


def test_retries_stay_below_a_tenth_of_the_requests() -> None:
    budget = RetryBudget()
    taken = sum(budget.take() for _ in range(100))
    assert taken == 10
    for _ in range(1000):
        budget.note_request()
        taken += budget.take()
    assert 100 <= taken <= 10 + 100
