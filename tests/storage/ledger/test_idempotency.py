"""The same key and body give the same answer and one effect, also after a restart."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import Conflict, IdempotencyMismatch
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext
from tests.storage.ledger.conftest import OpenLedger
from tests.storage.ledger.toys import ANN, BOTH, ROBOT, keys, put

PLACES = BOTH


def keyed(key: str = "k", digest: str = "d", project: str = "flights") -> WriteContext:
    return WriteContext(ANN, project, idempotency_key=key, request_digest=digest)


def work(tx: Transaction) -> Any:
    return {"seq": put("a")(tx), "at": tx.now.isoformat()}


def test_a_repeated_request_gets_the_first_answer(ledger: Ledger, clock: SimulatedClock) -> None:
    first = ledger.write(keyed(), work)
    clock.advance(3600)
    assert ledger.write(keyed(), work) == first
    assert keys(ledger) == ["a"]


def test_the_answer_survives_a_restart(ledger: Ledger, open_ledger: OpenLedger) -> None:
    first = ledger.write(keyed(), work)
    ledger.close()
    again = open_ledger()
    assert again.write(keyed(), work) == first
    assert keys(again) == ["a"]


def test_another_body_under_the_same_key_is_refused(ledger: Ledger) -> None:
    ledger.write(keyed(), work)
    with pytest.raises(IdempotencyMismatch):
        ledger.write(keyed(digest="other"), work)
    assert keys(ledger) == ["a"]


def test_keys_of_other_actors_and_projects_are_other_keys(ledger: Ledger) -> None:
    ledger.write(keyed(), work)
    ledger.write(keyed(project="other"), work)
    ledger.write(WriteContext(ROBOT, "flights", idempotency_key="k", request_digest="other"), work)
    ledger.write(keyed(key="k2"), work)
    assert keys(ledger) == ["a"] * 4


def test_fifty_at_once_have_one_effect(ledger: Ledger) -> None:
    barrier = threading.Barrier(50)

    def one(_: int) -> Any:
        barrier.wait(10)
        return ledger.write(keyed(), work)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(one, range(50)))
    assert keys(ledger) == ["a"]
    assert all(answer == answers[0] for answer in answers)


def test_a_failed_request_may_be_repeated(ledger: Ledger) -> None:
    def failing(tx: Transaction) -> None:
        put("lost")(tx)
        raise Conflict("not now")

    with pytest.raises(Conflict):
        ledger.write(keyed(), failing)
    ledger.write(keyed(), work)
    assert keys(ledger) == ["a"]


def test_keys_are_kept_for_seven_days(ledger: Ledger, clock: SimulatedClock) -> None:
    ledger.write(keyed(), work)
    clock.advance(timedelta(days=7).total_seconds())
    ledger.write(keyed(), work)
    assert keys(ledger) == ["a"]
    clock.advance(1)
    ledger.write(keyed(digest="other"), work)
    assert keys(ledger) == ["a", "a"]


@dataclass(frozen=True)
class Made:
    name: str
    at: datetime


def test_a_dataclass_is_remembered_in_its_json_form(ledger: Ledger, clock: SimulatedClock) -> None:
    made = Made("x", clock.now())
    assert ledger.write(keyed(), lambda tx: made) == made
    assert ledger.write(keyed(), lambda tx: made) == {"name": "x", "at": "2013-01-01T00:00:00Z"}


def test_an_answer_that_is_not_json_is_refused_whole(ledger: Ledger) -> None:
    def odd(tx: Transaction) -> Any:
        put("odd")(tx)
        return {"x": object()}

    with pytest.raises(TypeError, match="must return JSON"):
        ledger.write(keyed(), odd)
    assert keys(ledger) == []
