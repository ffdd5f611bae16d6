"""Bring evaluation datasets over as they were: ids, moments and authors are kept; again, it changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import rules as names
from holdtrue.tracking import service as tracking
from holdtrue.tracking.cases import rules, service, store
from holdtrue.tracking.cases.model import NAME_LENGTH, CaseSet, NoCaseSet, Record
from holdtrue.tracking.model import TAG_LENGTH

RECORDS_PER_IMPORT: Final = 1000


@dataclass(frozen=True, slots=True)
class ImportedSet:
    """Carry an evaluation dataset without its records; `experiments` are names."""

    id: str
    name: str
    digest: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    created_by: str = ""
    updated_by: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    experiments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """Carry one case under the id it had."""

    id: str
    inputs: Mapping[str, Any]
    outputs: Any = None
    expectations: Mapping[str, Any] | None = None
    tags: Mapping[str, Any] | None = None
    source: Mapping[str, Any] | None = None
    created_ms: int = 0
    updated_ms: int = 0
    created_by: str = ""
    updated_by: str = ""


@dataclass(frozen=True, slots=True)
class ImportedRecords:
    """Carry up to 1,000 records, in their order."""

    records: tuple[ImportedRecord, ...]


def bring_set(tx: Transaction, wish: ImportedSet) -> dict[str, Any]:
    """Write a dataset down under its own id unless it is there already, with its tags and experiments."""
    names.check_run_id(wish.id)
    names.check_text(wish.name, "name of a dataset")
    if not wish.name.strip() or len(wish.name) > NAME_LENGTH:
        raise InvalidInput(f"The name of an evaluation dataset has 1 to {NAME_LENGTH} signs.")
    tags = [names.pair(key, value, TAG_LENGTH, "tags") for key, value in wish.tags.items()]
    found = [tracking.find_experiment(tx.connection, tx.project, name=each).id for each in wish.experiments]
    try:
        known = service.find(tx.connection, tx.project, wish.id)
    except NoCaseSet:
        known = CaseSet(
            wish.id, wish.name, wish.digest, None, 0, wish.created_ms, wish.updated_ms, wish.created_by,
            wish.updated_by,
        )  # fmt: skip
        store.insert_set(tx, known)
        tx.emit("evaluation_dataset.imported", wish.id, {"name": wish.name})
    store.put_tags(tx, wish.id, tags)
    store.link(tx, wish.id, found)
    return {"id": wish.id, "records": known.count}


def bring_records(tx: Transaction, id: str, sent: Sequence[ImportedRecord], home: Path) -> dict[str, str]:
    """Write records down in their order, unless they were changed here since; return by id the hash of each as it is.

    Those that name an entity on the list of the erased of the data folder `home` are left out, and have none.
    """
    before = service.find(tx.connection, tx.project, id)
    records = service.admitted(tx, home, sent, lambda each: [each.inputs, each.outputs, each.expectations, each.tags])
    hashes = [rules.inputs_hash(each.inputs) for each in records]
    known = store.records_by_inputs(tx.connection, tx.project, id, list(dict.fromkeys(hashes)))
    new = len(set(hashes) - known.keys())
    number = store.take_numbers(tx, id, new)
    changed: dict[str, Record] = {}
    for own, each in zip(hashes, records, strict=True):
        earlier = known.get(own)
        row = _record(each, own, number if earlier is None else earlier.number)
        if earlier is None:
            number += 1
        elif earlier.updated_ms > each.updated_ms or earlier == replace(row, id=earlier.id):
            continue
        changed[own] = known[own] = row
    store.put_records(tx, id, list(changed.values()))
    if changed:
        said = [{"inputs": each.inputs, "outputs": each.outputs, "expectations": each.expectations} for each in records]
        schema = orjson.dumps(rules.schema(before.schema, said)).decode()
        store.change_set(tx, id, count=before.count + new, schema=schema)
    return {each.id: hash_of(known[own]) for own, each in zip(hashes, records, strict=True)}


def _record(each: ImportedRecord, inputs_hash: str, number: int) -> Record:
    names.check_run_id(each.id)
    return Record(
        each.id, number, inputs_hash, each.inputs, each.outputs, each.expectations, each.created_ms, each.updated_ms,
        each.created_by, each.updated_by, each.tags or {}, each.source,
    )  # fmt: skip


def hash_of(row: Record) -> str:
    """Return the hash of what a record says."""
    return rules.record_hash(row.inputs, row.outputs, row.expectations, row.tags, row.source)


def count_set(connection: sa.Connection, project: str, id: str) -> dict[str, Any]:
    """Count what a dataset holds."""
    found = service.find(connection, project, id)
    return {"records": found.count, "tags": len(found.tags), "experiments": len(found.experiments)}
