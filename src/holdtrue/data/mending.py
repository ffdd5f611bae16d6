"""Take quarantined rows in again: as they are under another contract, or corrected."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from holdtrue.core.errors import Conflict, InvalidInput
from holdtrue.data.checking import as_arrow
from holdtrue.data.intake import ingest
from holdtrue.data.model import DatasetSpec, Ingest
from holdtrue.data.surroundings import Fragments, look_around
from holdtrue.storage import ActionCache, BlobStore


@dataclass(frozen=True, slots=True)
class Mending:
    """Hold what a quarantined delivery is checked again with: its dataset, and where bytes are kept."""

    spec: DatasetSpec
    blobs: BlobStore
    actions: ActionCache
    fragments: Mapping[str, Fragments]

    def taken(self, quarantine: Mapping[str, Any], rows: pa.Table, now: datetime) -> Ingest:
        """Return what the check of a window finds with these rows in place of those that were kept out.

        Of a blocked delivery they are the whole window; else they stand beside its accepted rows, of which one with the
        same key is replaced. Raises Conflict for a quarantine that is closed, InvalidInput for rows that fit no table.
        """
        if quarantine["state"] != "open":
            raise Conflict(
                f"The quarantine {quarantine['id']} is {quarantine['state']}.",
                why="Its rows were taken in, or given up, before.",
                mend="Take the window in again if it shall be another one: holdtrue run --ingest",
            )
        window = quarantine["window"]
        table = as_arrow(rows) if quarantine["blocked"] else self._beside(window, as_arrow(rows))
        around = look_around(
            self.spec, window, now, (self.blobs, self.actions), lambda name: self.fragments.get(name, {})
        )
        return ingest(self.blobs, self.spec, window, table, around)

    def _beside(self, window: str, rows: pa.Table) -> pa.Table:
        part = self.fragments.get(self.spec.name, {}).get(window)
        if part is None:
            return rows
        accepted = pq.read_table(self.blobs.path(part["digest"]))
        key = self.spec.key
        try:
            if key in rows.column_names:
                mended = rows[key].unique().cast(accepted.schema.field(key).type)
                accepted = accepted.join(pa.table({key: mended}), keys=key, join_type="left anti")
            return pa.concat_tables([accepted, rows], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise InvalidInput(
                f"The rows do not fit those of {self.spec.name} {window} that were accepted.",
                why=f"{str(error).splitlines()[0]}.",
                mend=f"Give the columns the types that the contract says: holdtrue data contract {self.spec.name}",
            ) from error
