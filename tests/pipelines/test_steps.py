"""Steps: computed once for what they read, say and run on; and again when any of it changed."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import ConfigurationError
from holdtrue.pipelines import Pipeline, StepDone, code_digest
from holdtrue.pipelines.steps import engine
from holdtrue.storage import ActionCache, BlobStore
from tests.sampling import examples


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(BlobStore(tmp_path / "blobs"), ActionCache(tmp_path / "actions"), SystemClock())


def _again(pipeline: Pipeline, **changed: Any) -> Pipeline:
    return dataclasses.replace(pipeline, done=[], **changed)


def _never() -> bytes:
    raise AssertionError("computed again")


def one() -> bytes:
    return b"1"


def two() -> bytes:
    return b"2"


def test_a_step_runs_once_for_all_processes(pipeline: Pipeline) -> None:
    assert pipeline.step("fit", {"data": "d1"}, one, code=one) == b"1"
    other = _again(pipeline)
    assert other.step("fit", {"data": "d1"}, _never, code=one) == b"1"
    assert [(step.name, step.cached) for step in pipeline.done + other.done] == [("fit", False), ("fit", True)]
    assert pipeline.done[0].digest == other.done[0].digest


@pytest.mark.parametrize(
    ("name", "inputs", "code", "changed"),
    [
        ("other", {"data": "d1"}, one, {}),
        ("fit", {"data": "d2"}, one, {}),
        ("fit", {"data": "d1"}, two, {}),
        ("fit", {"data": "d1"}, [one, two], {}),
        ("fit", {"data": "d1"}, None, {}),
        ("fit", {"data": "d1"}, one, {"engine": "newer libraries"}),
    ],
)
def test_what_changed_is_computed_again(
    pipeline: Pipeline, name: str, inputs: Any, code: Any, changed: dict[str, Any]
) -> None:
    pipeline.step("fit", {"data": "d1"}, one, code=one)
    other = _again(pipeline, **changed)
    assert other.step(name, inputs, two, code=code) == b"2"
    assert not other.done[0].cached


def test_progress_is_told_as_it_happens(pipeline: Pipeline) -> None:
    told: list[str | StepDone] = []
    watched = _again(pipeline, on_start=told.append, on_step=told.append)
    watched.step("a", 1, one)
    watched.step("a", 1, _never)
    assert told[0] == "a"
    assert told[1:] == watched.done
    assert [step.cached for step in watched.done] == [False, True]


def test_a_failed_step_leaves_nothing_behind_and_those_before_stay(pipeline: Pipeline) -> None:
    pipeline.step("first", 1, one)

    def fail() -> bytes:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        pipeline.step("second", 2, fail)
    other = _again(pipeline)
    other.step("first", 1, _never)
    assert other.step("second", 2, two) == b"2"


def test_a_damaged_or_collected_result_is_computed_again(pipeline: Pipeline) -> None:
    pipeline.step("fit", 1, one)
    digest = pipeline.done[0].digest
    path = pipeline.blobs.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"x")
    assert _again(pipeline).step("fit", 1, one) == b"1"
    assert pipeline.blobs.get(digest) == b"1"
    pipeline.blobs.path(digest).unlink()
    assert _again(pipeline).step("fit", 1, one) == b"1"
    assert _again(pipeline).step("fit", 1, _never) == b"1"


def test_comments_and_layout_change_no_digest(tmp_path: Path) -> None:
    digests = {code_digest(_defined(tmp_path / f"{place}.py", text)) for place, text in enumerate(_SPELLINGS)}
    assert len(digests) == 1
    other = code_digest(_defined(tmp_path / "other.py", "def f(x):\n    return x + 2\n"))
    assert other not in digests


def test_several_functions_count_in_their_order() -> None:
    assert code_digest([one, two]) != code_digest([two, one])


def test_bound_arguments_count() -> None:
    assert code_digest(functools.partial(_commented, 1)) != code_digest(functools.partial(_commented, 2))


def test_code_without_a_source_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="source"):
        code_digest(len)


def test_the_engine_is_the_same_each_time() -> None:
    assert engine() == engine()


@settings(deadline=None, max_examples=examples(30))
@given(inputs=st.dictionaries(st.text(max_size=3), st.integers(-5, 5) | st.text(max_size=3), max_size=3))
def test_inputs_count_by_what_they_say_not_by_their_order(
    inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("steps")
    first = Pipeline(BlobStore(base / "b"), ActionCache(base / "a"), SystemClock(), engine="test")
    first.step("s", inputs, one)
    first.step("s", dict(reversed(list(inputs.items()))), _never)
    assert [step.cached for step in first.done] == [False, True]


def _commented(value: int) -> int:
    return value


_SPELLINGS = (
    "def f(x):\n    return x + 1\n",
    "def f(x):  # adds one\n    return (x\n        + 1)\n",
    "def f( x ):\n\n    # the sum\n    return x+1\n",
)


def _defined(path: Path, text: str) -> Callable[..., Any]:
    path.write_text(text)
    names: dict[str, Any] = {}
    exec(compile(text, str(path), "exec"), names)  # noqa: S102  # text of this file
    return names["f"]
