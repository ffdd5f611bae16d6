"""The online features of a data plane, brought up to date by many requests at once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.errors import InvalidInput, StorageFull
from holdtrue.features import Trailing, View
from holdtrue.features.online import OnlineStore, Prepared
from holdtrue.serving.known import OnlineFeatures

VIEW = Trailing("route", "arrivals", "origin", "known_at", "delay", ("count", "sum"))
NOON = 1_362_139_200_000_000


def rows(*ids: str) -> dict[str, Any]:
    n = len(ids)
    return {"id": list(ids), "origin": ["EWR"] * n, "known_at": [NOON] * n, "delay": [1.0] * n}


def known(features: OnlineFeatures) -> float:
    found = features.lookup("flights")([VIEW], {"origin": ["EWR"]}, [NOON])
    return float(found["route_count"][0])


async def send(features: OnlineFeatures, columns: dict[str, Any]) -> None:
    prepared = await features.prepare("flights", {"arrivals": (columns, len(columns["id"]))})
    await features.take("flights", prepared)


def views(_: str) -> Sequence[View]:
    return [VIEW]


def test_requests_that_wait_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    take = OnlineStore.take

    def counting(self: OnlineStore, batch: Sequence[Prepared], arrived: int | None = None) -> list[int]:
        commits.append(len(batch))
        return take(self, batch, arrived)

    monkeypatch.setattr(OnlineStore, "take", counting)
    features = OnlineFeatures(tmp_path, views)

    async def scenario() -> None:
        await asyncio.gather(*(send(features, rows(f"a{number}")) for number in range(200)))

    asyncio.run(scenario())
    assert known(features) == 200.0
    assert sum(commits) == 200
    assert len(commits) < 200
    features.close()


def test_what_is_too_much_for_the_disk_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = OnlineStore.take
    features = OnlineFeatures(tmp_path, views)

    async def scenario() -> list[Any]:
        large = await features.prepare("flights", {"arrivals": (rows("large"), 1)})

        def full(self: OnlineStore, batch: Sequence[Prepared], arrived: int | None = None) -> list[int]:
            if large[0] in batch:
                raise StorageFull("No room.")
            return take(self, batch, arrived)

        monkeypatch.setattr(OnlineStore, "take", full)
        sent = [send(features, rows(f"a{number}")) for number in range(20)]
        return await asyncio.gather(features.take("flights", large), *sent, return_exceptions=True)

    ended = asyncio.run(scenario())
    assert isinstance(ended[0], StorageFull)
    assert ended[1:] == [None] * 20
    assert known(features) == 20.0
    features.close()


def test_what_cannot_be_used_is_refused_before_anything_waits(tmp_path: Path) -> None:
    features = OnlineFeatures(tmp_path, views)

    async def scenario() -> None:
        with pytest.raises(InvalidInput, match="delay"):
            await features.prepare("flights", {"arrivals": ({**rows("a"), "delay": ["late"]}, 1)})
        # Sources that no feature reads are kept in the journal alone.
        assert await features.prepare("flights", {"notes": ({"id": ["n"]}, 1)}) == []
        await features.take("flights", [])

    asyncio.run(scenario())
    features.close()
