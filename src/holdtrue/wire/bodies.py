"""Bodies that come in chunks, read in one strict form (RFC 9112, section 7.1)."""

import re
from typing import Final

from holdtrue.wire.heads import FIELD, bad_http

_LINE: Final = 4096
_BESIDE: Final = 16 << 10
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_BREAK: Final = b"\r\n"


class Chunks:
    """Take the bytes of one body as they come; extensions and trailers are read, and left out."""

    def __init__(self) -> None:
        self.ended = False
        self._held = b""
        self._left = 0
        self._beside = 0
        self._behind = self._trailers = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what of the body has come with `data`, and what came after its end; raise BadHttp."""
        buffer, place, parts = self._held + data, 0, list[bytes]()
        while not self.ended:
            if self._left:
                part = buffer[place : place + self._left]
                parts.append(part)
                place += len(part)
                self._left -= len(part)
                self._behind = True
                if self._left:
                    break
            end = buffer.find(_BREAK, place, place + _LINE)
            if end < 0:
                if len(buffer) - place >= _LINE:
                    raise bad_http(f"A line between the chunks of the body is longer than {_LINE} bytes.")
                break
            self._read(buffer[place:end])
            place = end + len(_BREAK)
        self._held = b"" if self.ended else buffer[place:]
        return b"".join(parts), buffer[place:] if self.ended else b""

    def _read(self, line: bytes) -> None:
        """Read a line that stands before, behind or after a chunk."""
        if self._behind:
            if line:
                raise bad_http("A chunk of the body is longer than it says.")
            self._behind = False
            return
        self._beside += len(line)
        if self._trailers:
            if line and FIELD.fullmatch(line) is None:
                raise bad_http("A line after the body is not “name: value”.")
            self.ended = not line
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise bad_http("The size of a chunk is not one number of sixteen digits.")
            self._left = int(size[1], 16)
            self._trailers = not self._left
            self._beside -= len(size[1])
        if self._beside > _BESIDE:
            raise bad_http(f"What stands beside the chunks of the body is over {_BESIDE >> 10} KiB.")
