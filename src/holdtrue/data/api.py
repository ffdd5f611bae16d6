"""HTTP routes of this room."""

from collections.abc import Callable
from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import Forbidden, InvalidInput, NotFound
from holdtrue.core.ids import check_name
from holdtrue.data import erasure, service, versions
from holdtrue.data.collecting import Collect, collect
from holdtrue.data.model import Discard, Ingest, NewDatasetVersion, NewSplit, QuarantineState
from holdtrue.door import Call, Download, Routes

# What reads rows is imported where rows are read: listing versions, and adding one of stored files, needs none of it.
routes = Routes("data")

_TRIES = 5


@routes.get("/api/projects/{project}/datasets", Permission.DATA_READ, summary="List datasets")
def list_datasets(call: Call) -> Any:
    """Return each dataset with its present version."""

    def work(connection: Any) -> list[dict[str, Any]]:
        return [_described(connection, call, name) for name in versions.names(connection, call.project)]

    return {"items": call.read(work), "next": None}


@routes.get("/api/projects/{project}/datasets/{name}", Permission.DATA_READ, summary="Show one dataset")
def show_dataset(call: Call) -> Any:
    """Return a dataset's newest version and its fragments."""
    return call.read(lambda connection: _described(connection, call, call.path["name"]))


@routes.get("/api/projects/{project}/datasets/{name}/versions", Permission.DATA_READ, summary="List its versions")
def list_versions(call: Call) -> Any:
    """Return the versions of a dataset, the newest first, with the windows that each brought."""
    found = call.read(lambda connection: versions.listed(connection, call.project, call.path["name"]))
    return {"items": found, "next": None}


@routes.post(
    "/api/projects/{project}/datasets/{name}/versions",
    Permission.DATA_WRITE,
    summary="Make a version from stored files",
)
def add_version(call: Call, body: NewDatasetVersion) -> Any:
    """Make a version of a dataset that no project file declares, from blobs that are stored."""
    for digest in body.blobs():
        if not call.stores.blobs.has(digest):
            raise NotFound.of("blob", digest[:64])
    name = check_name(call.path["name"], "dataset name")
    before = call.read(lambda connection: service.latest(connection, call.project, name))
    known = set() if before is None else {part["digest"] for part in versions.parts(before).values()}

    def work(listed: erasure.Standing) -> Any:
        cleaned = erasure.clean_files(call.stores, listed, name, body, known)
        version = call.write(lambda tx: _made(service.add(tx, name, cleaned.content, cleaned.held)))
        return {"name": name, **version, "erased": cleaned.erased}

    return _held(call, work)


@routes.get(
    "/api/projects/{project}/datasets/{name}/versions/{version}",
    Permission.DATA_READ,
    summary="Show a version with its profile",
)
def show_version(call: Call) -> Any:
    """Return one version, named by number, alias or id: schema, windows, profile, findings, quarantines."""
    from holdtrue.data import looking

    return looking.shown(call.stores, call.project, call.path["name"], call.path["version"])


@routes.get(
    "/api/projects/{project}/datasets/{name}/versions/{version}/fragments/{digest}",
    Permission.DATA_READ,
    summary="Fetch one window as Parquet, or one file",
)
def fetch_fragment(call: Call) -> Download:
    """Return the bytes of a window or file that belongs to the version."""
    path = call.path
    version = call.read(lambda connection: versions.resolve(connection, call.project, path["name"], path["version"]))
    blobs = call.stores.blobs
    window = versions.window_of(blobs, version, path["digest"])
    versions.check_kept(call.stores, call.project, version, [path["digest"]])
    return Download(blobs.path(path["digest"]), blobs.size(path["digest"]), f"{version.name}-{window}")


@routes.get("/api/projects/{project}/datasets/{name}/contract", Permission.DATA_READ, summary="Show its contract")
def show_contract(call: Call) -> Any:
    """Return the declaration of a dataset: key, time, contract."""
    spec = call.read(lambda connection: service.dataset(connection, call.project, call.path["name"]))
    if spec is None:
        raise NotFound.of("declared dataset", call.path["name"])
    return dump(spec)


@routes.get("/api/projects/{project}/datasets/{name}/diff", Permission.DATA_READ, summary="Compare two versions")
def diff_versions(call: Call) -> Any:
    """Return windows, schema, rows by key and columns that differ; query: before, after (default: the present one)."""
    from holdtrue.data import looking

    before = call.query.get("before")
    if before is None:
        raise InvalidInput("No version to compare with was named.", mend="Send before=NUMBER, and after if it matters.")
    after = call.query.get("after", "current")
    return looking.compare(call.stores, call.project, call.path["name"], before, after)


@routes.get("/api/projects/{project}/datasets/{name}/splits", Permission.DATA_READ, summary="List its splits")
def list_splits(call: Call) -> Any:
    """Return the recorded splits of a dataset's versions, by name, the newest first."""
    from holdtrue.data import splitting

    found = call.read(lambda connection: splitting.recorded(connection, call.project, call.path["name"]))
    return {"items": found, "next": None}


@routes.get("/api/projects/{project}/datasets/{name}/splits/{split}", Permission.DATA_READ, summary="Show one split")
def show_split(call: Call) -> Any:
    """Return a split of a dataset, the newest of its name: the version, the rule, the parts and what they share."""
    from holdtrue.data import splitting

    path = call.path
    return call.read(lambda connection: splitting.one(connection, call.project, path["name"], path["split"]))


@routes.post(
    "/api/projects/{project}/datasets/{name}/versions/{version}/splits",
    Permission.DATA_WRITE,
    summary="Divide a version into parts",
)
def add_split(call: Call, body: NewSplit) -> Any:
    """Divide the rows of a version at random, by time or by group, check what the parts share, and record the split."""
    from holdtrue.data import splitting

    path = call.path
    version, content = splitting.divided(call.stores, call.project, path["name"], path["version"], body)

    def work(tx: Any) -> Any:
        made = splitting.record(tx, version, body.name, content)
        return splitting.one(tx.connection, call.project, version.name, made.name, made.number)

    return call.write(work)


@routes.post(
    "/api/projects/{project}/datasets/{name}/deliveries",
    Permission.JOBS_LEASE,
    summary="Record a checked delivery",
)
def accept_delivery(call: Call, body: Ingest) -> Any:
    """Record what the check of a delivered window found."""
    if body.dataset != call.path["name"]:
        raise NotFound.of("dataset", call.path["name"])
    for digest in (body.digest, body.quarantine):
        if digest is not None and not call.stores.blobs.has(digest):
            raise NotFound.of("blob", digest)

    def work(listed: erasure.Standing) -> Any:
        cleaned = erasure.clean_delivery(call.stores, listed, body)
        made = cleaned.content
        version = call.write(lambda tx: _id(service.accept(tx, made, cleaned.held)))
        told = {"accepted": made.accepted, "quarantined": made.quarantined, "erased": cleaned.erased}
        return {"version": version, **told}

    return _held(call, work)


@routes.post("/api/blobs/collect", Permission.OPERATIONS_RUN, summary="Remove stored bytes that nothing refers to")
def collect_blobs(call: Call, body: Collect) -> Any:
    """Return how many blobs there are, how many nothing refers to, and how many were removed."""
    if call.actor.project is not None:
        raise Forbidden(
            f"A token of the project {call.actor.project} cannot collect blobs.",
            why="Blobs are shared by all projects of a data folder.",
            mend="Use a token that is not bound to a project.",
        )
    return collect(call.stores, body)


@routes.get("/api/projects/{project}/quarantines", Permission.DATA_READ, summary="List quarantines")
def list_quarantines(call: Call) -> Any:
    """Return quarantined deliveries, oldest first; `state` chooses."""
    text = call.query.get("state")
    if text is not None and text not in set(QuarantineState):
        raise InvalidInput(
            f"{text[:80]!r} is not a state of a quarantine.",
            why=f"The states are {', '.join(QuarantineState)}.",
            mend="Use one of these, or leave the state out to get all.",
        )
    state = None if text is None else QuarantineState(text)
    found = call.read(lambda connection: service.quarantines(connection, call.project, state=state))
    return {"items": [dump(each) for each in found], "next": None}


@routes.get("/api/projects/{project}/quarantines/{id}", Permission.DATA_READ, summary="Show a quarantine")
def show_quarantine(call: Call) -> Any:
    """Return one quarantine with what its contract found."""
    return dump(call.read(lambda connection: service.quarantine(connection, call.project, call.path["id"])))


@routes.get(
    "/api/projects/{project}/quarantines/{id}/rows",
    Permission.DATA_READ,
    summary="Fetch quarantined rows as Parquet",
)
def fetch_quarantined(call: Call) -> Download:
    """Return the rows that were kept out, as they were delivered."""
    found = call.read(lambda connection: service.quarantine(connection, call.project, call.path["id"]))
    if found.blob is None:
        raise NotFound.of("rows of the quarantine", found.id)
    blobs = call.stores.blobs
    return Download(blobs.path(found.blob), blobs.size(found.blob), f"{found.dataset}-{found.window}.parquet")


@routes.post(
    "/api/projects/{project}/quarantines/{id}/discard",
    Permission.DATA_WRITE,
    summary="Give a quarantine up",
)
def discard(call: Call, body: Discard) -> Any:
    """Close a quarantine whose rows will not come again."""
    return call.write(lambda tx: dump(service.discard(tx, call.path["id"], body.reason)))


def _described(connection: Any, call: Call, name: str) -> dict[str, Any]:
    spec = service.dataset(connection, call.project, name)
    version = service.latest(connection, call.project, name)
    if spec is None and version is None:
        raise NotFound.of("dataset", name)
    return {
        "name": name,
        "declared": spec is not None,
        "key": spec.key if spec is not None else version and versions.key_of(version, spec),
        "time": None if spec is None else spec.time,
        "columns": [] if spec is None else [column.name for column in spec.contract.columns],
        "version": None if version is None else version.id,
        "number": 0 if version is None else version.number,
        "fragments": {} if version is None else versions.parts(version),
    }


def _held(call: Call, work: Callable[[erasure.Standing], Any]) -> Any:
    """Take something in that is held against the list of the erased, again if the list changed meanwhile."""
    for _ in range(_TRIES):
        try:
            return work(erasure.standing(call.stores, call.project))
        except erasure.ErasureMoved:
            continue
    return work(erasure.standing(call.stores, call.project))


def _made(version: Any) -> dict[str, Any]:
    return {"version": version.id, "number": version.number, "label": version.label}


def _id(version: Any) -> str | None:
    return None if version is None else version.id
