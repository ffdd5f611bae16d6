"""What the crash test kills: a process that runs one pipeline after another, noting what it does."""

import random
from pathlib import Path

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.pipelines import Pipeline
from holdtrue.storage import ActionCache, BlobStore
from tests.crash.harness import Notes

STEPS = 8


def open_pipeline(folder: Path) -> Pipeline:
    """Open a pipeline over the stores in `folder`."""
    return Pipeline(BlobStore(folder / "blobs"), ActionCache(folder / "actions"), SystemClock(), engine="test")


def run(pipeline: Pipeline, number: int, notes: Notes | None = None) -> list[str]:
    """Run the pipeline of this number, each step on the result of the one before; return the results' digests."""
    before = ""
    digests: list[str] = []
    for step in range(STEPS):

        def work(seed: str = f"{number}/{step}/{before}", name: str = f"{number}/{step}") -> bytes:
            if notes is not None:
                notes.intend(name)
            return random.Random(seed).randbytes(50_000)

        before = bytes_hash(pipeline.step(f"step {step}", {"run": number, "before": before}, work, code=open_pipeline))
        if notes is not None:
            notes.done(f"{number}/{step}")
        digests.append(before)
    return digests


def keep_running(folder: Path, notes: Notes, seed: int) -> None:
    """Run pipelines 0, 1, 2 … until killed; those that ended before are found in the cache."""
    pipeline = open_pipeline(folder)
    number = 0
    while True:
        run(pipeline, number, notes)
        number += 1
