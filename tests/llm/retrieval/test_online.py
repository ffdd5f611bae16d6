"""An open index: what it finds, whom it trusts, and that many may ask while it is swapped."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from holdtrue.llm.retrieval import (
    Built,
    EmbedderMismatch,
    EmbedderMissing,
    Hit,
    Index,
    IndexRefused,
    Weights,
    open_embedder,
    open_index,
    render_passages,
)
from holdtrue.llm.retrieval import online as online_module
from holdtrue.llm.retrieval.arrays import pack, unpack
from tests.llm.retrieval.conftest import World, new_world, note, pages

NOTES = [
    note("a", "Größe zählt. Roll back a release when its canary is worse.", "Rollback"),
    note("b", "An alarm opens an incident."),
    note("c", "Labels come late; windows have a maturity."),
]


@pytest.fixture(scope="module")
def once() -> Iterator[tuple[World, Built]]:
    with new_world() as world:
        yield world, world.build(pages())


@pytest.fixture
def built(world: World, once: tuple[World, Built]) -> Built:
    for digest in once[1].blobs:
        world.blobs.put(once[0].blobs.get(digest))
    return once[1]


def test_a_hit_is_a_passage_with_its_place(world: World) -> None:
    index = world.open(world.build(NOTES))
    hits = index.search("canary release", 2)
    text = NOTES[0].text
    assert hits[0] == Hit("a#0", "a", "Rollback", text, hits[0].score, 0, len(text), 1, 1)
    assert hits[0].score == pytest.approx(2 / 61)
    assert [hit.document for hit in index.search("alarm incident", 1, "keyword")] == ["b"]
    assert index.search("alarm", 3, "keyword")[0].vector_rank is None
    assert [hit.keyword_rank for hit in index.search("alarm", 3, "vector")] == [None] * 3
    assert len(index.search("alarm", 100)) == 3


def test_the_texts_of_hits_are_those_of_the_documents(world: World, built: Built) -> None:
    index = world.open(built)
    texts = {page.id: page.text for page in pages()}
    for query in ("model released", "Wilson interval", "€ ≥ ½"):
        for hit in index.search(query, 20):
            assert hit.text == texts[hit.document][hit.start : hit.end]
            assert hit.heading[0] in texts[hit.document]


def test_the_settings_of_the_index_count_unless_others_are_asked_for(world: World) -> None:
    spec = replace(world.spec, k=2, mode="keyword")
    index = world.open(world.build(NOTES, spec=spec))
    assert [hit.document for hit in index.search("alarm")] == ["b"]
    only = replace(world.spec, weights=Weights(0.0, 1.0), k=2)
    assert [hit.document for hit in world.open(world.build(NOTES, spec=only)).search("alarm")] == ["b"]


@pytest.mark.parametrize("query", ["", "  \n", "\x00\u200b", "…"])
@pytest.mark.parametrize("mode", ["hybrid", "keyword"])
def test_a_query_of_nothing_finds_nothing_by_words(world: World, query: str, mode: Any) -> None:
    index = world.open(world.build(NOTES))
    assert all(hit.keyword_rank is None for hit in index.search(query, mode=mode))


def test_of_a_long_query_the_start_counts(world: World) -> None:
    index = world.open(world.build(NOTES))
    assert index.search("canary " + "x" * 100_000)[0].document == "a"
    assert max(len(text) for text in world.model.asked) <= 1000
    assert index.search("y " * 600 + "canary", mode="keyword") == []


@pytest.mark.parametrize(("k", "mode"), [(0, None), (101, None), (-1, None), (5, "both")])
def test_wrong_questions_are_refused(world: World, k: int, mode: Any) -> None:
    with pytest.raises(InvalidInput):
        world.open(world.build(NOTES)).search("alarm", k, mode)


def test_a_repeated_query_is_embedded_once(world: World) -> None:
    index = world.open(world.build(NOTES))
    world.model.asked.clear()
    assert index.search("alarm") == index.search("alarm")
    assert world.model.asked == ["alarm"]
    for number in range(1100):
        index.search(f"q{number}", mode="vector")
    index.search("alarm")
    assert world.model.asked.count("alarm") == 2


def test_ties_go_by_document_and_place(world: World) -> None:
    copies = [note(f"n{number:02}", "the same words", "same") for number in range(40)]
    index = world.open(world.build(copies))
    for mode in ("hybrid", "keyword", "vector"):
        assert [hit.document for hit in index.search("same words", 10, mode)] == [f"n{n:02}" for n in range(10)]


def test_many_threads_find_the_same_while_versions_are_swapped(world: World, built: Built) -> None:
    """Search without pause while the index is replaced: every answer is wholly of one version or the other."""
    other = world.build([*pages(), *NOTES])
    queries = ["alarm", "canary release", "one row", "who approves"]
    expected = [
        [[hit.id for hit in world.open(version).search(query)] for query in queries] for version in (built, other)
    ]
    serving: list[Index] = [world.open(built)]
    wrong: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            index = serving[0]
            found = [[hit.id for hit in index.search(query)] for query in queries]
            if found not in expected:
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        serving[0] = world.open(other if turn % 2 else built)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["passages", "vectors", "keywords"])
def test_what_was_changed_after_approval_is_not_opened(world: World, built: Built, name: str) -> None:
    path = world.blobs.path(built.content["files"][name]["digest"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        world.open(built)
    path.unlink()
    with pytest.raises(NotFound):
        world.open(built)


def test_an_index_of_another_form_or_model_is_not_opened(world: World, built: Built) -> None:
    with pytest.raises(IndexRefused, match="not known here"):
        open_index(world.blobs, {**built.content, "format": "holdtrue.index/9"}, world.model)
    with pytest.raises(EmbedderMissing):
        open_index(world.blobs, built.content)
    other = open_embedder("http:other", world.model)
    with pytest.raises(EmbedderMismatch, match="http:other"):
        open_index(world.blobs, built.content, other)
    index = open_index(world.blobs, built.content, lambda texts: [[1.0, 2.0]] * len(texts))
    with pytest.raises(EmbedderMismatch, match="2 numbers"):
        index.search("alarm")


@pytest.mark.parametrize(
    ("file", "array"), [("passages", "document_chunks"), ("keywords", "starts"), ("vectors", "scales")]
)
def test_files_that_do_not_fit_together_are_refused(world: World, built: Built, file: str, array: str) -> None:
    found, _ = unpack(world.blobs.get(built.content["files"][file]["digest"]))
    del found[array]
    files = {**built.content["files"], file: {"digest": world.blobs.put(pack(found)), "bytes": 0}}
    with pytest.raises(IndexRefused):
        open_index(world.blobs, {**built.content, "files": files}, world.model)


@pytest.mark.parametrize(
    ("file", "array", "change"),
    [
        ("keywords", "rows", lambda found: found + 1_000_000),
        ("keywords", "rows", lambda found: -found - 1),
        ("keywords", "starts", lambda found: found[::-1]),
        ("passages", "bytes", lambda found: found * 1000),
        ("passages", "bytes", lambda found: -found),
        ("passages", "document_chunks", lambda found: found[1:]),
        ("passages", "name_lengths", lambda found: found + 1),
        ("passages", "text", lambda found: found[:-5]),
        ("vectors", "rough", lambda found: found[:, 1:]),
        ("vectors", "scales", lambda found: found[:-1]),
    ],
)
def test_no_array_points_outside_of_another(world: World, built: Built, file: str, array: str, change: Any) -> None:
    found, _ = unpack(world.blobs.get(built.content["files"][file]["digest"]))
    found[array] = change(found[array])
    files = {**built.content["files"], file: {"digest": world.blobs.put(pack(found)), "bytes": 0}}
    with pytest.raises(IndexRefused, match="do not fit"):
        open_index(world.blobs, {**built.content, "files": files}, world.model)


_SIGNS = ["<", ">", "/", '"', "'", "&", "passage", " ", "id=", "\n", "\u200b", "a", "&lt;"]
_HOSTILE = st.lists(st.sampled_from(_SIGNS)).map("".join)


@given(st.lists(st.tuples(_HOSTILE, _HOSTILE, _HOSTILE), max_size=4))
def test_no_document_can_forge_or_close_a_passage(parts: list[tuple[str, str, str]]) -> None:
    hits = [Hit(name, "d", title, text, 1.0, 0, 1) for name, title, text in parts]
    rendered = render_passages(hits)
    tags = re.findall(r"<[^>]*>", rendered)
    assert [tag.split()[0] for tag in tags] == ["<passage", "</passage>"] * len(hits)
    assert rendered.count("<") == rendered.count(">") == 2 * len(hits)
    assert all(tag.count('"') in (0, 4) for tag in tags)
    bodies = re.findall(r"<passage [^<>]*>\n(.*?)\n</passage>", rendered, re.DOTALL)
    assert [unescape(body) for body in bodies] == [online_module.clean(text) for _, _, text in parts]


def test_passages_are_readable() -> None:
    hit = Hit("docs/a.md#0", "docs/a.md", 'The "way"', "if a < b: don't", 1.0, 0, 1)
    assert render_passages([hit]) == (
        '<passage id="docs/a.md#0" title="The &quot;way&quot;">\nif a &lt; b: don\'t\n</passage>'
    )
    assert render_passages([]) == ""


def test_the_data_plane_loads_no_database_no_parser_and_no_pipeline() -> None:
    script = "import sys, holdtrue.llm.retrieval.online; print('\\n'.join(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"sqlalchemy", "alembic", "duckdb", "pypdf", "selectolax", "scipy", "pydantic", "starlette", "pyarrow"}
    assert {name.split(".")[0] for name in loaded} & heavy == set()
    assert not [name for name in loaded if name.startswith("holdtrue.pipelines")]
