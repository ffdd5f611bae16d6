"""Many small contents in one file, for making ten thousand files takes longer than all the rest of storing them.

A pack is `packs/NAME`: a head (mark, number of contents), one record for each in the order of digests (digest, where it
begins, size), then the contents. NAME is the digest of head and records, so a pack is known to list what it listed
when it was written; each content is checked by its own digest when it is read.
"""

import fcntl
import os
import struct
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from holdtrue.core.canonical import bytes_hash
from holdtrue.storage.files import fresh_file, make_folder, publish, sync_folder, write_all

LEAST = 256
"""From so many contents on they are packed: with fewer, the packs would be more than worth looking through."""
MOST, MOST_BYTES = 4096, 32 << 20
"""What a pack holds at most: it is written anew in a moment, and in memory."""
_LISTED = 50_000
_MARK = b"!pack/1\n"
_HEAD = struct.Struct(">8sQ")
_RECORD = struct.Struct(">32sQI")
# Names that came within one tick of the disk's clock leave the folder's time as it was.
_SETTLED_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pack:
    """Hold what a pack lists: its records, and where in its file the contents begin."""

    name: str
    records: bytes

    @property
    def start(self) -> int:
        """Return where the contents begin."""
        return _HEAD.size + len(self.records)

    @property
    def count(self) -> int:
        """Return how many contents it has."""
        return len(self.records) // _RECORD.size

    def places(self) -> Iterator[tuple[str, int, int]]:
        """Yield the digest of each content in order, where in the file it begins, and its size."""
        for digest, offset, size in _RECORD.iter_unpack(self.records):
            yield digest.hex(), self.start + offset, size

    def digests(self) -> list[str]:
        """Return the digests of its contents, in order."""
        text, width = self.records.hex(), 2 * _RECORD.size
        return [text[place : place + 64] for place in range(0, len(text), width)]

    def find(self, digest: str) -> tuple[int, int] | None:
        """Return where in the file a content begins, and its size; None if it is not there."""
        records, width, wanted = self.records, _RECORD.size, bytes.fromhex(digest)
        count = self.count
        place = bisect_left(range(count), wanted, key=lambda number: records[number * width : number * width + 32])
        if place == count:
            return None
        found, offset, size = _RECORD.unpack_from(records, place * width)
        return (self.start + offset, size) if found == wanted else None


class Packs:
    """Keep packs in a folder that any number of processes may share; its caller holds the gate of the blobs."""

    def __init__(self, folder: Path, temporary: Path, gated: Callable[[int], AbstractContextManager[None]]) -> None:
        self.folder = folder
        self._temporary = temporary
        self._gated = gated
        self._known: tuple[int, Mapping[str, Pack]] = (0, {})
        # Digests of packs, where they are few enough to be kept: a version asks several times in a row.
        self._listed: dict[str, list[str]] = {}

    def all(self, *, anew: bool = False) -> Mapping[str, Pack]:
        """Return the packs by name; the folder is read if it has changed, or `anew`."""
        try:
            changed = os.stat(self.folder).st_mtime_ns
        except FileNotFoundError:
            return {}
        stamp, before = self._known
        if stamp == changed and not anew:
            return before
        # A pack goes when another that has what it had is there: who reads names while that is done may see neither.
        with self._gated(fcntl.LOCK_SH):
            names = [name for name in sorted(os.listdir(self.folder)) if len(name) == 64]
            found = {name: pack for name in names if (pack := before.get(name) or self._load(name)) is not None}
        settled = time.time_ns() - changed > _SETTLED_NS  # file times are the machine's, whatever clock was injected
        self._known = (changed if settled else 0, found)
        return found

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Store contents by their digests in one file, durably."""
        head, data = _file(contents)
        make_folder(self.folder)
        with fresh_file(self._temporary) as (descriptor, temporary):
            write_all(descriptor, data)
            publish(descriptor, temporary, self.folder / bytes_hash(head))

    def lacking(self, digests: Iterable[str]) -> set[str]:
        """Return those digests that are in no pack."""
        found = set(digests)
        packs = self.all() if found else {}
        kept = self._listed if sum(pack.count for pack in packs.values()) <= _LISTED else {}
        for name in kept.keys() - packs.keys():
            del kept[name]
        for name, pack in packs.items():
            if not found:
                break
            found.difference_update(kept.get(name) or kept.setdefault(name, pack.digests()))
        return found

    def find(self, digest: str) -> tuple[Path, int, int] | None:
        """Return the file that has a content, where it begins there, and its size; None if none has."""
        for name, pack in self.all().items():
            place = pack.find(digest)
            if place is not None:
                return (self.folder / name, *place)
        return None

    def read(self, digest: str) -> bytes | None:
        """Return what is stored as a content, unchecked; None if no pack has it."""
        anew = False
        while True:
            self.all(anew=anew)
            found = self.find(digest)
            if found is None:
                return None
            path, offset, size = found
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                # Another process wrote what the pack had into another one between the two.
                anew = True
                continue
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)

    def damaged(self) -> Iterator[str]:
        """Yield the names of packs that do not say what they hold."""
        for name in sorted(os.listdir(self.folder)) if self.folder.is_dir() else ():
            if len(name) == 64 and self._load(name) is None and (self.folder / name).exists():
                yield name

    def replace(self, packs: Sequence[Pack], dead: AbstractSet[str], oldest: float) -> bool:
        """Store what packs have but for `dead` as one, durably, and remove them; tell whether that was done.

        It is not if one of them is gone, or has something dead that was put again since the moment `oldest`. What is
        kept is as old as the youngest of them. Whoever is killed meanwhile leaves the packs, the new one, or both.
        """
        try:
            contents = self._contents(packs, dead)
            head, data = _file(contents)
            target = self.folder / bytes_hash(head)
            with fresh_file(self._temporary) as (descriptor, temporary):
                write_all(descriptor, data)
                os.fsync(descriptor)
                paths = [self.folder / pack.name for pack in packs]
                # Behind the gate no put renews the age of a pack that goes.
                with self._gated(fcntl.LOCK_EX):
                    written = max(path.stat().st_mtime_ns for path in paths)
                    if dead and written > oldest * 1e9:
                        return False
                    if contents:
                        if target.exists():
                            written = max(written, target.stat().st_mtime_ns)
                        os.utime(temporary, ns=(written, written))
                        publish(descriptor, temporary, target)
                    for path in paths:
                        if path != target:
                            path.unlink()
        except FileNotFoundError:
            return False
        sync_folder(self.folder)
        return True

    def _contents(self, packs: Sequence[Pack], dead: AbstractSet[str]) -> dict[str, bytes]:
        """Return what packs have but for `dead`; of a content that several have, one that is not damaged."""
        found: dict[str, bytes] = {}
        for pack in packs:
            with (self.folder / pack.name).open("rb") as file:
                for digest, offset, size in pack.places():
                    if digest not in dead:
                        data = os.pread(file.fileno(), size, offset)
                        if digest not in found or bytes_hash(data) == digest:
                            found[digest] = data
        return found

    def _load(self, name: str) -> Pack | None:
        """Return what a pack lists, None for one that is gone or whose list is damaged."""
        try:
            with (self.folder / name).open("rb") as file:
                head = file.read(_HEAD.size)
                mark, count = _HEAD.unpack(head)
                if mark != _MARK or count * _RECORD.size > os.fstat(file.fileno()).st_size:
                    return None
                records = file.read(count * _RECORD.size)
        except (FileNotFoundError, struct.error):
            return None
        return Pack(name, records) if bytes_hash(head + records) == name else None


def _file(contents: Mapping[str, bytes]) -> tuple[bytes, bytes]:
    """Return the head of a pack of contents by their digests, and all of its file."""
    records: list[bytes] = []
    offset = 0
    for digest in sorted(contents):
        size = len(contents[digest])
        records.append(_RECORD.pack(bytes.fromhex(digest), offset, size))
        offset += size
    head = _HEAD.pack(_MARK, len(records)) + b"".join(records)
    return head, b"".join([head, *(contents[digest] for digest in sorted(contents))])
