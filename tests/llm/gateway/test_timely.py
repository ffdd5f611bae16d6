"""A bound on time takes back its own cancellation, and nobody else's."""

import asyncio

import pytest

from holdtrue.llm.gateway.adapters import Failed, timely
from holdtrue.llm.gateway.model import ProviderTimeout


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_what_takes_too_long_fails_and_leaves_the_task_uncancelled() -> None:
    async def work() -> None:
        with pytest.raises(Failed) as error:
            await timely(asyncio.get_running_loop(), 0.001, forever())
        assert type(error.value.error) is ProviderTimeout
        assert error.value.worked
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await timely(asyncio.get_running_loop(), 20, asyncio.sleep(0, "done")) == "done"

    asyncio.run(work())


def test_a_time_out_of_the_work_itself_is_one() -> None:
    async def slow() -> None:
        raise TimeoutError

    async def work() -> None:
        with pytest.raises(Failed):
            await timely(asyncio.get_running_loop(), 20, slow())

    asyncio.run(work())


def test_a_cancellation_from_outside_goes_on() -> None:
    async def work() -> None:
        began = asyncio.Event()

        async def inner() -> None:
            began.set()
            await forever()

        outer = asyncio.ensure_future(timely(asyncio.get_running_loop(), 20, inner()))
        await began.wait()
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    asyncio.run(work())


def test_a_cancellation_from_outside_goes_on_also_when_the_time_is_over() -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None

        async def both() -> None:
            try:
                await forever()
            except asyncio.CancelledError:
                task.cancel()
                raise

        with pytest.raises(asyncio.CancelledError):
            await timely(asyncio.get_running_loop(), 0.001, both())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert task.uncancel() == 0

    asyncio.run(work())
