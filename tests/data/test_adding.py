"""Files into versions: bad ones are named and nothing half-made is stored; what did not change is not read again."""

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue import data
from holdtrue.core.errors import Conflict, Corrupt, Forbidden, HoldtrueError, InvalidInput, NotFound
from holdtrue.data.adding import Added, Adding
from holdtrue.data.collecting import Collect, collect
from holdtrue.data.folders import find_files
from holdtrue.data.reading import Reading
from tests.data.conftest import Room
from tests.data.test_service import SPEC, deliver, rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def _write(file: Path, content: str | bytes, age: int = 3600) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    moment = file.stat().st_mtime - age
    os.utime(file, (moment, moment))
    return file


def _adding(room: Room, **how: Any) -> Adding:
    key = how.pop("key", None)
    return Adding(room.stores.blobs, room.stores.actions, "trips", Reading(**how), key)


def _register(room: Room, added: Added, name: str = "trips") -> Any:
    return room.call("POST", f"datasets/{name}/versions", added.content)


def test_only_files_that_changed_are_read_again(room: Room, folder: Path) -> None:
    for name in ("a", "b", "c"):
        _write(folder / f"{name}.csv", f"id,v\n{name}1,1\n{name}2,2\n")
    adding = _adding(room, key="id")
    first = adding.tables(find_files([str(folder)]))
    assert (first.files, first.read) == (3, 3)
    assert _adding(room, key="id").tables(find_files([str(folder)])).read == 0
    _write(folder / "b.csv", "id,v\nb1,1\n", 60)
    second = _adding(room, key="id").tables(find_files([str(folder)]))
    assert second.read == 1
    one, two = _register(room, first), _register(room, second)
    assert (one["label"], two["label"]) == ("trips@1", "trips@2")
    assert _register(room, second)["label"] == "trips@2"
    found = room.call("GET", "datasets/trips/diff", before="1")
    assert found["rows"]["removed"] == {"rows": 1, "examples": ["b2"]}
    assert found["key"] == "id"
    assert [each["name"] for each in room.call("GET", "datasets")["items"]] == ["trips"]


def test_a_file_just_written_is_read_again(room: Room, folder: Path) -> None:
    _write(folder / "a.csv", "id\n1\n", age=0)
    assert _adding(room).tables(find_files([str(folder)])).read == 1
    assert _adding(room).tables(find_files([str(folder)])).read == 1


def test_files_are_kept_as_they_are(room: Room, folder: Path) -> None:
    (folder / "deep").mkdir()
    _write(folder / "one.txt", "1")
    _write(folder / "deep" / "two.bin", os.urandom(2_000_000))
    files = find_files([str(folder)])
    assert not files.tables
    first = _adding(room).tree(files)
    assert first.content["files"] == 2
    _write(folder / "one.txt", "2", 60)
    second = _adding(room).tree(find_files([str(folder)]))
    assert second.read == 1
    _register(room, first)
    _register(room, second)
    found = room.call("GET", "datasets/trips/diff", before="1")
    assert found["windows"] == {"added": [], "removed": [], "changed": ["one.txt"], "same": ["deep/two.bin"]}
    shown = room.call("GET", "datasets/trips/versions/2")
    assert [(each["file"], each["bytes"]) for each in shown["files"]] == [("deep/two.bin", 2_000_000), ("one.txt", 1)]
    fetched = room.call("GET", f"datasets/trips/versions/2/fragments/{shown['files'][1]['digest']}")
    assert fetched.file.read_bytes() == b"2"


def _broken_parquet() -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": list(range(1000))}), out)
    return out.getvalue().to_pybytes()[:-40]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "id;v\n1;2\n", "semicolons"),
        ("x.csv", "id\tv\n1\t2\n", "tabs"),
        ("x.csv", "id,v\n1,2\n2,3,4\n", "Row #3"),
        ("x.csv", b"id,v\n1,a\n2,\xe9\n", "line 3"),
        ("x.csv", "", "Empty CSV"),
        ("x.csv", "id,id\n1,2\n", "two columns “id”"),
        ("x.csv", "id,v\n", "no row"),
        ("x.parquet", b"PAR1 and then nothing", "cannot be read"),
        ("x.parquet", _broken_parquet(), "cannot be read"),
        ("x.json", '[{"a": 1}, {"a": "x"}]', r"int \(row 1\), str \(row 2\)"),
        ("x.json", "[1, 2]", "not an object"),
        ("x.jsonl", '{"a": 1}\n{"a":', "Line 2"),
    ],
)
def test_what_cannot_be_read_is_named(room: Room, folder: Path, name: str, content: str | bytes, said: str) -> None:
    if said != "no row":
        _write(folder / "good.csv", "id,v\n9,9\n")
    _write(folder / name, content)
    with pytest.raises(InvalidInput) as raised:
        _adding(room).tables(find_files([str(folder)]))
    assert re.search(said, str(raised.value))
    assert raised.value.mend
    assert "good.csv" not in str(raised.value)
    assert room.read(lambda connection: data.latest(connection, "flights", "trips")) is None


def test_an_encoding_and_a_delimiter_can_be_said(room: Room, folder: Path) -> None:
    _write(folder / "x.csv", "id;v\n1;Zürich\n".encode("latin-1"))
    added = _adding(room, delimiter=";", encoding="latin-1").tables(find_files([str(folder)]))
    table = data.read(room.stores.blobs, added.content)
    assert table.to_pylist() == [{"id": 1, "v": "Zürich"}]
    with pytest.raises(InvalidInput, match="no-such-code"):
        _adding(room, encoding="no-such-code").tables(find_files([str(folder)]))


@pytest.mark.parametrize(
    ("content", "said"),
    [("id,v\n1,2\n1,3\n", "doubled"), ("id,v\n,2\n1,3\n", "missing in 1 rows"), ("v\n1\n", "no column “id”")],
)
def test_a_key_names_one_row(room: Room, folder: Path, content: str, said: str) -> None:
    _write(folder / "x.csv", content)
    with pytest.raises(InvalidInput, match=said):
        _adding(room, key="id").tables(find_files([str(folder)]))


def test_types_that_do_not_go_together_are_named_with_their_files(room: Room, folder: Path) -> None:
    _write(folder / "a.csv", "id,v\n1,2\n")
    _write(folder / "b.csv", "id,v\n1,2.5\n")
    _write(folder / "c.csv", "id,v\n1,\n")
    _adding(room).tables(find_files([str(folder)]))
    _write(folder / "d.csv", "id,v\n1,far\n")
    with pytest.raises(InvalidInput, match=r"“v” is int64 in a.csv and string in d.csv"):
        _adding(room).tables(find_files([str(folder)]))


def test_ten_thousand_columns_are_taken(room: Room, folder: Path) -> None:
    names = [f"c{place}" for place in range(10_000)]
    pq.write_table(pa.table({name: [1.5, None] for name in names}), folder / "wide.parquet")
    added = _adding(room).tables(find_files([str(folder)]))
    assert added.content["fragments"]["wide.parquet"]["rows"] == 2


def test_links_and_nothing_are_refused(folder: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        find_files([str(folder)])
    with pytest.raises(NotFound, match="no file"):
        find_files([str(folder / "*.csv")])
    _write(folder / "a.csv", "id\n1\n")
    (folder / "b.csv").symlink_to(folder / "a.csv")
    with pytest.raises(InvalidInput, match="a link"):
        find_files([str(folder)])


def test_a_file_that_changes_while_it_is_read_is_refused(
    room: Room, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _write(folder / "a.txt", "1")
    read = os.read

    def slow(descriptor: int, size: int) -> bytes:
        if os.fstat(descriptor).st_ino == file.stat().st_ino:
            file.write_text("12")
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", slow)
    with pytest.raises(Conflict, match="changed while it was read"):
        _adding(room).tree(find_files([str(folder)]))


def test_a_declared_dataset_is_not_added_to(room: Room, folder: Path) -> None:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    _write(folder / "a.csv", "id\n1\n")
    added = _adding(room).tables(find_files([str(folder)]))
    with pytest.raises(Conflict, match="declared"):
        _register(room, added, "flights")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"fragments": {"a": {"digest": "0" * 64, "rows": 1, "bytes": 1}}}, NotFound),
        ({"tree": "0" * 64}, NotFound),
        ({}, HoldtrueError),
        ({"tree": "0" * 64, "fragments": {}}, HoldtrueError),
    ],
)
def test_a_version_of_bytes_that_are_not_stored_is_refused(room: Room, body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        room.call("POST", "datasets/trips/versions", body)
    assert room.call("GET", "datasets")["items"] == []


def test_what_nothing_refers_to_is_collected(room: Room, folder: Path) -> None:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    kept, _ = deliver(room, "2013-01", rows_of(1, 2))
    blocked, _ = deliver(room, "2013-02", rows_of(1, distance=["far"]))
    forgotten = data.ingest(room.stores.blobs, SPEC, "2013-03", rows_of(7))
    for name in ("one", "two"):
        _write(folder / f"{name}.txt", name)
    tree = _adding(room).tree(find_files([str(folder)]))
    _register(room, tree)
    assert kept.digest
    assert blocked.quarantine
    assert forgotten.digest
    found = collect(room.stores, Collect(dry=True))
    assert found["removed"] == 0
    assert found["unreferenced"] == 1
    # Within the grace time nothing goes.
    assert collect(room.stores, Collect())["removed"] == 0
    for digest in room.stores.blobs.digests():
        file = room.stores.home / "blobs" / digest[:2] / digest
        moment = file.stat().st_mtime - 7200
        os.utime(file, (moment, moment))
    assert collect(room.stores, Collect(grace_hours=1.0))["removed"] == 1
    with pytest.raises(NotFound):
        room.stores.blobs.get(forgotten.digest)
    for digest in (kept.digest, blocked.quarantine, tree.content["tree"]):
        assert room.stores.blobs.get(digest)
    assert all(room.stores.blobs.has(digest) for digest in room.stores.blobs.tree(tree.content["tree"]).values())
    with pytest.raises(InvalidInput, match="hour"):
        collect(room.stores, Collect(grace_hours=0.0))


def test_notes_go_with_the_bytes_that_they_know_or_when_nobody_reads_them_any_more(room: Room, folder: Path) -> None:
    _write(folder / "one.txt", "one")
    other = folder.parent / "other"
    other.mkdir()
    _write(other / "two.txt", "two")
    _register(room, _adding(room).tree(find_files([str(folder)])))
    _adding(room).tree(find_files([str(other)]))
    notes, blobs = room.stores.home / "actions" / "notes", room.stores.home / "blobs"

    def age(root: Path, seconds: float) -> None:
        for each in root.rglob("*"):
            if each.is_file():
                moment = each.stat().st_mtime - seconds
                os.utime(each, (moment, moment))

    (notes / "half-written").write_text("x")
    assert collect(room.stores, Collect())["useless_notes"] == 0
    age(blobs, 7200)
    # What was noted a moment ago stays, though its bytes were removed.
    found = collect(room.stores, Collect(grace_hours=1.0))
    assert (found["notes"], found["useless_notes"]) == (2, 0)
    assert found["removed"] > 0
    age(notes, 7200)
    assert collect(room.stores, Collect(grace_hours=1.0, dry=True))["useless_notes"] == 1
    assert len(list(room.stores.actions.notes())) == 2
    assert collect(room.stores, Collect(grace_hours=1.0))["useless_notes"] == 1
    # The other one is of use, which keeps it for 90 days more; what is gone is read again.
    assert _adding(room).tree(find_files([str(folder)])).read == 0
    assert _adding(room).tree(find_files([str(other)])).read == 1
    age(notes, 89 * 86_400)
    assert collect(room.stores, Collect())["useless_notes"] == 0
    assert _adding(room).tree(find_files([str(folder)])).read == 0
    age(notes, 2 * 86_400)
    assert collect(room.stores, Collect())["useless_notes"] == 1
    age(notes, 90 * 86_400)
    assert collect(room.stores, Collect())["useless_notes"] == 1
    assert list(room.stores.actions.notes()) == []
    assert _adding(room).tree(find_files([str(folder)])).read == 1


def test_a_damaged_blob_is_no_reason_to_stop_collecting(room: Room) -> None:
    digest = room.stores.blobs.put(b'{"a": 1}')
    room.stores.actions.put("1" * 64, digest)
    (room.stores.home / "blobs" / digest[:2] / digest).write_bytes(b'{"b": 2}')
    with pytest.raises(Corrupt):
        room.stores.blobs.get(digest)
    assert collect(room.stores, Collect(dry=True))["unreferenced"] == 0


def test_a_token_of_one_project_does_not_collect(room: Room) -> None:
    import dataclasses

    from holdtrue.data.api import collect_blobs
    from holdtrue.door import Call
    from tests.data.conftest import ANNA

    bound = Call(room.stores, dataclasses.replace(ANNA, project="flights"), "", {}, {})
    with pytest.raises(Forbidden, match="flights"):
        collect_blobs(bound, Collect(dry=True))
