"""Verify a ledger with its public key alone: offline, with no other code of Holdtrue.

This file runs by itself (`python verify.py LEDGER.DB LEDGER.PUB [ANCHORS]`), on the standard library and
the package `cryptography`; for a database of PostgreSQL, named by its URL, also on `psycopg`. It computes hashes,
tree and notes independently of the code that wrote them.

Exit codes: 0 sound · 2 edited · 3 truncated · 4 forked · 5 sound, with entries newer than the last
checkpoint that should be signed by now · 6 the key is not the one that signed.
"""

import base64
import binascii
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SOUND, EDITED, TRUNCATED, FORKED, UNSIGNED, KEY = 0, 2, 3, 4, 5, 6
MOST_FINDINGS = 100
PATIENCE = 120_000_000
"""Microseconds that the newest entries may wait for their checkpoint: twice the time between two."""
LIMITS = (
    "This proves that nothing changed since it was signed, not that it was recorded truthfully. Entries "
    "newer than the last anchor kept outside the data folder can be rewritten by whoever has both the file "
    "and the signing key."
)

_COLUMNS = (
    "seq",
    "time",
    "project",
    "actor",
    "on_behalf_of",
    "action",
    "object",
    "before_digest",
    "after_digest",
    "request_id",
    "payload_commitment",
    "prev_hash",
)
_QUERY = """
    SELECT e.seq, e.time, e.project, e.actor, e.on_behalf_of, e.action, e.object, e.before_digest,
           e.after_digest, e.request_id, e.payload_commitment, e.prev_hash, e.leaf_hash,
           p.project, p.salt, p.body
    FROM events e LEFT JOIN payloads p ON p.seq = e.seq ORDER BY e.seq
"""
_TABLES = ("events", "payloads", "checkpoints")
_TABLES_OF_SQLITE = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"
_TABLES_OF_POSTGRESQL = """
    SELECT relname, CASE relkind WHEN 'r' THEN 'table' ELSE 'another' END FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind NOT IN ('i', 't', 'S')
"""
_URLS = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class Finding:
    """Tell one thing that is wrong, with its exit code and the entry it was seen at."""

    code: int
    what: str
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """Hold the verdict over a ledger.

    `sealed` counts the entries under the newest checkpoint; `unsigned_since` is the time of the first
    entry after it, in microseconds since the epoch, `unsigned_seconds` its age where the present time was given.
    """

    entries: int
    sealed: int
    checkpoints: int
    anchors: int
    erased: int
    root: str
    unsigned_since: int | None
    findings: tuple[Finding, ...]
    unsigned_seconds: float | None = None
    limits: str = LIMITS

    @property
    def ok(self) -> bool:
        """Tell whether nothing is wrong; entries that are not signed yet are not wrong."""
        return not self.findings

    @property
    def exit_code(self) -> int:
        """Return the code of the first finding, else 5 with a tail that should be signed by now, else 0.

        Without the present time, as when a copy is verified, every unsigned tail counts.
        """
        if self.findings:
            return self.findings[0].code
        if self.entries == self.sealed:
            return SOUND
        young = self.unsigned_seconds is not None and 0 <= self.unsigned_seconds * 1e6 <= PATIENCE
        return SOUND if young else UNSIGNED


@dataclass(frozen=True, slots=True)
class _Head:
    """Hold a signed tree head; `source` says where it stands."""

    source: str
    size: int
    root: bytes


@dataclass(slots=True)
class _State:
    findings: list[Finding] = field(default_factory=list)
    size: int = 0
    hash: str = "0" * 64
    stack: list[bytes] = field(default_factory=list)
    missing: set[tuple[int, str]] = field(default_factory=set)
    tombstones: set[tuple[str, str]] = field(default_factory=set)
    times: list[int] = field(default_factory=list)

    def report(self, code: int, what: str, seq: int | None = None) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(code, what, seq))

    def push(self, leaf: bytes) -> None:
        """Append a leaf to the tree (RFC 9162, section 2.1.1)."""
        size = self.size
        while size & 1:
            leaf = hashlib.sha256(b"\x01" + self.stack.pop() + leaf).digest()
            size >>= 1
        self.stack.append(leaf)
        self.size += 1

    def tree(self) -> str:
        """Return the perfect subtrees so far, in the form that stands beside a checkpoint."""
        return json.dumps([node.hex() for node in self.stack], separators=(",", ":"))

    def root(self) -> bytes:
        """Return the root of the tree so far (RFC 9162, section 2.1.1)."""
        if not self.stack:
            return hashlib.sha256(b"").digest()
        result = self.stack[-1]
        for node in reversed(self.stack[:-1]):
            result = hashlib.sha256(b"\x01" + node + result).digest()
        return result


def verify(
    path: Path | str, public_key: str, *, anchors: Path | str | None = None, now: int | None = None
) -> Verification:
    """Check a ledger against the public key (C2SP text, as in keys/ledger.pub) and its anchor file.

    `path` is a file of SQLite, or the URL of a PostgreSQL database. `now` is the present time in microseconds
    since the epoch, for a ledger that is being written. Whatever is wrong with the database becomes a finding.
    Raises ValueError for a text that is no key, and OSError for an anchor file that cannot be read or a database
    that cannot be reached.
    """
    name, key_id, key = _parse_key(public_key)
    state = _State()
    notes = [] if anchors is None else list(_anchored(Path(anchors)))
    heads: list[_Head] = []
    kept: set[str] = set()
    count = 0
    for number, note in enumerate(notes, start=1):
        head = _open_note(state, f"anchor {number}", note, name, key_id, key)
        heads.extend([head] if head else [])
    try:
        database = _open(path)
        try:
            _check_tables(state, database)
            frontiers = _checkpoints(state, database, heads, (name, key_id, key))
            count = len(frontiers)
            _walk(state, database, heads, frontiers)
            _check_payloads(state, database)
            kept = {note for (note,) in _rows(database, "SELECT note FROM checkpoints")}
        finally:
            database.close()
    except Exception as error:
        if not isinstance(error, sqlite3.Error | UnicodeError) and not _is_psycopg(error):
            raise
        state.report(EDITED, f"The database cannot be read: {error}.", state.size + 1)
    for head in heads:
        if head.size > state.size:
            state.report(TRUNCATED, f"The {head.source} covers {head.size} entries; {state.size} are left.")
    if not state.findings and not kept.issuperset(notes):
        state.report(EDITED, "A checkpoint that is anchored is missing from the ledger.")
    sealed = max((head.size for head in heads if head.size <= state.size), default=0)
    # A wrong key explains every signature that fails, an edit explains a root that differs.
    order = (KEY, EDITED, TRUNCATED, FORKED)
    findings = sorted(state.findings, key=lambda finding: order.index(finding.code))
    since = state.times[sealed] if sealed < len(state.times) else None
    return Verification(
        entries=state.size,
        sealed=sealed,
        checkpoints=count,
        anchors=len(notes),
        erased=len(state.tombstones),
        root=state.root().hex(),
        unsigned_since=since,
        findings=tuple(findings),
        unsigned_seconds=None if since is None or now is None else (now - since) / 1e6,
    )


def _open(path: Path | str) -> Any:
    """Open a file with SQLite, or a database by its URL with psycopg; read-only, and in one state all along."""
    if not isinstance(path, str) or not path.startswith(_URLS):
        database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
        database.execute("PRAGMA query_only=ON")
        database.execute("BEGIN")
        return database
    import psycopg

    try:
        connection = psycopg.connect(path, connect_timeout=10, client_encoding="UTF8")
    except psycopg.Error as error:
        raise ConnectionError(f"the database cannot be reached: {error}") from None
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def _rows(database: Any, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query, a few thousand at a time where they come from a server."""
    if isinstance(database, sqlite3.Connection):
        yield from database.execute(query)
        return
    with database.cursor("rows") as cursor:
        cursor.itersize = 2_000
        yield from cursor.execute(query)


def _is_psycopg(error: Exception) -> bool:
    return any(each.__module__.partition(".")[0] == "psycopg" for each in type(error).__mro__)


def _check_tables(state: _State, database: Any) -> None:
    query = _TABLES_OF_SQLITE if isinstance(database, sqlite3.Connection) else _TABLES_OF_POSTGRESQL
    rows = dict(_rows(database, query))
    for name in _TABLES:
        if rows.get(name) != "table":
            state.report(EDITED, f"“{name}” is not a table of this database.")


def _checkpoints(
    state: _State, database: Any, heads: list[_Head], key: tuple[str, bytes, Ed25519PublicKey]
) -> dict[int, str]:
    """Check every checkpoint's signature, add it to `heads`, and return the frontiers by tree size."""
    frontiers: dict[int, str] = {}
    last = 0
    for place, (number, note, frontier) in enumerate(
        _rows(database, "SELECT number, note, frontier FROM checkpoints ORDER BY number"), start=1
    ):
        if number != place:
            state.report(EDITED, f"Checkpoint {place} is missing.")
        head = _open_note(state, f"checkpoint {number}", note, *key)
        if head is None:
            continue
        if head.size <= last:
            state.report(EDITED, f"Checkpoint {number} covers {head.size} entries, one before it {last}.")
        last = head.size
        heads.append(head)
        frontiers[head.size] = frontier
    return frontiers


def _walk(state: _State, database: Any, heads: Iterable[_Head], frontiers: dict[int, str]) -> None:
    """Recompute every leaf, the chain and the tree, and compare the tree with each signed head."""
    expected: dict[int, list[_Head]] = {}
    for head in heads:
        expected.setdefault(head.size, []).append(head)
    for row in _rows(database, _QUERY):
        entry: dict[str, Any] = dict(zip(_COLUMNS, row, strict=False))
        leaf = _check_entry(state, entry, row[len(_COLUMNS)])
        _check_payload(state, entry, *row[len(_COLUMNS) + 1 :])
        state.push(leaf)
        state.hash = leaf.hex()
        signed = expected.get(state.size, ())
        for head in signed:
            if head.root != state.root():
                state.report(FORKED, f"The first {head.size} entries are not those of {head.source}.")
        tree = frontiers.get(state.size)
        if tree is not None and tree != state.tree() and all(head.root == state.root() for head in signed):
            state.report(EDITED, f"The tree stored beside the checkpoint of {state.size} entries is wrong.")


def _check_entry(state: _State, entry: dict[str, Any], stored: Any) -> bytes:
    """Check an entry's place and hashes; return its leaf hash (0x00 ‖ version ‖ RFC 8785 form)."""
    seq = entry["seq"]
    if seq != state.size + 1:
        state.report(EDITED, f"Entry {state.size + 1} is missing or out of place.", seq)
    if entry["prev_hash"] != state.hash:
        state.report(EDITED, f"Entry {seq} does not follow the entry before it.", seq)
    state.times.append(entry["time"] if isinstance(entry["time"], int) else 0)
    try:
        # Entries hold texts and integers under ASCII names, for which this is the RFC 8785 form.
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError):
        text = repr(entry).encode()
    leaf = hashlib.sha256(b"\x00\x01" + text).digest()
    if stored != leaf.hex():
        state.report(EDITED, f"Entry {seq} is not what was written.", seq)
    if entry["action"] == "payload.erased":
        state.tombstones.add((str(entry["object"]), str(entry["project"])))
    return leaf


def _check_payload(state: _State, entry: dict[str, Any], project: Any, salt: Any, body: Any) -> None:
    seq = entry["seq"]
    if project is None and salt is None and body is None:
        state.missing.add((seq, str(entry["project"])))
        return
    bound = salt + body.encode() if isinstance(salt, bytes) and isinstance(body, str) else b""
    commitment = hashlib.sha256(bound).hexdigest()
    if not bound or commitment != entry["payload_commitment"] or project != entry["project"]:
        state.report(EDITED, f"The payload of entry {seq} is not what was written.", seq)


def _check_payloads(state: _State, database: Any) -> None:
    for seq, project in sorted(state.missing):
        if (f"event:{seq}", project) not in state.tombstones:
            state.report(EDITED, f"The payload of entry {seq} is gone, and no entry says it was erased.", seq)
    query = "SELECT COUNT(*) FROM payloads p WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.seq = p.seq)"
    orphans = next(_rows(database, query))[0]
    if orphans:
        state.report(EDITED, f"{orphans} payloads belong to no entry.")


def _parse_key(text: str) -> tuple[str, bytes, Ed25519PublicKey]:
    """Read a public key in C2SP form: name, key id in hexadecimal digits, 0x01 ‖ key in base64."""
    name, id_text, encoded = [*text.strip().split("+", 2), "", ""][:3]
    try:
        raw = base64.b64decode(encoded, validate=True)
        key_id = bytes.fromhex(id_text)
    except ValueError:
        raise ValueError("this is not a public key in C2SP form") from None
    if len(raw) != 33 or raw[0] != 1 or hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4] != key_id:
        raise ValueError("this is not an Ed25519 public key in C2SP form")
    return name, key_id, Ed25519PublicKey.from_public_bytes(raw[1:])


def _open_note(state: _State, source: str, note: Any, name: str, key_id: bytes, key: Ed25519PublicKey) -> _Head | None:
    """Read a signed note (C2SP signed-note, tlog-checkpoint); report and return None if it is not sound."""
    lines = note.split("\n") if isinstance(note, str) else []
    prefix = f"— {name} "
    if len(lines) != 6 or lines[3] or lines[5] or not lines[4].startswith("— "):
        state.report(EDITED, f"The {source} is not a signed note.")
        return None
    try:
        blob = base64.b64decode(lines[4].rpartition(" ")[2], validate=True)
        root = base64.b64decode(lines[2], validate=True)
        size = int(lines[1])
    except (ValueError, binascii.Error):
        state.report(EDITED, f"The {source} is not a signed note.")
        return None
    if lines[0] != name or not lines[4].startswith(prefix) or blob[:4] != key_id:
        state.report(KEY, f"The {source} is signed by another key than the one given.")
        return None
    body = "".join(line + "\n" for line in lines[:3])
    exact = f"{body}\n{prefix}{base64.b64encode(blob).decode()}\n"
    canonical = f"{name}\n{size}\n{base64.b64encode(root).decode()}\n"
    try:
        key.verify(blob[4:], body.encode())
    except InvalidSignature:
        state.report(EDITED, f"The {source} is not what was signed.")
        return None
    if exact != note or canonical != body or len(root) != 32 or size < 1:
        state.report(EDITED, f"The {source} is not what was signed.")
        return None
    return _Head(source, size, root)


def _anchored(path: Path) -> Iterator[str]:
    """Yield the whole notes of an anchor file; a note that a crash tore is left out."""
    lines: list[str] = []
    for line in path.read_text("utf-8", errors="replace").split("\n")[:-1]:
        lines = [] if line.endswith("~") else [*lines, line]
        if len(lines) == 5 and line.startswith("— "):
            yield "\n".join(lines) + "\n"
            lines = []
        elif line == "" and len(lines) != 4:
            lines = []


def main(arguments: list[str]) -> int:
    """Verify from the command line, print the verdict, and return the exit code."""
    if len(arguments) not in (2, 3):
        print("usage: verify.py LEDGER.DB|URL LEDGER.PUB [ANCHORS]", file=sys.stderr)
        return KEY
    try:
        key = Path(arguments[1]).read_text("utf-8")
        found = verify(arguments[0], key, anchors=arguments[2] if len(arguments) == 3 else None)
    except (OSError, ValueError) as error:
        print(f"cannot verify: {error}", file=sys.stderr)
        return KEY
    for finding in found.findings:
        print(f"WRONG ({finding.code}): {finding.what}")
    print(
        f"{found.entries} entries, {found.checkpoints} checkpoints, {found.anchors} anchors, "
        f"{found.entries - found.sealed} entries not signed yet, root {found.root}"
    )
    print(found.limits)
    return found.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
