"""What is in the journal: sealed files by their manifests, and live segments not sealed yet."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from holdtrue.storage.files import write_atomic
from holdtrue.storage.journal.cache import TableCache
from holdtrue.storage.journal.segments import SegmentName, live_segments

_CACHE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class SealedFile:
    """One Parquet file: rows of one stream and day out of one segment; `path` is below the folder sealed."""

    path: str
    kind: str
    project: str
    service: str
    day: str
    rows: int
    bytes: int
    digest: str
    first_row: int
    last_row: int
    first_id: str
    last_id: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What became of one segment: its Parquet files, and where it ended (bytes, rows)."""

    segment: SegmentName
    created: int
    end: int
    rows: int
    files: tuple[SealedFile, ...]

    @property
    def rank(self) -> tuple[int, str, int]:
        """Return the segment's place in the order of all segments."""
        return self.created, self.segment.writer, self.segment.number

    def to_json(self) -> Any:
        """Return the JSON form that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> "Manifest":
        """Build a manifest from its JSON form."""
        files = tuple(SealedFile(**file) for file in data["files"])
        return cls(SegmentName(**data["segment"]), data["created"], data["end"], data["rows"], files)


@dataclass(frozen=True, slots=True)
class Contents:
    """The journal at one moment: every segment is either in `live` or in `sealed`, never in both."""

    live: tuple[SegmentName, ...]
    sealed: tuple[Manifest, ...]


class Index:
    """Find segments and manifests; a manifest is read once."""

    def __init__(self, root: Path) -> None:
        self.live = root / "live"
        self.sealed = root / "sealed"
        self.manifests = root / "sealed" / "manifest"
        self.cache = TableCache(_CACHE_BYTES)
        self._known: dict[str, Manifest] = {}
        self._told: tuple[int, int] | None = None
        self._ordered: tuple[Manifest, ...] = ()

    def contents(self) -> Contents:
        """Return what there is now."""
        # Live first: a segment sealed between the two listings is then in both, and its manifest counts.
        live = live_segments(self.live)
        sealed = self._refresh()
        return Contents(tuple(name for name in live if name.text not in self._known), sealed)

    def manifest(self, name: SegmentName) -> Manifest | None:
        """Return the manifest of a segment, or None while it is not sealed."""
        self._refresh()
        return self._known.get(name.text)

    def segment_path(self, name: SegmentName) -> Path:
        """Return the file of a live segment."""
        return self.live / f"{name.text}.seg"

    def forget(self, name: SegmentName) -> None:
        """Read a manifest anew at the next look (it was replaced)."""
        self.cache.clear()
        known = dict(self._known)
        known.pop(name.text, None)
        self._known = known

    def tell_rewritten(self) -> None:
        """Tell every process that manifests it knows were replaced."""
        write_atomic(self.sealed / "rewritten", b"")
        self.cache.clear()

    def lists(self, file: SealedFile) -> bool:
        """Tell whether a sealed file is one of the journal now."""
        return any(file == each for manifest in self._refresh() for each in manifest.files)

    def _refresh(self) -> tuple[Manifest, ...]:
        told = self._mark()
        known = self._known
        if told != self._told:
            # Read before the manifests, so that one replaced meanwhile is read again the next time.
            known = {}
            self.cache.clear()
        names = {entry.removesuffix(".json") for entry in os.listdir(self.manifests) if entry.endswith(".json")}
        if told != self._told or names != known.keys():
            known = {name: known.get(name) or self._load(name) for name in names}
            # Replaced as a whole, so threads that read meanwhile see one state or the other.
            self._known, self._told = known, told
            self._ordered = tuple(sorted(known.values(), key=lambda manifest: manifest.rank))
        return self._ordered

    def _mark(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.sealed / "rewritten")
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _load(self, name: str) -> Manifest:
        return Manifest.from_json(orjson.loads((self.manifests / f"{name}.json").read_bytes()))


def stream_files(manifest: Manifest, kind: str, project: str, service: str | None) -> Iterator[SealedFile]:
    """Yield the files of a manifest that belong to a stream (or to all services of a project)."""
    for file in manifest.files:
        if file.kind == kind and file.project == project and (service is None or file.service == service):
            yield file
