"""Rates: what may come at once, what must wait and how long, across workers and over real sockets."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.serving.rates import Rates, TooOften
from tests.sampling import examples
from tests.serving.plane_home import SERVICE, TOKEN, Home, flight, infer_body

SLOW = "ht_svc_slow_00000000000000000000000000000000000000000000_000000"
SECOND = 1_000_000_000


class Watch:
    """A stopwatch that is moved by hand."""

    def __init__(self) -> None:
        self.now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


def taken(rates: Rates, rate: float, name: str = "token/a") -> float:
    """Return 0 for a request that is taken, else the seconds that it is to wait."""
    try:
        rates.take(name, rate, "This token")
    except TooOften as error:
        return float(error.facts["retry_after"])
    return 0.0


def test_two_seconds_worth_comes_at_once_and_then_one_at_a_time(tmp_path: Path) -> None:
    watch = Watch()
    rates = Rates(tmp_path / "rates", watch)
    assert [taken(rates, 5) for _ in range(10)] == [0.0] * 10
    assert taken(rates, 5) == 1.0
    assert taken(rates, 5, "token/b") == 0.0
    watch.now += SECOND // 5
    assert [taken(rates, 5), taken(rates, 5)] == [0.0, 1.0]
    watch.now += 100 * SECOND
    assert [taken(rates, 5) for _ in range(11)] == [0.0] * 10 + [1.0]
    rates.close()


def test_one_request_always_may_and_a_slow_rate_says_how_long_it_takes(tmp_path: Path) -> None:
    watch = Watch()
    rates = Rates(tmp_path / "rates", watch)
    assert [taken(rates, 0.1), taken(rates, 0.1)] == [0.0, 10.0]
    watch.now += 4 * SECOND
    assert taken(rates, 0.1) == 6.0
    watch.now += 6 * SECOND
    assert taken(rates, 0.1) == 0.0
    # A rate that was raised holds at once.
    assert taken(rates, 100) == 0.0
    rates.close()


@given(
    rate=st.floats(0.05, 2000),
    gaps=st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=60),
)
@settings(max_examples=examples(40), deadline=None)
def test_no_stretch_of_time_has_more_than_its_rate_and_the_burst(
    tmp_path_factory: pytest.TempPathFactory, rate: float, gaps: list[int]
) -> None:
    watch = Watch()
    rates = Rates(tmp_path_factory.mktemp("rates"), watch)
    moments: list[int] = []
    for gap in gaps:
        watch.now += gap
        wait = taken(rates, rate)
        if wait == 0.0:
            moments.append(watch.now)
        else:
            # Whoever comes back then is taken.
            watch.now += int(wait * SECOND)
            assert taken(rates, rate) == 0.0
            moments.append(watch.now)
    rates.close()
    for first, start in enumerate(moments):
        for count, moment in enumerate(moments[first:], 1):
            assert count <= max(1.0, 2 * rate) + rate * (moment - start) / SECOND + 1.01


def test_a_worker_that_begins_anew_goes_on_counting(tmp_path: Path) -> None:
    watch = Watch()
    one = Rates(tmp_path / "rates", watch)
    assert [taken(one, 2) for _ in range(4)] == [0.0] * 4
    one.close()
    (tmp_path / "rates" / "an-earlier-run-of-the-machine").mkdir()
    two = Rates(tmp_path / "rates", watch)
    assert taken(two, 2) == 1.0
    two.close()
    assert len(list((tmp_path / "rates").iterdir())) == 1


def test_a_token_that_asks_too_often_is_told_when_to_come_back(home: Home) -> None:
    home.grant({TOKEN: {}, SLOW: {"rate": 2}})
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--workers", "2")
    acks = home.path / "routing" / "acks"
    plane.until(lambda: len(list(acks.glob("*.json"))) == 2)

    def ask(number: int) -> Any:
        headers = {"authorization": f"Bearer {SLOW}"}
        return plane.client.post(f"/v2/models/{SERVICE}/infer", json=infer_body([flight(number)]), headers=headers)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(40)))
    # Both workers count together: two seconds' worth, and what came due while they were asked.
    refused = [each for each in answers if each.status_code == 429]
    assert len(refused) >= 20
    assert {each.status_code for each in answers} == {200, 429}
    assert int(refused[-1].headers["retry-after"]) >= 1
    assert "too often" in refused[-1].json()["error"]
    assert plane.infer([flight(1)]).status_code == 200
    assert len(home.records("prediction")) == 40 - len(refused) + 1


def test_a_service_takes_as_many_as_it_declares_from_all_together(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"), rate=0.5)
    plane = home.start()
    plane.until_acked()
    assert plane.infer([flight(1)]).status_code == 200
    refused = plane.client.post("/predict", json=flight(2))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_often")
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert plane.client.get("/health/ready").status_code == 200
