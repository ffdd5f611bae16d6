"""Large content in parts that are cut where the content itself says, so that a change touches few of them."""

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import orjson

from holdtrue.core.canonical import canonical_bytes

LARGE = 16 << 20
"""From this size on content is kept in parts: below it, storing a change again costs little."""
LEAST, AVERAGE, MOST = 64 << 10, 256 << 10, 2 << 20
_WINDOW = 16 << 20


@dataclass(frozen=True, slots=True)
class Parts:
    """Hold of which stored parts, in order, some content is made: their digests and sizes in bytes."""

    digests: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return the size of the whole."""
        return sum(self.sizes)

    def to_bytes(self) -> bytes:
        """Return the form in which a list of parts is stored."""
        return canonical_bytes(
            {"!holdtrue": "parts/1", "parts": [*map(list, zip(self.digests, self.sizes, strict=True))]}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Parts":
        """Return what `to_bytes` wrote; ValueError for anything else."""
        try:
            found = orjson.loads(data)
            if found["!holdtrue"] != "parts/1":
                raise ValueError(found["!holdtrue"])
            return cls(tuple(str(digest) for digest, _ in found["parts"]), tuple(int(n) for _, n in found["parts"]))
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from error


def cut(source: BinaryIO, seen: Callable[[bytes], object]) -> Iterator[bytes]:
    """Yield the parts of what `source` gives, cut by FastCDC (Xia et al., 2016); `seen` is told all bytes in order.

    A place to cut depends on the bytes since the last cut alone, so equal stretches are cut alike wherever they lie.
    The file is read and not mapped: one that is shortened meanwhile ends early instead of killing the process.
    """
    # The package imports its own command line, which a process that only reads blobs must not wait for.
    from fastcdc import fastcdc

    held = b""
    while True:
        fresh = source.read(_WINDOW)
        seen(fresh)
        held += fresh
        done = 0
        for chunk in fastcdc(held, LEAST, AVERAGE, MOST):
            # Without MOST bytes before it, the end of what was read so far would be taken for a place to cut.
            if fresh and chunk.offset + MOST > len(held):
                break
            yield held[chunk.offset : chunk.offset + chunk.length]
            done = chunk.offset + chunk.length
        held = held[done:]
        if not fresh:
            return


class PartsReader(io.RawIOBase):
    """Read content out of the files that hold its parts, from any place."""

    def __init__(self, files: tuple[Path, ...], sizes: tuple[int, ...]) -> None:
        self._files = files
        self._ends = list(accumulate(sizes))
        self._sizes = sizes
        self._place = 0
        self._open: tuple[int, BinaryIO] | None = None

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that reading can go on anywhere."""
        return True

    def tell(self) -> int:
        """Return the place at which reading goes on."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on reading at another place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1] if self._ends else 0}[whence]
        if start + offset < 0:
            raise ValueError("A place before the first byte")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: "bytearray | memoryview", /) -> int:  # type: ignore[override]  # typeshed's is private
        """Fill `buffer` up to the end of a part; 0 at the end of all."""
        number = bisect_right(self._ends, self._place)
        if number == len(self._ends):
            return 0
        file = self._part(number)
        file.seek(self._place - (self._ends[number] - self._sizes[number]))
        taken = file.readinto(buffer)  # type: ignore[attr-defined]  # a BufferedReader has it
        self._place += taken
        return taken

    def close(self) -> None:
        """Close the part that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _part(self, number: int) -> BinaryIO:
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].close()
            self._open = number, self._files[number].open("rb")
        return self._open[1]
