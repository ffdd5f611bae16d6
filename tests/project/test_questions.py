"""Questions of a test set are embedded once, whatever is put to them; anything else is embedded as ever."""

from pathlib import Path

import numpy as np
import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.evaluation import TestSet, load_test_set
from holdtrue.llm.retrieval import Embedder, query_text
from holdtrue.pipelines import Pipeline
from holdtrue.project import questions
from holdtrue.storage import ActionCache, BlobStore

INDEX = {"embedder": {"name": "small", "version": "1"}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries that an embedding model was given since."""
    seen: list[str] = []

    def query(text: str) -> np.ndarray:
        seen.append(text)
        return np.array([len(text), 1.0], np.float32)

    def opened(name: str) -> Embedder:
        return Embedder(name, "1", 2, lambda texts: np.zeros((len(texts), 2), np.float32), query)

    monkeypatch.setattr(questions, "open_embedder", opened)
    return seen


def _pipeline(folder: Path) -> Pipeline:
    return Pipeline(BlobStore(folder / "blobs"), ActionCache(folder / "actions"), SystemClock())


def _tests(folder: Path, *asked: str) -> TestSet:
    path = folder / "questions.jsonl"
    path.write_text("".join(f'{{"id": "q{place}", "question": "{each}"}}\n' for place, each in enumerate(asked)))
    return load_test_set(path)


def test_a_question_is_embedded_once_for_all_releases(tmp_path: Path, asked: list[str]) -> None:
    tests = _tests(tmp_path, "Who?", "  When? ", "Who?")
    first = questions.knowing(_pipeline(tmp_path), INDEX, tests)
    assert first is not None
    assert asked == ["Who?", "When?"]
    again = questions.knowing(_pipeline(tmp_path), INDEX, tests)
    assert again is not None
    assert again.query(query_text(" When? ")).tolist() == [5.0, 1.0]
    assert again.query("Who?").tolist() == [4.0, 1.0]
    assert asked == ["Who?", "When?"]
    assert again.query("Why not?").tolist() == [8.0, 1.0]
    assert asked[2:] == ["Why not?"]
    questions.knowing(_pipeline(tmp_path), INDEX, _tests(tmp_path, "Who?", "Where?"))
    assert asked[3:] == ["Who?", "Where?"]


def test_an_index_without_vectors_of_this_machine_knows_nothing(tmp_path: Path, asked: list[str]) -> None:
    tests = _tests(tmp_path, "Who?")
    far = {"embedder": {"name": "http:far", "version": ""}}
    for index in (None, {"embedder": None}, far):
        assert questions.knowing(_pipeline(tmp_path), index, tests) is None
    assert asked == []
