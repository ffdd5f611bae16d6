"""Tags: declared once, kept by each version, written to the open standard and read from it, compared."""

import pytest

from holdtrue import data
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError
from holdtrue.data import Contract, DatasetSpec, Tags, column, contract_changes, from_odcs, to_odcs
from tests.data.conftest import Room
from tests.data.test_service import SPEC, deliver, rows_of

TAGGED = DatasetSpec(
    "flights",
    key="id",
    time="left_at",
    contract=Contract(
        (
            column("id", "string", unique=True, personal="identifier", purposes=["operations"]),
            *SPEC.contract.columns[1:],
        )
    ),
    tags=Tags(purposes=("operations", "research"), licence="CC0-1.0", source="bts"),
)
GENERAL = {"purposes": ["operations", "research"], "licence": "CC0-1.0", "source": "bts"}


def test_a_column_s_own_tags_go_before_the_dataset_s() -> None:
    assert TAGGED.tags_json()["id"] == {**GENERAL, "personal": "identifier", "purposes": ["operations"]}
    assert TAGGED.tags_json()["delay"] == GENERAL
    assert Tags(purposes=()).over(Tags(purposes=("research",))).allows("research") is False
    assert Tags().allows("") is True
    assert Tags(purposes=("research",)).allows("") is False


@pytest.mark.parametrize(
    "wrong", [{"personal": "idnetifier"}, {"purposes": [""]}, {"licence": "CC0\n"}, {"source": "a, b"}, {"licence": ""}]
)
def test_a_tag_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        column("id", "string", **wrong)  # pyright: ignore[reportArgumentType]


def test_versions_keep_tags_and_new_tags_make_a_version_of_the_same_rows(room: Room) -> None:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    _, plain = deliver(room, "2013-01", rows_of(1, 2))
    room.write(lambda tx: data.declare(tx, (TAGGED,)))
    tagged = room.read(lambda connection: data.latest(connection, "flights", "flights"))
    assert tagged is not None
    assert tagged.id != plain
    assert tagged.content["tags"] == TAGGED.tags_json()
    room.write(lambda tx: data.declare(tx, (TAGGED,)))
    assert room.read(lambda connection: data.latest(connection, "flights", "flights")) == tagged
    assert room.actions().count("dataset.tagged") == 1
    shown = room.call("GET", f"datasets/flights/versions/{tagged.number}")
    assert {each["column"]: each["tags"] for each in shown["schema"]}["delay"] == GENERAL
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    back = room.read(lambda connection: data.latest(connection, "flights", "flights"))
    assert back is not None
    assert back.id == plain


def test_files_of_a_dataset_keep_the_tags_of_the_version_before(room: Room) -> None:
    parts = {"a": {"digest": room.stores.blobs.put(b"x"), "rows": 1, "bytes": 1}}
    assert room.call("POST", "datasets/files/versions", {"fragments": parts})["number"] == 1
    shown = room.read(lambda connection: data.latest(connection, "flights", "files"))
    assert shown is not None
    assert "tags" not in shown.content


def test_the_open_standard_carries_tags_both_ways() -> None:
    text = to_odcs(TAGGED)
    assert 'classification: "personal/identifier"' in text
    pytest.importorskip("yaml")
    read = from_odcs(text)
    assert read.tags_json() == TAGGED.tags_json()
    assert load(DatasetSpec, dump(TAGGED)) == TAGGED


def test_fewer_purposes_and_other_terms_break_and_more_purposes_do_not() -> None:
    def effects(before: dict[str, object], after: dict[str, object]) -> list[str]:
        old, new = (
            Contract((column("id", "string", **each),))  # pyright: ignore[reportArgumentType]
            for each in (before, after)
        )
        return [each.effect for each in contract_changes(old, new)]

    assert effects({}, {"purposes": ["operations"]}) == ["breaking"]
    assert effects({"purposes": ["operations"]}, {"purposes": ["operations", "research"]}) == ["harmless"]
    assert effects({"purposes": ["operations"]}, {}) == ["harmless"]
    assert effects({}, {"personal": "identifier"}) == ["breaking"]
    assert effects({"personal": "identifier"}, {}) == ["harmless"]
    assert effects({"licence": "CC0-1.0"}, {"licence": "CC-BY-NC-4.0"}) == ["breaking"]
    assert effects({"source": "bts"}, {"source": "faa"}) == ["harmless"]


def test_a_request_is_not_judged_by_tags() -> None:
    assert TAGGED.contract.only(("id",)) == SPEC.contract.only(("id",))
