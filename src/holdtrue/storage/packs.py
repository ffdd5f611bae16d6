"""Many small contents in one file, for making ten thousand files takes longer than all the rest of storing them.

A pack is `packs/NAME`: a head (mark, number of contents), one record for each in the order of digests (digest, where it
begins, size), then the contents. NAME is the digest of head and records, so a pack is known to list what it listed
when it was written; each content is checked by its own digest when it is read.
"""

import os
import struct
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdtrue.core.canonical import bytes_hash
from holdtrue.storage.files import fresh_file, make_folder, publish, write_all

LEAST = 256
"""From so many contents on they are packed: with fewer, the packs would be more than worth looking through."""
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

    def digests(self) -> list[str]:
        """Return the digests of its contents, in order."""
        text, width = self.records.hex(), 2 * _RECORD.size
        return [text[place : place + 64] for place in range(0, len(text), width)]

    def find(self, digest: str) -> tuple[int, int] | None:
        """Return where in the file a content begins, and its size; None if it is not there."""
        records, width, wanted = self.records, _RECORD.size, bytes.fromhex(digest)
        count = len(records) // width
        place = bisect_left(range(count), wanted, key=lambda number: records[number * width : number * width + 32])
        if place == count:
            return None
        found, offset, size = _RECORD.unpack_from(records, place * width)
        return (self.start + offset, size) if found == wanted else None


class Packs:
    """Keep packs in a folder that any number of processes may share; its caller holds the gate of the blobs."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder = folder
        self._temporary = temporary
        self._known: tuple[int, Mapping[str, Pack]] = (0, {})

    def all(self, *, anew: bool = False) -> Mapping[str, Pack]:
        """Return the packs by name; the folder is read if it has changed, or `anew`."""
        try:
            changed = os.stat(self.folder).st_mtime_ns
        except FileNotFoundError:
            return {}
        stamp, before = self._known
        if stamp == changed and not anew:
            return before
        names = [name for name in sorted(os.listdir(self.folder)) if len(name) == 64]
        found = {name: pack for name in names if (pack := before.get(name) or self._load(name)) is not None}
        settled = time.time_ns() - changed > _SETTLED_NS  # file times are the machine's, whatever clock was injected
        self._known = (changed if settled else 0, found)
        return found

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Store contents by their digests in one file, durably."""
        records: list[bytes] = []
        offset = 0
        for digest in sorted(contents):
            size = len(contents[digest])
            records.append(_RECORD.pack(bytes.fromhex(digest), offset, size))
            offset += size
        head = _HEAD.pack(_MARK, len(records)) + b"".join(records)
        make_folder(self.folder)
        with fresh_file(self._temporary) as (descriptor, temporary):
            write_all(descriptor, b"".join([head, *(contents[digest] for digest in sorted(contents))]))
            publish(descriptor, temporary, self.folder / bytes_hash(head))

    def lacking(self, digests: Iterable[str]) -> set[str]:
        """Return those digests that are in no pack."""
        found = set(digests)
        for pack in self.all().values():
            if not found:
                break
            found.difference_update(pack.digests())
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
        for anew in (False, True):
            # Another process may write a pack anew, without what was removed, between the two.
            self.all(anew=anew)
            found = self.find(digest)
            if found is None:
                return None
            path, offset, size = found
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        return None

    def damaged(self) -> Iterator[str]:
        """Yield the names of packs that do not say what they hold."""
        for name in sorted(os.listdir(self.folder)) if self.folder.is_dir() else ():
            if len(name) == 64 and self._load(name) is None and (self.folder / name).exists():
                yield name

    def without(self, pack: Pack, dead: set[str]) -> None:
        """Store what a pack has but for `dead`, durably, as another one; the old one is left."""
        data = (self.folder / pack.name).read_bytes()
        kept: dict[str, bytes] = {}
        for (found, offset, size), digest in zip(_RECORD.iter_unpack(pack.records), pack.digests(), strict=True):
            assert found.hex() == digest
            if digest not in dead:
                kept[digest] = data[pack.start + offset : pack.start + offset + size]
        if kept:
            self.put(kept)

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
