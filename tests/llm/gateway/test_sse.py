"""Server-sent events, however they arrive."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.llm.gateway import ProviderFailed
from holdtrue.llm.gateway.sse import EVENT_LIMIT, EventParser

STREAM = (
    b": a comment\n\nevent: start\ndata: {}\n\ndata:one\ndata: two\n\n\r\n"
    b"event: x\r\ndata: crlf\r\n\r\nid: 4\nretry: 9\ndata\n\ndata: [DONE]\n\n"
)
EVENTS = [("start", b"{}"), ("", b"one\ntwo"), ("x", b"crlf"), ("", b""), ("", b"[DONE]")]


def test_a_stream_as_a_whole() -> None:
    parser = EventParser()
    assert parser.feed(STREAM) == EVENTS
    assert not parser.pending


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    parser = EventParser()
    found: list[tuple[str, bytes]] = []
    places = [0, *sorted(cuts), len(STREAM)]
    for begin, end in itertools.pairwise(places):
        found += parser.feed(STREAM[begin:end])
    assert found == EVENTS


def test_bytes_one_by_one_with_old_line_ends() -> None:
    parser = EventParser()
    found = [event for byte in b"data: a\rdata: b\r\rdata: c\r\r\n" for event in parser.feed(bytes([byte]))]
    assert found == [("", b"a\nb"), ("", b"c")]


def test_what_has_begun_is_pending() -> None:
    parser = EventParser()
    parser.feed(b"data: half")
    assert parser.pending
    parser.feed(b"\n")
    assert parser.pending
    assert parser.feed(b"\n") == [("", b"half")]
    assert not parser.pending


@pytest.mark.parametrize("data", [b"data: " + b"x" * (EVENT_LIMIT + 1), (b"data: " + b"x" * 9_000 + b"\n") * 120])
def test_an_event_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(ProviderFailed):
        EventParser().feed(data)
