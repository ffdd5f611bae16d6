"""The questions of a test set are embedded once: the same ones are put to every release, and to its index apart.

A query takes tens of milliseconds to embed, which is most of what an evaluation without a slow model takes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from holdtrue.core.canonical import content_hash
from holdtrue.evaluation import TestSet
from holdtrue.llm.retrieval import Embedder, open_embedder, query_text
from holdtrue.pipelines import Pipeline


def knowing(pipeline: Pipeline, index: Mapping[str, Any] | None, tests: TestSet) -> Embedder | None:
    """Return the embedder of an index, by its content, that knows the questions of a test set by heart.

    None where an index has no vectors, or those of a model behind an endpoint. Raises MissingExtra, EmbedderFailed.
    """
    named = None if index is None else index.get("embedder")
    if named is None or named["name"].startswith("http:"):
        return None
    embedder = open_embedder(named["name"])
    texts = list(dict.fromkeys(text for text in (query_text(case.text) for case in tests.cases) if text))
    if not texts:
        return embedder

    def work() -> bytes:
        vectors = [embedder.query(text) for text in texts]
        return np.array(vectors, np.float32).tobytes()

    inputs = {"embedder": [embedder.name, embedder.version], "texts": content_hash(texts)}
    vectors = np.frombuffer(pipeline.step("questions", inputs, work), np.float32).reshape(len(texts), -1)
    known = dict(zip(texts, vectors, strict=True))

    def query(text: str) -> Any:
        found = known.get(text)
        return embedder.query(text) if found is None else found

    return replace(embedder, query=query)
