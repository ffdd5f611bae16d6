"""Bodies in chunks, beside h11's reading of the same bytes."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.wire.bodies import Chunks
from holdtrue.wire.heads import BadHttp, chunk

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool]:
    """Return the body, what came after it, and whether it ended, of bytes that come in pieces."""
    chunks, body, rest = Chunks(), b"", b""
    for start, stop in pairwise([0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]):
        if chunks.ended:
            rest += data[start:stop]
        else:
            more, rest = chunks.feed(data[start:stop])
            body += more
    return body, rest, chunks.ended


def read_by_h11(data: bytes) -> tuple[bytes, bytes, bool]:
    """Return the same as h11 finds it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD + data)
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        elif event is h11.NEED_DATA:
            return body, b"", False
        elif isinstance(event, h11.EndOfMessage):
            return body, connection.trailing_data[0], True


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.binary(max_size=10), st.lists(st.integers(0, 500)))
def test_a_body_is_the_same_however_it_was_cut(parts: list[bytes], after: bytes, cuts: list[int]) -> None:
    data = b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    assert read(data + after, cuts) == (b"".join(parts), after, True)
    assert read(data[:-1], cuts) == (b"".join(parts), b"", False)


PLAIN = b"4;name=value\r\nWiki\r\n0E ; a\r\npedia in chunks\r\n0\r\nDate: x\r\n\r\n"


def test_extensions_and_trailers_are_left_out() -> None:
    data = b"4;name=value\r\nWiki\r\n0F ; a\r\npedia in chunks\r\n0\r\nDate: x\r\n\r\nGET"
    assert read(data, []) == (b"Wikipedia in chunks", b"GET", True)


@given(st.binary(max_size=6), st.integers(0, len(PLAIN)), st.integers(0, 8))
def test_what_is_read_another_server_reads_alike(noise: bytes, place: int, cut: int) -> None:
    data = PLAIN[:place] + noise + PLAIN[place + cut :]
    try:
        found = read(data, [])
    except BadHttp:
        return
    try:
        other = read_by_h11(data)
    except h11.RemoteProtocolError:
        # Stricter about what is left out: extensions and trailers, which end no body.
        return
    if found[2]:
        assert found == other
    else:
        assert not other[2]


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na0\r\n\r\n",
        b"1;\n\r\na\r\n",
        b"123456789\r\n",
        b"0\r\nno field\r\n\r\n",
        b"0\r\n folded: a\r\n\r\n",
        b"1;" + b"a" * 5000,
        b"1;aaaaaaaa\r\na\r\n" * 2000,
        b"0\r\n" + b"name: value\r\n" * 2000,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(BadHttp):
        read(data, [])
