"""Versions compared: which documents, which settings, and never more than can be shown."""

from dataclasses import replace

import orjson

from holdtrue.llm.retrieval import Chunking, diff_indexes, show_index
from tests.llm.retrieval.conftest import World, note

NOTES = [note("a", "alpha"), note("b", "beta"), note("c", "gamma")]


def test_documents_added_removed_and_changed(world: World) -> None:
    before = world.build(NOTES).content
    after = world.build([NOTES[0], note("b", "beta two"), note("d", "delta")]).content
    found = diff_indexes(world.blobs, before, after)
    assert found["documents"] == {
        "before": 3,
        "after": 3,
        "unchanged": 1,
        "added": {"count": 1, "first": ["d"], "truncated": False},
        "removed": {"count": 1, "first": ["c"], "truncated": False},
        "changed": {"count": 1, "first": ["b"], "truncated": False},
        "made_anew": 0,
    }
    assert (found["same"], found["settings"], found["chunks"]) == (False, [], {"before": 3, "after": 3})
    assert diff_indexes(world.blobs, before, before)["same"]


def test_settings(world: World) -> None:
    before = world.build(NOTES).content
    after = world.build(NOTES, spec=replace(world.spec, chunking=Chunking(50, 10, 5), k=7)).content
    found = diff_indexes(world.blobs, before, after)
    assert {each["path"]: (each["before"], each["after"]) for each in found["settings"]} == {
        "spec.chunking.words": (120, 50),
        "spec.chunking.overlap": (20, 10),
        "spec.chunking.least": (30, 5),
        "spec.k": (5, 7),
    }
    assert found["documents"]["made_anew"] == 3
    assert found["documents"]["changed"]["count"] == 0


def test_a_large_difference_is_counted_and_not_listed(world: World) -> None:
    spec = replace(world.spec, mode="keyword")
    before = world.build([NOTES[0]], spec=spec).content
    after = world.build([note(f"{'x' * 900}{number}", "text") for number in range(300)], spec=spec).content
    found = diff_indexes(world.blobs, before, after)
    assert found["documents"]["added"]["count"] == 300
    assert len(found["documents"]["added"]["first"]) == 200
    assert found["documents"]["added"]["truncated"]
    assert len(orjson.dumps(found)) < 64 << 10


def test_an_index_is_shown(world: World) -> None:
    shown = show_index(world.blobs, world.build([*NOTES, note("e", " ")]).content)
    assert (shown["documents"], shown["chunks"], shown["skipped"]) == (3, 3, {"empty": 1})
    assert shown["first_documents"][0] == {"id": "a", "title": "a", "chunks": 1}
    assert shown["left_out"] == [{"uri": "notes/e", "reason": "empty", "detail": "It holds no words."}]
