"""Use cases of evaluation datasets."""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import orjson
import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.core.filters import Vocabulary, parse_filter, parse_order
from holdtrue.core.paging import place_of, token_of
from holdtrue.data import erasure
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import rules as names
from holdtrue.tracking import service
from holdtrue.tracking.cases import rules, store
from holdtrue.tracking.cases.model import NAME_LENGTH, RECORDS_AT_ONCE, USER, CaseSet, NoCaseSet, Place, Record
from holdtrue.tracking.model import Pair
from holdtrue.tracking.search import ATTRIBUTES_ALONE, check_limit

Sent = TypeVar("Sent")
_SAID: Final = ("inputs", "outputs", "expectations", "tags")

SETS: Final = Vocabulary(
    entities=MappingProxyType(
        {**dict.fromkeys(("tag", "tags"), "tag"), **dict.fromkeys(("attribute", "attributes"), "attribute")}
    ),
    attributes=MappingProxyType(
        {
            "name": ("name", str),
            "created_time": ("created_ms", int),
            "last_update_time": ("updated_ms", int),
            "created_by": ("created_by", str),
            "last_updated_by": ("updated_by", str),
        }
    ),
)


def create(tx: Transaction, name: str, tags: Sequence[Pair], experiments: Sequence[int]) -> CaseSet:
    """Begin an evaluation dataset, in experiments if any are named."""
    names.check_text(name, "name of a dataset")
    if not name.strip() or len(name) > NAME_LENGTH:
        raise InvalidInput(f"The name of an evaluation dataset has 1 to {NAME_LENGTH} signs.")
    _need_experiments(tx, experiments)
    now = service.milliseconds(tx)
    by = next((each.value for each in tags if each.key == USER), "")
    own = f"d-{uuid.uuid4().hex}"
    made = CaseSet(own, name, rules.digest("", [own]), None, 0, now, now, by, by, tuple(tags), tuple(experiments))
    store.insert_set(tx, made)
    tx.emit("evaluation_dataset.created", own, {"name": name})
    return find(tx.connection, tx.project, own)


def find(connection: sa.Connection, project: str, id: str) -> CaseSet:
    """Return a dataset without its records; raise NoCaseSet."""
    found = store.select_set(connection, project, id)
    if found is None:
        raise NoCaseSet.of_id(id)
    return found


def delete(tx: Transaction, id: str) -> None:
    """Remove a dataset with its records; raise NoCaseSet."""
    if not store.delete_set(tx, id):
        raise NoCaseSet.of_id(id)
    tx.emit("evaluation_dataset.deleted", id)


def search(
    connection: sa.Connection,
    project: str,
    experiments: Sequence[int],
    filter: str,
    limit: int,
    order: Sequence[str],
    page: str,
) -> tuple[list[CaseSet], str | None]:
    """Return a page of datasets, and the token of the next page."""
    check_limit(limit)
    conditions, orders = parse_filter(filter, SETS), parse_order(order, SETS, ATTRIBUTES_ALONE)
    question = ["evaluation datasets", sorted(experiments), filter, list(order)]
    place = place_of(question, page)
    found, last = store.search(connection, project, experiments, conditions, orders, limit, place)
    return found, None if last is None else token_of(question, last)


def put_tags(tx: Transaction, id: str, tags: Sequence[Pair]) -> CaseSet:
    """Set tags of a dataset."""
    find(tx.connection, tx.project, id)
    store.put_tags(tx, id, tags)
    return find(tx.connection, tx.project, id)


def delete_tag(tx: Transaction, id: str, key: str) -> None:
    """Remove a tag of a dataset; one that is not there changes nothing."""
    find(tx.connection, tx.project, id)
    store.delete_tag(tx, id, key)


def link(tx: Transaction, id: str, experiments: Sequence[int]) -> CaseSet:
    """Add a dataset to experiments."""
    find(tx.connection, tx.project, id)
    _need_experiments(tx, experiments)
    store.link(tx, id, experiments)
    return find(tx.connection, tx.project, id)


def unlink(tx: Transaction, id: str, experiments: Sequence[int]) -> CaseSet:
    """Take a dataset out of experiments."""
    find(tx.connection, tx.project, id)
    store.unlink(tx, id, experiments)
    return find(tx.connection, tx.project, id)


def upsert(tx: Transaction, id: str, sent: Sequence[Mapping[str, Any]], home: Path) -> tuple[int, int, int]:
    """Add records that were read by `rules.read_records`.

    Returns how many were new, how many had known inputs, and how many were left out since they name an entity that is
    on the list of the erased of the data folder `home`.
    """
    before = find(tx.connection, tx.project, id)
    came = len(sent)
    sent = admitted(tx, home, sent, lambda each: [each.get(part) for part in _SAID])
    now = service.milliseconds(tx)
    hashes = [rules.inputs_hash(each["inputs"]) for each in sent]
    known = store.records_by_inputs(tx.connection, tx.project, id, list(dict.fromkeys(hashes)))
    new = len(set(hashes) - known.keys())
    number = store.take_numbers(tx, id, new)
    changed: dict[str, Record] = {}
    for own, each in zip(hashes, sent, strict=True):
        if own in known:
            changed[own] = known[own] = rules.merged(known[own], each, now)
        else:
            changed[own] = known[own] = rules.made(each, f"dr-{uuid.uuid4().hex}", number, now)
            number += 1
    store.put_records(tx, id, list(changed.values()))
    by = [str(each["tags"][USER]) for each in sent if each.get("tags") and USER in each["tags"]]
    schema = rules.schema(before.schema, sent) if sent else before.schema
    store.change_set(
        tx,
        id,
        count=before.count + new,
        schema=orjson.dumps(schema).decode() if schema else "",
        digest=rules.digest(before.digest, hashes),
        updated_ms=now,
        updated_by=by[-1] if by else before.updated_by,
    )
    told = {"inserted": new, "updated": len(sent) - new}
    tx.emit("evaluation_dataset.changed", id, told | ({"erased": came - len(sent)} if came > len(sent) else {}))
    return new, len(sent) - new, came - len(sent)


def admitted(
    tx: Transaction, home: Path, sent: Sequence[Sent], said: Callable[[Sent], Iterable[Any]]
) -> Sequence[Sent]:
    """Return what of `sent` names nobody who was erased; the list is the one this transaction sees."""
    listed = erasure.standing_in(tx.connection, home, tx.project)
    if not listed.marks:
        return sent
    return [each for each in sent if not rules.any_named(said(each), listed.holds)]


def remove_records(tx: Transaction, id: str, records: Sequence[str]) -> int:
    """Remove records by their ids; return how many went."""
    before = find(tx.connection, tx.project, id)
    gone = store.remove_records(tx, id, records)
    if gone:
        values = {"digest": rules.digest(before.digest, records), "updated_ms": service.milliseconds(tx)}
        store.change_set(tx, id, count=before.count - gone, **values)
        tx.emit("evaluation_dataset.changed", id, {"removed": gone})
    return gone


def records(connection: sa.Connection, project: str, id: str, limit: int, page: str) -> tuple[list[Record], str | None]:
    """Return a page of records in the order in which they came, and the token of the next page."""
    check_limit(limit)
    find(connection, project, id)
    question = ["evaluation records", id]
    place = place_of(question, page)
    if place is not None and (len(place) != 1 or not isinstance(place[0], int)):
        raise InvalidInput("Invalid page token.", mend="Start again without a page token.")
    found = store.select_records(connection, project, id, limit + 1, 0 if place is None else place[0])
    shown = found[:limit]
    return shown, token_of(question, [shown[-1].number]) if len(found) > limit else None


def named_after(
    connection: sa.Connection, project: str, place: Place, column: str, value: str, traces: Collection[str]
) -> tuple[dict[str, list[str]], Place | None]:
    """Look through one page of a project's records, in the order of their key.

    Returns by dataset the records that name an entity or came from one of its traces, and the place where the page
    ended; None after the last record.
    """
    page = store.records_after(connection, project, place, RECORDS_AT_ONCE)
    found: dict[str, list[str]] = {}
    for dataset, record in page:
        if rules.names(record, column, value, traces):
            found.setdefault(dataset, []).append(record.id)
    if len(page) < RECORDS_AT_ONCE:
        return found, None
    return found, (page[-1][0], page[-1][1].number)


def _need_experiments(tx: Transaction, experiments: Sequence[int]) -> None:
    for each in experiments:
        service.find_experiment(tx.connection, tx.project, id=each)
