"""Calls that are told of in a process beside the worker: none is lost, none is stored twice, whatever ends when."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from holdtrue.core.clock import SystemClock
from holdtrue.llm.beside import decode_calls, encode_calls
from holdtrue.llm.gateway import CallFacts, Outcome, Usage
from holdtrue.llm.telling import Telling, call_span
from holdtrue.storage import Journal, make_folder
from holdtrue.traces import SpanSink
from holdtrue.traces.model import KIND
from tests.llm.calls import CALL

TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core a worker tells of all itself")


def _calls(first: int, count: int) -> list[CallFacts]:
    return [CALL._replace(id=f"call_{number}") for number in range(first, first + count)]


def _command(home: Path) -> list[str]:
    return ["-m", "holdtrue.server.telling", "--home", str(home), "--worker", "dataplane-0"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a data folder with a journal."""
    make_folder(tmp_path / "journal")
    return tmp_path


@asynccontextmanager
async def _telling(home: Path) -> AsyncGenerator[Telling]:
    """Tell of calls as a worker does that has the process beside it."""
    clock = SystemClock()
    writer = Journal(home / "journal", clock).writer("dataplane-0-traces", "strict")
    telling = Telling(SpanSink(writer, clock), _command(home))
    try:
        yield telling
    finally:
        await telling.close()
        writer.close()


def _stored(home: Path) -> list[str]:
    """Return the ids of the calls that were told of, each as often as it is found."""
    journal = Journal(home / "journal", SystemClock())
    attributes = journal.table(KIND, "help").column("attributes").to_pylist()
    journal.close()
    return sorted(json.loads(each)["holdtrue.call"] for each in attributes)


def _processes(home: Path) -> list[int]:
    """Return the processes that tell of calls in a data folder."""
    found: list[int] = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = each.read_bytes().decode().split("\0")
            if "holdtrue.server.telling" in words and str(home) in words:
                found.append(int(each.parent.name))
    return found


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def _written(home: Path) -> bool:
    """Tell whether the process has begun to write."""
    return any((home / "journal" / "live").glob("dataplane-0-calls-*.seg"))


async def _begin(telling: Telling, home: Path) -> int:
    """Send calls fast until the process has told of some; return how many were sent."""
    sent = 0
    async with asyncio.timeout(30):
        while not _written(home):
            for each in _calls(sent, 20):
                telling.call(each)
            sent += 20
            await asyncio.sleep(0.03)
    return sent


def test_a_call_comes_out_as_it_went_in() -> None:
    sent = [CALL, CALL._replace(request=None, answer=None, first_us=None, attempts=(), outcome=Outcome.FAILED)]
    got = decode_calls(encode_calls(sent))
    assert got == sent
    assert [type(each.usage) for each in got] == [Usage, Usage]
    assert call_span(got[0]) == call_span(CALL)


def test_a_call_without_such_a_form_is_refused() -> None:
    with pytest.raises(TypeError):
        encode_calls([CALL._replace(request={"user": "\ud800"})])
    with pytest.raises(TypeError):
        encode_calls([CALL._replace(request={"user": object()})])


def test_few_calls_start_no_process(home: Path) -> None:
    async def run() -> None:
        async with _telling(home) as telling:
            for number in range(5):
                telling.call(CALL._replace(id=f"call_{number}"))
                await asyncio.sleep(0.03)
            assert _processes(home) == []

    asyncio.run(run())
    assert len(_stored(home)) == 5


@TWO_CORES
def test_many_calls_are_told_of_beside_the_worker_which_ends_it(home: Path) -> None:
    async def run() -> int:
        async with _telling(home) as telling:
            sent = await _begin(telling, home)
            for each in _calls(sent, 300):
                telling.call(each)
        assert telling.dropped == 0
        return sent + 300

    sent = uvloop.run(run())
    assert _processes(home) == []
    assert _stored(home) == sorted(f"call_{number}" for number in range(sent))


@TWO_CORES
def test_a_process_that_is_killed_loses_no_call_and_doubles_none(home: Path) -> None:
    async def run() -> int:
        async with _telling(home) as telling:
            sent = await _begin(telling, home)
            (process,) = _processes(home)
            for number in range(10):
                if number == 5:
                    os.kill(process, signal.SIGKILL)
                for each in _calls(sent, 40):
                    telling.call(each)
                sent += 40
                await asyncio.sleep(0.005 * number)
        assert telling.dropped == 0
        return sent

    sent = uvloop.run(run())
    assert _stored(home) == sorted(f"call_{number}" for number in range(sent))


@TWO_CORES
def test_what_has_no_form_to_be_sent_is_told_of_here(home: Path) -> None:
    async def run() -> int:
        async with _telling(home) as telling:
            sent = await _begin(telling, home)
            for each in _calls(sent, 20):
                telling.call(each._replace(request={"user": "\ud800", "messages": []}))
        return sent + 20

    sent = uvloop.run(run())
    assert _stored(home) == sorted(f"call_{number}" for number in range(sent))


def test_a_process_that_cannot_start_changes_nothing(home: Path) -> None:
    """Prevent that a name which another process holds costs spans."""

    async def run() -> None:
        taken = Journal(home / "journal", SystemClock()).writer("dataplane-0-calls", "strict")
        async with _telling(home) as telling:
            for number in range(20):
                for each in _calls(20 * number, 20):
                    telling.call(each)
                await asyncio.sleep(0.05)
        taken.close()

    uvloop.run(run())
    assert len(_stored(home)) == 400


@TWO_CORES
def test_a_worker_that_is_killed_leaves_its_calls_told_of(home: Path) -> None:
    """Prevent that the process beside, which can't answer any more, forgets what waits for it."""
    script = f"""
import asyncio, os, signal
from pathlib import Path
from tests.llm.test_beside import _begin, _calls, _processes, _telling
home = Path({str(home)!r})
async def run():
    async with _telling(home) as telling:
        sent = await _begin(telling, home)
        (process,) = _processes(home)
        os.kill(process, signal.SIGSTOP)
        for _ in range(4):
            for each in _calls(sent, 25):
                telling.call(each)
            sent += 25
            await asyncio.sleep(0.1)
        (home / "sent").write_text(str(sent))
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(run())
"""
    # Its output is not captured: the stopped process beside has that end, too.
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (process,) = _processes(home)
    os.kill(process, signal.SIGCONT)

    async def ended() -> None:
        await _until(lambda: not _processes(home))

    asyncio.run(ended())
    assert _stored(home) == sorted(f"call_{number}" for number in range(int((home / "sent").read_text())))
