"""The list of the erased, held against what comes in; what is kept is written anew without them."""

from typing import Any

import pyarrow.parquet as pq
import pytest

from holdtrue import catalog, data
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.data import erasure
from holdtrue.data.collecting import Collect, collect
from holdtrue.data.erasure import Entity, Erasure, ErasureMoved, Held, RowsErased, State
from tests.data.conftest import ANNA, Room
from tests.data.test_service import SPEC, deliver, rows_of


@pytest.fixture
def declared(room: Room) -> Room:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    return room


def listed(room: Room, value: str, column: str = "id", project: str = "flights") -> str:
    """Put an entity on the list, and return the erasure's id."""
    mark = erasure.open_key(room.stores.home).mark(project, column, value)
    name = f"era_{value}"
    now = room.clock.now()
    made = Erasure(name, project, column, mark, State.OPEN, {}, now, ANNA.id)
    room.write(lambda tx: erasure.request(tx, made), project)
    return name


def erased(room: Room, value: str) -> list[str]:
    """Take an entity out of what is kept, and return the versions that this made."""
    name, entity = listed(room, value), Entity("id", value)
    found = erasure.rewrite(room.stores, "flights", entity, name)
    return room.write(lambda tx: erasure.register_rewritten(tx, name, found))


def current(room: Room) -> catalog.Version:
    found = room.read(lambda connection: data.latest(connection, "flights", "flights"))
    assert found is not None
    return found


def ids(room: Room) -> list[Any]:
    return data.read(room.stores.blobs, current(room).content)["id"].to_pylist()


def posted(room: Room, table: Any, window: str = "2013-01") -> Any:
    """Deliver through the room's route."""
    result = data.ingest(room.stores.blobs, SPEC, window, table)
    return room.call("POST", "datasets/flights/deliveries", dump(result))


def test_rows_of_the_erased_are_left_out_at_the_door(declared: Room) -> None:
    listed(declared, "f1")
    answer = posted(declared, rows_of(1, 2, 3))
    assert (answer["accepted"], answer["erased"]) == (2, 1)
    assert ids(declared) == ["f0", "f2"]
    # What is kept out is held against the list as well.
    answer = posted(declared, rows_of(5000, 2000, 3), "2013-02")
    assert (answer["accepted"], answer["quarantined"], answer["erased"]) == (1, 1, 1)
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert held.rows == 1
    assert held.blob is not None
    assert pq.read_table(declared.stores.blobs.path(held.blob))["id"].to_pylist() == ["f0"]


def test_the_list_of_one_project_is_not_that_of_another(declared: Room) -> None:
    listed(declared, "f1", project="trains")
    assert posted(declared, rows_of(1, 2))["erased"] == 0


def test_a_delivery_that_was_held_against_an_older_list_is_not_taken(declared: Room) -> None:
    result = data.ingest(declared.stores.blobs, SPEC, "2013-01", rows_of(1, 2))
    cleaned = erasure.clean_delivery(declared.stores, erasure.standing(declared.stores, "flights"), result)
    listed(declared, "f1")
    with pytest.raises(ErasureMoved):
        declared.write(lambda tx: data.accept(tx, cleaned.content, cleaned.held))
    with pytest.raises(ErasureMoved):
        declared.write(lambda tx: data.accept(tx, result, Held()))
    # The route looks at the list again by itself.
    assert posted(declared, rows_of(1, 2))["accepted"] == 1


def test_present_versions_get_a_successor_and_old_ones_say_so(declared: Room) -> None:
    deliver(declared, "2013-01", rows_of(1, 2))
    deliver(declared, "2013-02", rows_of(3))
    before = current(declared)
    declared.write(lambda tx: catalog.set_alias(tx, "dataset", "flights", "golden", before.id))
    assert erased(declared, "f1") == ["flights@3"]
    assert ids(declared) == ["f0", "f0"]
    aliases = declared.read(lambda connection: catalog.aliases(connection, "flights", "dataset", "flights"))
    assert {each.version for each in aliases} == {current(declared).id}
    # The window without the entity is the same fragment as before.
    assert current(declared).content["fragments"]["2013-02"] == before.content["fragments"]["2013-02"]
    with pytest.raises(RowsErased, match="flights@3"):
        declared.call("GET", f"datasets/flights/versions/{before.number}")
    digest = before.content["fragments"]["2013-01"]["digest"]
    with pytest.raises(RowsErased):
        declared.call("GET", f"datasets/flights/versions/{before.number}/fragments/{digest}")
    assert erased(declared, "nobody") == []


def test_bytes_go_once_nothing_needs_them(declared: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = deliver(declared, "2013-01", rows_of(1, 2))
    assert first.digest is not None
    # Another project has the same bytes, and erased nobody.
    parts = {"a": {"digest": first.digest, "rows": 2, "bytes": first.bytes}}
    declared.call("POST", "datasets/copies/versions", {"fragments": parts}, project="trains")
    erased(declared, "f1")
    monkeypatch.setattr("time.time", lambda: 4e9)
    collect(declared.stores, Collect(1.0))
    assert declared.stores.blobs.has(first.digest)
    declared.write(lambda tx: erasure.request(tx, _same(declared)), "trains")
    found = erasure.rewrite(declared.stores, "trains", Entity("id", "f1"), "era_trains")
    declared.write(lambda tx: erasure.register_rewritten(tx, "era_trains", found), "trains")
    collect(declared.stores, Collect(1.0))
    assert not declared.stores.blobs.has(first.digest)
    assert ids(declared) == ["f0"]


def _same(room: Room) -> Erasure:
    mark = erasure.open_key(room.stores.home).mark("trains", "id", "f1")
    return Erasure("era_trains", "trains", "id", mark, State.OPEN, {}, room.clock.now(), ANNA.id)


def test_examples_of_findings_name_nobody_who_was_erased(declared: Room) -> None:
    spec = rows_of(1, 2)
    blocked = spec.set_column(0, "id", [["f1-person", "f1-person"]])
    deliver(declared, "2013-01", blocked)
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert "f1-person" in str(held.findings)
    changed = declared.write(lambda tx: erasure.erase_examples(tx, "era_1", Entity("id", "f1-person")))
    assert changed == 2
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert "f1-person" not in str(held.findings)
    events = declared.stores.ledger.events("flights", action="quarantine.opened")
    assert [event.payload for event in events] == [None]


def test_a_key_is_made_once_and_marks_depend_on_it(room: Room) -> None:
    key = erasure.open_key(room.stores.home)
    assert key == erasure.open_key(room.stores.home)
    assert (room.stores.home / "keys" / "erasure-key").stat().st_mode & 0o077 == 0
    marks = {
        key.mark("p", "c", "v"),
        key.mark("p", "c", "w"),
        key.mark("p", "d", "v"),
        key.mark("q", "c", "v"),
        erasure.Key(b"0" * 32).mark("p", "c", "v"),
    }
    assert len(marks) == 5
    assert "secret" not in repr(key)


@pytest.mark.parametrize(("column", "value"), [("", "x"), ("x", ""), ("x", "y" * 1001), ("x", "\udcff")])
def test_no_entity(column: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        Entity(column, value)


def test_a_number_is_known_as_both(room: Room) -> None:
    assert Entity("c", "17").names() == ("17", 17)
    assert Entity("c", "-3").names() == ("-3", -3)
    assert Entity("c", "017").names() == ("017",)
    assert Entity("c", "१७").names() == ("१७",)
