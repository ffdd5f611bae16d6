"""Building: the same documents give the same index, however it came about; only what is new is done."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.llm.retrieval import (
    Built,
    Chunking,
    EmbedderFailed,
    EmbedderMissing,
    IndexSpec,
    NoDocuments,
    Parsing,
    Skipped,
    Source,
    Weights,
    find_sources,
)
from holdtrue.llm.retrieval.building import read_manifest
from holdtrue.llm.retrieval.model import Progress, Reason
from tests.llm.retrieval.conftest import ROOT, World, new_world, note, pages
from tests.sampling import examples

NOTES = [
    note("a", "Roll back a release when its canary is worse."),
    note("b", "An alarm opens an incident. " * 20),
    note("c", "Labels come late; windows have a maturity."),
]


def test_equal_documents_give_equal_content(world: World) -> None:
    first = world.build(NOTES)
    with new_world() as other:
        assert other.build(list(reversed(NOTES)), workers=3).content == first.content
    assert first.summary["made"] == 3
    assert first.content["documents"] == 3
    assert set(first.blobs) == {each["digest"] for each in first.content["files"].values()} | {
        first.content["manifest"]
    }
    assert all(world.blobs.has(digest) for digest in first.blobs)


def test_nothing_is_embedded_again(world: World) -> None:
    first = world.build(NOTES)
    asked = len(world.model.asked)
    again = world.build(NOTES)
    known = world.build(NOTES, first)
    assert len(world.model.asked) == asked
    assert again.content == known.content == first.content
    assert (again.summary["from_cache"], known.summary["from_previous"]) == (3, 3)


def test_one_changed_document_is_embedded_alone(world: World) -> None:
    first = world.build(NOTES)
    world.model.asked.clear()
    changed = [NOTES[0], note("b", "A drift alarm."), NOTES[2]]
    second = world.build(changed, first)
    assert world.model.asked == ["b\nA drift alarm."]
    assert second.summary["made"] == 1
    assert second.summary["from_previous"] == 2
    assert second.content != first.content
    # Each version is whole: the first is still there, and the second is as if built alone.
    assert world.open(first).search("incident", mode="keyword")
    with new_world() as other:
        assert other.build(changed).content == second.content


def test_a_moved_document_is_not_embedded_again(world: World) -> None:
    world.build(NOTES)
    world.model.asked.clear()
    moved = replace(NOTES[0], id="z/a", uri="notes/z/a")
    built = world.build([moved, *NOTES[1:]])
    assert world.model.asked == []
    assert built.content["documents"] == 3
    assert world.open(built).search("canary", 1)[0].document == "z/a"


def test_a_new_address_is_in_the_new_version(world: World) -> None:
    first = world.build(NOTES)
    second = world.build([replace(NOTES[0], uri="elsewhere"), *NOTES[1:]], first)
    assert read_manifest(world.blobs, second.content)["documents"][0]["uri"] == "elsewhere"
    assert second.summary["from_previous"] == 3


_TEXTS = st.lists(
    st.sampled_from(["canary", "alarm", "Größe", "東京都", "# Part", "\n\n", "release " * 30]), max_size=8
).map(lambda words: " ".join(["start", *words]))
_VERSIONS = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), _TEXTS, min_size=1), min_size=2, max_size=4)


@settings(max_examples=examples(32), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=_VERSIONS)
def test_a_version_after_others_is_the_same_as_one_put_together_alone(
    world: World, versions: list[dict[str, str]]
) -> None:
    """Add, change and remove documents at random, version after version; nothing of their history is in the files."""
    previous: Built | None = None
    for version in versions:
        documents = [note(name, text) for name, text in version.items()]
        previous = world.build(documents, previous)
        assert previous.content == world.build(documents).content


@pytest.mark.parametrize(
    "change",
    [
        {"chunking": Chunking(20, 5, 5)},
        {"chunking": Chunking(at_headings=False)},
        {"embedder": "http:other"},
        {"mode": "keyword"},
    ],
    ids=["words", "headings", "model", "mode"],
)
def test_what_changes_chunks_or_vectors_makes_all_anew(world: World, change: dict[str, Any]) -> None:
    first = world.build(NOTES)
    second = world.build(NOTES, first, spec=replace(world.spec, **change))
    assert second.summary["made"] == 3
    assert second.content != first.content


@pytest.mark.parametrize("change", [{"k": 9}, {"mode": "vector"}, {"sources": ("docs/*.md",)}])
def test_what_changes_only_the_search_makes_nothing_anew(world: World, change: dict[str, Any]) -> None:
    first = world.build(NOTES)
    second = world.build(NOTES, first, spec=replace(world.spec, **change))
    assert second.summary["made"] == 0
    assert second.content["files"] == first.content["files"]
    assert second.content != first.content


def test_what_is_left_out_is_reported_and_the_rest_is_built(world: World) -> None:
    hostile: Sequence[Any] = [
        *NOTES,
        Source("bad.md", "bad.md", "markdown", b"\xe9\xe9", "d1", "bad"),
        Source("bad.pdf", "bad.pdf", "pdf", b"%PDF-1.4 nothing", "d2", "bad"),
        Source("void.html", "void.html", "html", b"<html><script>x()</script></html>", "d3", "void"),
        note("a", "the same id"),
        note("dots", " … "),
        note("blank", "   "),
        Skipped("link.md", Reason.OUTSIDE, "It is a link."),
    ]
    built = world.build(hostile)
    reasons = {each["uri"]: each["reason"] for each in built.summary["left_out"]}
    assert reasons == {
        "bad.md": "encoding",
        "bad.pdf": "malformed",
        "void.html": "empty",
        "notes/a": "duplicate",
        "notes/blank": "empty",
        "link.md": "outside_of_the_root",
    }
    assert built.content["documents"] == 4
    assert sum(built.content["skipped"].values()) == built.summary["skipped"] == 6
    listed = read_manifest(world.blobs, built.content)["skipped"]
    assert [each["uri"] for each in listed] == sorted(reasons)
    # What could not be read is not tried again while nothing changes, and the report is the same.
    again = world.build(hostile, built)
    assert again.content == built.content
    assert again.summary["left_out"] == built.summary["left_out"]


def test_other_limits_try_again_what_was_refused(world: World) -> None:
    source = Source("a.txt", "a.txt", "text", b"x " * 100, "d", "a")
    tight = replace(world.spec, parsing=Parsing(most_characters=50))
    first = world.build([*NOTES, source], spec=tight)
    assert first.summary["reasons"] == {"too_long": 1}
    assert world.build([*NOTES, source], first).summary["reasons"] == {}


def test_nothing_to_index_is_an_error_that_says_why(world: World) -> None:
    with pytest.raises(NoDocuments, match="No document was given"):
        world.build([])
    with pytest.raises(NoDocuments, match="Its bytes are not UTF-8"):
        world.build([Source("bad.md", "bad.md", "markdown", b"\xe9\xe9", "d1", "bad")])


def test_the_files_of_this_repository(world: World) -> None:
    told: list[Progress] = []
    spec = replace(world.spec, sources=("docs/**/*.md", "*.md", "src/holdtrue/**/*.html", "LICENSE"))
    built = world.build(list(find_sources(ROOT, spec.sources)), spec=spec, on_progress=told.append)
    assert built.content["documents"] > 20
    assert built.content["chunks"] > 100
    assert told[-1] == Progress("packing", 1, 1, built.summary["made"], built.summary["skipped"])
    hits = world.open(built).search("binary searches in one sorted key", 3, "keyword")
    assert hits[0].document == "docs/decisions/0005-point-in-time-joins-are-binary-searches.md"


def test_an_embedder_that_fails_fails_the_build_and_keeps_what_was_done(world: World) -> None:
    class Down(RuntimeError):
        pass

    documents = [note(f"n{number}", f"text number {number}") for number in range(30)]
    good, calls = world.model, 0

    def model(texts: Sequence[str]) -> Any:
        nonlocal calls
        calls += 1
        if calls > 10:
            raise Down
        return good(texts)

    world.model = model  # type: ignore[assignment]  # a function with the same call
    with pytest.raises(Down):
        world.build(documents, workers=1)
    world.model = good
    assert world.build(documents).summary == world.build(documents).summary | {"made": 20, "from_cache": 10}


@pytest.mark.parametrize(
    "given",
    [
        [[1.0, 2.0]] * 2,
        [],
        [1.0, 2.0],
        [[0.0, 0.0]],
        [[float("nan"), 1.0]],
        [[1e30, float("inf")]],
        "text",
        None,
        [[]],
        [["a"]],
        np.ones((1, 10_000)),
    ],
)
def test_an_embedder_that_gives_no_vectors_is_refused(world: World, given: Any) -> None:
    world.model = lambda _: given  # type: ignore[assignment]  # a function with the same call
    with pytest.raises(EmbedderFailed):
        world.build([note("a", "one")])


def test_vectors_of_two_lengths_are_refused(world: World) -> None:
    first = world.build(NOTES)
    world.model = lambda texts: np.ones((len(texts), 3))  # type: ignore[assignment]  # a function with the same call
    with pytest.raises(EmbedderFailed, match="different lengths"):
        world.build([*NOTES, note("d", "new")], first)


def test_a_remote_model_must_be_given(world: World) -> None:
    world.model = None  # type: ignore[assignment]  # no function
    with pytest.raises(EmbedderMissing):
        world.build(NOTES)


def test_keywords_need_no_model(world: World) -> None:
    world.model = None  # type: ignore[assignment]  # no function
    spec = replace(world.spec, mode="keyword")
    index = world.open(world.build(NOTES, spec=spec))
    assert index.search("canary")[0].document == "a"
    with pytest.raises(InvalidInput, match="cannot be searched in the mode 'hybrid'"):
        index.search("canary", mode="hybrid")


def test_a_version_of_another_form_is_not_taken_over(world: World) -> None:
    first = world.build(NOTES)
    old = replace(first, content={**first.content, "format": "holdtrue.index/0"})
    assert world.build(NOTES, old).content == first.content


def test_many_threads_give_the_same(world: World) -> None:
    documents = [replace(page, id=f"{page.id}-{copy}") for page in pages() for copy in range(4)]
    random.Random(3).shuffle(documents)
    first = world.build(documents, workers=1)
    with new_world() as other:
        assert other.build(documents, workers=8).content == first.content


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a b"},
        {"mode": "both"},
        {"k": 0},
        {"k": 101},
        {"embedder": "word2vec"},
        {"embedder": "http:"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput if "name" in wrong else ConfigurationError):
        load(IndexSpec, {"name": "notes", **wrong})


def test_weights_must_find_something() -> None:
    with pytest.raises(ConfigurationError, match="Both are 0"):
        Weights(0.0, 0.0)


def test_a_spec_comes_back_from_json() -> None:
    spec = IndexSpec("notes", ("docs/*.md",), Parsing(most_pages=3), Chunking(50, 5, 5), weights=Weights(0.5, 1.0))
    assert load(IndexSpec, dump(spec)) == spec
    with pytest.raises(ConfigurationError, match="chunk_size"):
        load(IndexSpec, {"name": "notes", "chunk_size": 5})
