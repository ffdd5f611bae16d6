"""Hostile documents: they cost what they may, and then only themselves."""

import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pypdf.generic import NameObject, StreamObject

from holdtrue.llm.retrieval.isolation import Parsers
from holdtrue.llm.retrieval.model import DocumentRefused, Kind, Parsing, Reason
from tests.llm.retrieval.test_parsing import pdf

GOOD = b"<html><title>t</title><p>fine</p></html>"


@pytest.fixture
def parsers() -> Iterator[Parsers]:
    with Parsers(Parsing(most_seconds=0.5, most_memory=600 << 20, most_bytes=16 << 20)) as parsers:
        yield parsers


def _refused(parsers: Parsers, kind: Kind, data: bytes) -> DocumentRefused:
    with pytest.raises(DocumentRefused) as caught:
        parsers.parse(kind, data)
    return caught.value


def _bomb(size: int) -> bytes:
    """Return a PDF whose page inflates to `size` bytes."""
    stream = StreamObject()
    squeezer = zlib.compressobj(9)
    line = b"BT (x) Tj ET\n" * 10_000
    packed = b"".join(squeezer.compress(line) for _ in range(size // len(line))) + squeezer.flush()
    stream._data = packed  # pyright: ignore[reportPrivateUsage]  # pypdf would inflate it to set it
    stream[NameObject("/Filter")] = NameObject("/FlateDecode")
    return pdf("", stream=stream)


def test_documents_are_parsed_by_one_process_after_the_other(parsers: Parsers) -> None:
    assert [parsers.parse("html", GOOD).text for _ in range(3)] == ["fine"] * 3
    assert parsers.parse("markdown", b"# here").text == "# here"


def test_a_zip_bomb_is_refused_and_the_next_document_is_read(parsers: Parsers) -> None:
    data = _bomb(120 << 20)
    assert len(data) < 1 << 20
    assert _refused(parsers, "pdf", data).reason in (Reason.MALFORMED, Reason.TOO_SLOW, Reason.TOO_MUCH_MEMORY)
    assert parsers.parse("html", GOOD).text == "fine"


def test_what_takes_too_long_is_stopped_by_processor_time(parsers: Parsers) -> None:
    assert _refused(parsers, "html", b"<div>" * 200_000).reason is Reason.TOO_SLOW
    assert _refused(parsers, "pdf", b"%PDF-1.7\n" + b"1 0 obj\n<<>>\nendobj\n" * 400_000).reason is Reason.TOO_SLOW
    assert parsers.parse("html", GOOD).text == "fine"


def test_memory_is_bounded() -> None:
    with Parsers(Parsing(most_memory=200 << 20, most_seconds=20.0)) as parsers:
        found = _refused(parsers, "html", b"<p>x</p>" * 2_000_000)
        assert found.reason is Reason.TOO_MUCH_MEMORY
        assert parsers.parse("html", GOOD).text == "fine"


def test_bytes_are_bounded(parsers: Parsers) -> None:
    assert _refused(parsers, "markdown", b"a" * ((16 << 20) + 1)).reason is Reason.TOO_LARGE


def test_a_process_that_is_killed_costs_one_document(parsers: Parsers, monkeypatch: pytest.MonkeyPatch) -> None:
    parsers.parse("html", GOOD)
    process = parsers._idle.get_nowait()  # pyright: ignore[reportPrivateUsage]  # to kill it
    parsers._idle.put(process)  # pyright: ignore[reportPrivateUsage]
    os.kill(process._child.pid, 9)  # pyright: ignore[reportPrivateUsage]
    process._child.wait()  # pyright: ignore[reportPrivateUsage]
    assert _refused(parsers, "html", GOOD).reason is Reason.CRASHED
    assert parsers.parse("html", GOOD).text == "fine"


def test_threads_get_processes_of_their_own(parsers: Parsers) -> None:
    found: list[str] = []
    pages = [f"<html><p>page {number}</p></html>".encode() for number in range(8)]
    threads = [
        threading.Thread(target=lambda page=page: found.append(parsers.parse("html", page).text)) for page in pages
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"page {number}" for number in range(8)]


def test_the_process_sees_no_environment_and_writes_no_file(parsers: Parsers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDTRUE_TOKEN", "secret")
    parsers.parse("html", GOOD)
    process = parsers._idle.get_nowait()  # pyright: ignore[reportPrivateUsage]  # to look at it
    parsers._idle.put(process)  # pyright: ignore[reportPrivateUsage]
    pid = process._child.pid  # pyright: ignore[reportPrivateUsage]
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    limits = Path(f"/proc/{pid}/limits").read_text()
    sizes = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    assert sizes["Max file size"] == "0"
    assert sizes["Max core file size"] == "0"
    assert int(sizes["Max address space"]) < 700 << 20


def test_all_processes_end_with_the_parsers() -> None:
    with Parsers(Parsing()) as parsers:
        parsers.parse("html", GOOD)
        process = parsers._idle.get_nowait()  # pyright: ignore[reportPrivateUsage]  # to look at it
        parsers._idle.put(process)  # pyright: ignore[reportPrivateUsage]
    assert not process.alive
