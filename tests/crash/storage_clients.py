"""What the killed processes of the storage crash tests do until they are killed."""

import importlib
import random
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SimulatedClock, microseconds
from holdtrue.data.adding import Adding
from holdtrue.data.folders import find_files
from holdtrue.storage import ActionCache, BlobStore, Journal
from tests.crash.harness import History, Notes

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000

# Loaded in the nursery, so that no client spends its short life on importing them; the first conversion makes
# pyarrow import pandas where that is installed, which takes half a second.
importlib.import_module("holdtrue.storage.journal.reading")
importlib.import_module("holdtrue.storage.journal.sealing")
pa.array([])


def content(seed: int) -> bytes:
    """Return the bytes that blob number `seed` must have."""
    rng = random.Random(seed)
    return rng.randbytes(rng.choice([0, 1, 100, 5_000, 200_000]))


def put_blobs(folder: Path, notes: Notes, seed: int) -> None:
    """Put blobs for ever; some of them again."""
    rng = random.Random(seed)
    store = BlobStore(folder / "blobs")
    while True:
        number = rng.randrange(1, 200)
        data = content(number)
        digest = bytes_hash(data)
        notes.intend(digest, number=number)
        if rng.random() < 0.3:
            source = folder / "source"
            source.write_bytes(data)
            found = store.put_file(source)
        else:
            found = store.put(data)
        notes.done(found, number=number)


def files_of(number: int) -> dict[str, bytes]:
    """Return the files that folder `number` must have; some are those of its neighbour."""
    return {f"{each:02d}.bin": each.to_bytes(2, "big") * (1 + each % 300) for each in range(number, number + 16)}


def add_folders(folder: Path, notes: Notes, seed: int) -> None:
    """Make versions of folders for ever, collect what none of them needs, and write small packs together."""
    rng = random.Random(seed)
    store, actions = BlobStore(folder / "blobs", packed_from=4), ActionCache(folder / "actions")
    history = History.read(folder / "notes")
    kept = {facts["tree"] for facts in history.acknowledged.values()}
    while True:
        number = rng.randrange(1, 400)
        place = folder / "in" / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for name, data in files_of(number).items():
            (place / name).write_bytes(data)
        notes.intend(str(number))
        tree = Adding(store, actions, "things").tree(find_files([str(place)])).content["tree"]
        notes.done(str(number), tree=tree)
        kept.add(tree)
        if rng.random() < 0.3:
            store.collect(kept, -1.0)
        if rng.random() < 0.5:
            store.merge(-1.0)


def frame(key: str, rows: int, days: int) -> dict[str, Any]:
    """Return the columns of append `key`: `rows` records spread over `days` days."""
    return {
        "id": [f"{key}.{row}" for row in range(rows)],
        "time": [microseconds(START) + (row % days) * DAY for row in range(rows)],
        "append": key,
        "rows": rows,
    }


def append_records(folder: Path, notes: Notes, seed: int) -> None:
    """Append strictly for ever, over small segments."""
    rng = random.Random(seed)
    writer = open_journal(folder).writer("client", "strict", segment_bytes=20_000)
    while True:
        key, rows = f"{seed:08x}-{rng.getrandbits(64):016x}", rng.choice([1, 2, 7])
        notes.intend(key, rows=rows)
        writer.append("prediction", "project", "service", frame(key, rows, 1), rows)
        notes.done(key)


def append_together(folder: Path, notes: Notes, seed: int) -> None:
    """Append strictly from four threads for ever, over segments that are full after a few frames."""
    writer = open_journal(folder).writer("client", "strict", segment_bytes=2_000)

    def append(number: int) -> None:
        rng = random.Random(seed + number)
        while True:
            key, rows = f"{seed:08x}-{rng.getrandbits(64):016x}", rng.choice([1, 2, 7])
            notes.intend(key, rows=rows)
            writer.append("prediction", "project", "service", frame(key, rows, 1), rows)
            notes.done(key)

    for number in range(1, 4):
        threading.Thread(target=append, args=(number,), daemon=True).start()
    append(0)


def seal_records(folder: Path, notes: Notes, seed: int) -> None:
    """Append a little and seal, for ever."""
    rng = random.Random(seed)
    journal = open_journal(folder)
    writer = journal.writer("client", "fast")
    while True:
        for _ in range(rng.randrange(1, 4)):
            key, rows = f"{seed:08x}-{rng.getrandbits(64):016x}", rng.choice([1, 3])
            notes.intend(key, rows=rows)
            writer.append(rng.choice(["label", "prediction"]), "project", "service", frame(key, rows, 2), rows)
            notes.done(key)
        journal.seal()


def open_journal(folder: Path) -> Journal:
    """Open the journal of a crash folder at a fixed simulated time."""
    return Journal(folder / "journal", SimulatedClock(START))
