"""Budgets: exact under many calls, workers and deaths; rates; periods."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdtrue.core.clock import SimulatedClock, microseconds
from holdtrue.core.errors import HoldtrueError, StorageFull
from holdtrue.llm.gateway import Budget, Period, QuotaExhausted, RateLimited
from holdtrue.llm.gateway.budgets import Amount, Budgets, Limit, Reservation, limits_of, read_standings
from tests.llm.gateway.spender import LIMITS
from tests.sampling import examples

START = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START)


@pytest.fixture
def budgets(tmp_path: Path, clock: SimulatedClock) -> Iterator[Budgets]:
    made = Budgets(tmp_path / "budgets", "worker-0", clock)
    yield made
    made.close()


def limit(**changes: Any) -> tuple[Limit, ...]:
    return (Limit("p", Budget(**changes)),)


def used(budgets: Budgets) -> list[tuple[Amount, Amount]]:
    return [(each.used, each.reserved) for each in budgets.standings()]


def test_a_call_is_reserved_then_settled(budgets: Budgets) -> None:
    held = budgets.reserve(limit(money=100), Amount(60, 10, 1), 60)
    assert used(budgets) == [(Amount(), Amount(60, 10, 1))]
    with pytest.raises(QuotaExhausted) as error:
        budgets.reserve(limit(money=100), Amount(41, 1, 1), 60)
    assert error.value.facts["kind"] == "money"
    assert "0.00004 of 0.0001" in error.value.why
    budgets.settle(held, Amount(59, 9, 1))
    assert used(budgets) == [(Amount(59, 9, 1), Amount())]
    budgets.settle(held, Amount(59, 9, 1))
    assert used(budgets) == [(Amount(59, 9, 1), Amount())]
    budgets.reserve(limit(money=100), Amount(41, 1, 1), 60)


@pytest.mark.parametrize("what", ["money", "tokens", "requests"])
def test_each_kind_of_limit_holds_to_the_last_unit(budgets: Budgets, what: str) -> None:
    limits = limit(**{what: 10})
    for _ in range(10):
        budgets.settle(budgets.reserve(limits, Amount(1, 1, 1), 60), Amount(1, 1, 1))
    with pytest.raises(QuotaExhausted):
        budgets.reserve(limits, Amount(1, 1, 1), 60)
    assert used(budgets) == [(Amount(10, 10, 10), Amount())]


def test_all_of_several_budgets_hold_or_nothing_is_reserved(budgets: Budgets) -> None:
    known = {"": (Budget(requests=9),), "p": (Budget(requests=5), Budget("k", requests=1)), "q": (Budget(tokens=1),)}
    limits = limits_of(known, "p", "k").each
    assert [(each.project, each.budget.key) for each in limits] == [("", ""), ("p", ""), ("p", "k")]
    assert [each.project for each in limits_of(known, "p", "other").each] == ["", "p"]
    budgets.reserve(limits, Amount(0, 0, 1), 60)
    before = used(budgets)
    with pytest.raises(QuotaExhausted, match="requests"):
        budgets.reserve(limits, Amount(0, 0, 1), 60)
    assert used(budgets) == before


def test_calls_at_a_time(budgets: Budgets) -> None:
    limits = limit(concurrent=2)
    first = budgets.reserve(limits, Amount(0, 0, 1), 60)
    budgets.reserve(limits, Amount(0, 0, 1), 60)
    with pytest.raises(RateLimited):
        budgets.reserve(limits, Amount(0, 0, 1), 60)
    budgets.settle(first, Amount(0, 0, 1))
    budgets.reserve(limits, Amount(0, 0, 1), 60)


def test_requests_a_minute_fill_up_evenly(budgets: Budgets, clock: SimulatedClock) -> None:
    limits = limit(requests_per_minute=6)
    for _ in range(6):
        budgets.settle(budgets.reserve(limits, Amount(0, 0, 1), 60), Amount(0, 0, 1))
    with pytest.raises(RateLimited) as error:
        budgets.reserve(limits, Amount(0, 0, 1), 60)
    assert error.value.facts["retry_after"] == 10
    clock.advance(9.9)
    with pytest.raises(RateLimited):
        budgets.reserve(limits, Amount(0, 0, 1), 60)
    clock.advance(0.1)
    budgets.reserve(limits, Amount(0, 0, 1), 60)
    with pytest.raises(RateLimited):
        budgets.reserve(limits, Amount(0, 0, 1), 60)


def test_tokens_a_minute_are_given_back_when_they_were_not_used(budgets: Budgets, clock: SimulatedClock) -> None:
    limits = limit(tokens_per_minute=600)
    held = budgets.reserve(limits, Amount(0, 500, 1), 60)
    with pytest.raises(RateLimited) as error:
        budgets.reserve(limits, Amount(0, 200, 1), 60)
    assert error.value.facts == {"kind": "tokens", "retry_after": 10}
    budgets.settle(held, Amount(0, 100, 1))
    budgets.reserve(limits, Amount(0, 500, 1), 60)
    with pytest.raises(RateLimited, match="larger") as error:
        budgets.reserve(limits, Amount(0, 601, 1), 60)
    assert "retry_after" not in error.value.facts
    clock.advance(60)
    budgets.reserve(limits, Amount(0, 600, 1), 60)


def test_a_clock_that_goes_back_shuts_nobody_out_for_long(budgets: Budgets, clock: SimulatedClock) -> None:
    limits = limit(requests_per_minute=1)
    budgets.settle(budgets.reserve(limits, Amount(0, 0, 1), 60), Amount(0, 0, 1))
    clock.set(START - timedelta(days=1))
    budgets.reserve(limits, Amount(0, 0, 1), 60)
    with pytest.raises(RateLimited):
        budgets.reserve(limits, Amount(0, 0, 1), 60)
    clock.advance(60)
    budgets.reserve(limits, Amount(0, 0, 1), 60)


def test_a_budget_begins_anew_with_its_period(budgets: Budgets, clock: SimulatedClock) -> None:
    day, month = limit(period=Period.DAY, requests=1), limit(period=Period.MONTH, requests=2)
    both = (*day, *month)
    budgets.settle(budgets.reserve(both, Amount(0, 0, 1), 60), Amount(0, 0, 1))
    with pytest.raises(QuotaExhausted) as error:
        budgets.reserve(both, Amount(0, 0, 1), 60)
    assert "2026-04-01T00:00:00+00:00" in error.value.why
    clock.set(datetime(2026, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    with pytest.raises(QuotaExhausted):
        budgets.reserve(both, Amount(0, 0, 1), 60)
    late = budgets.reserve(month, Amount(0, 0, 1), 60)
    clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    budgets.settle(budgets.reserve(both, Amount(0, 0, 1), 60), Amount(0, 0, 1))
    # What was reserved in March is settled in March.
    budgets.settle(late, Amount(0, 0, 1))
    months = {each.since: each.used.requests for each in budgets.standings() if each.period is Period.MONTH}
    march, april = microseconds(datetime(2026, 3, 1, tzinfo=UTC)), microseconds(datetime(2026, 4, 1, tzinfo=UTC))
    assert months == {march: 2, april: 1}


def test_what_nobody_settles_is_billed_in_full_when_it_expires(budgets: Budgets, clock: SimulatedClock) -> None:
    held = budgets.reserve(limit(money=100), Amount(60, 6, 1), 30)
    clock.advance(30)
    assert budgets.expire() == 0
    clock.advance(1)
    assert budgets.expire() == 1
    assert used(budgets) == [(Amount(60, 6, 1), Amount())]
    budgets.settle(held, Amount(1, 1, 1))
    assert used(budgets) == [(Amount(60, 6, 1), Amount())]


def test_the_next_worker_of_a_name_bills_what_a_dead_one_left(tmp_path: Path, clock: SimulatedClock) -> None:
    path = tmp_path / "budgets"
    command = [sys.executable, "-m", "tests.llm.gateway.spender", str(path), "worker-1", "hold"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dead:
        assert dead.stdout is not None
        assert dead.stdout.readline() == b"held\n"
        dead.kill()
    other = Budgets(path, "worker-0", clock)
    assert used(other) == [(Amount(), Amount(70, 7, 1))]
    other.close()
    again = Budgets(path, "worker-1", clock)
    assert used(again) == [(Amount(70, 7, 1), Amount())]
    again.close()


def test_several_processes_share_a_budget_exactly(tmp_path: Path, clock: SimulatedClock) -> None:
    path = tmp_path / "budgets"
    command = [sys.executable, "-m", "tests.llm.gateway.spender", str(path)]
    workers = [
        subprocess.Popen([*command, f"worker-{number}", "settle"], stdout=subprocess.PIPE) for number in range(3)
    ]
    calls = 0
    for worker in workers:
        out, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0
        calls += int(out)
    budgets = Budgets(path, "worker-9", clock)
    ((total, reserved),) = used(budgets)
    budgets.close()
    assert total == Amount(50 * calls, 5 * calls, calls)
    assert reserved == Amount()
    # Each stops when less than one reservation of 70 is left beside what the others hold.
    assert 100_000 - 70 * len(workers) < total.money <= LIMITS[0].budget.money  # type: ignore[operator]  # it is set


def test_after_the_machine_was_started_anew_the_copy_counts(tmp_path: Path, clock: SimulatedClock) -> None:
    path = tmp_path / "budgets"
    first = Budgets(path, "worker-0", clock)
    first.settle(first.reserve(limit(money=100), Amount(60, 6, 1), 60), Amount(40, 4, 1))
    first.reserve(limit(money=100), Amount(20, 2, 1), 60)
    first.save()
    first.settle(first.reserve(limit(money=100), Amount(5, 5, 1), 60), Amount(5, 5, 1))
    # Nobody closes anything, and the file is not what was written: a power failure.
    first._env.close()  # pyright: ignore[reportPrivateUsage]  # as the end of the process would
    (path / "data.mdb").write_bytes(b"garbage")
    (path / "boot").write_text("another-run-of-the-machine")
    again = Budgets(path, "worker-1", clock)
    assert used(again) == [(Amount(40, 4, 1), Amount(20, 2, 1))]
    again.close()
    owner = Budgets(path, "worker-0", clock)
    assert used(owner) == [(Amount(60, 6, 2), Amount())]
    owner.close()


def test_the_copy_can_be_read_without_the_counters(budgets: Budgets, tmp_path: Path) -> None:
    assert read_standings(tmp_path / "budgets") == []
    budgets.settle(budgets.reserve(limit(key="k", money=100), Amount(60, 6, 1), 60), Amount(40, 4, 1))
    budgets.save()
    (found,) = read_standings(tmp_path / "budgets")
    assert (found.project, found.key, found.period) == ("p", "k", Period.MONTH)
    assert (found.used, found.reserved) == (Amount(40, 4, 1), Amount())
    assert found.since == microseconds(datetime(2026, 3, 1, tzinfo=UTC))


def test_counters_of_long_ago_are_dropped(tmp_path: Path, clock: SimulatedClock) -> None:
    path = tmp_path / "budgets"
    for name in ("worker-0", "worker-1"):
        budgets = Budgets(path, name, clock)
        budgets.settle(budgets.reserve(limit(requests=9), Amount(0, 0, 1), 60), Amount(0, 0, 1))
        budgets.settle(budgets.reserve(limit(period=Period.TOTAL, requests=9), Amount(), 60), Amount(0, 0, 1))
        budgets.close()
        clock.advance(300 * 86_400)
    last = Budgets(path, "worker-2", clock)
    assert sorted((each.period, each.used.requests) for each in last.standings()) == [
        (Period.MONTH, 1),
        (Period.TOTAL, 2),
    ]
    last.close()


def test_no_call_is_let_through_that_a_full_disk_would_not_count(
    budgets: Budgets, tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    held = budgets.reserve(limit(money=100), Amount(60, 6, 1), 60)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        patch.setattr("holdtrue.llm.gateway.budgets._AHEAD", 1 << 40)
        budgets.save()
        budgets.settle(budgets.reserve(limit(money=100), Amount(1, 1, 1), 60), Amount(1, 1, 1))
        # What was taken before is used up.
        patch.setattr("holdtrue.llm.gateway.budgets._LEAST", 1 << 40)
        budgets.save()
        with pytest.raises(StorageFull):
            budgets.reserve(limit(money=100), Amount(1, 1, 1), 60)
        budgets.settle(held, Amount(50, 5, 1))
        with pytest.raises(StorageFull):
            Budgets(tmp_path / "new", "worker-0", clock)
    budgets.save()
    budgets.reserve(limit(money=100), Amount(49, 1, 1), 60)
    assert used(budgets) == [(Amount(51, 6, 2), Amount(49, 1, 1))]


class Twin(RuleBasedStateMachine):
    """Compare the counters with plain numbers in memory, whatever happens in whichever order."""

    folder: Path
    MONEY, TOKENS = 500, 900

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock(START)
        self.path = self.folder / uuid4().hex
        self.budgets = Budgets(self.path, "worker-0", self.clock)
        self.limits = limit(period=Period.TOTAL, money=self.MONEY, tokens=self.TOKENS)
        self.open: list[tuple[Reservation, datetime]] = []
        self.spent = [0, 0, 0]

    @rule(money=st.integers(0, 200), tokens=st.integers(0, 300), seconds=st.integers(1, 100))
    def reserve(self, money: int, tokens: int, seconds: int) -> None:
        held = [sum(getattr(each.amount, name) for each, _ in self.open) for name in ("money", "tokens")]
        fits = self.spent[0] + held[0] + money <= self.MONEY and self.spent[1] + held[1] + tokens <= self.TOKENS
        try:
            made = self.budgets.reserve(self.limits, Amount(money, tokens, 1), seconds)
        except HoldtrueError:
            assert not fits
            return
        assert fits
        self.open.append((made, self.clock.now() + timedelta(seconds=seconds)))

    @rule(place=st.integers(0, 20), share=st.floats(0, 1))
    def settle(self, place: int, share: float) -> None:
        if not self.open:
            return
        held, _ = self.open.pop(place % len(self.open))
        real = Amount(int(held.amount.money * share), int(held.amount.tokens * share), 1)
        self.budgets.settle(held, real)
        self._spend(real)

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.budgets.expire()
        for held, until in list(self.open):
            if until < self.clock.now():
                self.open.remove((held, until))
                self._spend(held.amount)

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        if clean:
            self.budgets.close()
        else:
            self.budgets._env.close()  # pyright: ignore[reportPrivateUsage]  # as the end of the process would
        self.budgets = Budgets(self.path, "worker-0", self.clock)
        for held, _ in self.open:
            self._spend(held.amount)
        self.open.clear()

    @invariant()
    def equal(self) -> None:
        found = self.budgets.standings()
        if not found:
            assert not self.open
            assert self.spent == [0, 0, 0]
            return
        assert [found[0].used.money, found[0].used.tokens, found[0].used.requests] == self.spent
        assert found[0].reserved.requests == len(self.open)
        assert self.spent[0] <= self.MONEY
        assert self.spent[1] <= self.TOKENS

    def teardown(self) -> None:
        self.budgets.close()

    def _spend(self, amount: Amount) -> None:
        self.spent = [self.spent[0] + amount.money, self.spent[1] + amount.tokens, self.spent[2] + amount.requests]


def test_the_counters_equal_their_twin(tmp_path: Path) -> None:
    Twin.folder = tmp_path
    Twin.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)
    Twin.TestCase().runTest()
