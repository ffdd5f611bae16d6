"""What the killed processes of the erasure crash tests do until they are killed."""

import importlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from holdtrue.core.clock import microseconds
from holdtrue.storage.journal.erasing import Meant, same_text
from tests.crash.harness import Notes
from tests.crash.storage_clients import DAY, START, open_journal

# Loaded in the nursery, so that no client spends its short life on importing them.
importlib.import_module("holdtrue.storage.journal.reading")
importlib.import_module("holdtrue.storage.journal.sealing")
pa.array([])


def of(customer: str) -> Meant:
    """Return the records of a customer."""
    return Meant("event", "shop", ("customer",), lambda _, table: same_text(table, "customer", [customer]))


def erase_records(folder: Path, notes: Notes, seed: int) -> None:
    """Append records of customers, seal, and erase one customer after the other, for ever; none comes back."""
    rng = random.Random(seed)
    journal = open_journal(folder)
    writer = journal.writer("client", "fast")
    for round_ in range(1_000_000):
        customer = f"c{seed:08x}-{round_}"
        for _ in range(rng.randrange(1, 4)):
            for _ in range(rng.randrange(1, 5)):
                key = f"r{rng.getrandbits(64):016x}"
                mine = rng.choice([customer, customer, "kept"])
                notes.intend(key, customer=mine)
                for _ in range(rng.choice([1, 1, 2])):  # a client that sends again
                    time = microseconds(START) + rng.randrange(3) * DAY
                    columns = {"id": [key], "time": [time], "customer": mine}
                    writer.append("event", "shop", "orders", columns, 1)
                notes.done(key, customer=mine)
            journal.seal()
        notes.intend(f"erase {customer}")
        journal.erase(of(customer))
        notes.done(f"erase {customer}")


def customers_in_files(folder: Path) -> set[str]:
    """Return every customer in any Parquet file of the journal, whether a manifest lists the file or not."""
    found: set[str] = set()
    for path in (folder / "journal" / "sealed").glob("kind=*/**/*.parquet"):
        found |= set(pq.ParquetFile(path).read(columns=["customer"])["customer"].to_pylist())
    return found
