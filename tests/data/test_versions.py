"""Versions of a dataset, listed, shown and compared through the routes."""

from typing import Any

import pytest

from holdtrue import data
from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from tests.data.conftest import Room
from tests.data.test_service import SPEC, deliver, rows_of


@pytest.fixture
def kept(room: Room) -> Room:
    """A dataset of four versions: two months, the second corrected, then a third."""
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    for window, rows in (
        ("2013-01", rows_of(1, 2, None)),
        ("2013-02", rows_of(3, 4, id=["g0", "g1"])),
        ("2013-02", rows_of(3, 7, 8, id=["g0", "g1", "g2"])),
        ("2013-03", rows_of(5, id=["h0"])),
    ):
        result, _ = deliver(room, window, rows)
        assert result.digest is not None
        data.fragment_profile(room.stores.blobs, room.stores.actions, result.digest)
    return room


def _harm(room: Room, digest: str) -> None:
    file = room.stores.home / "blobs" / digest[:2] / digest
    file.write_bytes(b"no Parquet")


def test_versions_are_listed_with_what_each_brought(kept: Room) -> None:
    items = kept.call("GET", "datasets/flights/versions")["items"]
    assert [each["label"] for each in items] == ["flights@4", "flights@3", "flights@2", "flights@1"]
    assert [each["added"] + each["changed"] for each in items] == [["2013-03"], ["2013-02"], ["2013-02"], ["2013-01"]]
    assert [each["rows"] for each in items] == [7, 6, 5, 3]
    assert [each["current"] for each in items] == [True, False, False, False]
    assert items[0]["new_bytes"] < items[0]["bytes"]
    with pytest.raises(NotFound, match="trains"):
        kept.call("GET", "datasets/trains/versions")


@pytest.mark.parametrize("wanted", ["3", "id"])
def test_a_version_is_shown_with_its_profile(kept: Room, wanted: str) -> None:
    version = kept.call("GET", "datasets/flights/versions")["items"][1]["version"]
    shown = kept.call("GET", f"datasets/flights/versions/{version if wanted == 'id' else wanted}")
    assert shown["label"] == "flights@3"
    assert [each["window"] for each in shown["windows"]] == ["2013-01", "2013-02"]
    delay = next(each for each in shown["profile"] if each["name"] == "delay")
    assert (delay["rows"], delay["missing"], delay["low"], delay["high"]) == (6, 1, 1, 8)
    assert shown["schema"][2] == {"column": "distance", "kind": "whole"} | shown["schema"][2]
    assert shown["schema"][2]["ge"] == 1
    # Profiles were stored when the windows were taken in.
    assert shown["read"] == []


def test_what_a_contract_found_is_shown_with_the_version(kept: Room) -> None:
    deliver(kept, "2013-04", rows_of(5000, 2, id=["i0", "i1"]))
    shown = kept.call("GET", "datasets/flights/versions/current")
    (finding,) = shown["findings"]
    assert (finding["window"], finding["column"], finding["rule"]) == ("2013-04", "delay", "le")
    assert shown["quarantines"][0]["rows"] == 1
    assert shown["read"] == ["2013-04"]


def test_two_versions_are_compared_and_only_what_differs_is_read(kept: Room) -> None:
    first = kept.read(lambda connection: data.fragments(connection, "flights", "flights"))["2013-01"]["digest"]
    _harm(kept, first)
    found = kept.call("GET", "datasets/flights/diff", before="2", after="3")
    assert found["windows"] == {"added": [], "removed": [], "changed": ["2013-02"], "same": ["2013-01"]}
    rows = found["rows"]
    assert (rows["before"], rows["after"]) == (5, 6)
    assert rows["added"] == {"rows": 1, "examples": ["g2"]}
    assert rows["removed"]["rows"] == 0
    assert rows["changed"]["columns"] == {"delay": 1}
    assert rows["changed"]["examples"] == [{"key": "g1", "columns": {"delay": ["4.0", "7.0"]}}]
    assert found["read"] == ["2013-02"]
    with pytest.raises(Corrupt):
        data.read(kept.stores.blobs, {"fragments": {"w": {"digest": first}}})


def test_a_month_that_came_is_compared_by_the_profiles_of_the_others(kept: Room) -> None:
    found = kept.call("GET", "datasets/flights/diff", before="3")
    assert found["after"]["label"] == "flights@4"
    assert found["rows"]["added"] == {"rows": 1, "examples": ["h0"]}
    delay = next(each for each in found["columns"] if each["column"] == "delay")
    assert delay["mean"] == pytest.approx([4.2, 26 / 6])
    assert found["schema"] == []
    backwards = kept.call("GET", "datasets/flights/diff", before="4", after="3")
    assert backwards["rows"]["removed"]["rows"] == 1


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        ("datasets/flights/diff", {}, "No version to compare"),
        ("datasets/flights/diff", {"before": "9"}, "flights@9"),
        ("datasets/flights/versions/ds_0000000000000000", {}, "flights@ds_0000000000000000"),
        ("datasets/flights/versions/nowhere", {}, "flights@nowhere"),
        ("datasets/trains/versions/1", {}, "trains"),
        ("datasets/flights/versions/1/fragments/" + "0" * 64, {}, "fragment of flights@1"),
    ],
)
def test_what_is_not_there_is_named(kept: Room, path: str, query: dict[str, Any], said: str) -> None:
    with pytest.raises((NotFound, InvalidInput), match=said) as raised:
        kept.call("GET", path, **query)
    assert raised.value.mend


def test_only_a_versions_own_fragments_are_handed_out(kept: Room) -> None:
    parts = kept.read(lambda connection: data.fragments(connection, "flights", "flights"))
    newest = parts["2013-03"]["digest"]
    fetched = kept.call("GET", f"datasets/flights/versions/4/fragments/{newest}")
    assert fetched.name == "flights-2013-03.parquet"
    assert fetched.size == parts["2013-03"]["bytes"]
    with pytest.raises(NotFound):
        kept.call("GET", f"datasets/flights/versions/3/fragments/{newest}")
