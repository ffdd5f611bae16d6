"""Replay what a service answered: recorded features against those of the accepted windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.features import FeatureSet
from holdtrue.features.parity import History, Logged, replay
from holdtrue.project.definitions import Project
from holdtrue.project.sources import connect, selected_rows, windows_around
from holdtrue.storage import BlobStore
from holdtrue.storage.journal import Journal

Fragments = Mapping[str, Mapping[str, Any]]


class Reader(Protocol):
    """Read what the control plane knows."""

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a GET."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """Say what is replayed, and where its records, rows and feature sets come from."""

    project: Project
    service: str
    journal: Journal
    blobs: BlobStore
    fragments_of: Callable[[str], Fragments]
    features_of: Callable[[str], FeatureSet]


def replayed(asked: Replay, *, most: int) -> list[dict[str, Any]]:
    """Return one report per release that answered lately, newest first; `most` answers of each are replayed.

    Only answers from windows that were accepted are replayed. Raises NotFound if nothing was answered,
    InvalidInput if no window with answers was accepted yet.
    """
    service = asked.service
    records = asked.journal.table("prediction", asked.project.name, service=service)
    if not records.num_rows:
        raise NotFound(
            f"“{service}” has not answered anything yet.",
            why="There is no prediction of it in the journal.",
            mend="Send it requests first; recorded answers are replayed.",
        )
    found: list[dict[str, Any]] = []
    releases = records["release"].to_pylist()
    for release in dict.fromkeys(reversed(releases)):
        mine = records.filter(pa.array([each == release for each in releases]))
        features = asked.features_of(release)
        accepted, windows = _accepted(asked, features, mine["time"].to_numpy())
        usable = np.isin(_windows(mine["time"].to_numpy()), windows)
        left_out = int((~usable).sum())
        mine = mine.filter(pa.array(usable)).slice(max(0, int(usable.sum()) - most))
        if mine.num_rows:
            report = replay(features, _logged(mine, features), History(accepted, *_sent(asked, features)))
            found.append({"release": release, "windows": windows, "not_accepted_yet": left_out, **report})
    if not found:
        raise InvalidInput(
            f"No answer of “{service}” can be replayed yet.",
            why="History is known of accepted windows only, and no answer lies in one.",
            mend="Take the window of the answers in: holdtrue run --ingest --window YYYY-MM",
        )
    return found


def replay_service(project: Project, service: str, home: Path, api: Reader, *, most: int) -> list[dict[str, Any]]:
    """Replay what a service answered, with the journal and blobs in `home` and what `api` tells of releases.

    Raises as `replayed` does.
    """
    root = f"/api/projects/{project.name}"

    def features_of(release: str) -> FeatureSet:
        pinned = api.get(f"{root}/releases/{release}")["manifest"]["versions"]
        return FeatureSet.from_json(api.get(f"{root}/versions/{pinned['features']}")["content"])

    journal = Journal(home / "journal", SystemClock())
    try:
        asked = Replay(
            project,
            service,
            journal,
            BlobStore(home / "blobs"),
            lambda name: api.get(f"{root}/datasets/{name}")["fragments"],
            features_of,
        )
        return replayed(asked, most=most)
    finally:
        journal.close()


def _logged(records: pa.Table, features: FeatureSet) -> Logged:
    missing = [name for name in features.names if f"f_{name}" not in records.column_names]
    if missing:
        raise InvalidInput(
            f"The feature “{missing[0]}” was not recorded with the answers.",
            why="Only recorded features can be compared.",
            mend="Answers that the fallback gave have none: look at the service with `holdtrue status`.",
        )
    columns = {name[2:]: records[name] for name in records.column_names if name.startswith("x_")}
    recorded = records["recorded_at"] if "recorded_at" in records.column_names else records["time"]
    return Logged(
        ids=records["id"].to_pylist(),
        requests=pa.table(columns),
        times=records["time"].to_numpy().astype(np.int64),
        recorded=recorded.fill_null(0).to_numpy().astype(np.int64),
        features={
            name: records[f"f_{name}"].cast(pa.float64()).fill_null(float("nan")).to_numpy().astype(np.float64)
            for name in features.names
        },
    )


def _accepted(asked: Replay, features: FeatureSet, times: np.ndarray) -> tuple[dict[str, pa.Table], list[str]]:
    """Return the rows of each source around the answers, and the windows of answers that all sources have."""
    project = asked.project
    names = sorted({view.source for view in features.views})
    unknown = [name for name in names if name not in project.sources]
    if unknown:
        raise NotFound.of("source", unknown[0])
    present = {name: asked.fragments_of(project.sources[name].dataset.spec.name) for name in names}
    wanted = sorted(set(_windows(times).tolist()))
    windows = [window for window in wanted if all(window in each for each in present.values())]
    around = sorted({each for window in windows for each in windows_around(window, features.views)})
    tables: dict[str, pa.Table] = {}
    with connect() as connection:
        for name in names if windows else ():
            parts = [
                pq.read_table(asked.blobs.path(present[name][each]["digest"]))
                for each in around
                if each in present[name]
            ]
            tables[name] = selected_rows(connection, project.sources[name], parts)
    return tables, windows


def _sent(asked: Replay, features: FeatureSet) -> tuple[dict[str, pa.Table], dict[str, np.ndarray]]:
    """Return the events of each source as they came, and when."""
    tables: dict[str, pa.Table] = {}
    known: dict[str, np.ndarray] = {}
    for name in sorted({view.source for view in features.views}):
        events = asked.journal.table("event", asked.project.name, service=name)
        needed = {part for view in features.views if view.source == name for part in (view.entity, view.time)}
        if events.num_rows and needed <= set(events.column_names):
            tables[name] = events
            arrived = events["known_at"] if "known_at" in events.column_names else None
            if arrived is not None and arrived.type == pa.int64() and not arrived.null_count:
                known[name] = events["known_at"].to_numpy().astype(np.int64)
    return tables, known


def _windows(times: np.ndarray) -> np.ndarray:
    """Return the month of each moment (µs), as YYYY-MM."""
    return np.datetime_as_string(times.astype("datetime64[us]").astype("datetime64[M]"))
