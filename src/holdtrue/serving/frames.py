"""What a data plane and the process of an isolated model say to each other: frames of JSON and raw bytes.

A frame is two little-endian lengths of four bytes, then as many bytes of JSON and of payload. Nothing is pickled on
either side.
"""

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

_LENGTHS: Final = struct.Struct("<II")
_MOST_HEAD: Final = 1 << 20
_PIECE: Final = 1 << 20


class BadFrame(Exception):  # it never leaves the two modules that exchange frames
    """What came is no frame, or a larger one than may come."""


def send_frame(channel: socket.socket, head: Mapping[str, Any], payload: bytes = b"") -> None:
    """Send one frame."""
    text = orjson.dumps(head)
    channel.sendall(b"".join([_LENGTHS.pack(len(text), len(payload)), text, payload]))


def receive_frame(channel: socket.socket, most: int, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
    """Return the next frame, whose payload may have `most` bytes.

    `deadline` is a moment of `time.monotonic` (None: wait). Raises BadFrame, EOFError at the end, TimeoutError.
    """
    head_size, size = _LENGTHS.unpack(_take(channel, _LENGTHS.size, deadline))
    if head_size > _MOST_HEAD or size > most:
        raise BadFrame(f"It announces {head_size} and {size} bytes.")
    try:
        head = orjson.loads(_take(channel, head_size, deadline))
    except ValueError:
        raise BadFrame("Its head is not JSON.") from None
    if type(head) is not dict:
        raise BadFrame("Its head is no JSON object.")
    return head, _take(channel, size, deadline)


def _take(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    pieces: list[bytes] = []
    while size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
        piece = channel.recv(min(size, _PIECE))
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
