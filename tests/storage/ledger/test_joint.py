"""Work that many jobs do alike is done for all that wait at once; each still gets its own answer."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from holdtrue.core.errors import Conflict
from holdtrue.storage.ledger import Joint, Ledger, Transaction, WriteContext
from tests.storage.ledger.toys import BOTH, CONTEXT, ROBOT, keys, put

PLACES = BOTH

Work = Callable[[Transaction], Any]


class Toys:
    """Put keys into the table together, and note which came together and what was remembered."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.remembered: list[bool] = []

    def together(self, tx: Transaction, items: Sequence[str]) -> list[Exception | None]:
        """Insert each; “taken…” is refused."""
        self.groups.append(list(items))
        self.remembered.append("seen" in tx.memory)
        tx.memory["seen"] = True
        wanted = [item for item in items if not item.startswith("taken")]
        for item in wanted:
            tx.execute(sa.text("INSERT INTO toys VALUES (:key, '')"), {"key": item})
        return [Conflict(item) if item.startswith("taken") else None for item in items]

    def put(self, key: str) -> Joint[str]:
        """Return the work that puts one key."""
        return Joint(key, self._together)

    @property
    def _together(self) -> Any:
        # One function for all: a method is another object each time it is asked for.
        return self.__dict__.setdefault("joined", self.together)


def at_once(ledger: Ledger, *jobs: tuple[WriteContext, Work]) -> list[Any]:
    """Queue jobs behind one that holds the writer, then let them run; return results and errors."""
    entered, go = threading.Event(), threading.Event()

    def blocking(tx: Transaction) -> None:
        entered.set()
        assert go.wait(10)

    async def work() -> list[Any]:
        first = asyncio.create_task(ledger.write_async(CONTEXT, blocking))
        await asyncio.to_thread(entered.wait, 10)
        rest = [asyncio.create_task(ledger.write_async(context, each)) for context, each in jobs]
        await asyncio.sleep(0)
        go.set()
        return (await asyncio.gather(first, *rest, return_exceptions=True))[1:]

    return asyncio.run(work())


def test_what_waits_is_done_at_once_and_refused_alone(ledger: Ledger) -> None:
    toys = Toys()
    found = at_once(ledger, *((CONTEXT, toys.put(key)) for key in ("a", "taken 1", "b", "taken 2")))
    assert toys.groups == [["a", "taken 1", "b", "taken 2"]]
    assert [str(each) for each in found] == ["None", "taken 1", "None", "taken 2"]
    assert keys(ledger) == ["a", "b"]


def test_other_work_another_project_and_another_kind_come_between(ledger: Ledger) -> None:
    toys, others = Toys(), Toys()
    other = WriteContext(ROBOT, "other")
    at_once(
        ledger,
        (CONTEXT, toys.put("a")),
        (CONTEXT, toys.put("b")),
        (CONTEXT, put("c")),
        (CONTEXT, toys.put("d")),
        (other, toys.put("e")),
        (other, others.put("f")),
    )
    assert toys.groups == [["a", "b"], ["d"], ["e"]]
    assert others.groups == [["f"]]
    # Other work may change what was remembered.
    assert toys.remembered == [False, False, True]
    assert keys(ledger) == ["a", "b", "c", "d", "e", "f"]


def test_one_that_breaks_the_statement_of_all_fails_alone(ledger: Ledger) -> None:
    ledger.write(CONTEXT, lambda tx: tx.execute(sa.text("CREATE UNIQUE INDEX one ON toys (key)")) and None)
    ledger.write(CONTEXT, put("b"))
    toys = Toys()
    found = at_once(ledger, *((CONTEXT, toys.put(key)) for key in ("a", "b", "c")))
    assert toys.groups == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert [type(each).__name__ for each in found] == ["NoneType", "IntegrityError", "NoneType"]
    assert keys(ledger) == ["b", "a", "c"]
    ledger.write(CONTEXT, toys.put("d"))
    assert keys(ledger)[-1] == "d"
    assert toys.remembered[-1] is False, "what was looked up in an undone savepoint is forgotten"


def test_work_that_commits_by_itself_stops_the_ledger_and_answers_everybody(ledger: Ledger) -> None:
    def cheating(tx: Transaction, items: Sequence[str]) -> list[Exception | None]:
        tx.connection.exec_driver_sql("COMMIT")
        raise ZeroDivisionError

    found = at_once(ledger, (CONTEXT, Joint("a", cheating)), (CONTEXT, Joint("b", cheating)), (CONTEXT, put("c")))
    assert [isinstance(each, Exception) for each in found] == [True, True, True]
    assert ledger.failure is not None


def test_alone_it_raises_what_refuses_it(ledger: Ledger) -> None:
    toys = Toys()
    with pytest.raises(Conflict, match="taken"):
        ledger.write(CONTEXT, toys.put("taken"))
    keyed = WriteContext(ROBOT, "flights", idempotency_key="k", request_digest="d")
    for _ in range(2):
        assert ledger.write(keyed, toys.put("once")) is None
    assert keys(ledger) == ["once"]
