"""Hold what comes in against the list of the erased, at the one door through which rows get into a version."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdtrue.data.erasure import store
from holdtrue.data.erasure.marking import Key, Standing, open_key
from holdtrue.data.erasure.model import QUARANTINE, Cleaned, ErasedBlob, Held
from holdtrue.data.model import Ingest, NewDatasetVersion, Part
from holdtrue.storage import BlobStore, Stores

# Where nobody was erased, and of files that are kept as they are, no row is read: what reads rows is imported there.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Without:
    """Hold a fragment without some of its rows, how many those were, and of which erasures."""

    part: Part
    erased: int
    erasures: frozenset[str] = frozenset()

    def blobs(self, digest: str, dataset: str, window: str) -> tuple[ErasedBlob, ...]:
        """Return what is to be known of the blob that had these rows."""
        return tuple(ErasedBlob(digest, each, dataset, window, self.part.digest) for each in sorted(self.erasures))


def standing(stores: Stores, project: str) -> Standing:
    """Return the list of the erased as it stands now."""
    return stores.ledger.read(lambda connection: standing_in(connection, stores.home, project))


def standing_in(connection: sa.Connection, home: Path, project: str) -> Standing:
    """Return the list of the erased as a transaction sees it: whoever is put on it later waits for its end."""
    found = store.erasures(connection, project)
    marks: dict[str, dict[str, str]] = {}
    for each in found:
        marks.setdefault(each.column, {})[each.mark] = each.id
    return Standing(open_key(home) if found else Key(b""), project, marks, len(found))


def clean_delivery(stores: Stores, listed: Standing, given: Ingest) -> Cleaned:
    """Return a checked delivery without rows of erased entities, neither among the accepted nor the quarantined."""
    made, erased = given, 0
    blobs: list[ErasedBlob] = []
    accepted = None if given.digest is None else _cleaned(stores, listed, given.digest)
    if given.digest is not None and accepted is not None:
        part = accepted.part
        made = replace(made, digest=part.digest, bytes=part.bytes, accepted=part.rows)
        erased += accepted.erased
        blobs += accepted.blobs(given.digest, given.dataset, given.window)
    held = None if given.quarantine is None else _cleaned(stores, listed, given.quarantine)
    if given.quarantine is not None and held is not None:
        # Of a blocked delivery the quarantine is all there is: it stays, if need be without a row.
        kept = held.part.digest if held.part.rows or given.digest is None else None
        made = replace(made, quarantine=kept, quarantined=held.part.rows)
        erased += held.erased
        blobs += held.blobs(given.quarantine, given.dataset, QUARANTINE)
    return Cleaned(made, erased, Held(listed.revision, tuple(blobs)))


def clean_files(
    stores: Stores, listed: Standing, name: str, given: NewDatasetVersion, known: Collection[str]
) -> Cleaned:
    """Return a version made from files without rows of erased entities; `known` are digests that have none."""
    parts = dict(given.fragments or {})
    blobs: list[ErasedBlob] = []
    erased = 0
    for window, part in parts.items():
        found = None if part.digest in known else _cleaned(stores, listed, part.digest)
        if found is not None:
            parts[window] = found.part
            blobs += found.blobs(part.digest, name, window)
            erased += found.erased
    made = replace(given, fragments=parts) if erased else given
    return Cleaned(made, erased, Held(listed.revision, tuple(blobs)))


def without(blobs: BlobStore, digest: str, mask: "NDArray[np.bool_]") -> Without:
    """Store the rows of a Parquet blob that are not in the mask, as bytes that depend on these rows alone."""
    import pyarrow as pa

    from holdtrue.data.reading import put_rows, read_rows

    table = read_rows(blobs, digest).filter(pa.array(~mask))
    made, size = put_rows(blobs, table)
    return Without(Part(made, table.num_rows, size), int(mask.sum()))


def columns_of(blobs: BlobStore, digest: str) -> list[str]:
    """Return the names of a stored table's columns."""
    import pyarrow.parquet as pq

    with blobs.open(digest) as file:
        return pq.read_schema(file).names


def _cleaned(stores: Stores, listed: Standing, digest: str) -> Without | None:
    """Return a fragment without rows of erased entities, None if it has none."""
    columns = listed.columns(columns_of(stores.blobs, digest)) if listed.marks else []
    if not columns:
        return None
    from holdtrue.data.profiling import forget_profile
    from holdtrue.data.reading import read_rows

    mask, erasures = listed.hits(read_rows(stores.blobs, digest, columns))
    if not mask.any():
        return None
    forget_profile(stores.actions, digest)
    return replace(without(stores.blobs, digest, mask), erasures=erasures)
