"""Artifacts through the proxy: whole files, listings, uploads in parts."""

import secrets
from typing import Any
from urllib.parse import quote

from holdtrue import tracking
from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Download, Reply, Routes
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, objects, run_id, text, whole
from holdtrue.tracking import artifacts, registry, rules
from holdtrue.tracking.artifacts import Stored

routes = Routes("protocols.mlflow", MLFLOW)

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
BASE = "/api/2.0/mlflow-artifacts"


def _path(call: Call) -> str:
    return rules.artifact_path(call.path["path"], escaped=True)


def _folder(body: Fields, name: str) -> str:
    """Return the folder that is asked for, empty for all; an absolute one is refused, as are those that lead out."""
    path = text(body, name, "").rstrip("/")
    return rules.artifact_path(path) if path else ""


def _entry(each: Stored, prefix: str = "") -> dict[str, Any]:
    written: dict[str, Any] = {"path": f"{prefix}{each.name}", "is_dir": each.is_folder}
    if not each.is_folder:
        written["file_size"] = each.size
    return written


@routes.add("PUT", f"{BASE}/artifacts/{{path:path}}", WRITE, summary="Store an artifact", kind="stream")
async def upload(call: Call) -> Any:
    """Store the body under a name; a body cut short leaves nothing."""
    path = _path(call)
    assert call.stream is not None
    digest, size = await artifacts.receive(call.stores.blobs, call.stream)
    await call.write_async(lambda tx: artifacts.keep(tx, path, digest, size))
    return {}


@routes.get(f"{BASE}/artifacts/{{path:path}}", READ, summary="Fetch an artifact")
def download(call: Call, body: Fields) -> Download:
    """Return an artifact's bytes, verified."""
    path = _path(call)
    found = call.read(lambda c: artifacts.need(c, call.project, path))
    return Download(call.stores.blobs.path(found.digest), found.size, found.name)


@routes.delete(f"{BASE}/artifacts/{{path:path}}", WRITE, summary="Delete an artifact or a folder of them")
async def delete(call: Call, body: Fields) -> Any:
    """Delete a name and all below it."""
    path = _path(call)
    await call.write_async(lambda tx: artifacts.delete(tx, path))
    return {}


@routes.get(f"{BASE}/artifacts", READ, summary="List a folder of artifacts")
def list_folder(call: Call, body: Fields) -> Any:
    """Return what stands in a folder."""
    folder = _folder(body, "path")
    return {"files": [_entry(each) for each in call.read(lambda c: artifacts.entries(c, call.project, folder))]}


@routes.get("/api/2.0/mlflow/artifacts/list", READ, summary="List the artifacts of a run")
def list_of_run(call: Call, body: Fields) -> Any:
    """Return what stands in a folder of a run's artifacts."""
    own, path, after = run_id(body), _folder(body, "path"), text(body, "page_token", "")

    def work(connection: Any) -> tuple[str, list[Stored]]:
        info = tracking.find_run_info(connection, call.project, own)
        root = registry.folder_of(info.artifact_uri)
        folder = rules.artifact_path(f"{root}/{path}") if path else root
        return info.artifact_uri, artifacts.entries(connection, call.project, folder, after=after, limit=_PAGE + 1)

    root, found = call.read(work)
    return _page(found, path, root)


_PAGE = 10_000


def _page(found: list[Stored], path: str, root: str) -> dict[str, Any]:
    files = [_entry(each, f"{path}/" if path else "") for each in found[:_PAGE]]
    answer: dict[str, Any] = {"root_uri": root, "files": files}
    return answer | ({"next_page_token": found[_PAGE - 1].name} if len(found) > _PAGE else {})


@routes.get(
    "/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories", READ, summary="List a logged model's artifacts"
)
def list_of_model(call: Call, body: Fields) -> Any:
    """Return what stands in a folder of a logged model's artifacts."""
    path = _folder(body, "artifact_directory_path")

    def work(connection: Any) -> tuple[str, list[Stored]]:
        uri = registry.need_logged_model(connection, call.project, call.path["model_id"]).artifact_uri
        root = registry.folder_of(uri)
        folder = rules.artifact_path(f"{root}/{path}") if path else root
        return uri, artifacts.entries(connection, call.project, folder, limit=_PAGE + 1)

    root, found = call.read(work)
    return _page(found, path, root)


@routes.post(f"{BASE}/mpu/create/{{path:path}}", WRITE, summary="Begin an upload in parts")
async def begin(call: Call, body: Fields) -> Any:
    """Begin an upload and return an address for each part, which works without another credential."""
    path, parts = _named(call, body), whole(body, "num_parts", 1)
    secret = secrets.token_urlsafe(32)
    made = await call.write_async(lambda tx: artifacts.begin_upload(tx, path, parts, secret))
    root = f"{call.origin}{BASE}/part?project={quote(call.project)}&upload={made.id}&secret={secret}"
    return {
        "upload_id": made.id,
        "credentials": [
            {"url": f"{root}&part={number}", "part_number": number, "headers": {}} for number in range(1, parts + 1)
        ],
    }


def _named(call: Call, body: Fields) -> str:
    """Return the whole name of a file: the folder in the address, then the last part of the body's path."""
    name = text(body, "path").replace("\\", "/").rpartition("/")[2]
    return rules.artifact_path(f"{_path(call)}/{name}")


@routes.add("PUT", f"{BASE}/part", "public", summary="Store one part of an upload, by its secret", kind="stream")
async def part(call: Call, body: Fields) -> Any:
    """Store a part; the address itself is the credential, good for one part of one upload."""
    project, own = text(body, "project"), text(body, "upload")
    number, secret = whole(body, "part", 0), text(body, "secret")
    assert call.stream is not None
    await call.stores.ledger.read_async(lambda c: artifacts.check_secret(c, project, own, secret, number))
    digest, size = await artifacts.receive(call.stores.blobs, call.stream)

    def work(tx: Any) -> None:
        artifacts.check_secret(tx.connection, project, own, secret, number)
        artifacts.put_part(tx, own, number, digest, size)

    await call.within(project).write_async(work)
    return Reply(b"{}", media_type="application/json", headers=(("etag", digest),))


@routes.post(f"{BASE}/mpu/complete/{{path:path}}", WRITE, summary="End an upload in parts")
def complete(call: Call, body: Fields) -> Any:
    """Put the parts together under the file's name."""
    path, own = _named(call, body), text(body, "upload_id")
    wanted = [(whole(each, "part_number", 0), text(each, "etag").strip('"')) for each in objects(body, "parts")]
    call.read(lambda c: artifacts.need_upload(c, call.project, own, path))
    known = call.read(lambda c: artifacts.parts_of(c, call.project, own))
    digest, size = artifacts.join_parts(call.stores.blobs, known, wanted)
    if size > (1 << 40):
        raise InvalidInput("The parts are too large together.")

    def work(tx: Any) -> None:
        artifacts.need_upload(tx.connection, call.project, own, path)
        artifacts.keep(tx, path, digest, size)
        artifacts.end_upload(tx, own)

    call.write(work)
    return {}


@routes.post(f"{BASE}/mpu/abort/{{path:path}}", WRITE, summary="Give up an upload in parts")
async def abort(call: Call, body: Fields) -> Any:
    """Forget an upload; its parts are collected like all bytes that nothing names."""
    path, own = _named(call, body), text(body, "upload_id")

    def work(tx: Any) -> None:
        artifacts.need_upload(tx.connection, call.project, own, path)
        artifacts.end_upload(tx, own)

    await call.write_async(work)
    return {}
