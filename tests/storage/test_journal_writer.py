import asyncio
import errno
import itertools
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import Locked, StorageFull, Unavailable
from holdtrue.storage import Journal
from tests.storage.faults import Fault, Killed, no_space
from tests.storage.records import columns


def ids(journal: Journal) -> list[str]:
    return journal.table("label", "flights")["id"].to_pylist()


class Disk:
    """An `os.fdatasync` that waits at a gate and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        self.entered.set()
        assert self.gate.wait(10)
        self._real(descriptor)


def test_threads_that_append_at_once_share_one_sync(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = journal.writer("w", "strict")
    disk = Disk(monkeypatch)
    threads = [
        threading.Thread(target=writer.append, args=("label", "flights", "svc", columns([str(number)]), 1))
        for number in range(20)
    ]
    threads[0].start()
    assert disk.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(ids(journal)) < 20:  # written, and waiting for the disk
        pass
    assert all(thread.is_alive() for thread in threads)
    disk.gate.set()
    for thread in threads:
        thread.join(10)
    assert disk.calls == 2


def test_coroutines_that_append_at_once_share_one_sync(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = journal.writer("w", "strict")
    disk = Disk(monkeypatch)

    async def run() -> None:
        first = asyncio.create_task(writer.append_async("label", "flights", "svc", columns(["first"]), 1))
        assert await asyncio.to_thread(disk.entered.wait, 10)
        rest = [
            asyncio.create_task(writer.append_async("label", "flights", "svc", columns([str(number)]), 1))
            for number in range(20)
        ]
        await asyncio.sleep(0)
        assert len(ids(journal)) == 21
        assert not any(task.done() for task in (first, *rest))
        disk.gate.set()
        await asyncio.gather(first, *rest)

    asyncio.run(run())
    assert disk.calls == 2


def test_what_was_gathered_is_durable_at_once_while_the_disk_is_quick(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = journal.writer("w", "strict")
    takes = 0.0
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    ticks = itertools.count()
    monkeypatch.setattr(writer, "_monotonic", lambda: next(ticks) * takes)

    async def append(number: int) -> bool:
        future = writer.appending("label", "flights", "svc", columns([str(number)]), 1, gathered=True)
        done = future.done()
        await future
        return done

    async def main() -> list[bool]:
        nonlocal takes
        found = [await append(number) for number in range(100)]
        takes = 0.1
        return found + [await append(number) for number in range(100, 103)]

    found = asyncio.run(main())
    # How quick the disk is has to be seen first, and is seen again when it changes.
    assert not found[0]
    assert found[99]
    assert found[100:] == [True, False, False]
    writer.close()
    assert len(ids(journal)) == 103


def test_a_sync_that_fails_at_once_is_told_and_stops_the_writer(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = journal.writer("w", "strict")
    monkeypatch.setattr(writer, "_sync_takes", 0.0)

    async def main() -> None:
        await writer.appending("label", "flights", "svc", columns(["kept"]), 1, gathered=True)
        monkeypatch.setattr(os, "fdatasync", _broken)
        for _ in range(2):
            # However slow this disk was just now.
            monkeypatch.setattr(writer, "_sync_takes", 0.0)
            with pytest.raises((OSError, Unavailable)):
                writer.appending("label", "flights", "svc", columns(["lost"]), 1, gathered=True)

    asyncio.run(main())
    monkeypatch.undo()
    assert "kept" in ids(journal)


def _broken(_: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_strict_returns_after_the_sync_and_fast_before_it(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (real(fd), synced.append(fd)))
    journal.writer("strict", "strict").append("label", "flights", "svc", columns(["a"]), 1)
    assert len(synced) == 1
    fast = journal.writer("fast", "fast", sync_seconds=3600)
    fast.append("label", "flights", "svc", columns(["b"]), 1)
    asyncio.run(fast.append_async("label", "flights", "svc", columns(["c"]), 1))
    assert len(synced) == 1
    fast.flush()
    assert len(synced) == 2


def test_appends_go_on_while_a_full_segment_waits_for_the_disk(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    live = tmp_path / "journal" / "live"
    writer = journal.writer("w", "strict", segment_bytes=1, sync_seconds=3600)
    threads = [
        threading.Thread(target=writer.append, args=("label", "flights", "svc", columns([str(number)]), 1))
        for number in range(3)
    ]
    threads[0].start()
    assert disk.entered.wait(10)
    for place, thread in enumerate(threads[1:], 2):
        thread.start()
        while len(ids(journal)) < place:
            pass
    # Each is in a segment of its own, and none is told that it is durable before all that came before it is.
    assert len(list(live.glob("w-*.seg"))) == 3
    assert all(thread.is_alive() for thread in threads)
    assert not list(live.glob("*.mark"))
    disk.gate.set()
    for thread in threads:
        thread.join(10)
    assert disk.calls == 3
    assert ids(journal) == ["0", "1", "2"]
    journal.seal()
    assert not list(live.glob("w-*.seg"))


def test_a_fast_append_does_not_wait_for_a_full_segment_unless_the_disk_falls_behind(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    writer = journal.writer("w", "fast", segment_bytes=1, sync_seconds=3600)
    writer.append("label", "flights", "svc", columns(["0"]), 1)
    assert disk.entered.wait(10)
    behind = threading.Thread(target=writer.append, args=("label", "flights", "svc", columns(["1"]), 1))
    behind.start()
    while len(ids(journal)) < 2:
        pass
    assert behind.is_alive()
    disk.gate.set()
    behind.join(10)
    writer.flush()
    assert disk.calls == 2
    assert ids(journal) == ["0", "1"]


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_a_failure_of_a_segment_that_has_ended_is_told_and_stops_the_writer(journal: Journal, mode: Any) -> None:
    writer = journal.writer("w", mode, segment_bytes=1, sync_seconds=3600)
    writer.append("label", "flights", "svc", columns(["before"]), 1)
    writer.roll()
    with Fault(1, OSError(errno.EIO, "Input/output error"), ["fdatasync"]) as fault:
        told: list[bool] = []
        for name in ("lost", "after", "later"):
            try:
                writer.append("label", "flights", "svc", columns([name]), 1)
                writer.flush()
                told.append(False)
            except Unavailable:
                told.append(True)
        assert fault.hit == "fdatasync"
    assert told == [True] * 3
    assert "later" not in ids(journal)
    with nullcontext() if mode == "strict" else pytest.raises(Unavailable):
        writer.close()


def test_fast_appends_are_synced_in_the_background(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    disk.gate.set()
    journal.writer("w", "fast", sync_seconds=0.01).append("label", "flights", "svc", columns(["a"]), 1)
    assert disk.entered.wait(10)


def test_a_writer_rolls_at_its_size_and_numbers_its_segments(journal: Journal, tmp_path: Path) -> None:
    writer = journal.writer("w", "fast", segment_bytes=400)
    for number in range(10):
        writer.append("label", "flights", "svc", columns([str(number)]), 1)
    segments = sorted(path.name for path in (tmp_path / "journal" / "live").glob("*.seg"))
    assert len(segments) > 2
    assert segments[0] == "w-000001.seg"
    assert ids(journal) == [str(number) for number in range(10)]


def test_a_writer_name_has_one_live_writer(journal: Journal) -> None:
    writer = journal.writer("w")
    with pytest.raises(Locked, match="w"):
        journal.writer("w")
    writer.close()
    writer.close()
    journal.writer("w")


def test_a_closed_writer_says_so(journal: Journal) -> None:
    writer = journal.writer("w")
    writer.append("label", "flights", "svc", columns(["a"]), 1)
    writer.close()
    for _ in range(2):
        with pytest.raises(Unavailable, match="closed"):
            writer.append("label", "flights", "svc", columns(["b"]), 1)
    assert ids(journal) == ["a"]


def test_a_full_disk_takes_nothing_in_and_goes_on_when_there_is_room(journal: Journal) -> None:
    writer = journal.writer("w")
    writer.append("label", "flights", "svc", columns(["a"]), 1)
    for number in range(3):
        with Fault(1, no_space(), ["write"]), pytest.raises(StorageFull) as caught:
            writer.append("label", "flights", "svc", columns([f"refused-{number}"]), 1)
        assert "Free space" in caught.value.mend
    writer.append("label", "flights", "svc", columns(["b"]), 1)
    assert ids(journal) == ["a", "b"]
    assert list(journal.verify()) == []


def test_a_short_write_before_the_disk_is_full_leaves_no_half_frame(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = journal.writer("w")
    writer.append("label", "flights", "svc", columns(["a"]), 1)
    real, calls = os.write, [0]

    def write(descriptor: int, data: Any) -> int:
        calls[0] += 1
        if calls[0] == 1:
            return real(descriptor, data[:10])
        raise no_space()

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(StorageFull):
            writer.append("label", "flights", "svc", columns(["b"]), 1)
    assert ids(journal) == ["a"]
    writer.append("label", "flights", "svc", columns(["c"]), 1)
    assert ids(journal) == ["a", "c"]


def test_a_sync_that_finds_no_room_is_reported_and_a_new_segment_goes_on(journal: Journal, tmp_path: Path) -> None:
    writer = journal.writer("w")
    writer.append("label", "flights", "svc", columns(["a"]), 1)
    with Fault(1, no_space(), ["fdatasync"]), pytest.raises(StorageFull, match="may or may not"):
        writer.append("label", "flights", "svc", columns(["unknown"]), 1)
    writer.append("label", "flights", "svc", columns(["b"]), 1)
    assert ids(journal) in (["a", "b"], ["a", "unknown", "b"])
    assert len(list((tmp_path / "journal" / "live").glob("*.seg"))) == 2


def test_a_failed_sync_stops_the_writer_and_is_not_tried_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = journal.writer("w")
    writer.append("label", "flights", "svc", columns(["a"]), 1)
    calls: list[int] = []

    def fdatasync(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    for number in range(3):
        with pytest.raises(Unavailable):
            writer.append("label", "flights", "svc", columns([str(number)]), 1)
        with pytest.raises(Unavailable):
            asyncio.run(writer.append_async("label", "flights", "svc", columns([str(number)]), 1))
    assert len(calls) == 1
    assert set(ids(journal)) <= {"a", "0"}


def test_a_failed_background_sync_is_told_to_the_next_fast_append(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = journal.writer("w", "fast", sync_seconds=3600)
    writer.append("label", "flights", "svc", columns(["a"]), 1)
    with Fault(1, no_space(), ["fdatasync"]), pytest.raises(StorageFull):
        writer.flush()
    with pytest.raises(StorageFull, match="may or may not"):
        writer.append("label", "flights", "svc", columns(["b"]), 1)
    writer.append("label", "flights", "svc", columns(["c"]), 1)
    assert ids(journal)[-1] == "c"


def test_waiting_coroutines_learn_of_a_failed_sync(journal: Journal) -> None:
    writer = journal.writer("w")

    async def run() -> list[BaseException | None]:
        tasks = [writer.append_async("label", "flights", "svc", columns([str(number)]), 1) for number in range(5)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    with Fault(1, no_space(), ["fdatasync"]):
        results = asyncio.run(run())
    assert any(isinstance(result, StorageFull) for result in results)
    assert all(result is None or isinstance(result, StorageFull) for result in results)


@pytest.mark.parametrize("segment_bytes", [1, 300])
@pytest.mark.parametrize("error", [no_space(), OSError(errno.EIO, "Input/output error"), Killed()])
def test_whichever_call_fails_what_was_acknowledged_stays(
    tmp_path: Path, clock: SimulatedClock, error: BaseException, segment_bytes: int
) -> None:
    for number in itertools.count(1):
        root = tmp_path / f"journal-{number}"
        journal = Journal(root, clock)
        writer = journal.writer("w", "strict", segment_bytes=segment_bytes)
        acknowledged: list[str] = []
        intended: list[str] = []
        with Fault(number, error) as fault:
            for step in range(4):
                intended.append(str(step))
                try:
                    writer.append("label", "flights", "svc", columns([str(step)]), 1)
                except (StorageFull, Unavailable):
                    continue
                except Killed:
                    break
                acknowledged.append(str(step))
        after = Journal(root, clock)
        found = ids(after)
        assert set(acknowledged) <= set(found) <= set(intended)
        assert len(set(found)) == len(found)
        assert fault.hit or acknowledged == intended
        journal.close()
        after.seal()
        assert ids(after) == found
        if not fault.hit:
            assert number > 10
            return


OTHER = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import Journal
journal = Journal(Path(sys.argv[1]), SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
writer = journal.writer("other", "fast", sync_seconds=0.01)
writer.append("label", "flights", "svc", {"id": ["other"], "time": 0}, 1)
print("appended", flush=True)
for line in sys.stdin:
    while list((Path(sys.argv[1]) / "live").glob("other-000001.seg")) and writer._segment is not None:
        pass
    print("rolled", flush=True)
"""


def test_a_sealer_makes_writers_of_other_processes_roll(journal: Journal, tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path / "journal")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "appended\n"
        assert journal.seal(roll=False) == 0  # its writer lives
        sealed = journal.seal()  # asks it to roll, and may find it done already
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "rolled\n"
        assert sealed + journal.seal() == 1
        assert ids(journal) == ["other"]
        other.stdin.close()


def test_a_really_full_disk_refuses_appends_and_sealing_and_loses_nothing(
    small_disk: Path, clock: SimulatedClock
) -> None:
    reserve = small_disk / "reserve"
    reserve.write_bytes(b"x" * 150_000)
    journal = Journal(small_disk / "journal", clock)
    writer = journal.writer("w", "strict", segment_bytes=100_000)
    kept: list[str] = []

    def fill() -> None:
        for number in range(1000):
            writer.append("label", "flights", "svc", columns([f"{number}"], text="x" * 5_000), 1)
            kept.append(f"{number}")

    with pytest.raises(StorageFull) as caught:
        fill()
    assert "Free space" in caught.value.mend
    assert 30 < len(kept) < 80
    assert ids(journal) == kept
    with pytest.raises(StorageFull):
        journal.seal()
    assert ids(journal) == kept
    reserve.unlink()
    while journal.seal():
        pass
    writer.append("label", "flights", "svc", columns(["after"]), 1)
    assert ids(journal) == [*kept, "after"]
    journal.close()
