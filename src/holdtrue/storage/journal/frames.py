"""The byte format of journal segments.

A segment is a header and frames. One frame holds the rows of one append:

    magic  4 bytes  "HTF1"
    length uint32   bytes after this fixed part (stream name and payload)
    crc    uint32   CRC-32 (zlib) of the payload, then of what lies between this field and the payload
    rows   uint32
    seq    uint64   0, 1, 2 … within the segment
    first  int64    earliest time of the rows, microseconds since the epoch
    last   int64    latest
    name   uint32   bytes of the stream name
    stream name     kind, project, service: UTF-8, separated by NUL
    payload         JSON object: column → list of `rows` values, or one value for all rows

All integers are little-endian.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import TypeAlias

FRAME = struct.Struct("<4sIIIQqqI")
HEADER = struct.Struct("<16sIIq")
MAGIC = b"HTF1"
SEGMENT_MAGIC = b"holdtrue journal"
SEGMENT_VERSION = 1
ROW = "_row"
FRAME_LIMIT = 256 << 20
_HEAD = struct.Struct("<4sII")
_TAIL = struct.Struct("<IQqqI")


@dataclass(frozen=True, slots=True)
class Frame:
    """One intact frame: where it lies in its segment, and what it holds."""

    offset: int
    end: int
    seq: int
    row: int
    rows: int
    first: int
    last: int
    stream: bytes
    payload: memoryview


# The rows of one append: payload, its CRC-32, number of rows, earliest and latest time. A plain tuple, because one is
# made for every prediction.
Records: TypeAlias = tuple[bytes, int, int, int, int]


def stream_name(kind: str, project: str, service: str) -> bytes:
    """Return the bytes that name a stream in a frame."""
    return f"{kind}\0{project}\0{service}".encode()


def encode(stream: bytes, records: Records, seq: int) -> bytes:
    """Return the bytes of one frame."""
    payload, checksum, rows, first, last = records
    tail = _TAIL.pack(rows, seq, first, last, len(stream)) + stream
    crc = zlib.crc32(tail, checksum)
    return _HEAD.pack(MAGIC, len(stream) + len(payload), crc) + tail + payload


def encode_header(created: int) -> bytes:
    """Return a segment's header; `created` in microseconds since the epoch."""
    rest = created.to_bytes(8, "little", signed=True)
    return HEADER.pack(SEGMENT_MAGIC, SEGMENT_VERSION, zlib.crc32(rest), created)


def decode(data: memoryview, at: int, offset: int, row: int) -> Frame | None:
    """Return the frame that starts at `data[at]`, or None if no intact frame does.

    `offset` is that place in the segment, `row` the number of rows before it.
    """
    body = at + FRAME.size
    if body > len(data):
        return None
    magic, length, crc, rows, seq, first, last, name = FRAME.unpack_from(data, at)
    if magic != MAGIC or length > FRAME_LIMIT or name > length or body + length > len(data):
        return None
    end, middle = body + length, body + name
    if zlib.crc32(data[at + _HEAD.size : middle], zlib.crc32(data[middle:end])) != crc:
        return None
    size = FRAME.size + length
    stream = bytes(data[body:middle])
    return Frame(offset, offset + size, seq, row, rows, first, last, stream, data[middle:end])


def find_frame(data: memoryview, start: int) -> int | None:
    """Return the place of the first intact frame at or after `data[start]`, or None."""
    text = bytes(data)
    at = text.find(MAGIC, start)
    while at >= 0:
        if decode(data, at, at, 0) is not None:
            return at
        at = text.find(MAGIC, at + 1)
    return None
