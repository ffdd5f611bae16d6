"""Erase an entity, part by part; each part that is done is noted, so that asking again goes on where it was.

Neither the ledger nor the log ever holds the entity's value: both know it by a keyed hash. Whoever asks again says it
again.
"""

import fcntl
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Final

from holdtrue import catalog, governance
from holdtrue.core.clock import SystemClock
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput, Unavailable
from holdtrue.core.ids import new_id
from holdtrue.data import erasure
from holdtrue.data.collecting import closure
from holdtrue.data.erasure import Entity, Erasure, State, all_versions
from holdtrue.delivery.privacy import judging
from holdtrue.delivery.privacy.model import Erase, ErasureRunning, ErasureWaits, Progress
from holdtrue.delivery.privacy.records import erase_records, erase_said, traces_of
from holdtrue.delivery.privacy.tracing import trained_on
from holdtrue.features import FeatureSet, View
from holdtrue.features.online import open_online
from holdtrue.features.taking import taking
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction, WriteContext, mentioned_digests
from holdtrue.tracking import cases

SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.05
_LEAST_SECONDS: Final = 1.0
_LEAST_NAMED: Final = 4
# What is noted while a part is not done, and tells nobody anything.
_WORKING: Final = frozenset({"awaited", "looked"})


@dataclass(frozen=True, slots=True)
class Erasing:
    """Hold what one erasure works with, and until when (machine's seconds) it may begin another part.

    A part that goes on where it was works for `least` seconds in any case.
    """

    stores: Stores
    context: WriteContext
    entity: Entity
    id: str
    until: float
    least: float

    @property
    def project(self) -> str:
        """Return the project whose entity it is."""
        return self.context.project

    def write(self, work: Callable[[Transaction], Any]) -> Any:
        """Run work in one ledger transaction."""
        return self.stores.ledger.write(self.context, work)


def erase(stores: Stores, context: WriteContext, asked: Erase, seconds: float = SECONDS) -> Progress:
    """Begin or go on with the erasure of an entity, for about so many seconds; the state says whether it is done.

    Asked again for what is done nothing happens. Raises ErasureRunning if another one runs, Corrupt for a damaged
    journal.
    """
    entity = Entity(asked.column, asked.value)
    with _alone(stores.home):
        mark = erasure.open_key(stores.home).mark(context.project, entity.column, entity.value)
        found = stores.ledger.read(lambda connection: erasure.erasure_of(connection, context.project, mark))
        if found is None or (found.state is State.DONE and asked.again):
            found = stores.ledger.write(context, lambda tx: _begin(tx, entity, mark, asked.reason, found))
        if found.state is State.OPEN:
            timer = SystemClock()
            job = Erasing(stores, context, entity, found.id, timer.monotonic() + seconds, min(seconds, _LEAST_SECONDS))
            found = _go_on(job, found)
    return told(found)


def told(found: Erasure) -> Progress:
    """Return an erasure as it is shown."""
    finished = None if found.finished_at is None else found.finished_at.isoformat()
    shown = {name: value for name, value in found.found.items() if name not in _WORKING}
    return Progress(
        found.id,
        found.column,
        found.state.value,
        found.requested_at.isoformat(),
        found.requested_by,
        finished,
        shown,
        _remaining(found.found) if found.state is State.OPEN else (),
    )


def _remaining(done: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts that are not done, in their order."""
    return tuple(name for name in _PARTS if name not in done)


def _begin(tx: Transaction, entity: Entity, mark: str, reason: str, before: Erasure | None) -> Erasure:
    if not reason.strip():
        raise InvalidInput(
            "An entity is erased for a reason.",
            why="Whoever asks later why its rows are missing will read it.",
            mend="Say why, without naming the entity: for example the number of the request.",
        )
    if len(entity.value) >= _LEAST_NAMED and entity.value in reason:
        raise InvalidInput(
            "The reason names the entity.",
            why="The event log keeps the reason for good.",
            mend="Say why without naming it: for example the number of the request.",
        )
    if before is None:
        found = Erasure(
            new_id("era", tx.now), tx.project, entity.column, mark, State.OPEN, {}, tx.now, tx.context.actor.owner
        )
        # From here on no delivery brings it back.
        erasure.request(tx, found)
    else:
        found = Erasure(
            before.id, tx.project, entity.column, mark, State.OPEN, {}, before.requested_at, before.requested_by
        )
        erasure.finish(tx, before.id, {}, State.OPEN)
    tx.emit("erasure.requested", f"erasure:{found.id}", {"column": entity.column}, after=mark, reason=reason)
    return found


def _go_on(job: Erasing, found: Erasure) -> Erasure:
    done: dict[str, Any] = dict(found.found)
    for name, part in _PARTS.items():
        if name in done:
            continue
        if SystemClock().monotonic() > job.until:
            return _current(job, found)
        result = part(job, done)
        if result is None:
            return _current(job, found)
        done[name] = result
        if name != "datasets":
            job.write(lambda tx, now=dict(done): erasure.progress(tx, job.id, now))
    job.write(lambda tx: _finish(tx, job, found.mark, done))
    return _current(job, found)


def _current(job: Erasing, found: Erasure) -> Erasure:
    now = job.stores.ledger.read(lambda connection: erasure.erasure_of(connection, job.project, found.mark))
    assert now is not None
    return now


def _finish(tx: Transaction, job: Erasing, mark: str, done: dict[str, Any]) -> None:
    digests = {each.digest for each in erasure.blobs_of(tx.connection, tx.project, job.id)}
    models = [dump(each) for each in trained_on(tx.connection, tx.project, digests, job.entity.column)]
    for release in sorted({release for each in models for release in each["releases"]}):
        # From now on a gate can ask whether what a release was trained on still has somebody who was erased.
        used = judging.judged(tx.connection, tx.project, catalog.release(tx.connection, tx.project, release))
        if used is not None:
            governance.record_evidence(tx, judging.KIND, release, used)
    erasure.finish(tx, job.id, {**done, "models": models})
    counts = {name: value for name, value in done.items() if isinstance(value, Mapping) and name != "left"}
    told = {"column": job.entity.column, **counts, "models": [each["model"] for each in models]}
    tx.emit("erasure.done", f"erasure:{job.id}", told, after=mark)
    tx.seal()


def _live(job: Erasing, done: dict[str, Any]) -> dict[str, Any] | None:
    """Seal what was live when the erasure began; None while another process still writes to some of it."""
    journal = job.stores.journal
    if "awaited" not in done:
        done["awaited"] = list(journal.live())
        job.write(lambda tx: erasure.progress(tx, job.id, dict(done)))
    timer, pause = SystemClock(), Event()
    while True:
        journal.seal()
        if not set(done["awaited"]) & set(journal.live()):
            return {"segments": len(done["awaited"])}
        if timer.monotonic() > job.until:
            return None
        # Writers of other processes look for the request to end their segment now and then.
        pause.wait(_PAUSE_SECONDS)


def _cases(job: Erasing, done: dict[str, Any]) -> dict[str, Any] | None:
    """Take records of evaluation datasets out, page by page; None when the time is over before the last page.

    Where the last page ended is noted with what went, in one transaction. What is written meanwhile behind that
    place meets the list of the erased at its door.
    """
    traces = frozenset(traces_of(job.stores, job.project, job.entity))
    looked: dict[str, Any] = done.get("looked", {"after": list(cases.START), "records": 0})
    # To find the traces may have taken all the time there was.
    until = max(job.until, SystemClock().monotonic() + job.least)

    def page(connection: Any) -> tuple[dict[str, list[str]], cases.Place | None]:
        dataset, number = looked["after"]
        where = (dataset, number)
        return cases.named_after(connection, job.project, where, job.entity.column, job.entity.value, traces)

    def take_out(tx: Transaction) -> tuple[dict[str, Any], cases.Place | None]:
        # Looked at once more, as a record may have been changed since.
        found, end = page(tx.connection)
        gone = sum(cases.remove_records(tx, dataset, records) for dataset, records in found.items())
        now = {"after": looked["after"] if end is None else list(end), "records": looked["records"] + gone}
        erasure.progress(tx, job.id, {**done, "looked": now})
        return now, end

    while True:
        found, end = job.stores.ledger.read(page)
        if found:
            looked, end = job.write(take_out)
        elif end is not None:
            looked = {**looked, "after": list(end)}
        if end is None:
            done.pop("looked", None)
            return {"records": looked["records"]}
        if SystemClock().monotonic() > until:
            done["looked"] = looked
            job.write(lambda tx: erasure.progress(tx, job.id, dict(done)))
            return None


def _said(job: Erasing, done: dict[str, Any]) -> dict[str, Any]:
    return erase_said(job.stores, job.context, job.entity)


def _records(job: Erasing, done: dict[str, Any]) -> dict[str, Any]:
    return erase_records(job.stores, job.project, job.entity)


def _online(job: Erasing, done: dict[str, Any]) -> dict[str, Any] | None:
    """Take the entity out of whatever view keeps it by this column: in the server, and in the file there was before.

    None while somebody fills the store, maybe with rows that were read before they were erased.
    Raises ErasureWaits if the server is away; what was done before is noted, and nothing after it was begun.
    """
    folder = job.stores.home / "online"
    if not folder.is_dir():
        return _removed(job, done, folder)
    with ExitStack() as held:
        try:
            held.enter_context(taking(folder, job.project, max(0.0, job.until - SystemClock().monotonic())))
        except Unavailable:
            return None
        return _removed(job, done, folder)


def _removed(job: Erasing, done: dict[str, Any], folder: Path) -> dict[str, Any]:
    views = job.stores.ledger.read(lambda connection: _views(connection, job.project, job.entity.column))
    addresses = [""] if (folder / job.project).is_dir() else []
    addresses += [job.stores.online] if job.stores.online else []
    keys = {"file": 0, "server": 0}
    for address in addresses:
        try:
            store = open_online(folder, job.project, address)
            try:
                found = store.erase(job.entity.column, job.entity.names(), views)
            finally:
                store.close()
        except Unavailable as error:
            names = _remaining(done)
            raise ErasureWaits.online(job.id, error, [name for name in _PARTS if name in done], names) from error
        keys["server" if address else "file"] = found
    return {"keys": sum(keys.values()), **keys}


def _views(connection: Any, project: str, column: str) -> list[View]:
    found: dict[View, None] = {}
    for version in all_versions(connection, project, "feature_view"):
        if "views" not in version.content:
            continue
        for view in FeatureSet.from_json(version.content).views:
            if view.entity == column:
                found[view] = None
    return list(found)


def _datasets(job: Erasing, done: dict[str, Any]) -> dict[str, Any]:
    """Make versions without the entity's rows; they and the note that they are made are one transaction."""
    found = erasure.rewrite(job.stores, job.project, job.entity, job.id)
    counts: dict[str, Any] = {
        "fragments": len(found.blobs),
        "rows": sum(found.rows.values()),
        "not_searched": found.trees,
    }

    def work(tx: Transaction) -> dict[str, Any]:
        counts["versions"] = erasure.register_rewritten(tx, job.id, found)
        counts["examples"] = erasure.erase_examples(tx, job.id, job.entity)
        erasure.progress(tx, job.id, {**done, "datasets": counts})
        return counts

    return job.write(work)


def _ledger(job: Erasing, done: dict[str, Any]) -> dict[str, Any] | None:
    """Leave nothing of erased payloads in the database's files; None while readers stand in the way."""
    return {"clean": True} if job.stores.ledger.scrub() else None


def _cached(job: Erasing, done: dict[str, Any]) -> dict[str, Any]:
    return {"steps": erasure.drop_cached(job.stores, job.entity)}


def _left(job: Erasing, done: dict[str, Any]) -> dict[str, Any]:
    """Look once more through everything stored: what waits for the collection, and what was left alone."""
    stores = job.stores
    live = closure(stores, {*stores.ledger.read(mentioned_digests), *stores.actions.digests()})
    kept, waiting, size = erasure.left(stores, job.entity, live, stores.ledger.read(erasure.droppable))
    damaged = sum(1 for _ in (stores.home / "journal" / "damaged").iterdir())
    return {"blobs": kept, "waiting": waiting, "waiting_bytes": size, "damaged_files": damaged}


_PARTS: Final[Mapping[str, Callable[[Erasing, dict[str, Any]], dict[str, Any] | None]]] = {
    "live": _live,
    "cases": _cases,
    "said": _said,
    "records": _records,
    "datasets": _datasets,
    "online": _online,
    "ledger": _ledger,
    "cached": _cached,
    "left": _left,
}
"""What is done, in this order: labels are known by predictions and go before them, and what fills the online store
before it.
"""


@contextmanager
def _alone(home: Path) -> Generator[None]:
    descriptor = os.open(home / "erasing", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ErasureRunning.now() from None
    finally:
        os.close(descriptor)
