"""Requests and answers of HTTP/1.1 as bytes, in one strict form: what could be read in two ways is refused (RFC 9112).

A body has a Content-Length. Chunked bodies, folded headers, absolute targets and HTTP/1.0 are refused, so that nothing
in front of this server can take one request for two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from holdtrue.core.errors import HoldtrueError, InvalidInput

HEAD_LIMIT: Final = 16 << 10
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_MOST_HEADERS: Final = 64
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_CLOSE: Final = b"connection: close\r\n"
_FIRST: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,4095}) HTTP/1\.1")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}


class BadHttp(InvalidInput):
    """Bytes are not a request of HTTP/1.1, or one that could be read in two ways."""

    code = "bad_http"


class LengthRequired(HoldtrueError):
    """A request has a body of which it does not say how long it is."""

    code = "length_required"
    status = 411


class HeadTooLarge(HoldtrueError):
    """The headers of a request are more than a server holds."""

    code = "head_too_large"
    status = 431


@dataclass(frozen=True, slots=True)
class Head:
    """Hold what stands before the body: `length` of the body in bytes, `last` if the connection ends with the answer.

    `waits` says that the client sends the body only once it is told to. Names of headers are in small letters.
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    length: int
    last: bool
    waits: bool


def read_head(raw: bytes) -> Head:
    """Return the head of a request, `raw` without the empty line; raise BadHttp, LengthRequired or HeadTooLarge."""
    first, *lines = raw.split(b"\r\n")
    begun = _FIRST.fullmatch(first)
    if begun is None:
        raise _bad("The first line is not “METHOD /path HTTP/1.1”.")
    if len(lines) > _MOST_HEADERS:
        raise head_too_large()
    headers: list[tuple[bytes, bytes]] = []
    length: bytes | None = None
    last = waits = False
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _bad("A header is not “name: value” on one line.")
        name, value = field[1].lower(), field[2].rstrip(b" \t")
        if name == b"content-length":
            if length is not None or _LENGTH.fullmatch(value) is None:
                raise _bad("Content-Length is not one whole number.")
            length = value
        elif name == b"transfer-encoding":
            raise LengthRequired(
                "The body comes in chunks.",
                why="This port takes bodies whose length is said before.",
                mend="Send the header Content-Length, or use the main port of the data plane.",
            )
        elif name == b"connection":
            last = last or b"close" in [each.strip().lower() for each in value.split(b",")]
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise _bad("Expect may be 100-continue.")
            waits = True
        headers.append((name, value))
    return Head(begun[1].decode(), begun[2], headers, int(length or 0), last, waits)


def head_too_large() -> HeadTooLarge:
    """Return the error for more headers than are held."""
    return HeadTooLarge(
        "The headers are too large.", why=f"They may have {HEAD_LIMIT >> 10} KiB, and be {_MOST_HEADERS}."
    )


def write_head(status: int, headers: Sequence[tuple[bytes, bytes]], date: bytes, *, last: bool, chunked: bool) -> bytes:
    """Return the head of an answer; raise ValueError for a header that would be more than one line."""
    lines = [b"%b: %b\r\n" % each for each in headers]
    more = _CHUNKED if chunked else b""
    head = b"%b%bdate: %b\r\n%b%b\r\n" % (_STATUS[status], b"".join(lines), date, more, _CLOSE if last else b"")
    if head.count(b"\n") != len(headers) + 3 + chunked + last or head.count(b"\r") != head.count(b"\n"):
        raise ValueError("a header of the answer has a line break in it")
    return head


def chunk(data: bytes) -> bytes:
    """Return a piece of a body that is sent in pieces; of no bytes there is none, since that would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _bad(what: str) -> BadHttp:
    return BadHttp(what, mend="Send requests as RFC 9112 has them.")
