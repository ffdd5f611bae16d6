"""The sink: what is stored of spans, and that it is stored when it says so."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput, StorageFull, Unavailable
from holdtrue.storage import Writer
from holdtrue.traces import Capture, GenaiCall, Origin, Span, TraceSettings, genai_span
from holdtrue.traces.online import clamp, service_name
from tests.traces.spans import NOW, PROJECT, House, open_house, said, span, span_id, trace_id

DAY = 86_400_000_000
MOMENT = microseconds(NOW)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("support", "support"),
        ("support agent/2", "support-agent-2"),
        ("..hidden", "hidden"),
        ("../../etc", "etc"),
        ("", "default"),
        (None, "default"),
        (7, "default"),
        ("日本", "default"),
        ("x" * 99, "x" * 63),
        ("-a", "a"),
    ],
)
def test_any_services_name_becomes_the_name_of_a_stream(text: Any, name: str) -> None:
    assert service_name(text) == name


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [
        (MOMENT - 10, MOMENT, (MOMENT - 10, MOMENT, False)),
        (MOMENT, MOMENT - 10, (MOMENT, MOMENT, True)),
        (0, 500, (MOMENT - 3650 * DAY, MOMENT - 3650 * DAY + 500, True)),
        (MOMENT + 9 * DAY, MOMENT + 9 * DAY + 7, (MOMENT + DAY, MOMENT + DAY + 7, True)),
        (2**64 // 1000, 2**64 // 1000, (MOMENT + DAY, MOMENT + DAY, True)),
        (MOMENT - 5, 2**64 // 1000, (MOMENT - 5, MOMENT - 5 + DAY, True)),
    ],
)
def test_times_that_cannot_be_are_moved_and_flagged(start: int, end: int, wanted: tuple[int, int, bool]) -> None:
    assert clamp(start, end, MOMENT) == wanted


def test_a_span_is_stored_whole(house: House) -> None:
    attributes = {**said("Where?", "There."), "__proto__": 1, "a.b[0]": [1, {"constructor": "x"}], "n": None}
    house.put(
        span(
            attributes=attributes,
            events=[{"name": "e", "time": MOMENT, "attributes": {"k": 1}}],
            links=[{"trace_id": trace_id(5), "span_id": span_id(5), "attributes": {}}],
            message="why",
            status="error",
            origin=Origin("agent", {"service.version": "7", "user.id": "u9"}, "lib"),
        )
    )
    (row,) = house.records()
    assert orjson.loads(row["attributes"]) == attributes
    assert list(orjson.loads(row["attributes"])) == list(attributes)
    assert orjson.loads(row["events"]) == [{"name": "e", "time": MOMENT, "attributes": {"k": 1}}]
    assert orjson.loads(row["links"])[0]["trace_id"] == trace_id(5)
    assert (row["error"], row["message"], row["release"], row["user"]) == (True, "why", "7", "u9")
    assert (row["input"], row["output"], row["text"]) == ("Where?", "There.", "where?\nthere.")
    assert row["id"] == trace_id(0) + span_id(0)
    assert row["duration"] == 500
    assert row["received_at"] == MOMENT


def test_halves_of_pairs_and_endless_numbers_are_stored_too(house: House) -> None:
    house.put(span(name="\ud800x", attributes={"bad": "\udfff", "big": 2**80, "deep": [{"k\ud800": "v"}]}))
    (row,) = house.records()
    assert orjson.loads(row["attributes"]) == {"bad": "?", "big": str(2**80), "deep": [{"k?": "v"}]}


def test_texts_are_cut_where_they_are_too_long_and_that_is_counted(house: House) -> None:
    long = "x" * 400_000
    house.put(span(attributes={"a": long, "b": [long, {"c": long}], "d": "y" * 1000}, message=long))
    house.put(span(1, 1, attributes={f"k{number}": "z" * 200_000 for number in range(3)}))
    cut, whole = house.records()
    attributes = orjson.loads(cut["attributes"])
    assert [len(attributes["a"]), len(attributes["b"][0]), len(attributes["b"][1]["c"])] == [256 << 10] * 3
    assert (attributes["d"], len(cut["message"]), cut["dropped"]) == ("y" * 1000, 256 << 10, 1)
    assert (len(whole["attributes"]), whole["dropped"]) == (600_025, 0)


@pytest.mark.parametrize("capture", list(Capture))
def test_what_is_captured_is_the_projects_choice(tmp_path: Path, capture: Capture) -> None:
    house = open_house(tmp_path / "home", settings={PROJECT: TraceSettings(capture)})
    attributes = {**said("I am ada@mail.example", "Hello ada@mail.example"), "api_key": "short"}
    event = {"name": "gen_ai.user.message", "time": MOMENT, "attributes": {"content": "ada@mail.example"}}
    house.put(span(attributes=attributes, events=[event], message="from ada@mail.example"))
    house.put(span(number=1, attributes=attributes), project="other")
    (row,) = house.records()
    (other,) = house.records("other")
    house.stores.journal.close()
    assert "ada@mail.example" in other["attributes"]
    assert "short" not in str(row)
    assert ("ada@" in str(row)) == (capture is Capture.FULL)
    assert ("I am" in str(row)) == (capture is not Capture.OFF)
    assert (row["text"] is None) == (capture is Capture.OFF)
    assert ("[email]" in row["attributes"]) == (capture is Capture.MASKED)


def test_the_gateways_spans_go_the_same_way(house: House) -> None:
    house.put(
        genai_span(
            GenaiCall(trace_id=trace_id(0), span_id=span_id(0), start=MOMENT - 9, end=MOMENT, model="small", cost=0.1)
        )
    )
    (row,) = house.records()
    assert (row["service"], row["model"], row["cost"], row["status"]) == ("gateway", "small", 0.1, "ok")


def test_spans_of_many_services_go_to_their_streams_up_to_a_bound(house: House) -> None:
    house.put(*(span(number, 0, origin=Origin(f"s{number}", {})) for number in range(300)))
    house.put(span(400, 0, origin=Origin("s7", {})), span(401, 0, origin=Origin("new", {})))
    services = {row["trace_id"]: row["service"] for row in house.records()}
    assert len(set(services.values())) == 201
    assert (services[trace_id(400)], services[trace_id(401)]) == ("s7", "others")


def test_more_writes_than_may_wait_are_told_so(tmp_path: Path) -> None:
    house = open_house(tmp_path / "home", waiting=2)

    async def flood() -> list[Any]:
        writes = [house.sink.write(PROJECT, [span(number, 0)]) for number in range(6)]
        return await asyncio.gather(*writes, return_exceptions=True)

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if answer is not None]
    assert refused
    assert all(isinstance(answer, Unavailable) for answer in refused)
    # What was acknowledged is there, and room is given back.
    assert len(house.records()) == answers.count(None)
    house.put(span(9, 0))
    house.stores.journal.close()


def test_a_full_disk_is_told_to_the_sender(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(self: Writer, *_: Any) -> None:
        raise StorageFull("There is no room.")

    monkeypatch.setattr(Writer, "append_async", full)
    with pytest.raises(StorageFull):
        house.put(span())


def test_what_reading_spans_raises_is_raised_before_any_is_stored(house: House) -> None:
    def broken() -> Iterator[Span]:
        yield from (span(number, 0) for number in range(300))
        raise InvalidInput("The end is broken.")

    with pytest.raises(InvalidInput, match="The end is broken"):
        asyncio.run(house.sink.write(PROJECT, broken()))
    assert house.records() == []
    house.put()
    assert house.records() == []


def test_origins_that_come_and_go_are_not_taken_for_one_another(house: House) -> None:
    def passing() -> Iterator[Span]:
        for number in range(400):
            yield span(number, 0, origin=Origin(f"s{number % 50}", {"n": number}))

    asyncio.run(house.sink.write(PROJECT, passing()))
    for row in house.records():
        number = int(row["trace_id"], 16) - 1
        assert (row["service"], orjson.loads(row["resource"])) == (f"s{number % 50}", {"n": number})


def test_taking_spans_in_loads_neither_databases_nor_what_one_request_may_not_need() -> None:
    """Prevent a data plane that starts slowly, or holds what only readers need."""
    code = "import sys, holdtrue.traces.online, holdtrue.protocols.otlp, holdtrue.serving.feedback; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"pyarrow", "duckdb", "sqlalchemy", "google.protobuf", "opentelemetry", "starlette"}
    assert heavy & set(loaded) == set()
