"""Remove stored bytes that nothing refers to any more, and write small packs of what stays together."""

import time
from dataclasses import dataclass
from typing import Any

from holdtrue.core.errors import Corrupt, InvalidInput, NotFound
from holdtrue.data import erasure
from holdtrue.data.adding import known_digests
from holdtrue.storage import Stores
from holdtrue.storage.ledger import digests_in, mentioned_digests

LEAST_HOURS = 1.0
_NOTE_SECONDS = 90 * 86_400.0
_MANIFEST = 16 << 20


@dataclass(frozen=True, slots=True)
class Collect:
    """Say what may go: what nothing refers to and is older than `grace_hours`; `dry` only counts."""

    grace_hours: float = 24.0
    dry: bool = False


def collect(stores: Stores, wanted: Collect) -> dict[str, Any]:
    """Remove blobs that nothing refers to, write small packs together, and return how many there were and are.

    A blob is referred to by any cell of the ledger, by a cached step's result, or by a tree or JSON document that
    is itself referred to. What was stored within the grace time stays: its version may be about to be registered.
    Blobs that held an erased entity go although old versions still name them.
    """
    if not LEAST_HOURS <= wanted.grace_hours <= 24 * 3650:
        raise InvalidInput(
            f"Blobs cannot be collected after {wanted.grace_hours:g} hours.",
            why="A worker stores the bytes of a version before it registers the version.",
            mend=f"Wait at least {LEAST_HOURS:g} hour.",
        )
    live = closure(stores, {*stores.ledger.read(mentioned_digests), *stores.actions.digests()})
    live -= stores.ledger.read(erasure.droppable)
    held = {digest: stores.blobs.occupied(digest) for digest in stores.blobs.digests()}
    gone = sum(size for digest, size in held.items() if digest not in live)
    found = {
        "blobs": len(held),
        "bytes": sum(held.values()),
        "unreferenced": sum(digest not in live for digest in held),
        "unreferenced_bytes": gone,
        "removed": 0,
    }
    if not wanted.dry:
        found["removed"] = stores.blobs.collect(live, wanted.grace_hours * 3600.0)
    found |= _forget(stores, wanted)
    merged = stores.blobs.merge(wanted.grace_hours * 3600.0, dry=wanted.dry)
    return found | {"packs": merged.packs, "small_packs": merged.merged, "merged_into": merged.made}


def _forget(stores: Stores, wanted: Collect) -> dict[str, int]:
    """Remove notes about files of which nothing is stored any more, and those that nobody read for `_NOTE_SECONDS`.

    A note only saves work: a command that finds none any more reads its files again. The grace time holds for it too.
    """
    now, notes = time.time(), 0
    useless: list[str] = []
    for key, used in list(stores.actions.notes()):
        notes += 1
        if now - used < wanted.grace_hours * 3600.0:
            continue
        digests = known_digests(stores.actions.noted(key, use=False))
        if now - used >= _NOTE_SECONDS or not digests - stores.blobs.lacking(digests):
            useless.append(key)
    if not wanted.dry:
        for key in useless:
            stores.actions.forget(key)
    return {"notes": notes, "useless_notes": len(useless)}


def closure(stores: Stores, roots: set[str]) -> set[str]:
    """Return stored digests among `roots` with all that their trees and JSON documents name, at any depth."""
    live: set[str] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in live or not stores.blobs.has(digest):
            continue
        live.update((digest, *stores.blobs.parts(digest)))
        if stores.blobs.size(digest) <= _MANIFEST:
            waiting += _named(stores, digest)
    return live


def _named(stores: Stores, digest: str) -> list[str]:
    try:
        with stores.blobs.open(digest) as file:
            if file.read(1) not in (b"{", b"["):
                return []
            file.seek(0)
            return list(digests_in(file.read()))
    except (Corrupt, NotFound):
        # A damaged blob stays as it is: `holdtrue doctor` names it.
        return []
