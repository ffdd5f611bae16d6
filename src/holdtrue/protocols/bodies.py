"""Bodies as they come over the wire: their encodings, inflated within a bound."""

import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from holdtrue.core.errors import HoldtrueError, InvalidInput, TooLarge

_WBITS: Final[Mapping[bytes, int]] = MappingProxyType({b"gzip": 31, b"deflate": 15})


class UnsupportedMedia(HoldtrueError):
    """A body has a type or an encoding that is not taken."""

    code = "unsupported_media"
    status = 415


def inflate(body: bytes, encoding: bytes, limit: int, broken: type[InvalidInput]) -> bytes:
    """Return a body as it was before its encoding, gzip, deflate or none; never more than `limit` bytes.

    Raises UnsupportedMedia, TooLarge, or `broken` for a body that is not what its encoding says.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"identity", b""):
        return body
    wbits = _WBITS.get(encoding)
    if wbits is None:
        raise UnsupportedMedia("The body has an encoding that is not taken.", mend="Send it plain, or gzipped.")
    name = encoding.decode()
    parts: list[bytes] = []
    room, data = limit, body
    while data or not parts:
        stream = zlib.decompressobj(wbits)
        try:
            part = stream.decompress(data, room + 1)
        except zlib.error as error:
            raise broken(f"The body is not {name}.", why=str(error)) from None
        room -= len(part)
        if room < 0:
            raise TooLarge(f"The body is over {limit >> 20} MiB once inflated.", mend="Send less at once.")
        if not stream.eof:
            raise broken(f"The body is not {name}.", why="It ends too early.")
        parts.append(part)
        data = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)
