"""Keep rows in a server of Redis or Valkey, for data planes on several machines.

What is kept under one prefix is a sorted set whose members, all of score 0, are a number (8 bytes, big-endian) and a
value: they stand in the order of numbers. All keys of a project share a hash tag. A change is made as a transaction
that fails when somebody else has touched its keys meanwhile, and is then tried again.
"""

import random
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdtrue.core.clock import Clock, SystemClock
from holdtrue.core.errors import ConfigurationError, StorageFull, Unavailable
from holdtrue.features.keeper import LEAD, OFFSET, TAG, Ask, Change, Extent

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")

_NUMBER: Final = struct.Struct(">Q")
_PREFIX: Final = 24
_LEAD: Final = b"\0" * LEAD
_TRIES: Final = 50
_SECONDS: Final = 0.5
_WRITE_SECONDS: Final = 30.0
_PAUSE: Final = 1.0
_SCAN: Final = 1000


class RedisKeeper:
    """Keep a project's rows at an address such as redis://user:password@host:6379/0.

    A server that did not answer is left alone for a second, so that requests are not held up one after the other.
    """

    def __init__(self, address: str, project: str, clock: Clock | None = None) -> None:
        """Take note of the address; the first use connects. Raises ConfigurationError."""
        try:
            import redis
            import redis.exceptions
        except ImportError:
            raise ConfigurationError(
                "Online features in Redis need the library “redis”, which is not installed.",
                mend="Install it: pip install 'holdtrue[redis]'",
            ) from None
        self._errors: Any = redis.exceptions
        try:
            # Somebody waits for what is read, and many rows may be written at once.
            self._client: Any = redis.Redis.from_url(
                address, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, protocol=2
            )
            self._patient: Any = redis.Redis.from_url(
                address, socket_timeout=_WRITE_SECONDS, socket_connect_timeout=_SECONDS, protocol=2
            )
        except ValueError as error:
            raise ConfigurationError(
                "The address of the online store cannot be used.",
                why=f"{error}.".replace("..", "."),
                mend="Write it like redis://host:6379/0, or rediss://… with TLS.",
            ) from None
        self._root = b"holdtrue:{%s}:" % project.encode()
        self._clock = clock or SystemClock()
        self._down_until = 0.0

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
        self._patient.close()

    def fetch(self, asks: Sequence[Ask]) -> list[Any]:
        """Return what is kept, asked for in one turn; see `Keeper`."""
        with self._reading():
            pipe = self._client.pipeline(transaction=False)
            for prefix, low, high in asks:
                key = self._root + prefix
                if low is None:
                    pipe.zrevrangebylex(key, _end(high), b"-", start=0, num=1)
                else:
                    pipe.zrangebylex(key, b"[" + _number(low), _end(high))
            answers = pipe.execute()
        return [
            [_LEAD + member[8:] for member in found] if low is not None else _last(found)
            for (_, low, _), found in zip(asks, answers, strict=True)
        ]

    def apply(
        self,
        changes: Sequence[Change],
        newest: Mapping[bytes, int] = MappingProxyType({}),
        notes: Mapping[str, bytes] = MappingProxyType({}),
    ) -> list[list[int]]:
        """Make all changes in one transaction; see `Keeper`."""
        keys = list(dict.fromkeys(self._root + each.prefix for each in changes))

        def work(pipe: Any) -> list[list[int]]:
            found = self._held(changes)
            fresh: list[list[int]] = []
            puts: dict[bytes, dict[int, bytes]] = {}
            for change in changes:
                held = found[change.prefix]
                merged = change.merge({number: held[number] for number in change.numbers if number in held})
                fresh.append(merged.fresh)
                # A second change of one prefix sees what the first has made of it.
                held.update({number: _LEAD + value for number, value in merged.puts.items()})
                puts.setdefault(change.prefix, {}).update(merged.puts)
            pipe.multi()
            self._put(pipe, puts, {each.prefix: each.most for each in changes})
            for tag, moment in newest.items():
                # A score is a float64: moments until the year 2255 are exact.
                pipe.zadd(self._root + b"newest", {tag: moment}, gt=True)
            for name, content in notes.items():
                pipe.hset(self._root + b"notes", name, content)
            return fresh

        return self._transaction(keys, work)

    def newest(self, tags: Sequence[bytes]) -> list[int | None]:
        """Return the highest moment of each tag; see `Keeper`."""
        with self._reading():
            found = self._client.zmscore(self._root + b"newest", list(tags)) if tags else []
        return [None if each is None else int(each) for each in found]

    def note(self, name: str) -> bytes | None:
        """Return a note; see `Keeper`."""
        with self._reading():
            return self._client.hget(self._root + b"notes", name)

    def notes(self, start: str) -> dict[str, bytes]:
        """Return notes; see `Keeper`."""
        with self._reading():
            found = self._client.hgetall(self._root + b"notes")
        return {name.decode(): value for name, value in found.items() if name.startswith(start.encode())}

    def remove(self, entity: bytes, tags: Sequence[bytes] | None) -> int:
        """Remove an entity; see `Keeper`."""
        with self._translated("The online features could not be removed.", "Do it again."):
            known = self._patient.smembers(self._root + b"tags") if tags is None else tags
            pipe = self._patient.pipeline(transaction=True)
            for tag in known:
                pipe.zcard(self._root + tag + entity)
                pipe.delete(self._root + tag + entity)
            return sum(pipe.execute()[0::2]) if known else 0

    def extents(self, tags: Sequence[bytes]) -> list[Extent]:
        """Return how much is kept; see `Keeper`. Walks over all keys of the server's database."""
        sizes = {tag: [0, 0, 0] for tag in tags}
        with self._reading():
            for key in self._patient.scan_iter(match=_escaped(self._root) + b"*", count=_SCAN):
                prefix = key[len(self._root) :]
                mine = sizes.get(prefix[:TAG]) if len(prefix) == _PREFIX else None
                if mine is not None:
                    mine[0] += 1
                    mine[1] += self._patient.zcard(key)
                    mine[2] += self._patient.memory_usage(key) or 0
        return [Extent(*sizes[tag]) for tag in tags]

    def _held(self, changes: Sequence[Change]) -> dict[bytes, dict[int, bytes]]:
        """Return what is kept at present under all numbers that changes are about."""
        wanted = [(change.prefix, number) for change in changes for number in change.numbers]
        reading = self._patient.pipeline(transaction=False)
        for prefix, number in wanted:
            reading.zrangebylex(self._root + prefix, b"[" + _number(number), _end(number))
        found: dict[bytes, dict[int, bytes]] = {change.prefix: {} for change in changes}
        for (prefix, number), members in zip(wanted, reading.execute(), strict=True):
            if members:
                found[prefix][number] = _LEAD + members[0][8:]
        return found

    def _put(self, pipe: Any, puts: Mapping[bytes, Mapping[int, bytes]], most: Mapping[bytes, int]) -> None:
        for prefix, values in puts.items():
            if not values:
                continue
            key = self._root + prefix
            for number in values:
                pipe.zremrangebylex(key, b"[" + _number(number), _end(number))
            pipe.zadd(key, {_number(number) + value: 0 for number, value in values.items()})
            pipe.zremrangebyrank(key, 0, -(most[prefix] + 1))
            pipe.sadd(self._root + b"tags", prefix[:TAG])

    def _transaction(self, keys: Sequence[bytes], work: Callable[[Any], T]) -> T:
        """Run `work` until nobody else touched `keys` while it did; it leaves its commands in the pipeline."""
        with self._writing():
            for attempt in range(_TRIES):
                with self._patient.pipeline(transaction=True) as pipe:
                    try:
                        if keys:
                            pipe.watch(*keys)
                        result = work(pipe)
                        pipe.execute()
                    except self._errors.WatchError:
                        # Another process was faster: the longer it goes on, the longer each waits.
                        time.sleep(random.random() * 0.001 * min(attempt + 1, 20))
                        continue
                    return result
        raise Unavailable(
            "The online features could not be kept.",
            why=f"Others changed the same entities {_TRIES} times in between.",
            mend="Send the events again.",
        )

    def _reading(self) -> "AbstractContextManager[None]":
        return self._translated("The online features cannot be read.", "Try again.")

    def _writing(self) -> "AbstractContextManager[None]":
        return self._translated("The online features could not be kept.", "Send the events again.")

    @contextmanager
    def _translated(self, what: str, mend: str) -> "Generator[None]":
        if self._clock.monotonic() < self._down_until:
            raise Unavailable(what, why="The server of the online store did not answer a moment ago.", mend=mend)
        try:
            yield
        except self._errors.OutOfMemoryError as error:
            raise StorageFull(
                "There is no room in the store of online features.",
                why=str(error),
                mend="Give the server of the online store more memory and send the events again.",
            ) from error
        except self._errors.RedisError as error:
            if isinstance(error, self._errors.ConnectionError | self._errors.TimeoutError):
                self._down_until = self._clock.monotonic() + _PAUSE
            # Its texts name hosts at most, and no password.
            raise Unavailable(what, why=f"{type(error).__name__}: {error}", mend=mend) from error


def _last(members: Sequence[bytes]) -> tuple[int, bytes] | None:
    if not members:
        return None
    return _NUMBER.unpack_from(members[0])[0] - OFFSET, _LEAD + members[0][8:]


def _number(number: int) -> bytes:
    return _NUMBER.pack(number + OFFSET)


def _end(number: int) -> bytes:
    """Return the limit of all members up to and with `number`."""
    after = number + 1 + OFFSET
    return b"+" if after >= 1 << 64 else b"(" + _NUMBER.pack(after)


def _escaped(text: bytes) -> bytes:
    """Return a pattern that matches `text` alone."""
    return b"".join(b"\\" + bytes([each]) if bytes([each]) in b"*?[]{}^\\" else bytes([each]) for each in text)
