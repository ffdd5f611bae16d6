"""Lanes: who comes while a model is busy is scored together, as long as that helps."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.serving import Engine, load_model
from holdtrue.serving.assembly import compile_assembly
from holdtrue.serving.lanes import MOST_ROWS, Pace
from holdtrue.serving.plan import Loaded, NoAnswer
from holdtrue.serving.probe import takes_long
from holdtrue.serving.runtime import ModelFell
from holdtrue.serving.table import Loaders, Table, build_table
from holdtrue.storage import Journal
from tests.serving.plane_home import INPUTS, PROJECT, SERVICE, Home, flight


def test_joining_goes_on_where_it_makes_rows_cheaper() -> None:
    pace = Pace()
    for _ in range(8):
        pace.note(1, 1, 0.010)
    for _ in range(8):
        pace.note(10, 10, 0.011)
    assert (pace.joining, pace.requests) == (True, MOST_ROWS)
    # Of rows that take 1.1 milliseconds each, as many as take a tenth of a second.
    assert pace.rows == 90


def test_joining_ends_where_it_makes_nothing_cheaper_and_is_tried_again_later() -> None:
    pace = Pace()
    for _ in range(8):
        assert pace.requests == MOST_ROWS
        pace.note(10, 10, 0.1)
    # Under load nobody comes alone: some are scored so, to compare.
    for _ in range(8):
        assert pace.requests == 1
        pace.note(1, 1, 0.010)
    assert (pace.joining, pace.requests) == (False, 1)
    for _ in range(256 - 16):
        assert not pace.joining
        pace.note(1, 1, 0.010)
    assert (pace.joining, pace.requests) == (True, MOST_ROWS)


def test_a_slow_row_is_never_too_many() -> None:
    pace = Pace()
    assert pace.rows == MOST_ROWS
    pace.note(1, 1, 3.0)
    assert pace.rows == 1


@dataclass
class Slow:
    """A model that answers when it is let, and remembers how it was asked."""

    may: threading.Event = field(default_factory=threading.Event)
    asked: list[int] = field(default_factory=list[int])
    began: threading.Event = field(default_factory=threading.Event)

    def score(self, matrix: Any) -> Any:
        self.asked.append(len(matrix))
        self.began.set()
        assert self.may.wait(30)
        if (matrix[:, 0] == 107.0).any():
            raise ModelFell("The model did not answer.")
        return (matrix[:, 0] / 1000).astype(np.float32)


def none_here(application: Any) -> Any:
    raise AssertionError(application)


Serve = Callable[..., tuple[Engine, Slow]]


@pytest.fixture
def serve(home: Home) -> Iterator[Serve]:
    """Make an engine over a model that is asked aside."""
    journal = Journal(home.path / "journal", SystemClock())
    writer = journal.writer("test", "strict")

    def publish(**changes: Any) -> tuple[Engine, Slow]:
        slow = Slow()

        def load(bundle: Any) -> Loaded:
            model = load_model(home.blobs.get(bundle.model.digest), bundle.model.digest)
            made = replace(model, score=slow.score, aside=True)
            return Loaded(bundle, made, compile_assembly(bundle, model.features), None, frozenset())

        def none(views: Any, entities: Any, times: Any) -> Any:
            return {name: np.full(len(times), np.nan) for view in views for name in view.features}

        engine = Engine(home.clock, writer, lambda _: none, strict=True)
        snapshot = home.publish(home.bundle("rel_a", "champion"), **changes)
        engine.table = build_table(snapshot, Table(), Loaders(load, none_here))
        return engine, slow

    yield publish
    writer.close()


def ask(engine: Engine, number: int) -> "asyncio.Task[Any]":
    columns = {each.name: [flight(number)[each.name]] for each in INPUTS}
    plan = engine.plan(PROJECT, SERVICE)
    return asyncio.ensure_future(engine.predict(plan, columns, 1, None, engine.stopwatch()))


def test_requests_that_come_while_the_model_is_busy_are_scored_together(serve: Serve, home: Home) -> None:
    engine, slow = serve()

    async def main() -> list[Any]:
        first = ask(engine, 0)
        await asyncio.to_thread(slow.began.wait, 30)
        others = [ask(engine, number) for number in range(1, 6)]
        gone = ask(engine, 6)
        # The event loop goes on while the model is busy, and so does who leaves meanwhile.
        await asyncio.sleep(0)
        gone.cancel()
        slow.may.set()
        return await asyncio.gather(first, *others)

    answers = asyncio.run(main())
    assert slow.asked == [1, 5]
    assert [each.scores for each in answers] == [[pytest.approx((100 + number) / 1000)] for number in range(6)]
    kept = {each["key"]: each["score"] for each in home.records("prediction")}
    assert kept == {f"flight-{number}": pytest.approx((100 + number) / 1000) for number in range(6)}


def test_where_joining_does_not_help_each_is_scored_alone(serve: Serve) -> None:
    engine, slow = serve()
    engine.plan(PROJECT, SERVICE).lane.pace.joining = False
    slow.may.set()

    async def main() -> list[Any]:
        return await asyncio.gather(*(ask(engine, number) for number in range(4)))

    answers = asyncio.run(main())
    assert slow.asked == [1, 1, 1, 1]
    assert [each.scores for each in answers] == [[pytest.approx((100 + number) / 1000)] for number in range(4)]


def test_a_request_that_kills_the_model_is_tried_alone_where_nothing_else_answers(serve: Serve) -> None:
    engine, slow = serve(fallback=None)

    async def main() -> list[Any]:
        first = ask(engine, 0)
        await asyncio.to_thread(slow.began.wait, 30)
        others = [ask(engine, number) for number in (6, 7, 8)]
        await asyncio.sleep(0)
        slow.may.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    zero, six, seven, eight = asyncio.run(main())
    assert isinstance(seven, NoAnswer)
    assert [each.scores for each in (zero, six, eight)] == [[pytest.approx(x)] for x in (0.1, 0.106, 0.108)]
    assert slow.asked == [1, 3, 1, 1, 1]


def test_with_a_fallback_a_batch_that_kills_the_model_gets_it(serve: Serve) -> None:
    engine, slow = serve()

    async def main() -> list[Any]:
        first = ask(engine, 0)
        await asyncio.to_thread(slow.began.wait, 30)
        others = [ask(engine, number) for number in (6, 7)]
        await asyncio.sleep(0)
        slow.may.set()
        return await asyncio.gather(first, *others)

    answers = asyncio.run(main())
    assert [(each.scores, each.fallback) for each in answers[1:]] == [([0.25], [True])] * 2
    assert slow.asked == [1, 2]


def test_a_model_that_takes_long_for_a_row_is_asked_aside(home: Home) -> None:
    model = load_model(home.models["champion"], bytes_hash(home.models["champion"]))
    assert not takes_long(model)

    def works(matrix: Any) -> Any:
        until = time.thread_time() + 0.002
        while time.thread_time() < until:
            pass
        return matrix[:, 0]

    assert takes_long(replace(model, score=works))
