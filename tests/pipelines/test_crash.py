"""A pipeline killed at any moment goes on where it was, and ends as if nothing had happened."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import Plan, crash, crash_folders, noted, nursery, repeated
from tests.pipelines.clients import open_pipeline, run

KILLS = 8


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Iterator[Path]]:
    yield crash_folders(tmp_path)
    for link in tmp_path.glob("memory-*"):
        shutil.rmtree(link.resolve())


@pytest.mark.timeout(120)
def test_a_killed_run_ends_the_same_and_repeats_no_step_that_ended(tmp_path: Path, folders: Iterator[Path]) -> None:
    seen: list[Path] = []

    def check(folder: Path, _: object) -> None:
        assert repeated(folder / "notes") == []
        if folder not in seen:
            seen.append(folder)

    with nursery("tests.pipelines.clients") as home:
        plan = Plan(KILLS, longest=0.15, per_folder=4)
        crash(home, "tests.pipelines.clients:keep_running", plan, folders, check)
    assert len(seen) == KILLS // 4
    for folder in seen:
        ended = [note["done"] for note in noted(folder / "notes") if "done" in note]
        runs = max((int(name.split("/")[0]) for name in ended), default=0) + 1
        survivor, fresh = open_pipeline(folder), open_pipeline(tmp_path / f"fresh-{folder.name}")
        for number in range(runs):
            assert run(survivor, number) == run(fresh, number)
        again = {f"{number}/{step}" for number in range(runs) for step in range(8)} - set(ended)
        computed = [step for step in survivor.done if not step.cached]
        assert len(computed) <= len(again)
        assert not any(step.cached for step in fresh.done)
