"""Requests and answers of HTTP/1.1 as bytes, in one strict form: what could be read in two ways is refused (RFC 9112).

A body has one Content-Length, or comes in chunks. Both at once, repeated lengths, folded headers and absolute targets
are refused, so that nothing in front of this server can take one request for two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from holdtrue.core.errors import HoldtrueError, InvalidInput

HEAD_LIMIT: Final = 32 << 10
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_MOST_HEADERS: Final = 100
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_CLOSE: Final = b"connection: close\r\n"
_FIRST: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}


class BadHttp(InvalidInput):
    """Bytes are not a request of HTTP/1.1, or one that could be read in two ways."""

    code = "bad_http"


class HeadTooLarge(HoldtrueError):
    """The headers of a request are more than a server holds."""

    code = "head_too_large"
    status = 431


@dataclass(frozen=True, slots=True)
class Head:
    """Hold what stands before the body: its `length` in bytes, or that it comes in chunks.

    The connection ends with the answer if it is the `last`, as an `old` one of HTTP/1.0 always is here. `waits` says
    that the client sends the body only once it is told to. Names of headers are in small letters.
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    length: int
    chunked: bool
    last: bool
    waits: bool
    old: bool


def read_head(raw: bytes) -> Head:
    """Return the head of a request, `raw` without the empty line; raise BadHttp or HeadTooLarge."""
    first, *lines = raw.split(b"\r\n")
    begun = _FIRST.fullmatch(first)
    if begun is None:
        raise bad_http("The first line is not “METHOD /path HTTP/1.1”.")
    if len(lines) > _MOST_HEADERS:
        raise head_too_large()
    old = begun[3] == b"0"
    headers: list[tuple[bytes, bytes]] = []
    length: bytes | None = None
    last, waits, chunked = old, False, False
    for line in lines:
        field = FIELD.fullmatch(line)
        if field is None:
            raise bad_http("A header is not “name: value” on one line.")
        name, value = field[1].lower(), field[2].rstrip(b" \t")
        if name == b"content-length":
            if length is not None or _LENGTH.fullmatch(value) is None:
                raise bad_http("Content-Length is not one whole number.")
            length = value
        elif name == b"transfer-encoding":
            if chunked or old or value.lower() != b"chunked":
                raise bad_http("Transfer-Encoding is not “chunked”.")
            chunked = True
        elif name == b"connection":
            last = last or b"close" in [each.strip().lower() for each in value.split(b",")]
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise bad_http("Expect may be 100-continue.")
            waits = not old
        headers.append((name, value))
    if chunked and length is not None:
        raise bad_http("The body has a length and comes in chunks.")
    return Head(begun[1].decode(), begun[2], headers, int(length or 0), chunked, last, waits, old)


def head_too_large() -> HeadTooLarge:
    """Return the error for more headers than are held."""
    return HeadTooLarge(
        "The headers are too large.", why=f"They may have {HEAD_LIMIT >> 10} KiB, and be {_MOST_HEADERS}."
    )


def write_head(status: int, headers: Sequence[tuple[bytes, bytes]], date: bytes, *, last: bool, chunked: bool) -> bytes:
    """Return the head of an answer; raise ValueError for a header that would be more than one line."""
    parts = [_STATUS[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"date: ", date, b"\r\n", _CHUNKED if chunked else b"", _CLOSE if last else b"", b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != len(headers) + 3 + chunked + last or head.count(b"\r") != head.count(b"\n"):
        raise ValueError("a header of the answer has a line break in it")
    return head


def chunk(data: bytes) -> bytes:
    """Return a piece of a body that is sent in pieces; of no bytes there is none, since that would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def bad_http(what: str) -> BadHttp:
    """Return the error for bytes that are no request."""
    return BadHttp(what, mend="Send requests as RFC 9112 has them.")
