"""Checkpoints: signed heads of the log, stored with it and anchored outside it."""

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import sqlalchemy as sa

from holdtrue.core.errors import Corrupt
from holdtrue.storage.ledger.events import EMPTY, NO_HASH, Head
from holdtrue.storage.ledger.merkle import push, root
from holdtrue.storage.ledger.notes import Signer
from holdtrue.storage.ledger.statements import prepare_insert
from holdtrue.storage.ledger.tables import checkpoints, events

if TYPE_CHECKING:
    from holdtrue.storage.ledger.backend import WritingConnection

ENTRIES_BETWEEN = 256
TIME_BETWEEN = timedelta(seconds=60)
NOTE_LINES = 5

_CHECKPOINT = prepare_insert(checkpoints, lambda statement: statement, widths=())


@dataclass(frozen=True, slots=True)
class Seal:
    """Hold the newest checkpoint: its number, the entries it covers, when it was made, its note."""

    number: int
    size: int
    time: datetime
    note: str


class Checkpointer:
    """Decide when the log is sealed, sign its head, and append each signed head to the anchor file."""

    def __init__(self, signer: Signer, seal: Seal, anchors: Path | None, pending: list[str]) -> None:
        self._signer = signer
        self._anchors = anchors
        self._pending = pending
        self.seal = seal

    def due(self, head: Head, now: datetime, *, wanted: bool) -> bool:
        """Tell whether the log should be sealed with this commit."""
        if head.size == self.seal.size:
            return False
        late = now - self.seal.time >= TIME_BETWEEN
        return wanted or late or head.size - self.seal.size >= ENTRIES_BETWEEN

    def write(self, database: "WritingConnection", head: Head, now: datetime) -> Seal:
        """Insert the signed head in the open transaction and return it."""
        note = self._signer.sign(head.size, root(head.frontier))
        number = self.seal.number + 1
        frontier = orjson.dumps([node.hex() for node in head.frontier]).decode()
        database.many(_CHECKPOINT, [(number, note, frontier)])
        return Seal(number, head.size, now, note)

    def committed(self, seal: Seal) -> None:
        """Take over a seal that is durable now, and anchor it."""
        self.seal = seal
        if self._anchors is not None:
            self._pending.append(seal.note)
            self.anchor()

    def anchor(self) -> bool:
        """Append what is not anchored yet to the anchor file; False when that failed (it is kept).

        The commit stands whatever happens here: the anchor file may be on another, slower or full disk.
        """
        if self._anchors is None or not self._pending:
            return True
        try:
            append_anchors(self._anchors, self._pending)
        except OSError:
            return False
        self._pending.clear()
        return True


def append_anchors(path: Path, notes: list[str]) -> None:
    """Append signed notes to the anchor file, an empty line after each, and wait for the disk."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # A note torn by a crash of the machine is marked as such and written again.
        torn = size > 0 and os.pread(descriptor, 2, max(size - 2, 0)) != b"\n\n"
        data = (b"~\n\n" if torn else b"") + "".join(note + "\n" for note in notes).encode()
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_anchors(path: Path) -> list[str]:
    """Return the whole notes in the anchor file, oldest first; a torn one is left out."""
    if not path.exists():
        return []
    notes: list[str] = []
    lines: list[str] = []
    for line in path.read_text("utf-8", errors="replace").split("\n")[:-1]:
        lines = [] if line.endswith("~") else [*lines, line]
        if line.startswith("— ") and len(lines) == NOTE_LINES:
            notes.append("\n".join(lines) + "\n")
            lines = []
        elif line == "" and len(lines) != NOTE_LINES - 1:
            lines = []
    return notes


def load(connection: sa.Connection, signer: Signer, anchors: Path | None, now: datetime) -> tuple[Head, Checkpointer]:
    """Read the head of the log and the newest checkpoint, and check one against the other.

    A checkpoint that is not ours, a tail that does not follow it, and a log older than its anchor
    raise Corrupt: writing on would hide that the log was changed or rolled back.
    """
    row = connection.execute(sa.select(checkpoints).order_by(checkpoints.c.number.desc()).limit(1)).first()
    seal = Seal(0, 0, now, "")
    head = EMPTY
    if row is not None:
        signed = signer.open(row.note)
        frontier = tuple(bytes.fromhex(node) for node in orjson.loads(row.frontier))
        if root(frontier) != signed.root:
            raise _altered("The tree kept beside the newest checkpoint is not the one it signs.")
        last = connection.execute(sa.select(events.c.leaf_hash).where(events.c.seq == signed.size)).scalar()
        if last is None:
            raise _altered(f"The newest checkpoint covers {signed.size} events; fewer are left.")
        head = Head(signed.size, last, frontier)
        seal = Seal(row.number, signed.size, now, row.note)
    tail = sa.select(events.c.seq, events.c.prev_hash, events.c.leaf_hash).where(events.c.seq > head.size)
    for seq, previous, leaf in connection.execute(tail.order_by(events.c.seq)):
        if seq != head.size + 1 or previous != (head.hash or NO_HASH):
            raise _altered(f"Event {seq} does not follow event {head.size}.")
        head = Head(seq, leaf, push(head.frontier, head.size, bytes.fromhex(leaf)))
    pending = [] if anchors is None else _unanchored(connection, anchors, head)
    return head, Checkpointer(signer, seal, anchors, pending)


def _unanchored(connection: sa.Connection, anchors: Path, head: Head) -> list[str]:
    """Return the notes that the anchor file lacks; a log that lacks an anchored one raises Corrupt."""
    number = 0
    kept = read_anchors(anchors)
    if kept:
        found = connection.execute(sa.select(checkpoints.c.number).where(checkpoints.c.note == kept[-1])).scalar()
        if found is None:
            raise Corrupt(
                "The ledger is older than its anchor file says, or is another ledger.",
                why=f"The newest anchor in {anchors} is not among its checkpoints (the ledger has {head.size} events).",
                mend="If a backup was restored on purpose, move the anchor file aside, keep it, and start "
                "again; otherwise put back the newest database.",
            )
        number = int(found)
    rows = connection.execute(
        sa.select(checkpoints.c.note).where(checkpoints.c.number > number).order_by(checkpoints.c.number)
    )
    return list(rows.scalars())


def _altered(why: str) -> Corrupt:
    return Corrupt(
        "The ledger was changed by something other than Holdtrue.",
        why=why,
        mend="Run `holdtrue audit verify` to see what was changed, and restore the newest sound backup.",
    )
