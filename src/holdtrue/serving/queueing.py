"""Requests that are answered later: a queue and its results on the disk, shared by all workers of a data folder.

LMDB with synced commits: what is accepted or answered is on the disk before anybody is told. An entry belongs to the
worker that took it; whose worker has died, that is, holds the lock of its name no more, is taken over by another.
"""

import fcntl
import os
import struct
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import lmdb
import orjson

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import IdempotencyMismatch, NotFound, StorageFull, Unavailable
from holdtrue.storage import make_folder

WAITING: Final = "waiting"
DONE: Final = "done"
_MAP: Final = 16 << 30
_MOST_WAITING: Final = 10_000
MOST_TRIES: Final = 8
"""How often a request is begun at most."""
_PLACE: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold one request that is answered later, without its body.

    `route` is the endpoint's pattern and `path` its parameters; `headers` say how the body is to be read. `digest` is
    the hash of all that was asked, `tries` how often it was begun, and `ends` the moment, in microseconds, after which
    its result is forgotten (0: it has none yet). `status` and `media` are those of the result.
    """

    id: str
    project: str
    route: str
    path: tuple[str, ...]
    headers: dict[str, str]
    token: str
    actor: str
    environment: str | None
    digest: str
    accepted: int
    owner: str
    state: str = WAITING
    tries: int = 0
    ends: int = 0
    status: int = 0
    media: str = ""
    answer_headers: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def key(self) -> bytes:
        """Return its key."""
        return key_of(self.project, self.id)


def key_of(project: str, name: str) -> bytes:
    """Return the key of a request of a project."""
    return f"{project}\0{name}".encode()


def digest_of(route: str, path: Sequence[str], headers: Mapping[str, str], body: bytes) -> str:
    """Return the hash of all that a request asks."""
    return bytes_hash(orjson.dumps([route, list(path), sorted(headers.items()), bytes_hash(body)]))


class Queue:
    """Keep the requests of one data folder on behalf of the worker `owner`; every call waits for the disk.

    Raises StorageFull and Unavailable.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._owner = owner
        self._locks = make_folder(make_folder(path) / "owners")
        self._env = lmdb.open(str(path), map_size=_MAP, max_dbs=3, max_readers=512, mode=0o600)
        with self._writing() as transaction:
            self._requests = self._env.open_db(b"requests", transaction)
            self._order = self._env.open_db(b"order", transaction)
            self._ends = self._env.open_db(b"ends", transaction)
        self._lock = os.open(self._locks / owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Close; what was not answered is taken over by another worker, or by the next one of this name."""
        self._env.close()
        os.close(self._lock)

    def accept(self, asked: Sequence[tuple[Entry, bytes]]) -> list[Entry | IdempotencyMismatch | Unavailable]:
        """Put requests in, all in one commit, and return each as it is kept: one that is known already as it stands.

        One of the same name that asks something else is an IdempotencyMismatch; when too many wait, Unavailable.
        """
        found: list[Entry | IdempotencyMismatch | Unavailable] = []
        with self._writing() as transaction:
            waiting = transaction.stat(self._order)["entries"]
            for entry, body in asked:
                known = self._get(transaction, entry.key)
                if known is not None:
                    found.append(known[0] if known[0].digest == entry.digest else _other(entry.id))
                elif waiting >= _MOST_WAITING:
                    found.append(Unavailable("Too many requests wait to be answered.", mend="Try again later."))
                else:
                    self._put(transaction, entry, body)
                    transaction.put(_place(entry), entry.owner.encode(), db=self._order)
                    waiting += 1
                    found.append(entry)
        return found

    def begin(self, keys: Sequence[bytes]) -> list[tuple[Entry, bytes]]:
        """Count one more try of each request that waits, and return them with their bodies."""
        found: list[tuple[Entry, bytes]] = []
        with self._writing() as transaction:
            for key in keys:
                known = self._get(transaction, key)
                if known is None or known[0].state != WAITING or known[0].owner != self._owner:
                    continue
                entry = replace(known[0], tries=known[0].tries + 1)
                self._put(transaction, entry, known[1])
                found.append((entry, known[1]))
        return found

    def answer(self, answered: Sequence[tuple[Entry, bytes]]) -> None:
        """Keep the results of requests in place of what was asked."""
        with self._writing() as transaction:
            for entry, body in answered:
                self._put(transaction, replace(entry, state=DONE), body)
                transaction.delete(_place(entry), db=self._order)
                transaction.put(_PLACE.pack(entry.ends) + entry.key, b"", db=self._ends)

    def find(self, project: str, name: str, now: int) -> tuple[Entry, bytes]:
        """Return a request and its result (b"" while it waits); raise NotFound for one that is unknown or forgotten."""
        with self._env.begin() as transaction:
            known = self._get(transaction, key_of(project, name))
        if known is None or 0 < known[0].ends <= now:
            raise NotFound.of("request", name)
        return known if known[0].state == DONE else (known[0], b"")

    def forget(self, now: int, most: int = 1000) -> int:
        """Remove results whose time is over, and return how many were."""
        with self._env.begin() as transaction, transaction.cursor(self._ends) as cursor:
            first = cursor.first() and _PLACE.unpack(cursor.key()[: _PLACE.size])[0] <= now
        if not first:
            return 0
        gone: list[bytes] = []
        with self._writing() as transaction:
            with transaction.cursor(self._ends) as cursor:
                for place in cursor.iternext(values=False):
                    if _PLACE.unpack(place[: _PLACE.size])[0] > now or len(gone) == most:
                        break
                    gone.append(bytes(place))
            for place in gone:
                transaction.delete(place, db=self._ends)
                transaction.delete(place[_PLACE.size :], db=self._requests)
        return len(gone)

    def mine(self) -> list[bytes]:
        """Return the keys of this worker's requests that wait, oldest first, with those of workers that have died."""
        own: list[bytes] = []
        others: dict[str, list[bytes]] = {}
        with self._env.begin() as transaction, transaction.cursor(self._order) as cursor:
            for place, owner in cursor:
                key, name = bytes(place[_PLACE.size :]), bytes(owner).decode()
                if name == self._owner:
                    own.append(key)
                else:
                    others.setdefault(name, []).append(key)
        for name, keys in others.items():
            own += self._take_over(name, keys)
        return own

    def _take_over(self, owner: str, keys: Sequence[bytes]) -> list[bytes]:
        """Take the requests of a worker that holds its name no more."""
        lock = os.open(self._locks / owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken: list[bytes] = []
            with self._writing() as transaction:
                for key in keys:
                    known = self._get(transaction, key)
                    if known is not None and known[0].owner == owner and known[0].state == WAITING:
                        entry = replace(known[0], owner=self._owner)
                        self._put(transaction, entry, known[1])
                        transaction.put(_place(entry), entry.owner.encode(), db=self._order)
                        taken.append(key)
            return taken
        except BlockingIOError:
            return []
        finally:
            os.close(lock)

    def _get(self, transaction: Any, key: bytes) -> tuple[Entry, bytes] | None:
        data = transaction.get(key, db=self._requests)
        if data is None:
            return None
        head, _, body = bytes(data).partition(b"\n")
        return load(Entry, orjson.loads(head), "A kept request"), body

    def _put(self, transaction: Any, entry: Entry, body: bytes) -> None:
        transaction.put(entry.key, orjson.dumps(dump(entry)) + b"\n" + body, db=self._requests)

    @contextmanager
    def _writing(self) -> Generator[Any]:
        try:
            with self._env.begin(write=True) as transaction:
                yield transaction
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            raise StorageFull("Requests that are answered later cannot be kept.", why=str(error)) from None
        except lmdb.Error as error:
            raise Unavailable("Requests that are answered later cannot be kept.", why=str(error)) from None


def _place(entry: Entry) -> bytes:
    return _PLACE.pack(entry.accepted) + entry.key


def _other(name: str) -> IdempotencyMismatch:
    return IdempotencyMismatch(
        f"The request {name[:80]} is known, and asked something else.",
        why="A request that is answered later is known by its id.",
        mend="Send another X-Request-Id, or none.",
    )
