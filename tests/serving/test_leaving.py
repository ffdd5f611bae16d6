"""Who goes away is noticed while somebody listens, once, and not after."""

import asyncio

from holdtrue.serving.leaving import Leaving


class Client:
    """Count who listens for a client's leaving, and let it leave."""

    def __init__(self) -> None:
        self.listened = 0
        self.left = asyncio.Event()
        self.told = 0

    async def receive(self) -> dict[str, str]:
        self.listened += 1
        await self.left.wait()
        return {"type": "http.disconnect"}

    def gone(self) -> None:
        self.told += 1


def test_a_client_that_leaves_is_noticed_once() -> None:
    async def work() -> None:
        client = Client()
        leaving = Leaving(asyncio.get_running_loop(), client.receive, client.gone)
        leaving.start_later()
        leaving.start()
        leaving.start()
        client.left.set()
        while not client.told:
            await asyncio.sleep(0)
        leaving.stop()
        assert (client.listened, client.told) == (1, 1)

    asyncio.run(work())


def test_a_quick_answer_listens_to_nobody_and_one_that_ended_is_told_nothing() -> None:
    async def work() -> None:
        quick, slow = Client(), Client()
        first = Leaving(asyncio.get_running_loop(), quick.receive, quick.gone)
        first.start_later()
        first.stop()
        second = Leaving(asyncio.get_running_loop(), slow.receive, slow.gone)
        second.start()
        await asyncio.sleep(0)
        second.stop()
        slow.left.set()
        await asyncio.sleep(0)
        assert (quick.listened, slow.listened, slow.told) == (0, 1, 0)

    asyncio.run(work())
