"""Changes and events together, group commit, readers, and who may write."""

import asyncio
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable
from holdtrue.storage.ledger import Event, Ledger, Transaction, WriteContext
from tests.storage.ledger.conftest import OpenLedger
from tests.storage.ledger.toys import BOTH, CONTEXT, ROBOT, about_files, check, keys, make_table, place_of, put, rows

PLACES = BOTH


def test_a_write_returns_its_result_and_is_seen_by_readers(ledger: Ledger) -> None:
    assert ledger.write(CONTEXT, put("a", "1")) == 1
    assert [tuple(row) for row in rows(ledger)] == [("a", "1")]


def test_an_event_says_who_did_what_when(ledger: Ledger, clock: SimulatedClock) -> None:
    context = WriteContext(ROBOT, "flights", request_id="req_7")
    emitted = ledger.write(
        context,
        lambda tx: tx.emit("model.put", "mdl_1", {"n": 1.5}, before="old", after={"b": 1}, reason="because"),
    )
    (read,) = ledger.events("flights")
    assert read == emitted
    assert (read.seq, read.time, read.actor, read.on_behalf_of) == (1, clock.now(), "svc_1", "usr_ann")
    assert (read.action, read.object, read.request_id) == ("model.put", "mdl_1", "req_7")
    assert (read.payload, read.reason, read.before) == ({"n": 1.5}, "because", "old")
    assert len(read.after) == 64
    assert read.prev_hash == "0" * 64


def test_an_exception_undoes_the_change_and_its_events(ledger: Ledger, tmp_path: Path) -> None:
    def failing(tx: Transaction) -> None:
        put("lost")(tx)
        raise ZeroDivisionError

    first = ledger.write(CONTEXT, put("a"))
    with pytest.raises(ZeroDivisionError):
        ledger.write(CONTEXT, failing)
    assert ledger.write(CONTEXT, put("b")) == first + 1
    assert keys(ledger) == ["a", "b"]
    assert [event.object for event in ledger.events()] == ["a", "b"]
    assert check(tmp_path).ok


def test_many_threads_share_commits_and_failures_stay_alone(ledger: Ledger, tmp_path: Path) -> None:
    def one(number: int) -> int | None:
        def failing(tx: Transaction) -> int:
            put(str(number))(tx)
            raise KeyError(number)

        if number % 5:
            return ledger.write(CONTEXT, put(str(number)))
        with pytest.raises(KeyError):
            ledger.write(CONTEXT, failing)
        return None

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, range(400)))
    good = [str(number) for number in range(400) if number % 5]
    assert sorted(keys(ledger)) == sorted(good)
    assert sorted(result for result in results if result is not None) == list(range(1, len(good) + 1))
    assert [event.object for event in ledger.events(limit=1000)] == keys(ledger)
    assert check(tmp_path).ok


def test_waiting_work_shares_one_commit(ledger: Ledger, open_ledger: OpenLedger) -> None:
    """Without this a busy server pays one disk wait for each request."""
    entered, go = threading.Event(), threading.Event()

    def blocking(tx: Transaction) -> None:
        entered.set()
        assert go.wait(10)

    seen: list[list[str]] = []
    reader = open_ledger(writer=False)

    def look(tx: Transaction) -> None:
        put("last")(tx)
        seen.append(keys(reader))

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ledger.write, CONTEXT, blocking)]
        assert entered.wait(10)
        waiting += [pool.submit(ledger.write, CONTEXT, put(key)) for key in "ab"]
        while ledger.waiting < 2:
            pass
        waiting.append(pool.submit(ledger.write, CONTEXT, look))
        while ledger.waiting < 3:
            pass
        go.set()
        for future in waiting:
            future.result()
    # When the last work of the batch ran, nothing before it in the batch was committed yet.
    assert seen == [[]]
    assert keys(reader) == ["a", "b", "last"]


def test_work_cannot_wait_for_the_ledger(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError, match="another transaction"):
        ledger.write(CONTEXT, lambda tx: ledger.write(CONTEXT, put("a")))
    assert ledger.write(CONTEXT, put("b")) == 1


def test_work_that_commits_by_itself_stops_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    def cheating(tx: Transaction) -> None:
        put("half")(tx)
        tx.connection.exec_driver_sql("COMMIT")

    with pytest.raises(Unavailable):
        ledger.write(CONTEXT, cheating)
    with pytest.raises(Unavailable):
        ledger.write(CONTEXT, put("b"))
    assert ledger.failure is not None


def test_async_reads_and_writes(ledger: Ledger) -> None:
    async def work() -> list[int]:
        results = await asyncio.gather(*(ledger.write_async(CONTEXT, put(str(n))) for n in range(20)))
        assert await ledger.read_async(lambda c: c.execute(sa.text("SELECT COUNT(*) FROM toys")).scalar()) == 20
        return list(results)

    assert sorted(asyncio.run(work())) == list(range(1, 21))


def test_cancelled_work_that_has_not_begun_never_happens(ledger: Ledger) -> None:
    entered, go = threading.Event(), threading.Event()

    def blocking(tx: Transaction) -> None:
        entered.set()
        assert go.wait(10)

    async def work() -> None:
        first = asyncio.create_task(ledger.write_async(CONTEXT, blocking))
        await asyncio.to_thread(entered.wait, 10)
        second = asyncio.create_task(ledger.write_async(CONTEXT, put("cancelled")))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        await first

    asyncio.run(work())
    ledger.write(CONTEXT, put("after"))
    assert keys(ledger) == ["after"]


def test_events_can_be_chosen(ledger: Ledger) -> None:
    def several(tx: Transaction) -> None:
        tx.emit("release.created", "rel_1")
        tx.emit("release.refused", "rel_2")
        tx.emit("released", "rel_1")

    ledger.write(CONTEXT, several)
    ledger.write(WriteContext(ROBOT, "other"), lambda tx: tx.emit("release.created", "rel_1"))

    def seqs(found: list[Event]) -> list[int]:
        return [event.seq for event in found]

    assert seqs(ledger.events()) == [1, 2, 3, 4]
    assert seqs(ledger.events("flights")) == [1, 2, 3]
    assert seqs(ledger.events("flights", action="release.")) == [1, 2]
    assert seqs(ledger.events(action="release.created")) == [1, 4]
    assert seqs(ledger.events("flights", object="rel_1")) == [1, 3]
    assert seqs(ledger.events(after=1, limit=2)) == [2, 3]
    assert seqs(ledger.events(newest_first=True, limit=2)) == [4, 3]
    assert seqs(ledger.events(newest_first=True, after=3)) == [2, 1]


@pytest.mark.parametrize("payload", [float("nan"), 2**60, {"a": "\ud800"}, {1: 2}])
def test_an_event_that_is_not_json_is_refused_whole(ledger: Ledger, payload: object) -> None:
    def work(tx: Transaction) -> None:
        put("a")(tx)
        tx.emit("toy.put", "b", {"x": payload})

    with pytest.raises(InvalidInput):
        ledger.write(CONTEXT, work)
    assert keys(ledger) == []


def test_an_event_is_made_of_text(ledger: Ledger, tmp_path: Path) -> None:
    """A number in a text column comes back as text, and the hash would never fit again."""
    with pytest.raises(TypeError, match="object"):
        ledger.write(CONTEXT, lambda tx: tx.emit("toy.put", 5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInput):
        ledger.write(CONTEXT, lambda tx: tx.emit("toy.put", "\ud800"))
    # PostgreSQL keeps no U+0000 outside a payload, and says so.
    nul = "\x00" if isinstance(place_of(tmp_path), Path) else ""
    ledger.write(CONTEXT, lambda tx: tx.emit("toy.put", f'naïve ☃ {nul} \x1f \u2028 \\ "', {"text": "\x00"}))
    assert check(tmp_path).ok


@about_files
def test_a_reader_cannot_write(ledger: Ledger, open_ledger: OpenLedger) -> None:
    reader = open_ledger(writer=False)
    with pytest.raises(Unavailable, match="only reads"):
        reader.write(CONTEXT, put("a"))
    for target in (reader, ledger):
        with pytest.raises(exc.OperationalError, match="readonly"):
            target.read(lambda connection: connection.exec_driver_sql("INSERT INTO toys VALUES ('a', '')"))
    with pytest.raises(exc.OperationalError):
        reader.read(lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)"))
    assert keys(reader) == []


def test_a_read_sees_one_state(ledger: Ledger) -> None:
    def twice(connection: sa.Connection) -> tuple[object, object]:
        query = sa.text("SELECT COUNT(*) FROM toys")
        before = connection.execute(query).scalar()
        ledger.write(CONTEXT, put("a"))
        return before, connection.execute(query).scalar()

    assert ledger.read(twice) == (0, 0)
    assert keys(ledger) == ["a"]


def test_a_ledger_goes_on_where_it_stopped(open_ledger: OpenLedger, tmp_path: Path) -> None:
    ledger = open_ledger()
    make_table(ledger)
    for number in range(300):
        ledger.write(CONTEXT, put(str(number)))
    ledger.close()
    ledger.close()
    with pytest.raises(Unavailable, match="closed"):
        ledger.write(CONTEXT, put("late"))
    again = open_ledger()
    assert again.write(CONTEXT, put("more")) == 301
    again.close()
    found = check(tmp_path)
    assert found.ok
    assert (found.entries, found.sealed, found.checkpoints) == (301, 301, 3)


@about_files
def test_files_are_for_their_owner_alone(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(CONTEXT, put("a"))
    for path in [*tmp_path.glob("ledger.db*"), *(tmp_path / "keys").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@about_files
def test_there_is_nothing_to_read_in_an_empty_folder(open_ledger: OpenLedger, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_ledger(writer=False)
    assert list(tmp_path.iterdir()) == []


@about_files
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'x' WHERE seq = 1",
        "DELETE FROM events WHERE seq = 2",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE seq = 1",
        "INSERT INTO events SELECT seq + 5, time, project, actor, on_behalf_of, action, object, before_digest,"
        " after_digest, request_id, payload_commitment, prev_hash, leaf_hash FROM events WHERE seq = 1",
        "UPDATE payloads SET body = '{}'",
        "DELETE FROM payloads WHERE seq = 1",
        "INSERT OR REPLACE INTO payloads SELECT seq, project, salt, '{}' FROM payloads WHERE seq = 1",
        "UPDATE checkpoints SET note = ''",
        "DELETE FROM checkpoints",
        "INSERT OR REPLACE INTO checkpoints SELECT number, '', frontier FROM checkpoints",
    ],
)
def test_history_cannot_be_changed_by_accident(ledger: Ledger, tmp_path: Path, statement: str) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.write(CONTEXT, put("b"))
    ledger.checkpoint()
    with pytest.raises(exc.IntegrityError):
        ledger.write(CONTEXT, lambda tx: tx.execute(sa.text(statement)) and None)
    assert check(tmp_path).ok


def test_a_payload_is_erased_and_the_proof_stays(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(CONTEXT, put("a", "personal"))
    ledger.write(CONTEXT, put("b", "kept"))
    ledger.checkpoint()
    with pytest.raises(NotFound):
        ledger.write(WriteContext(ROBOT, "other"), lambda tx: tx.erase(1, reason="asked for"))
    ledger.write(CONTEXT, lambda tx: tx.erase(1, reason="asked for"))
    with pytest.raises(NotFound):
        ledger.write(CONTEXT, lambda tx: tx.erase(1, reason="asked for"))
    first, second, tombstone = ledger.events("flights")
    assert (first.payload, second.payload) == (None, {"value": "kept"})
    assert (tombstone.action, tombstone.object, tombstone.reason) == ("payload.erased", "event:1", "asked for")
    found = check(tmp_path)
    assert found.ok
    assert found.erased == 1
    ledger.write(CONTEXT, lambda tx: tx.execute(sa.text("DELETE FROM toys")) and None)
    ledger.close()
    if isinstance(place_of(tmp_path), Path):
        assert b"personal" not in (tmp_path / "ledger.db").read_bytes()


@about_files
def test_what_was_erased_leaves_nothing_in_the_files_of_an_open_ledger(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(CONTEXT, put("a", "personal"))
    ledger.write(CONTEXT, lambda tx: tx.execute(sa.text("DELETE FROM toys")) and None)
    ledger.write(CONTEXT, lambda tx: tx.erase(1, reason="asked for"))
    files = (tmp_path / "ledger.db", tmp_path / "ledger.db-wal")
    assert any(b"personal" in file.read_bytes() for file in files)

    def meanwhile(connection: sa.Connection) -> bool:
        connection.execute(sa.text("SELECT count(*) FROM events")).all()
        return ledger.scrub()

    assert ledger.read(meanwhile) is False
    assert ledger.scrub() is True
    assert not any(b"personal" in file.read_bytes() for file in files)
    assert check(tmp_path).ok


@about_files
def test_a_second_writer_is_noticed(ledger: Ledger, tmp_path: Path) -> None:
    """Two writers would each continue their own chain, and the history would fork."""
    ledger.write(CONTEXT, put("a"))
    with sqlite3.connect(tmp_path / "ledger.db", isolation_level=None) as other:
        other.execute("INSERT INTO toys VALUES ('foreign', '')")
    other.close()
    with pytest.raises(Corrupt, match="other than this process"):
        ledger.write(CONTEXT, put("b"))
    with pytest.raises(Corrupt):
        ledger.write(CONTEXT, put("c"))
    assert keys(ledger) == ["a", "foreign"]


class JumpingClock(SimulatedClock):
    """A clock whose time of day is moved while its monotonic seconds stand still."""

    def monotonic(self) -> float:
        return 0.0


def test_a_jump_of_the_clock_is_on_record(open_ledger: OpenLedger, tmp_path: Path) -> None:
    clock = JumpingClock(datetime(2013, 1, 1, tzinfo=UTC))
    ledger = open_ledger(clock=clock)
    make_table(ledger)
    ledger.write(CONTEXT, put("a"))
    clock.set(clock.now() - timedelta(days=1))
    ledger.write(CONTEXT, put("b"))
    clock.set(clock.now() + timedelta(seconds=30))
    ledger.write(CONTEXT, put("c"))
    assert [event.action for event in ledger.events()] == ["toy.put", "clock.jumped", "toy.put", "toy.put"]
    assert ledger.events(action="clock.jumped")[0].payload == {"seconds": -86_400}
    assert check(tmp_path).ok


def test_an_observer_hears_of_what_is_durable_and_of_nothing_else(ledger: Ledger) -> None:
    heard: list[frozenset[str]] = []

    def observe(actions: frozenset[str]) -> None:
        heard.append(actions)
        if "odd.thing" in actions:
            raise RuntimeError("an observer is no part of the ledger")

    def undone(tx: Transaction) -> None:
        tx.emit("never.happened", "x")
        raise Conflict("Not now.")

    ledger.observe(observe)
    with pytest.raises(Conflict):
        ledger.write(CONTEXT, undone)
    ledger.write(CONTEXT, lambda tx: None)
    ledger.write(CONTEXT, lambda tx: tx.emit("odd.thing", "x"))
    ledger.write(CONTEXT, lambda tx: [tx.emit("one.thing", "x").seq, tx.emit("other.thing", "x").seq])
    ledger.close()
    assert heard == [{"odd.thing"}, {"one.thing", "other.thing"}]
