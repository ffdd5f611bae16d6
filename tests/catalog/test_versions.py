"""Versions, their numbers and aliases, and the walls between projects."""

from typing import Any

import pytest

from holdtrue.catalog import IdTaken, Version, aliases, find, get, register, set_alias, versions
from holdtrue.catalog.service import cursor
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.core.ids import version_id
from tests.catalog.conftest import ROBOT, Desk


def put(desk: Desk, content: Any, name: str = "flights", kind: str = "dataset", **options: Any) -> Version:
    return desk.write(lambda tx: register(tx, kind, name, content, **options))


def test_a_version_is_what_its_content_is(desk: Desk) -> None:
    made = put(desk, {"b": 1.0, "a": (1, 2)}, blobs=("ab" * 32,))
    assert made.id == version_id("dataset", {"a": [1, 2], "b": 1})
    assert (made.number, made.label, made.created_by) == (1, "flights@1", "usr_ann")
    assert made.content == {"a": [1, 2], "b": 1}
    assert desk.ledger.read(lambda c: get(c, "flights", made.id)) == made
    assert desk.ledger.events("flights")[0].payload == {
        "kind": "dataset",
        "name": "flights",
        "number": 1,
        "blobs": 1,
        "derived_from": [],
    }


def test_the_same_content_is_the_same_version(desk: Desk) -> None:
    first = put(desk, {"x": 1})
    assert put(desk, {"x": 1}) == first
    assert desk.actions() == ["version.registered"]


def test_numbers_count_by_kind_and_name(desk: Desk) -> None:
    assert [put(desk, {"x": n}).number for n in range(3)] == [1, 2, 3]
    assert put(desk, {"x": 7}, name="weather").number == 1
    assert put(desk, {"x": 7}, kind="contract").number == 1


def test_one_content_may_have_several_names(desk: Desk) -> None:
    first, second = put(desk, {"x": 1}), put(desk, {"x": 1}, name="copy")
    assert first.id == second.id
    assert desk.ledger.read(lambda c: find(c, "flights", "dataset", "copy")) == second
    assert desk.ledger.read(lambda c: get(c, "flights", first.id)) == first


def test_finding_by_number_alias_and_newest(desk: Desk) -> None:
    made = [put(desk, {"x": n}) for n in range(3)]
    desk.write(lambda tx: set_alias(tx, "dataset", "flights", "production", made[1].id))

    def found(**options: Any) -> Version:
        return desk.ledger.read(lambda c: find(c, "flights", "dataset", "flights", **options))

    assert found() == made[2]
    assert found(number=1) == made[0]
    assert found(alias="production") == made[1]
    for options in ({"number": 9}, {"alias": "nobody"}):
        with pytest.raises(NotFound):
            found(**options)


def test_an_alias_moves_and_says_so(desk: Desk) -> None:
    first, second = put(desk, {"x": 1}), put(desk, {"x": 2})
    for target in (first, first, second):
        desk.write(lambda tx, to=target.id: set_alias(tx, "dataset", "flights", "production", to))
    moves = desk.ledger.events("flights", action="alias.moved")
    assert [(move.before, move.after) for move in moves] == [("", first.id), (first.id, second.id)]
    (alias,) = desk.ledger.read(lambda c: aliases(c, "flights", "dataset", "flights"))
    assert (alias.alias, alias.version, alias.updated_by) == ("production", second.id, "usr_ann")


def test_an_alias_points_only_to_a_version_of_its_name(desk: Desk) -> None:
    weather = put(desk, {"x": 1}, name="weather")
    for kind, name in (("dataset", "flights"), ("model", "weather")):
        with pytest.raises(NotFound):
            desk.write(lambda tx, kind=kind, name=name: set_alias(tx, kind, name, "production", weather.id))


@pytest.mark.parametrize("alias", ["7", "", "a b", "../x"])
def test_what_cannot_be_an_alias(desk: Desk, alias: str) -> None:
    made = put(desk, {"x": 1})
    with pytest.raises(InvalidInput):
        desk.write(lambda tx: set_alias(tx, "dataset", "flights", alias, made.id))


@pytest.mark.parametrize(
    ("kind", "name", "content", "blobs", "hint"),
    [
        ("datasets", "a", {}, (), "Did you mean “dataset”"),
        ("release", "a", {}, (), ""),
        ("model", "../a", {}, (), "Choose another"),
        ("model", "a", {"x": float("nan")}, (), "NaN"),
        ("model", "a", {"x": 2**60}, (), "strings"),
        ("model", "a", {}, ("ab",), "Store the bytes first"),
        ("model", "a", {}, ("../../etc/passwd",), ""),
    ],
)
def test_what_cannot_be_registered(
    desk: Desk, kind: str, name: str, content: Any, blobs: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        put(desk, content, name, kind, blobs=blobs)
    assert hint in caught.value.mend
    assert desk.actions() == []


def test_two_contents_never_share_an_id(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 bits can be made to collide on purpose: the second content must not pass as the first."""
    import holdtrue.catalog.service as service

    monkeypatch.setattr(service, "version_id", lambda kind, content: "ds_0000000000000000")  # pyright: ignore[reportUnknownLambdaType]
    put(desk, {"x": 1})
    with pytest.raises(IdTaken):
        put(desk, {"x": 2})


def test_projects_do_not_see_each_other(desk: Desk, other: Desk) -> None:
    mine = put(desk, {"x": 1})
    desk.write(lambda tx: set_alias(tx, "dataset", "flights", "production", mine.id))
    read = other.ledger.read
    for work in (
        lambda c: get(c, "other", mine.id),
        lambda c: find(c, "other", "dataset", "flights"),
        lambda c: find(c, "other", "dataset", "flights", alias="production"),
    ):
        with pytest.raises(NotFound):
            read(work)
    assert read(lambda c: versions(c, "other")) == []
    theirs = put(other, {"x": 1})
    assert (theirs.id, theirs.number, theirs.project) == (mine.id, 1, "other")
    assert theirs.created_by == ROBOT.created_by
    assert desk.ledger.read(lambda c: get(c, "flights", mine.id)) == mine


def test_listing_goes_on_where_it_stopped(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        for number in range(5):
            put(desk, {"x": number, "name": name}, name=name)
    put(desk, {"x": 0}, name="a", kind="contract")
    seen: list[Version] = []
    after: str | None = None
    while page := desk.ledger.read(lambda c, after=after: versions(c, "flights", limit=4, after=after)):
        seen += page
        after = cursor(page[-1])
    assert [version.label for version in seen if version.kind == "dataset"] == [
        f"{name}@{number}" for name in "abc" for number in (5, 4, 3, 2, 1)
    ]
    assert seen == desk.ledger.read(lambda c: versions(c, "flights", limit=100))
    assert len(desk.ledger.read(lambda c: versions(c, "flights", "dataset", "b"))) == 5
    for wrong in ("x", "a/b/c", "a/b/c/1"):
        with pytest.raises(InvalidInput):
            desk.ledger.read(lambda c, wrong=wrong: versions(c, "flights", after=wrong))
