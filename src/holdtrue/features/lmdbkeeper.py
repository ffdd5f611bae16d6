"""Keep rows in an LMDB file: readers wait for nobody, and one process writes at a time.

The file can be made again from the event journal; a power failure may cost its last commit, and nothing else.
"""

import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import lmdb

from holdtrue.core.errors import StorageFull, Unavailable
from holdtrue.features.keeper import LEAD, OFFSET, TAG, Ask, Change, Extent

_MAP_SIZE: Final = 16 << 30  # of address space; the file takes the room of what is in it
_NUMBER: Final = struct.Struct(">Q")
_SERIAL: Final = struct.Struct("<I")
_PREFIX: Final = 24
_PRUNE_EVERY: Final = 64
# No view has this tag: a hash of eight zeros would have to be found first.
_NEWEST: Final = b"\0" * TAG + b"newest "
_NOTE: Final = b"\0" * TAG + b"note "


class LmdbKeeper:
    """Keep rows in a folder; one process opens a folder once."""

    def __init__(self, path: Path) -> None:
        """Open the folder `path`, making it if needed."""
        self._env = lmdb.open(str(path), map_size=_MAP_SIZE, metasync=False, max_readers=1024, mode=0o600)
        # A killed process leaves its place among the readers behind.
        self._env.reader_check()

    def close(self) -> None:
        """Close the file."""
        self._env.close()

    def fetch(self, asks: Sequence[Ask]) -> list[Any]:
        """Return what is kept; see `Keeper`."""
        try:
            with self._env.begin() as transaction:
                cursor = transaction.cursor()
                return [
                    _last(cursor, prefix, high) if low is None else _between(cursor, prefix, low, high)
                    for prefix, low, high in asks
                ]
        except lmdb.Error as error:
            raise _unreadable(error) from None

    def apply(
        self,
        changes: Sequence[Change],
        newest: Mapping[bytes, int] = MappingProxyType({}),
        notes: Mapping[str, bytes] = MappingProxyType({}),
    ) -> list[list[int]]:
        """Make all changes with one commit; see `Keeper`."""
        with _writing(self._env) as transaction:
            fresh = [_change(transaction, each) for each in changes]
            for tag, moment in newest.items():
                held = transaction.get(_NEWEST + tag)
                if held is None or _number(held) < moment:
                    transaction.put(_NEWEST + tag, _key(moment))
            for name, content in notes.items():
                transaction.put(_NOTE + name.encode(), content)
        return fresh

    def newest(self, tags: Sequence[bytes]) -> list[int | None]:
        """Return the highest moment of each tag; see `Keeper`."""
        with self._reading() as transaction:
            found = [transaction.get(_NEWEST + tag) for tag in tags]
        return [None if each is None else _number(each) for each in found]

    def note(self, name: str) -> bytes | None:
        """Return a note; see `Keeper`."""
        with self._reading() as transaction:
            return transaction.get(_NOTE + name.encode())

    def notes(self, start: str) -> dict[str, bytes]:
        """Return notes; see `Keeper`."""
        first = _NOTE + start.encode()
        found: dict[str, bytes] = {}
        with self._reading() as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(first):
                for key, value in cursor.iternext():
                    if not key.startswith(first):
                        break
                    found[key[len(_NOTE) :].decode()] = value
        return found

    def remove(self, entity: bytes, tags: Sequence[bytes] | None) -> int:
        """Remove an entity; see `Keeper`."""
        removed = 0
        with _writing(self._env) as transaction:
            for tag in list(_tags(transaction.cursor())) if tags is None else tags:
                keys = list(_keys(transaction.cursor(), tag + entity))
                for key in keys:
                    transaction.delete(key)
                removed += len(keys)
        return removed

    def extents(self, tags: Sequence[bytes]) -> list[Extent]:
        """Return how much is kept; see `Keeper`."""
        with self._reading() as transaction:
            return [_extent(transaction.cursor(), tag) for tag in tags]

    @contextmanager
    def _reading(self) -> Generator[Any]:
        try:
            with self._env.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise _unreadable(error) from None


def _last(cursor: Any, prefix: bytes, high: int) -> tuple[int, bytes] | None:
    key = prefix + _NUMBER.pack(high + OFFSET)
    if not cursor.set_range(key):
        exists = cursor.last()
    elif cursor.key() == key:
        return high, cursor.value()
    else:
        exists = cursor.prev()
    if exists:
        found, value = cursor.item()
        if found.startswith(prefix):
            return _NUMBER.unpack_from(found, _PREFIX)[0] - OFFSET, value
    return None


def _between(cursor: Any, prefix: bytes, low: int, high: int) -> list[bytes]:
    end = prefix + _NUMBER.pack(high + OFFSET)
    values: list[bytes] = []
    if cursor.set_range(prefix + _NUMBER.pack(low + OFFSET)):
        for key, value in cursor.iternext():
            if key > end:
                break
            values.append(value)
    return values


def _change(transaction: Any, change: Change) -> list[int]:
    prefix = change.prefix
    held = {number: transaction.get(prefix + _key(number)) for number in change.numbers}
    merged = change.merge({number: value for number, value in held.items() if value is not None})
    cursor = transaction.cursor()
    for number in sorted(merged.puts):
        value = held.get(number)
        # Records have serial numbers, so that the oldest are looked for at each 64th new one only.
        serial = _SERIAL.unpack_from(value)[0] if value else _serial(cursor, prefix, number)
        transaction.put(prefix + _key(number), _SERIAL.pack(serial) + merged.puts[number])
        if not value and serial % _PRUNE_EVERY == _PRUNE_EVERY - 1:
            keys = list(_keys(transaction.cursor(), prefix))
            for key in keys[: max(0, len(keys) - change.most)]:
                transaction.delete(key)
    return merged.fresh


def _serial(cursor: Any, prefix: bytes, number: int) -> int:
    found = _last(cursor, prefix, number)
    return 0 if found is None else (_SERIAL.unpack_from(found[1])[0] + 1) & 0xFFFFFFFF


def _keys(cursor: Any, prefix: bytes) -> Iterator[bytes]:
    if cursor.set_range(prefix):
        for key in cursor.iternext(keys=True, values=False):
            if not key.startswith(prefix):
                return
            yield key


def _tags(cursor: Any) -> Iterator[bytes]:
    """Yield the tag of every view of which there are rows, jumping from one to the next."""
    more = cursor.set_range(b"\0" * (TAG - 1) + b"\1")
    while more:
        tag = cursor.key()[:TAG]
        yield tag
        after = int.from_bytes(tag) + 1
        more = after < 1 << (8 * TAG) and cursor.set_range(after.to_bytes(TAG))


def _extent(cursor: Any, tag: bytes) -> Extent:
    entities, records, size = 0, 0, 0
    last = b""
    if cursor.set_range(tag):
        for key, value in cursor.iternext():
            if not key.startswith(tag):
                break
            if key[:_PREFIX] != last:
                entities, last = entities + 1, key[:_PREFIX]
            records += 1
            size += len(key) + len(value) - LEAD
    return Extent(entities, records, size)


@contextmanager
def _writing(env: Any) -> Generator[Any]:
    try:
        with env.begin(write=True) as transaction:
            yield transaction
    except (lmdb.MapFullError, lmdb.DiskError) as error:
        raise StorageFull(
            "There is no room in the store of online features.",
            why=str(error),
            mend="Free space on the disk of the data folder and send the events again.",
        ) from error
    except lmdb.Error as error:
        raise Unavailable(
            "The online features could not be kept.", why=str(error), mend="Send the events again."
        ) from error


def _key(number: int) -> bytes:
    return _NUMBER.pack(number + OFFSET)


def _number(key: bytes) -> int:
    return _NUMBER.unpack(key)[0] - OFFSET


def _unreadable(error: lmdb.Error) -> Unavailable:
    return Unavailable("The online features cannot be read.", why=str(error), mend="Try again.")
