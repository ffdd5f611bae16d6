"""Heads of requests: one strict form is read, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import HoldtrueError
from holdtrue.wire.heads import BadHttp, HeadTooLarge, chunk, read_head, write_head

PLAIN = b"POST /features/ten?a=1 HTTP/1.1\r\nHost: localhost:7701\r\nContent-Length: 12\r\nX-Token:\t a b \r\nEmpty:"


def test_a_plain_head_is_read() -> None:
    head = read_head(PLAIN)
    assert (head.method, head.target, head.length, head.last, head.waits) == (
        "POST",
        b"/features/ten?a=1",
        12,
        False,
        False,
    )
    assert head.headers == [
        (b"host", b"localhost:7701"),
        (b"content-length", b"12"),
        (b"x-token", b"a b"),
        (b"empty", b""),
    ]
    assert read_head(b"GET / HTTP/1.1\r\nConnection: keep-alive, Close").last
    assert read_head(b"PUT / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1").waits
    chunked = read_head(b"PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked")
    assert (chunked.chunked, chunked.length, chunked.old) == (True, 0, False)


def test_a_connection_of_old_http_ends_with_its_answer() -> None:
    head = read_head(b"PUT / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1")
    assert (head.old, head.last, head.waits, head.length) == (True, True, False, 1)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", BadHttp),
        (b"GET / HTTP/0.9", BadHttp),
        (b"GET / HTTP/2", BadHttp),
        (b"get / HTTP/1.1", BadHttp),
        (b"GET  / HTTP/1.1", BadHttp),
        (b"GET /a b HTTP/1.1", BadHttp),
        (b"GET http://other/ HTTP/1.1", BadHttp),
        (b"GET /\xc3\xa9 HTTP/1.1", BadHttp),
        (b"GET / HTTP/1.1\nHost: a", BadHttp),
        (b"GET / HTTP/1.1\r\nHost : a", BadHttp),
        (b"GET / HTTP/1.1\r\n folded: a", BadHttp),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b", BadHttp),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b", BadHttp),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b", BadHttp),
        (b"GET / HTTP/1.1\r\nHost: a\0", BadHttp),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1", BadHttp),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 1", BadHttp),
        (b"GET / HTTP/1.1\r\nContent-Length: +1", BadHttp),
        (b"GET / HTTP/1.1\r\nContent-Length: 0x1", BadHttp),
        (b"GET / HTTP/1.1\r\nContent-Length: ", BadHttp),
        (b"GET / HTTP/1.1\r\nExpect: something", BadHttp),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", BadHttp),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", BadHttp),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", BadHttp),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", BadHttp),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked", BadHttp),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked", BadHttp),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: identity", BadHttp),
        (b"GET / HTTP/1.1" + b"\r\na: b" * 101, HeadTooLarge),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, error: type[HoldtrueError]) -> None:
    with pytest.raises(error):
        read_head(raw)


@given(st.binary(max_size=200), st.integers(0, len(PLAIN)), st.integers(0, 20))
def test_other_bytes_are_read_or_refused_and_nothing_else(noise: bytes, place: int, cut: int) -> None:
    try:
        head = read_head(PLAIN[:place] + noise + PLAIN[place + cut :])
    except (BadHttp, HeadTooLarge):
        return
    assert all(b"\r" not in part and b"\n" not in part for each in head.headers for part in each)
    assert [name for name, _ in head.headers].count(b"content-length") <= 1


def test_an_answer_is_one_head_whatever_its_headers_say() -> None:
    date = b"Fri, 01 Mar 2013 12:00:00 GMT"
    head = write_head(200, [(b"a", b"b")], date, last=True, chunked=True)
    assert head == (
        b"HTTP/1.1 200 OK\r\na: b\r\ndate: Fri, 01 Mar 2013 12:00:00 GMT\r\n"
        b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    for value in (b"b\r\nc: d", b"b\nc: d", b"b\r"):
        with pytest.raises(ValueError, match="line break"):
            write_head(200, [(b"a", value)], date, last=False, chunked=False)
    assert (chunk(b"abc"), chunk(b"")) == (b"3\r\nabc\r\n", b"")
