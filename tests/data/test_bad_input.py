"""Everything that can be wrong with data: each is refused or set aside by name, and nothing half-made is seen."""

import json
import os
import re
from math import inf, nan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue import data
from holdtrue.core.errors import Conflict, InvalidInput
from holdtrue.data import Contract, DatasetSpec, column
from holdtrue.data.folders import find_files
from tests.data.conftest import Room
from tests.data.test_adding import _adding, _write, folder  # pyright: ignore[reportPrivateUsage]  # one way to add
from tests.data.test_service import MOMENT, SPEC, deliver, rows_of

__all__ = ["folder"]


@pytest.fixture
def declared(room: Room) -> Room:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    return room


def nothing_is_seen(room: Room) -> bool:
    """Tell that no version exists, nor an event of one."""
    return room.call("GET", "datasets/flights")["version"] is None and "fragment.accepted" not in room.actions()


def _rows(*values: str) -> str:
    return "id,v\n" + "".join(f"{place},{value}\n" for place, value in enumerate(values, 1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_rows(*(["1.5"] * 30), "far", "2"), r"31 of 32 values are numbers.*'far' in row 31.*'far'.*--text v"),
        (_rows("x", *(["7"] * 10), "y"), None),
        (_rows(*(["2013-01-01T05:00:00Z"] * 20), "soon"), r"20 of 21 values are moments.*'soon' in row 21"),
        (_rows(*(["2013-01-01T05:00:00Z"] * 12), "2013-01-01T05:00:00"), r"time zone in some rows.*row 13.*row 1\b"),
        (_rows(*(["2013-01-01T05:00:00+01:00", "2013-01-01T05:00:00Z"] * 8)), None),
        (_rows(*(["far", "near"] * 20)), None),
    ],
    ids=["number", "too many", "moment", "zones", "several zones", "texts"],
)  # fmt: skip
def test_mixed_values_of_a_text_file_are_named_with_their_rows(
    room: Room, folder: Path, content: str, said: str | None
) -> None:
    _write(folder / "x.csv", content)
    if said is None:
        assert _adding(room).tables(find_files([str(folder)])).content
        return
    with pytest.raises(InvalidInput) as raised:
        _adding(room).tables(find_files([str(folder)]))
    assert re.search(said, str(raised.value).replace("\n", " "))
    # What the message offers works.
    added = _adding(room, texts=("v",)).tables(find_files([str(folder)]))
    assert data.read(room.stores.blobs, added.content)["v"].type == pa.string()


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
@pytest.mark.parametrize("rows", [2, 3, 9, 30])
def test_moments_with_and_without_a_zone_are_named_however_few_they_are(
    room: Room, folder: Path, rows: int, ending: str
) -> None:
    zoned = ["2013-01-01T05:00:00Z", "2013-01-01 06:30:00+01:00"]
    moments = [*(zoned[place % 2] for place in range(rows - 1)), "2013-01-01T05:00:00"]

    def write(values: list[str]) -> None:
        made = [{"id": str(place), "v": value} for place, value in enumerate(values, 1)]
        lines = [json.dumps(each) for each in made]
        forms = {"csv": _rows(*values), "json": json.dumps(made), "jsonl": "\n".join(lines)}
        _write(folder / f"x.{ending}", forms[ending])

    write(moments)
    with pytest.raises(InvalidInput) as raised:
        _adding(room).tables(find_files([str(folder)]))
    said = str(raised.value).replace("\n", " ")
    assert re.search(rf"“v” in \S*x\.{ending} have a time zone in some rows and none in others", said)
    assert re.search(rf"Without one: '2013-01-01T05:00:00' in row {rows}; with one: '{zoned[0]}' in row 1\b", said)
    assert "--text v" in said
    added = _adding(room, texts=("v",)).tables(find_files([str(folder)]))
    assert data.read(room.stores.blobs, added.content)["v"].to_pylist() == moments
    # As many that agree are taken, and so are words beside them, of which nobody can say more.
    for values in (moments[:-1] * 2, ["2013-01-01T05:00:00"] * rows, [moments[0], *["soon"] * rows]):
        write(values)
        assert _adding(room).tables(find_files([str(folder)])).content


def test_a_value_may_mean_that_there_is_none(room: Room, folder: Path) -> None:
    _write(folder / "x.csv", _rows(*(["1.5"] * 30), "far"))
    added = _adding(room, missing=("far",)).tables(find_files([str(folder)]))
    table = data.read(room.stores.blobs, added.content)
    assert (table["v"].type, table["v"].null_count) == (pa.float64(), 1)


def test_moments_with_several_zones_are_the_same_moments(room: Room, folder: Path) -> None:
    _write(folder / "x.csv", _rows("2013-01-01T05:00:00+01:00", "2013-01-01T04:00:00Z"))
    (added,) = [_adding(room).tables(find_files([str(folder)]))]
    one, two = data.read(room.stores.blobs, added.content)["v"].to_pylist()
    assert one == two


@pytest.mark.parametrize("damage", ["cut", "footer", "page", "empty"])
def test_a_broken_parquet_file_is_named(room: Room, folder: Path, damage: str) -> None:
    out = pa.BufferOutputStream()
    table = pa.table({"id": [f"flight {n}" for n in range(5000)], "v": list(range(5000))})
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    content = bytearray(out.getvalue().to_pybytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "footer":
        content[-120:-8] = bytes(112)
    elif damage == "page":
        content[300] ^= 255
    else:
        content.clear()
    _write(folder / "good.parquet", pq_bytes(table))
    _write(folder / "x.parquet", bytes(content))
    with pytest.raises(InvalidInput, match=r"x\.parquet cannot be read") as raised:
        _adding(room).tables(find_files([str(folder)]))
    assert "write it again" in raised.value.mend
    assert room.call("GET", "datasets")["items"] == []


def pq_bytes(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        (b"id;v\n1;2\n", "utf-8", "semicolons.*--delimiter ';'"),
        (b"id|v\n1|2\n", "utf-8", "bars"),
        ("id,v\n1,é\n".encode("latin-1"), "utf-8", "no utf-8.*--encoding"),
        ("id,v\n1,é\n".encode("utf-16"), "utf-8", "the mark of utf-16.*--encoding utf-16"),
        ("id,v\n1,é\n".encode("utf-16"), "latin-1", "the mark of utf-16.*--encoding utf-16"),
        ("id,v\n1,é\n".encode(), "ascii", "ascii"),
    ],
)
def test_wrong_signs_in_a_text_file_are_named_with_the_option(
    room: Room, folder: Path, content: bytes, encoding: str, said: str
) -> None:
    _write(folder / "x.csv", content)
    with pytest.raises(InvalidInput) as raised:
        _adding(room, encoding=encoding).tables(find_files([str(folder)]))
    assert re.search(said, str(raised.value).replace("\n", " "))


def test_the_right_encoding_reads_it(room: Room, folder: Path) -> None:
    _write(folder / "x.csv", "id,v\n1,é\n".encode("utf-16"))
    added = _adding(room, encoding="utf-16").tables(find_files([str(folder)]))
    assert data.read(room.stores.blobs, added.content).to_pylist() == [{"id": 1, "v": "é"}]
    _write(folder / "x.csv", b"\xef\xbb\xbfid,v\n1,2\n")
    added = _adding(room).tables(find_files([str(folder)]))
    assert data.read(room.stores.blobs, added.content).column_names == ["id", "v"]


def test_doubled_keys_block_with_the_keys_named(declared: Room) -> None:
    result, version = deliver(declared, "2013-01", rows_of(1, 2, 3, id=["a", "b", "a"]))
    assert version is None
    (finding,) = result.findings
    assert (finding.column, finding.rule, finding.count, finding.examples) == ("id", "unique", 2, ("a",))
    (held,) = declared.call("GET", "quarantines")["items"]
    assert (held["blocked"], held["rows"]) == (True, 3)
    assert nothing_is_seen(declared)


def test_keys_that_two_files_share_are_refused(room: Room, folder: Path) -> None:
    _write(folder / "a.csv", "id,v\na,1\nb,2\n")
    _write(folder / "b.csv", "id,v\nc,1\nb,2\n")
    with pytest.raises(InvalidInput, match=r"“id” is doubled in 1 rows, such as b"):
        _adding(room, key="id").tables(find_files([str(folder)]))
    _write(folder / "b.csv", "id,v\nc,1\nd,2\n", 60)
    assert _adding(room, key="id").tables(find_files([str(folder)])).files == 2


@pytest.mark.parametrize(
    "clock", [pa.timestamp("us"), pa.timestamp("us", "Europe/Zurich"), pa.timestamp("ns", "+05:00")]
)
def test_a_moment_is_the_same_in_every_zone_and_none_without_one(declared: Room, clock: Any) -> None:
    result, version = deliver(declared, "2013-01", rows_of(1, 2, left_at=pa.array([0, 1_000_000], clock)))
    if clock.tz is None:
        (finding,) = result.findings
        assert (finding.column, finding.rule) == ("left_at", "type")
        assert "timestamp without time zone" in finding.what
        assert nothing_is_seen(declared)
    else:
        assert version is not None


def test_what_is_no_number_is_missing_and_the_infinite_out_of_range(declared: Room) -> None:
    result, version = deliver(declared, "2013-01", rows_of(nan, 5, inf, -inf))
    assert version is not None
    # “delay” may be missing, and is at most 1000: the infinite one is set aside.
    assert [(each.rule, each.count) for each in result.findings] == [("le", 1)]
    assert (result.accepted, result.quarantined) == (3, 1)
    strict = DatasetSpec("s", "id", "left_at", Contract((*SPEC.contract.columns[:3], column("delay", "float64"))))
    blocked = data.ingest(declared.stores.blobs, strict, "2013-01", rows_of(nan, 5))
    assert [(each.rule, each.count) for each in blocked.findings] == [("null", 1)]


def test_ten_thousand_columns_are_checked_and_each_bad_one_named() -> None:
    names = [f"c{place}" for place in range(10_000)]
    contract = Contract(
        (column("id", "string"), column("at", "timestamp"), *(column(name, "float64", ge=0) for name in names))
    )
    columns: dict[str, Any] = {"id": ["a", "b"], "at": pa.array([0, 1], MOMENT), **{name: [1.5, 2.5] for name in names}}
    assert data.check_table(contract, pa.table(columns)).findings == ()
    bad = data.check_table(contract, pa.table({**columns, "c77": [-1.0, 2.0], "c9999": [1.0, None]}))
    assert [(each.column, each.rule, each.count) for each in bad.findings] == [("c77", "ge", 1), ("c9999", "null", 1)]


def test_a_delivery_without_rows_is_blocked_unless_the_contract_lets_it_in(declared: Room) -> None:
    deliver(declared, "2013-01", rows_of(1, 2))
    result, version = deliver(declared, "2013-01", rows_of())
    assert version is None
    assert [(each.rule, each.severity) for each in result.findings] == [("rows", "block")]
    assert "RowCount(ge=0)" in result.findings[0].what
    shown = declared.call("GET", "datasets/flights")
    assert shown["fragments"]["2013-01"]["rows"] == 2
    quiet = DatasetSpec("q", "id", "left_at", Contract(SPEC.contract.columns, (data.RowCount(ge=0),)))
    assert data.ingest(declared.stores.blobs, quiet, "2013-01", rows_of()).findings == ()


def test_a_file_that_is_cut_while_it_is_read_is_refused(
    room: Room, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _write(folder / "a.bin", os.urandom(17 << 20))
    put = room.stores.blobs.put

    def cutting(content: bytes) -> str:
        os.truncate(file, 5 << 20)
        return put(content)

    monkeypatch.setattr(room.stores.blobs, "put", cutting)
    with pytest.raises(Conflict, match="changed while it was read"):
        _adding(room).tree(find_files([str(folder)]))
    assert room.call("GET", "datasets")["items"] == []


def test_ten_thousand_columns_that_nobody_agreed_on_are_a_few_findings(declared: Room) -> None:
    agreed = rows_of(1, 2)
    more = {f"more{place}": pa.array([0, 0]) for place in range(10_000)}
    rows = pa.table({**dict(zip(agreed.column_names, agreed.columns, strict=True)), **more})
    result, version = deliver(declared, "2013-01", rows)
    assert version is None
    assert len(result.findings) == 21
    assert result.findings[-1].count == 9_980
    assert "9,980 more columns are not in the contract, such as “more20”" in result.findings[-1].what


class _Frame:
    """A frame of Python's own values, as pandas has them, which fails when it is to become Arrow."""

    columns = ("id", "x")

    def __getitem__(self, name: str) -> list[Any]:
        return ["a", "b", "c"] if name == "id" else [1.5, float("nan"), "much"]

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        raise pa.ArrowInvalid("Could not convert 'much' with type str")


def test_values_of_several_kinds_in_a_frame_are_named_with_their_rows() -> None:
    with pytest.raises(InvalidInput) as raised:
        data.as_arrow(_Frame())
    assert "“x” has values of several kinds: number (row 1), text (row 3)" in raised.value.what
    assert "“x”" in raised.value.mend
