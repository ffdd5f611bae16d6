"""Take an entity's rows out of what is kept: versions of datasets, quarantines, cached steps."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.errors import Corrupt, NotFound
from holdtrue.core.ids import version_id
from holdtrue.data import store as data_store
from holdtrue.data.erasure import store
from holdtrue.data.erasure.cleaning import columns_of, without
from holdtrue.data.erasure.marking import Entity, mask_of
from holdtrue.data.erasure.model import QUARANTINE, ErasedBlob
from holdtrue.data.model import Part
from holdtrue.data.profiling import forget_profile
from holdtrue.data.reading import read_rows
from holdtrue.storage import BlobStore, Stores
from holdtrue.storage.ledger import Transaction, payloads_with

_PAGE = 500
_PARQUET = b"PAR1"
_LEAST_TEXT = 4
_ERASED = "(erased)"
_WITH_EXAMPLES = ("fragment.accepted", "quarantine.opened")
_MOST_JSON = 16 << 20


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Hold the blobs that held an entity's rows, what each became, and how many rows it had of it."""

    blobs: tuple[ErasedBlob, ...]
    made: Mapping[str, Part]
    rows: Mapping[str, int]
    trees: int
    """Versions that are files as they are, into which nobody looked."""


def rewrite(stores: Stores, project: str, entity: Entity, erasure: str) -> Rewritten:
    """Write each fragment and quarantine that holds the entity anew without it; no version is changed yet."""
    places, trees = stores.ledger.read(lambda connection: _places(connection, project))
    blobs: list[ErasedBlob] = []
    made: dict[str, Part] = {}
    rows: dict[str, int] = {}
    for digest, (dataset, window) in places.items():
        mask = _mask(stores.blobs, digest, entity)
        if mask is None:
            continue
        found = without(stores.blobs, digest, mask)
        forget_profile(stores.actions, digest)
        made[digest], rows[digest] = found.part, found.erased
        blobs.append(ErasedBlob(digest, erasure, dataset, window, found.part.digest))
    return Rewritten(tuple(blobs), made, rows, trees)


def register_rewritten(tx: Transaction, erasure: str, found: Rewritten) -> list[str]:
    """Make versions without the entity's rows of all that an alias names; return their labels."""
    store.add_blobs(tx, found.blobs)
    labels: list[str] = []
    for name in sorted({each.dataset for each in found.blobs if each.window != QUARANTINE}):
        for alias in catalog.aliases(tx.connection, tx.project, "dataset", name):
            before = catalog.get(tx.connection, tx.project, alias.version)
            parts: Mapping[str, Any] = before.content.get("fragments", {})
            hit = sorted(window for window, part in parts.items() if part["digest"] in found.made)
            if not hit:
                continue
            after = {window: _part(found.made.get(part["digest"])) or part for window, part in parts.items()}
            digests = tuple(part["digest"] for part in after.values())
            content = {**before.content, "fragments": after}
            # A version that was there before has its lineage, and must not become its own descendant.
            origin = () if _known(tx, content) else (before.id,)
            version = catalog.register(tx, "dataset", name, content, blobs=digests, derived_from=origin)
            catalog.set_alias(tx, "dataset", name, alias.alias, version.id)
            rows = sum(found.rows[parts[window]["digest"]] for window in hit)
            told = {"erasure": erasure, "version": version.id, "windows": hit, "rows": rows}
            tx.emit("dataset.erased", f"dataset:{name}", told, before=before.id, after=version.id)
            labels.append(version.label)
    for each in data_store.list_quarantines(tx.connection, tx.project):
        part = None if each.blob is None else found.made.get(each.blob)
        if part is not None:
            data_store.replace_quarantined(tx, each.id, part.digest, part.rows)
    return sorted(set(labels))


def erase_examples(tx: Transaction, erasure: str, entity: Entity) -> int:
    """Erase the entity's value where findings gave it as an example; return how many payloads and quarantines."""
    # A short value stands in many texts: it is looked for as a whole one.
    text = entity.value if len(entity.value) >= _LEAST_TEXT else json.dumps(entity.value, ensure_ascii=False)
    inside = json.dumps(text, ensure_ascii=False)[1:-1] if text == entity.value else text
    changed = 0
    for seq in payloads_with(tx.connection, tx.project, _WITH_EXAMPLES, inside):
        tx.erase(seq, reason=f"It gave an erased entity as an example ({erasure}).")
        changed += 1
    for each in data_store.list_quarantines(tx.connection, tx.project):
        findings = [_without_example(finding, entity.value) for finding in each.findings]
        if findings != list(each.findings):
            data_store.set_findings(tx, each.id, findings)
            changed += 1
    return changed


def _without_example(finding: Any, value: str) -> Any:
    named = [
        _ERASED if each == value or (len(value) >= _LEAST_TEXT and value in each) else each
        for each in finding["examples"]
    ]
    return {**finding, "examples": named}


def _known(tx: Transaction, content: Any) -> bool:
    try:
        catalog.get(tx.connection, tx.project, version_id("dataset", content))
    except NotFound:
        return False
    return True


def drop_cached(stores: Stores, entity: Entity) -> int:
    """Forget cached steps whose results hold the entity; return how many."""
    dropped = 0
    for key, digest in stores.actions.items():
        if holds(stores.blobs, digest, entity):
            stores.actions.remove(key)
            dropped += 1
    return dropped


def left(stores: Stores, entity: Entity, live: set[str], gone: set[str]) -> tuple[list[str], int, int]:
    """Return which of the live blobs still hold the entity, and how many others (and bytes) wait to be collected."""
    kept: list[str] = []
    waiting = size = 0
    for digest in list(stores.blobs.digests()):
        if not holds(stores.blobs, digest, entity):
            continue
        if digest in live and digest not in gone:
            kept.append(digest)
        else:
            waiting += 1
            size += stores.blobs.size(digest)
    return kept, waiting, size


def holds(blobs: BlobStore, digest: str, entity: Entity) -> bool:
    """Tell whether a table has a row of the entity, or a JSON document its value as a text."""
    try:
        with blobs.open(digest) as file:
            head = file.read(len(_PARQUET))
        if head == _PARQUET:
            return _mask(blobs, digest, entity) is not None
        if head[:1] not in (b"{", b"[") or blobs.size(digest) > _MOST_JSON:
            return False
        data = blobs.get(digest)
        return any(json.dumps(entity.value, ensure_ascii=plain).encode() in data for plain in (False, True))
    except (NotFound, Corrupt, pa.ArrowException, UnicodeError):
        return False


def droppable(connection: sa.Connection) -> set[str]:
    """Return the digests of blobs that held erased entities and that no project needs any more.

    Versions of the project that erased are no reason to keep them, unless an alias names one: there the erasure is
    not done yet.
    """
    erased = store.collectable(connection)
    needed: set[str] = set()
    for project in catalog.projects(connection, "dataset"):
        mine = erased.get(project, set())
        needed |= {digest for digest in _places(connection, project)[0] if digest not in mine}
    for _, _, version in catalog.aliased(connection, "dataset"):
        needed |= {part["digest"] for part in version.content.get("fragments", {}).values()}
    return set().union(*erased.values()) - needed


def _places(connection: sa.Connection, project: str) -> tuple[dict[str, tuple[str, str]], int]:
    """Return where each fragment and quarantined blob of a project is, and how many versions are trees."""
    places: dict[str, tuple[str, str]] = {}
    trees = 0
    for version in all_versions(connection, project, "dataset"):
        trees += "tree" in version.content
        for window, part in version.content.get("fragments", {}).items():
            places.setdefault(part["digest"], (version.name, window))
    for each in data_store.list_quarantines(connection, project):
        if each.blob is not None:
            places.setdefault(each.blob, (each.dataset, QUARANTINE))
    return places, trees


def all_versions(connection: sa.Connection, project: str, kind: str) -> Iterator[catalog.Version]:
    """Yield all versions of a kind, the newest of each name first."""
    after: str | None = None
    while True:
        page = catalog.versions(connection, project, kind, limit=_PAGE, after=after)
        yield from page
        if len(page) < _PAGE:
            return
        after = catalog.cursor(page[-1])


def _mask(blobs: BlobStore, digest: str, entity: Entity) -> Any:
    """Return which rows of a Parquet blob are the entity's; None if none is, or if the blob is gone already."""
    try:
        if entity.column not in columns_of(blobs, digest):
            return None
        mask = mask_of(entity, read_rows(blobs, digest, [entity.column]))
    except NotFound:
        return None
    return mask if mask.any() else None


def _part(made: Part | None) -> dict[str, Any] | None:
    return None if made is None else {"digest": made.digest, "rows": made.rows, "bytes": made.bytes}
