"""Put a release under load beside the one that answers now, with rows of its own data as requests."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import lmdb
import orjson
import pyarrow as pa

from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.delivery import bundle_of
from holdtrue.features.vector import plain
from holdtrue.governance import reads
from holdtrue.pipelines import Pipeline
from holdtrue.project.definitions import Project
from holdtrue.project.training import read_part
from holdtrue.serving import Bundle, Candidate, LoadTest, measure

PERFORMANCE: Final = "performance"
_BODIES: Final = 256
_PLANE: Final = ("-m", "holdtrue.server.dataplane")
"""The process that `holdtrue up` starts to answer predictions."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Hold a release as it is pinned: its id, service and configuration, and the contents of its versions by role."""

    release: str
    service: str
    config: Mapping[str, Any]
    contents: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """Say what is put to the test, against what, with the rows of which part of the data, in whose data folder."""

    plan: LoadTest
    mine: Pinned
    live: Pinned | None
    rows: str
    home: Path


def load_test_of(project: Project, model: str) -> LoadTest | None:
    """Return the load test that a release of a model has to go through.

    It is the one declared with its evaluation; without one, the default if a gate asks for its evidence, else none.
    """
    declared = project.evaluations.get(model)
    if declared is not None and declared.load is not None:
        return declared.load
    rules = [rule.expression for policy in project.policies.values() for rule in policy.rules]
    return LoadTest() if any(PERFORMANCE in reads(each) for each in rules) else None


def pinned_of(submission: Mapping[str, Any]) -> Pinned:
    """Return the release that a submission will make, before it has its id."""
    roles = {"feature_view": "features", "contract": "contract", "model": "model"}
    contents = {roles[each["kind"]]: each["content"] for each in submission["versions"] if each["kind"] in roles}
    release = submission["release"]
    return Pinned("rel_candidate", release["service"], release["config"], contents)


def read_pinned(get: Callable[[str], Any], base: str, release: str) -> Pinned:
    """Return a release of a model with the contents that a data plane loads; InvalidInput if it has no model."""
    found = get(f"{base}/releases/{release}")
    versions = found["manifest"]["versions"]
    if "model" not in versions:
        raise InvalidInput(
            f"The release {release} has no model.",
            why="Only releases of models are put under load.",
            mend="Name a release of a model: holdtrue releases",
        )
    contents = {
        role: get(f"{base}/versions/{versions[role]}")["content"]
        for role in ("model", "features", "contract")
        if role in versions
    }
    return Pinned(release, found["service"], found["manifest"]["config"], contents)


def performance(project: Project, pipeline: Pipeline, trial: Trial) -> dict[str, Any]:
    """Return the evidence of a load test; the same models, plan and rows are measured once.

    Raises Unavailable if a release cannot be brought to answer, InvalidInput if there is no row to ask it about.
    """
    given = [trial.mine] if trial.live is None else [trial.mine, trial.live]
    inputs = {
        "plan": dump(trial.plan),
        "rows": trial.rows,
        "releases": [[each.contents[role] for role in sorted(each.contents)] for each in given],
    }
    return orjson.loads(pipeline.step(PERFORMANCE, inputs, lambda: orjson.dumps(measured(project, pipeline, trial))))


def measured(project: Project, pipeline: Pipeline, trial: Trial) -> dict[str, Any]:
    """Run a load test now, whether or not it was run before."""
    table = read_part(pipeline, trial.rows)
    found = [
        None if each is None else _candidate(project, pipeline, each, trial.plan, table)
        for each in (trial.mine, trial.live)
    ]
    assert found[0] is not None
    with TemporaryDirectory(prefix="holdtrue-load-") as name:
        folder = Path(name)
        online = _copied(trial.home / "online" / project.name, folder / "online")
        return measure(trial.plan, found[0], found[1], folder, [sys.executable, *_PLANE], online)


def _candidate(project: Project, pipeline: Pipeline, pinned: Pinned, plan: LoadTest, table: pa.Table) -> Candidate:
    bundle = bundle_of(pinned.release, project.name, pinned.service, pinned.config, pinned.contents)
    return Candidate(bundle, pipeline.blobs.get(bundle.model.digest), bodies_of(bundle, table, plan.rows))


def bodies_of(bundle: Bundle, table: pa.Table, rows: int) -> list[bytes]:
    """Return bodies of inference requests of `rows` rows each, from the newest rows of a table of the dataset.

    Raises InvalidInput if the table lacks an input or has no rows.
    """
    missing = [each.name for each in bundle.inputs if each.name not in table.column_names]
    if missing or table.num_rows == 0:
        raise InvalidInput(
            f"The release {bundle.release} cannot be put under load with these rows.",
            why=f"They lack the input “{missing[0]}”." if missing else "There is none.",
            mend="Name a dataset whose rows have every input of the service.",
        )
    wanted = min(table.num_rows, _BODIES * rows)
    newest = table.slice(table.num_rows - wanted)
    columns = {each.name: _sent(newest[each.name], each.datatype) for each in bundle.inputs}
    bodies: list[bytes] = []
    for start in range(0, wanted, rows):
        tensors = [
            {"name": each.name, "datatype": each.datatype, "shape": [len(part)], "data": part}
            for each in bundle.inputs
            for part in (columns[each.name][start : start + rows],)
        ]
        bodies.append(orjson.dumps({"inputs": tensors}))
    return bodies


def _sent(column: pa.ChunkedArray, datatype: str) -> list[Any]:
    """Return a column as requests carry it: moments as text in ISO 8601 or as microseconds, NaN as a missing value."""
    if datatype == "BYTES":
        texts = (each.isoformat() if isinstance(each, datetime) else each for each in column.to_pylist())
        return [None if each is None else str(each) for each in texts]
    values = plain(column)
    if datatype.startswith("FP"):
        return [None if each is None or math.isnan(each) else float(each) for each in values]
    return values


def _copied(source: Path, target: Path) -> Path | None:
    """Copy the online features, whole as of one moment, so that the trial reads what production would."""
    if not (source / "data.mdb").is_file():
        return None
    target.mkdir(mode=0o700)
    with lmdb.open(str(source), readonly=True, max_readers=1024) as store:
        store.copy(str(target), compact=True)
    return target
