"""What keys and projects have used: counters that all workers of a home share, exact under any number of calls.

A call reserves the most it can cost before a provider is asked, and settles what it did cost afterwards. A
worker that dies leaves its reservations, which are billed in full by whoever takes over its name, or once
they have expired.

The counters lie in LMDB, whose commits are not waited for: they survive the death of every process. What a
failure of the machine leaves of such a file cannot be relied on, so after one the counters begin with the
last copy, which is written and synced within a second of each change.

A transaction writes into the memory that all workers map, which costs a sixth of what writing pages to the file
does. The disk must then have room for a page before it is touched, so some is taken ahead of what is used.
"""

import fcntl
import itertools
import math
import os
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb
import orjson

from holdtrue.core.clock import Clock, from_microseconds, microseconds
from holdtrue.core.errors import StorageFull, Unavailable
from holdtrue.llm.gateway.model import Budget, Period, QuotaExhausted, RateLimited
from holdtrue.llm.gateway.rules import period_end, period_start
from holdtrue.storage import make_folder, write_atomic

COPY: Final = "counters.json"
_MAP_SIZE: Final = 256 << 20
_AHEAD: Final = 8 << 20
_LEAST: Final = 1 << 20
_COUNTER: Final = struct.Struct("<6q")
"""Money, tokens and requests used; money, tokens and requests reserved."""
_EMPTY: Final = (0, 0, 0, 0, 0, 0)
_RATE: Final = struct.Struct("<2d")
"""When the bucket of requests, and that of tokens, would be full again (seconds since the epoch)."""
_MINUTE: Final = 60.0
_KEPT: Final = timedelta(days=400)
_SEPARATOR: Final = "\0"


@dataclass(frozen=True, slots=True)
class Amount:
    """Hold what a call costs: micro-units of money, tokens of input and output, requests."""

    money: int = 0
    tokens: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """Hold one budget that a call counts against, with the project whose calls it adds up.

    `stem` is the key of its rates, and begins those of its counters.
    """

    project: str
    budget: Budget
    stem: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        stem = _key(self.project, self.budget.key, self.budget.period.value)
        object.__setattr__(self, "stem", stem)

    @property
    def label(self) -> str:
        """Return whose budget it is, as an error names it."""
        whose = f"key {self.budget.key}" if self.budget.key else "project" if self.project else "whole server"
        return f"the budget of the {whose} per {self.budget.period.value}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Hold all budgets that a call counts against, and whether one of them counts money, or tokens or money."""

    each: tuple[Limit, ...] = ()
    money: bool = False
    tokens: bool = False

    @classmethod
    def of(cls, limits: tuple[Limit, ...]) -> "Limits":
        """Return limits with what they count."""
        budgets = [limit.budget for limit in limits]
        money = any(budget.money is not None for budget in budgets)
        tokens = any(budget.tokens is not None or budget.tokens_per_minute is not None for budget in budgets)
        return cls(limits, money, money or tokens)


class Reservation(NamedTuple):
    """Hold what a call has reserved, until it is settled."""

    id: bytes
    amount: Amount
    counters: tuple[bytes, ...]
    rates: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """Hold how far one budget has been used in one period, which began at `since` (µs; 0 for no period)."""

    project: str
    key: str
    period: Period
    since: int
    used: Amount
    reserved: Amount


class Budgets:
    """Count against budgets, in the folder `path`, under the name of one worker."""

    def __init__(self, path: Path, name: str, clock: Clock) -> None:
        """Open the counters, and bill what a worker of this name left when it died."""
        self._path = make_folder(path)
        self._clock = clock
        self._prefix = name.encode() + b"\0"
        self._numbers = itertools.count()
        self._dirty = False
        self._full = False
        self._periods: dict[Period, tuple[float, float, bytes]] = {}
        with self._alone():
            self._env = self._open()
            self._take_room()
            if self._full:
                self._env.close()
                raise _no_room()
            self._counters = self._env.open_db(b"counters")
            self._rates = self._env.open_db(b"rates")
            self._reserved = self._env.open_db(b"reserved")
            self._restore()
        self._env.reader_check()
        self._bill_left(lambda key, _: key.startswith(self._prefix))
        self._forget()

    def close(self) -> None:
        """Write the copy and close."""
        self.save()
        self._env.close()

    def reserve(self, limits: Sequence[Limit], amount: Amount, seconds: float) -> Reservation:
        """Reserve `amount` in all of `limits` or in none; it expires after `seconds` if nobody settles it.

        Raises QuotaExhausted or RateLimited; StorageFull where it could not be counted.
        """
        if self._full:
            raise _no_room()
        now = self._clock.now()
        moment = now.timestamp()
        try:
            with self._env.begin(write=True) as transaction:
                reservation = self._reserved_in(transaction, limits, amount, now, moment)
                note = [
                    int((moment + seconds) * 1_000_000),
                    amount.money,
                    amount.tokens,
                    amount.requests,
                    [key.decode() for key in reservation.counters],
                ]
                transaction.put(reservation.id, orjson.dumps(note), db=self._reserved)
        except lmdb.Error as error:
            raise _unwritable(error) from None
        self._dirty = True
        return reservation

    def _reserved_in(
        self, transaction: Any, limits: Sequence[Limit], amount: Amount, now: datetime, moment: float
    ) -> Reservation:
        counters: list[bytes] = []
        rates: list[tuple[bytes, float]] = []
        get, put = transaction.get, transaction.put
        for limit in limits:
            budget = limit.budget
            key = limit.stem + self._since(budget.period, now, moment)
            value = get(key, db=self._counters)
            row = _EMPTY if value is None else _COUNTER.unpack(value)
            _check_quota(limit, row, amount, now)
            money, tokens, requests = row[3] + amount.money, row[4] + amount.tokens, row[5] + amount.requests
            put(key, _COUNTER.pack(row[0], row[1], row[2], money, tokens, requests), db=self._counters)
            counters.append(key)
            if budget.requests_per_minute or budget.tokens_per_minute:
                fresh = _rate(get(limit.stem, db=self._rates), limit, amount, moment)
                put(limit.stem, _RATE.pack(*fresh), db=self._rates)
                if budget.tokens_per_minute:
                    rates.append((limit.stem, _MINUTE / budget.tokens_per_minute))
        identity = self._prefix + next(self._numbers).to_bytes(8, "big")
        return Reservation(identity, amount, tuple(counters), tuple(rates))

    def settle(self, reservation: Reservation, used: Amount) -> None:
        """Replace a reservation by what was used; one that has been billed already stays so."""
        try:
            with self._env.begin(write=True) as transaction:
                if not transaction.delete(reservation.id, db=self._reserved):
                    return
                for key in reservation.counters:
                    value = transaction.get(key, db=self._counters)
                    row = _EMPTY if value is None else _COUNTER.unpack(value)
                    transaction.put(key, _moved(row, used, reservation.amount), db=self._counters)
                unused = reservation.amount.tokens - used.tokens
                for key, interval in reservation.rates:
                    requests, tokens = _RATE.unpack(transaction.get(key, db=self._rates) or _RATE.pack(0.0, 0.0))
                    transaction.put(key, _RATE.pack(requests, tokens - unused * interval), db=self._rates)
        except lmdb.Error as error:
            raise _unwritable(error) from None
        self._dirty = True

    def expire(self) -> int:
        """Bill in full the reservations that nobody has settled in time; return how many there were."""
        now = microseconds(self._clock.now())
        return self._bill_left(lambda _, until: until < now)

    def standings(self) -> list[Standing]:
        """Return every counter."""
        with self._env.begin(db=self._counters) as transaction:
            return [_standing(bytes(key), bytes(value)) for key, value in transaction.cursor()]

    def save(self) -> None:
        """Write the synced copy of all counters, if this worker has changed any since the last one."""
        if not self._dirty:
            return
        self._dirty = False
        try:
            self._copy()
        except BaseException:
            self._dirty = True
            raise

    def _copy(self) -> None:
        self._take_room()
        with self._alone(), self._env.begin() as transaction:
            tables = {
                name: {bytes(key).hex(): bytes(value).hex() for key, value in transaction.cursor(db=table)}
                for name, table in self._tables()
            }
            shown = [
                _shown(_standing(bytes.fromhex(key), bytes.fromhex(value))) for key, value in tables["counters"].items()
            ]
            write_atomic(self._path / COPY, orjson.dumps({"tables": tables, "standings": shown}))

    def _since(self, period: Period, now: datetime, moment: float) -> bytes:
        """Return the end of a counter's key: when the present period began."""
        begin, end, key = self._periods.get(period, (0.0, 0.0, b""))
        if not begin <= moment < end:
            since, later = period_start(period, now), period_end(period, now)
            key = f"{_SEPARATOR}{since}".encode()
            self._periods[period] = since / 1e6, math.inf if later is None else later.timestamp(), key
        return key

    def _tables(self) -> tuple[tuple[str, Any], ...]:
        return (("counters", self._counters), ("rates", self._rates), ("reserved", self._reserved))

    def _open(self) -> lmdb.Environment:
        """Open the file, or begin a new one if the machine has been started anew since it was last written."""
        boot = _boot_id()
        mark = self._path / "boot"
        if not mark.exists() or mark.read_text(encoding="ascii") != boot:
            for name in ("data.mdb", "lock.mdb"):
                (self._path / name).unlink(missing_ok=True)
            write_atomic(mark, boot.encode("ascii"))
        return lmdb.open(
            str(self._path),
            map_size=_MAP_SIZE,
            max_dbs=3,
            max_readers=512,
            sync=False,
            metasync=False,
            writemap=True,
            mode=0o600,
        )

    def _take_room(self) -> None:
        """Take room on the disk ahead of what is used: whoever writes into a page that has none dies of it.

        Where little is left of what was taken and the disk gives no more, no call is let through.
        """
        left = self._room_left()
        if left < _AHEAD // 2:
            with self._env.begin(write=True), suppress(OSError):  # nobody else uses a page meanwhile
                self._lengthen()
            left = self._room_left()
        self._full = left < _LEAST

    def _room_left(self) -> int:
        """Return the bytes that are taken and not used."""
        return (self._path / "data.mdb").stat().st_blocks * 512 - self._used()

    def _used(self) -> int:
        return (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]

    def _lengthen(self) -> None:
        descriptor = os.open(self._path / "data.mdb", os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, self._used(), _AHEAD)
        finally:
            os.close(descriptor)

    def _restore(self) -> None:
        """Fill a new file from the copy."""
        copy = self._path / COPY
        with self._env.begin() as transaction:
            empty = transaction.stat(self._counters)["entries"] == 0
        if not empty or not copy.exists():
            return
        tables = orjson.loads(copy.read_bytes())["tables"]
        with self._writing() as transaction:
            for name, table in self._tables():
                for key, value in tables[name].items():
                    transaction.put(bytes.fromhex(key), bytes.fromhex(value), db=table)

    def _bill_left(self, chosen: Any) -> int:
        with self._env.begin(db=self._reserved) as transaction:
            left = [
                bytes(key) for key, note in transaction.cursor() if chosen(bytes(key), orjson.loads(bytes(note))[0])
            ]
        if not left:
            return 0
        billed = 0
        with self._writing() as transaction:
            for identity in left:
                note = transaction.pop(identity, db=self._reserved)
                if note is None:
                    continue
                _, money, tokens, requests, keys = orjson.loads(note)
                amount = Amount(money, tokens, requests)
                for key in keys:
                    value = transaction.get(key.encode(), db=self._counters)
                    row = _EMPTY if value is None else _COUNTER.unpack(value)
                    transaction.put(key.encode(), _moved(row, amount, amount), db=self._counters)
                billed += 1
        self._dirty = True
        return billed

    def _forget(self) -> None:
        """Drop the counters of periods long past."""
        oldest = microseconds(self._clock.now() - _KEPT)
        old = [each for each in self.standings() if 0 < each.since < oldest]
        if old:
            with self._writing() as transaction:
                for each in old:
                    key = _key(each.project, each.key, each.period.value, str(each.since))
                    transaction.delete(key, db=self._counters)

    @contextmanager
    def _writing(self) -> Generator[Any]:
        try:
            with self._env.begin(write=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise _unwritable(error) from None

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Keep other workers from opening or copying the counters at the same time."""
        descriptor = os.open(self._path / "copying", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def read_standings(path: Path) -> list[Standing]:
    """Return the counters of the folder `path` as they were about a second ago, without opening them."""
    try:
        data = orjson.loads((path / COPY).read_bytes())
    except FileNotFoundError:
        return []
    return [
        Standing(
            each["project"],
            each["key"],
            Period(each["period"]),
            each["since"],
            Amount(*each["used"]),
            Amount(*each["reserved"]),
        )
        for each in data["standings"]
    ]


def _unwritable(error: lmdb.Error) -> StorageFull | Unavailable:
    if isinstance(error, lmdb.MapFullError):
        return _no_room()
    return Unavailable("The counters of budgets cannot be written.", why=str(error))


def _no_room() -> StorageFull:
    return StorageFull("There is no room for the counters of budgets.")


def _check_quota(limit: Limit, row: tuple[int, ...], amount: Amount, now: datetime) -> None:
    """Raise QuotaExhausted or RateLimited unless `amount` fits beside what is used and reserved."""
    budget = limit.budget
    if budget.concurrent is not None and row[5] + amount.requests > budget.concurrent:
        raise RateLimited(
            "Too many requests at once.",
            why=f"{limit.label[0].upper()}{limit.label[1:]} allows {budget.concurrent} at a time.",
            mend="Wait for one of them to end.",
            facts={"retry_after": 1},
        )
    most_money, most_tokens, most_requests = budget.money, budget.tokens, budget.requests
    if (
        (most_money is None or row[0] + row[3] + amount.money <= most_money)
        and (most_tokens is None or row[1] + row[4] + amount.tokens <= most_tokens)
        and (most_requests is None or row[2] + row[5] + amount.requests <= most_requests)
    ):
        return
    asked = (amount.money, amount.tokens, amount.requests)
    for place, most in enumerate((most_money, most_tokens, most_requests)):
        if most is None or row[place] + row[place + 3] + asked[place] <= most:
            continue
        what, left = ("money", "tokens", "requests")[place], most - row[place] - row[place + 3]
        end = period_end(budget.period, now)
        until = "" if end is None else f" It begins anew at {end.isoformat()}."
        raise QuotaExhausted(
            f"The budget in {what} is exhausted.",
            why=f"Of {limit.label}, {_amount(what, max(left, 0))} of {_amount(what, most)} is left and not "
            f"reserved; this call may take {_amount(what, asked[place])}.{until}",
            mend="Ask for less output (max_tokens), wait, or have the budget raised: holdtrue budget set",
            facts={"kind": what},
        )


def _rate(value: bytes | None, limit: Limit, amount: Amount, now: float) -> tuple[float, float]:
    """Return the buckets after a call; raise RateLimited if it comes too soon.

    The generic cell rate algorithm (ITU-T I.371), in its virtual scheduling form: a bucket that holds one
    minute's allowance and fills evenly.
    """
    stored = _RATE.unpack(value) if value is not None else (0.0, 0.0)
    budget = limit.budget
    fresh: list[float] = []
    for full_at, most, asked, what in (
        (stored[0], budget.requests_per_minute, amount.requests, "requests"),
        (stored[1], budget.tokens_per_minute, amount.tokens, "tokens"),
    ):
        # No bucket lacks more than a minute's filling: if it seems so, the clock went back, and it starts full.
        begin = full_at if now < full_at <= now + _MINUTE + 1e-6 else now
        if not most or not asked:
            fresh.append(begin)
            continue
        after = begin + asked * _MINUTE / most
        if after - now > _MINUTE + 1e-9:
            never = asked > most
            why = f"{limit.label[0].upper()}{limit.label[1:]} allows {most} {what} a minute"
            raise RateLimited(
                "The request is larger than a minute's allowance." if never else f"Too many {what} a minute.",
                why=f"{why}; this call may take {asked}." if never else f"{why}.",
                mend="Ask for less output (max_tokens)." if never else "Try again later.",
                facts={"kind": what} | ({} if never else {"retry_after": math.ceil(after - now - _MINUTE)}),
            )
        fresh.append(after)
    return fresh[0], fresh[1]


def _moved(row: tuple[int, ...], used: Amount, released: Amount) -> bytes:
    return _COUNTER.pack(
        row[0] + used.money,
        row[1] + used.tokens,
        row[2] + used.requests,
        max(0, row[3] - released.money),
        max(0, row[4] - released.tokens),
        max(0, row[5] - released.requests),
    )


def _amount(what: str, value: int) -> str:
    return f"{value / 1_000_000:.6f}".rstrip("0").rstrip(".") if what == "money" else str(value)


def _key(*parts: str) -> bytes:
    return _SEPARATOR.join(parts).encode()


def _standing(key: bytes, value: bytes) -> Standing:
    project, name, period, since = key.decode().split(_SEPARATOR)
    row = _COUNTER.unpack(value)
    return Standing(project, name, Period(period), int(since), Amount(*row[:3]), Amount(*row[3:]))


def _shown(each: Standing) -> Mapping[str, Any]:
    return {
        "project": each.project,
        "key": each.key,
        "period": each.period.value,
        "since": each.since,
        "since_text": from_microseconds(each.since).isoformat() if each.since else None,
        "used": [each.used.money, each.used.tokens, each.used.requests],
        "reserved": [each.reserved.money, each.reserved.tokens, each.reserved.requests],
    }


def _boot_id() -> str:
    """Return what names this run of the machine, "" where nothing does (proc_sys_kernel(5))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def limits_of(budgets: Mapping[str, Sequence[Budget]], project: str, key: str) -> "Limits":
    """Return every budget that a call of `key` in `project` counts against: the house's, the project's, the key's."""

    def chosen() -> Iterator[Limit]:
        for owner in dict.fromkeys(("", project)):
            for budget in budgets.get(owner, ()):
                if budget.key in ("", key):
                    yield Limit(owner, budget)

    return Limits.of(tuple(chosen()))
