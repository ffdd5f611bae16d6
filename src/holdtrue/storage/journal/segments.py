"""Segment files: their names, what is known to be durable in them, and reading their frames.

Beside `live/<writer>-<number>.seg` may lie `.mark` (8 bytes: how far the segment was durable when last noted;
a cut below it is a loss, not an unfinished append) and `.skip` (byte ranges a repair gave up).
"""

import fcntl
import os
import re
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from holdtrue.core.errors import Corrupt, NewerSchema
from holdtrue.storage.files import write_atomic
from holdtrue.storage.journal.frames import (
    HEADER,
    SEGMENT_MAGIC,
    SEGMENT_VERSION,
    Frame,
    decode,
    find_frame,
)

_NAME = re.compile(r"(.+)-(\d{6,})")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """Who wrote a segment, and the how manieth of that writer it is."""

    writer: str
    number: int

    @property
    def text(self) -> str:
        """Return the file name without suffix."""
        return f"{self.writer}-{self.number:06d}"

    @classmethod
    def parse(cls, text: str) -> "SegmentName | None":
        """Read a file name without suffix; None if it is not a segment's."""
        match = _NAME.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None


@dataclass(frozen=True, slots=True)
class Reading:
    """The intact frames of a segment from some place on; the next reading starts at `end` and `row`."""

    created: int
    frames: list[Frame]
    end: int
    row: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a journal file that are lost; `file` is relative to the journal's folder.

    `length` is -1 where it was not looked how far the damage goes; `rows` counts the records of a whole file, and is
    None for bytes of a segment, of which nobody knows any more what they said.
    """

    file: str
    offset: int
    length: int
    rows: int | None = None


def live_segments(live: Path) -> list[SegmentName]:
    """Return the segments in folder `live`, in order of writer and number."""
    names = (SegmentName.parse(entry[:-4]) for entry in os.listdir(live) if entry.endswith(".seg"))
    return sorted(name for name in names if name is not None)


def read_mark(path: Path) -> int | None:
    """Return how many bytes of segment `path` were noted as durable, or None if nothing was noted."""
    try:
        data = path.with_suffix(".mark").read_bytes()
    except FileNotFoundError:
        return None
    return int.from_bytes(data, "little") if len(data) == 8 else None


def read_skips(path: Path) -> dict[int, int]:
    """Return the byte ranges (start → stop) of segment `path` that a repair gave up."""
    try:
        data = path.with_suffix(".skip").read_bytes()
    except FileNotFoundError:
        return {}
    return {int(start): int(stop) for start, stop in orjson.loads(data)}


def read_segment(path: Path, offset: int = 0, row: int = 0) -> Reading:
    """Return the intact frames of segment `path` from byte `offset` (with `row` rows before it) on.

    An unfinished append at the end is left out; whatever else is not intact raises Corrupt.
    Raises FileNotFoundError if the segment is gone (sealed meanwhile), NewerSchema for a later format.
    """
    # The mark first: bytes below a mark read before them are whole, however the writer goes on meanwhile.
    mark = read_mark(path)
    skips = read_skips(path)
    with path.open("rb", buffering=0) as file:
        created = _read_header(path, file.read(HEADER.size), mark, skips)
        start = max(offset, HEADER.size)
        size = os.fstat(file.fileno()).st_size
        if size <= start and start >= (mark or 0):
            return Reading(created, [], start if size >= HEADER.size else offset, row)
        file.seek(start)
        data = memoryview(file.read())
    walk = _Walk(path, data, start, row, mark, skips)
    frames = list(walk.frames())
    return Reading(created, frames, walk.position, walk.row)


class _Walk:
    """Go from frame to frame; know where damage is an unfinished append and where it is a loss."""

    def __init__(
        self, path: Path, data: memoryview, base: int, row: int, mark: int | None, skips: Mapping[int, int]
    ) -> None:
        self.position = base
        self.row = row
        self._path, self._data, self._base, self._mark, self._skips = path, data, base, mark, skips

    def frames(self) -> Iterator[Frame]:
        """Yield the intact frames; `position` and `row` stand after the last one. Raises Corrupt."""
        expected: int | None = None
        while (at := self.position - self._base) < len(self._data):
            frame = decode(self._data, at, self.position, self.row)
            if frame is not None and (expected is None or frame.seq == expected):
                yield frame
                self.position, self.row, expected = frame.end, self.row + frame.rows, frame.seq + 1
            elif self.position in self._skips:
                self.position = max(self._skips[self.position], self.position)
                expected = None
            elif frame is not None:
                raise damaged(self._path, self.position, f"Frame {expected} is missing before frame {frame.seq}.")
            elif self._acknowledged(at):
                raise damaged(self._path, self.position, "The bytes there are not an intact frame.")
            else:
                return
        if self._mark is not None and self.position < self._mark:
            if self.position not in self._skips:
                raise damaged(self._path, self.position, f"The file ends there, but had {self._mark} bytes.")
            self.position = max(self._skips[self.position], self.position)

    def _acknowledged(self, at: int) -> bool:
        """Say whether bytes that are not intact were once promised to somebody."""
        if self._mark is not None:
            return self.position < self._mark
        return find_frame(self._data, at + 1) is not None


def _read_header(path: Path, data: bytes, mark: int | None, skips: Mapping[int, int]) -> int:
    if len(data) < HEADER.size:
        if mark is None or 0 in skips:
            return 0
        raise damaged(path, len(data), f"The file ends there, but had {mark} bytes.")
    magic, version, checksum, created = HEADER.unpack(data)
    if magic != SEGMENT_MAGIC or zlib.crc32(data[-8:]) != checksum:
        if 0 in skips:
            return 0
        raise damaged(path, 0, "It does not start as a segment does.")
    if version > SEGMENT_VERSION:
        raise NewerSchema(
            f"Journal segment {path.name} has format {version}; this version reads up to {SEGMENT_VERSION}.",
            why="A newer Holdtrue wrote it.",
            mend="Install that version again: pip install --upgrade holdtrue",
            facts={"file": path.name, "version": version},
        )
    return created


def damaged(path: Path, offset: int, why: str) -> Corrupt:
    """Return the error that names a damaged journal file and the first damaged byte."""
    name = f"{path.parent.name}/{path.name}"
    return Corrupt(
        f"Journal file {name} is damaged at byte {offset}.",
        why=f"{why} It was changed or cut after it was written.",
        mend="Restore the file from a backup, or run `holdtrue doctor --repair`: it sets the damaged bytes "
        "aside, tells how many they are, and makes every other record readable.",
        facts={"file": name, "offset": offset},
    )


def repair_segment(path: Path) -> list[Damage]:
    """Give up the damaged ranges of segment `path`, so that the rest can be read; return them.

    The segment's bytes are left as they are.
    """
    found: list[Damage] = []
    while True:
        try:
            read_segment(path)
        except Corrupt as error:
            offset = 0 if error.facts["offset"] < HEADER.size else int(error.facts["offset"])
            data = memoryview(path.read_bytes())
            stop = _resume(path, data, offset)
            skips = {**read_skips(path), offset: stop}
            write_atomic(path.with_suffix(".skip"), orjson.dumps(sorted(skips.items())))
            found.append(Damage(f"{path.parent.name}/{path.name}", offset, stop - offset))
        else:
            return found


def _resume(path: Path, data: memoryview, offset: int) -> int:
    if offset == 0:
        return HEADER.size
    if decode(data, offset, offset, 0) is not None:  # intact, but what came before it is missing
        return offset
    following = find_frame(data, offset + 1)
    return following if following is not None else max(len(data), read_mark(path) or 0)


@contextmanager
def closed_segment(path: Path) -> Generator[bool]:
    """Say whether segment `path` has no writer any more, and keep that so for the time of the block."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
