"""Stores in a temporary folder, documents of real text, and an embedding model that costs nothing."""

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.llm.retrieval import Built, Document, Index, IndexSpec, build_index, open_index
from holdtrue.llm.retrieval.keywords import term_key
from holdtrue.llm.retrieval.model import Progress
from holdtrue.llm.retrieval.text import terms
from holdtrue.pipelines import Pipeline
from holdtrue.storage import ActionCache, BlobStore

ROOT = Path(__file__).parents[3]
DIMENSIONS = 64


@dataclass(slots=True)
class WordModel:
    """Embed a text as the sum of its words' own random directions: texts that share words are near."""

    asked: list[str] = field(default_factory=list[str])

    def __call__(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        return np.array([self._vector(text) for text in texts])

    @staticmethod
    def _vector(text: str) -> Any:
        rows = [_direction(term) for term in terms(text)]
        return np.sum(rows, axis=0) if rows else np.ones(DIMENSIONS)


@cache
def _direction(term: str) -> Any:
    return np.random.default_rng(term_key(term)).standard_normal(DIMENSIONS)


@dataclass(slots=True)
class World:
    """Hold stores, a model, and the way to build and open."""

    blobs: BlobStore
    actions: ActionCache
    model: WordModel
    spec: IndexSpec

    def build(self, documents: Sequence[Any], previous: Built | None = None, **more: Any) -> Built:
        """Build an index of documents with the world's model."""
        spec: IndexSpec = more.pop("spec", self.spec)
        told: Callable[[Progress], None] = more.pop("on_progress", lambda _: None)
        pipeline = Pipeline(self.blobs, self.actions, SystemClock())
        before = previous.content if previous else None
        return build_index(pipeline, self.blobs, spec, documents, self.model, before, on_progress=told, **more)

    def open(self, built: Built) -> Index:
        """Open what was built."""
        return open_index(self.blobs, built.content, self.model)


@contextmanager
def new_world() -> Generator[World]:
    """Make a world in a folder that goes away with it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        spec = IndexSpec("notes", embedder="http:words")
        yield World(BlobStore(home / "blobs"), ActionCache(home / "actions"), WordModel(), spec)


@pytest.fixture
def world() -> Iterator[World]:
    with new_world() as world:
        yield world


def note(id: str, text: str, title: str = "") -> Document:
    """Return a document of plain text."""
    name = title or id
    return Document(id, name, text, f"notes/{id}", bytes_hash(f"{name}\n{text}".encode()))


def pages() -> list[Document]:
    """Return the Markdown pages of this repository."""
    return [
        Document(
            str(path.relative_to(ROOT)), path.stem, path.read_text(), "", bytes_hash(path.read_bytes()), kind="markdown"
        )
        for path in sorted((ROOT / "docs").rglob("*.md"))
    ]
