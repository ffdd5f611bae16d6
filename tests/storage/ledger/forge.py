"""Ways to tamper with a ledger file, from clumsy to expert, for tests of the verifier.

A *mutation* is a function (forger, rng) that changes the open database and returns what it did. It must change
something that the ledger keeps; the verifier must notice each one.
"""

import hashlib
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdtrue.storage.ledger.events import entry_bytes
from holdtrue.storage.ledger.merkle import Frontier, leaf_hash, push, root
from holdtrue.storage.ledger.notes import Signer
from holdtrue.storage.ledger.verify import (
    _COLUMNS as COLUMNS,  # pyright: ignore[reportPrivateUsage]  # the forger knows the format
)

CELLS = {
    "events": (*COLUMNS, "leaf_hash"),
    "payloads": ("seq", "project", "salt", "body"),
    "checkpoints": ("number", "note", "frontier"),
}
KEYS = {"events": "seq", "payloads": "seq", "checkpoints": "number"}


class Forger:
    """Open a copy of a ledger with all its guards dropped."""

    def __init__(self, path: Path, sealed: int) -> None:
        self.sealed = sealed
        self.database = sqlite3.connect(path, isolation_level=None)
        for statement in ("PRAGMA synchronous=OFF", "PRAGMA ignore_check_constraints=ON", "BEGIN"):
            self.database.execute(statement)
        guards = self.database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in guards:
            self.database.execute(f"DROP TRIGGER {name}")

    def close(self) -> None:
        """Keep the changes."""
        self.database.execute("COMMIT")
        self.database.close()

    def count(self, table: str) -> int:
        """Return the number of rows."""
        return int(self.database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

    def keys(self, table: str) -> list[int]:
        """Return the keys of all rows, in order."""
        key = KEYS[table]
        return [row[0] for row in self.database.execute(f"SELECT {key} FROM {table} ORDER BY {key}")]

    def cell(self, table: str, column: str, key: int) -> Any:
        """Return one value."""
        query = f"SELECT {column} FROM {table} WHERE {KEYS[table]} = ?"
        return self.database.execute(query, (key,)).fetchone()[0]

    def set(self, table: str, column: str, key: int, value: Any) -> None:
        """Change one value."""
        self.database.execute(f"UPDATE {table} SET {column} = ? WHERE {KEYS[table]} = ?", (value, key))

    def rehash(self, start: int, signer: Signer | None = None) -> None:
        """Recompute the chain from entry `start` on; with the key, sign every checkpoint again."""
        previous = "0" * 64 if start == 1 else self.cell("events", "leaf_hash", start - 1)
        for seq in [seq for seq in self.keys("events") if seq >= start]:
            query = f"SELECT {', '.join(COLUMNS)} FROM events WHERE seq = ?"
            row = self.database.execute(query, (seq,)).fetchone()
            entry = {**dict(zip(COLUMNS, row, strict=True)), "prev_hash": previous}
            previous = leaf_hash(entry_bytes(entry)).hex()
            self.set("events", "prev_hash", seq, entry["prev_hash"])
            self.set("events", "leaf_hash", seq, previous)
        if signer is not None:
            self._sign(signer)

    def recommit(self, seq: int, body: str) -> None:
        """Replace a payload so that it fits its entry again."""
        self.set("payloads", "body", seq, body)
        salt: bytes = self.cell("payloads", "salt", seq)
        self.set("events", "payload_commitment", seq, hashlib.sha256(salt + body.encode()).hexdigest())

    def _sign(self, signer: Signer) -> None:
        sizes = {int(self.cell("checkpoints", "note", key).split("\n")[1]): key for key in self.keys("checkpoints")}
        frontier: Frontier = ()
        for size, seq in enumerate(self.keys("events")):
            frontier = push(frontier, size, bytes.fromhex(self.cell("events", "leaf_hash", seq)))
            if size + 1 in sizes:
                key = sizes[size + 1]
                self.set("checkpoints", "note", key, signer.sign(size + 1, root(frontier)))
                tree = json.dumps([node.hex() for node in frontier], separators=(",", ":"))
                self.set("checkpoints", "frontier", key, tree)


Mutation = Callable[[Forger, random.Random], str]


def other_value(value: Any, rng: random.Random) -> Any:
    """Return a value like `value`, but another one."""
    if isinstance(value, int):
        return value + rng.choice([-1, 1, 1_000_000, 2**33])
    if isinstance(value, bytes):
        place = rng.randrange(len(value))
        changed = value[:place] + bytes([value[place] ^ (1 << rng.randrange(8))]) + value[place + 1 :]
        return rng.choice([changed, value[:-1], value + b"\0", value.hex()])
    if not value:
        return rng.choice([" ", "x", "\0", b""])
    place = rng.randrange(len(value))
    other = chr((ord(value[place]) ^ rng.choice([1, 2, 4])) or 65)
    changed = value[:place] + other + value[place + 1 :]
    return rng.choice([changed, value[:-1], value + " ", value + "\n", value.encode(), ""])


def edit_cell(forger: Forger, rng: random.Random) -> str:
    """Change any one value of any row."""
    table = rng.choice(["events", "events", "payloads", "checkpoints"])
    column = rng.choice([name for name in CELLS[table] if name != KEYS[table]])
    key = rng.choice(forger.keys(table))
    forger.set(table, column, key, other_value(forger.cell(table, column, key), rng))
    return f"{table}.{column} of {key}"


def renumber(forger: Forger, rng: random.Random) -> str:
    """Give a row a number that nobody has."""
    table = rng.choice(list(CELLS))
    key = rng.choice(forger.keys(table))
    forger.set(table, KEYS[table], key, rng.choice([0, -5, 10_000]))
    return f"{table} {key}"


def copy_cell(forger: Forger, rng: random.Random) -> str:
    """Give one event the value of another."""
    first, second = rng.sample(forger.keys("events"), 2)
    column = rng.choice(["payload_commitment", "prev_hash", "leaf_hash"])
    forger.set("events", column, first, forger.cell("events", column, second))
    return f"{column} from {second} to {first}"


def swap_payloads(forger: Forger, rng: random.Random) -> str:
    """Exchange what two events say."""
    first, second = rng.sample(forger.keys("payloads"), 2)
    kept = {key: [forger.cell("payloads", name, key) for name in ("salt", "body")] for key in (first, second)}
    for key, source in ((first, second), (second, first)):
        forger.set("payloads", "salt", key, kept[source][0])
        forger.set("payloads", "body", key, kept[source][1])
    return f"{first} and {second}"


def delete_row(forger: Forger, rng: random.Random) -> str:
    """Delete one row; of events only one that is not the unsigned end, whose loss no signature shows."""
    table = rng.choice(["events", "payloads", "checkpoints"])
    candidates = forger.keys(table)
    key = rng.choice([key for key in candidates if table != "events" or key != candidates[-1]])
    forger.database.execute(f"DELETE FROM {table} WHERE {KEYS[table]} = ?", (key,))
    return f"{table} {key}"


def delete_and_close_the_gap(forger: Forger, rng: random.Random) -> str:
    """Delete a signed event and its payload, move the later ones up, and recompute the chain."""
    seq = rng.randrange(1, forger.sealed + 1)
    forger.database.execute("DELETE FROM events WHERE seq = ?", (seq,))
    forger.database.execute("DELETE FROM payloads WHERE seq = ?", (seq,))
    for table in ("events", "payloads"):
        for later in [key for key in forger.keys(table) if key > seq]:
            forger.set(table, "seq", later, later - 1)
    forger.rehash(seq)
    return f"event {seq}"


def insert(forger: Forger, rng: random.Random) -> str:
    """Put a copy of an event somewhere into the signed part, move the later ones down, and recompute the chain."""
    seq = rng.randrange(1, forger.sealed + 1)
    source = rng.choice(forger.keys("events"))
    for table in ("events", "payloads"):
        names = ", ".join(name for name in CELLS[table] if name != "seq")
        forger.database.execute(
            f"CREATE TEMP TABLE copy_{table} AS SELECT {names} FROM {table} WHERE seq = ?", (source,)
        )
        for later in [key for key in reversed(forger.keys(table)) if key >= seq]:
            forger.set(table, "seq", later, later + 1)
        forger.database.execute(f"INSERT INTO {table} (seq, {names}) SELECT ?, {names} FROM copy_{table}", (seq,))
    if rng.random() < 0.7:
        forger.rehash(seq)
    return f"copy of {source} at {seq}"


def insert_stray(forger: Forger, rng: random.Random) -> str:
    """Append an event that does not follow the last one, or a payload that belongs to none."""
    last = forger.keys("events")[-1]
    table = rng.choice(["events", "payloads"])
    names = ", ".join(name for name in CELLS[table] if name != "seq")
    source = rng.choice(forger.keys(table))
    forger.database.execute(
        f"INSERT INTO {table} (seq, {names}) SELECT ?, {names} FROM {table} WHERE seq = ?", (last + 1, source)
    )
    return f"{table} {source}"


def reorder(forger: Forger, rng: random.Random) -> str:
    """Exchange two events, at least one of them signed, with or without a new chain."""
    first = rng.randrange(1, forger.sealed + 1)
    second = rng.choice([seq for seq in forger.keys("events") if seq != first])
    for table in ("events", "payloads"):
        if {first, second} <= set(forger.keys(table)):
            forger.set(table, "seq", first, -1)
            forger.set(table, "seq", second, first)
            forger.set(table, "seq", -1, second)
    if rng.random() < 0.7:
        forger.rehash(min(first, second))
    return f"{first} and {second}"


def truncate(forger: Forger, rng: random.Random) -> str:
    """Cut the end off below the newest checkpoint; sometimes the checkpoints above, too (the anchors remain)."""
    size = rng.randrange(0, forger.sealed)
    for table in ("events", "payloads"):
        forger.database.execute(f"DELETE FROM {table} WHERE seq > ?", (size,))
    if rng.random() < 0.5:
        for key in forger.keys("checkpoints"):
            if int(forger.cell("checkpoints", "note", key).split("\n")[1]) > size:
                forger.database.execute("DELETE FROM checkpoints WHERE number = ?", (key,))
    return f"to {size}"


def rewrite(forger: Forger, rng: random.Random) -> str:
    """Change a signed event like an expert without the key: everything fits again but the signatures."""
    seq = rng.randrange(1, forger.sealed + 1)
    if rng.random() < 0.5 and seq in forger.keys("payloads"):
        forger.recommit(seq, '{"payload":{"value":"forged"},"reason":""}')
    else:
        forger.set("events", rng.choice(["actor", "action", "object", "before_digest"]), seq, "forged")
    forger.rehash(seq)
    return f"from {seq}"


def fork(signer: Signer) -> Mutation:
    """Rewrite history like its owner: with the right key, every checkpoint signed again (the anchors remain)."""

    def mutate(forger: Forger, rng: random.Random) -> str:
        seq = rng.randrange(1, forger.sealed + 1)
        forger.set("events", "actor", seq, "forged")
        forger.rehash(seq, signer)
        return f"from {seq}"

    return mutate


def sign_with_another_key(forger: Forger, rng: random.Random) -> str:
    """Rewrite history and sign it with a key of the forger's own, sometimes under the right name."""
    name = forger.cell("checkpoints", "note", 1).split("\n")[0]
    stranger = Signer.new()
    if rng.random() < 0.5:
        stranger = Signer(name, stranger.key)
    forger.rehash(1, stranger)
    return stranger.name


def swap_checkpoints(forger: Forger, rng: random.Random) -> str:
    """Exchange two checkpoints, or put one in the place of another."""
    first, second = rng.sample(forger.keys("checkpoints"), 2)
    notes = [forger.cell("checkpoints", "note", key) for key in (first, second)]
    forger.set("checkpoints", "note", first, notes[1])
    if rng.random() < 0.5:
        forger.set("checkpoints", "note", second, notes[0])
    return f"{first} and {second}"


def hide_table(forger: Forger, rng: random.Random) -> str:
    """Take a table away, or put a view that pretends in its place."""
    table = rng.choice(list(CELLS))
    forger.database.execute("PRAGMA legacy_alter_table=ON")
    forger.database.execute(f"ALTER TABLE {table} RENAME TO hidden")
    if rng.random() < 0.5:
        forger.database.execute(f"CREATE VIEW {table} AS SELECT * FROM hidden")
    return table


def fake_erasure(forger: Forger, rng: random.Random) -> str:
    """Delete a payload and turn another event into its tombstone."""
    first, second = rng.sample(forger.keys("payloads"), 2)
    forger.database.execute("DELETE FROM payloads WHERE seq = ?", (first,))
    forger.set("events", "action", second, "payload.erased")
    forger.set("events", "object", second, f"event:{first}")
    if second <= forger.sealed and rng.random() < 0.5:
        forger.rehash(second)
    return f"{first} by {second}"
