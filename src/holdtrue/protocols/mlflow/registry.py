"""Registered models and their versions; production is entered through the gate only."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow import gate
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, flag, pairs_json, tags_of, text, texts, whole
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import registry, rules
from holdtrue.tracking.artifacts import files_below
from holdtrue.tracking.registry import MODEL_TAG_LENGTH, ModelVersion, NewVersion, RegisteredModel, Scan

routes = Routes("protocols.mlflow", MLFLOW)

READ, WRITE = Permission.VERSIONS_READ, Permission.VERSIONS_WRITE
MODELS = "/api/2.0/mlflow/registered-models"
VERSIONS = "/api/2.0/mlflow/model-versions"


def version_json(row: ModelVersion) -> dict[str, Any]:
    """Return a version as the protocol writes it."""
    written = {
        "name": row.name,
        "version": str(row.number),
        "creation_timestamp": row.created_ms,
        "last_updated_timestamp": row.updated_ms,
        "user_id": row.user,
        "current_stage": row.stage,
        "description": row.description,
        "source": row.source,
        "run_id": row.run,
        "status": row.status,
        "status_message": row.status_message,
        "run_link": row.run_link,
        "tags": pairs_json(row.tags),
        "aliases": list(row.aliases),
    }
    return written | ({"model_id": row.model} if row.model else {})


def model_json(row: RegisteredModel) -> dict[str, Any]:
    """Return a registered model as the protocol writes it."""
    return {
        "name": row.name,
        "creation_timestamp": row.created_ms,
        "last_updated_timestamp": row.updated_ms,
        "user_id": row.user,
        "description": row.description,
        "latest_versions": [version_json(each) for each in row.latest],
        "tags": pairs_json(row.tags),
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in row.aliases],
    }


def _number(body: Fields) -> int:
    value = body.get("version")
    try:
        found = rules.whole(value, "version")
    except InvalidInput:
        raise InvalidInput(f"Parameter 'version' must be an integer, got '{str(value)[:80]}'.") from None
    return found


@routes.post(f"{MODELS}/create", WRITE, summary="Register a model's name")
async def create_model(call: Call, body: Fields) -> Any:
    """Make a registered model."""
    name, described, tags = body.get("name", ""), text(body, "description", ""), tags_of(body, MODEL_TAG_LENGTH)
    made = await call.write_async(lambda tx: registry.create_registered_model(tx, name, described, tags))
    return {"registered_model": model_json(made)}


@routes.get(f"{MODELS}/get", READ, summary="Show a registered model")
def get_model(call: Call, body: Fields) -> Any:
    """Return a registered model."""
    name = text(body, "name")
    return {"registered_model": model_json(call.read(lambda c: registry.need_registered_model(c, call.project, name)))}


@routes.post(f"{MODELS}/rename", WRITE, summary="Rename a registered model")
async def rename_model(call: Call, body: Fields) -> Any:
    """Rename a registered model."""
    name, new = text(body, "name"), text(body, "new_name")
    made = await call.write_async(lambda tx: registry.rename_registered_model(tx, name, new))
    return {"registered_model": model_json(made)}


@routes.patch(f"{MODELS}/update", WRITE, summary="Describe a registered model")
async def update_model(call: Call, body: Fields) -> Any:
    """Change a registered model's description."""
    name, described = text(body, "name"), text(body, "description", "")
    made = await call.write_async(lambda tx: registry.describe_registered_model(tx, name, described))
    return {"registered_model": model_json(made)}


@routes.delete(f"{MODELS}/delete", WRITE, summary="Delete a registered model")
async def delete_model(call: Call, body: Fields) -> Any:
    """Delete a registered model."""
    name = text(body, "name")
    await call.write_async(lambda tx: registry.delete_registered_model(tx, name))
    return {}


@routes.get(f"{MODELS}/search", READ, summary="Search registered models")
def search_models(call: Call, body: Fields) -> Any:
    """Return a page of registered models."""
    found, token = call.read(
        lambda c: registry.search_registered_models(
            c,
            call.project,
            text(body, "filter", ""),
            whole(body, "max_results", 100),
            texts(body, "order_by"),
            text(body, "page_token", ""),
        )
    )
    answer: dict[str, Any] = {"registered_models": [model_json(each) for each in found]}
    return answer | ({"next_page_token": token} if token else {})


def _latest(call: Call, body: Fields) -> Any:
    name, stages = text(body, "name"), [registry.check_stage(each) for each in texts(body, "stages")]
    model = call.read(lambda c: registry.need_registered_model(c, call.project, name))
    return {"model_versions": [version_json(each) for each in model.latest if not stages or each.stage in stages]}


@routes.post(f"{MODELS}/get-latest-versions", READ, summary="Show the newest version of each stage")
def post_latest(call: Call, body: Fields) -> Any:
    """Return the newest version of each stage."""
    return _latest(call, body)


@routes.get(f"{MODELS}/get-latest-versions", READ, summary="Show the newest version of each stage")
def get_latest(call: Call, body: Fields) -> Any:
    """Return the newest version of each stage."""
    return _latest(call, body)


@routes.post(f"{MODELS}/set-tag", WRITE, summary="Set a tag of a registered model")
async def set_model_tag(call: Call, body: Fields) -> Any:
    """Set a tag."""
    name = text(body, "name")
    await call.write_async(lambda tx: registry.set_model_tag(tx, name, 0, body.get("key"), body.get("value")))
    return {}


@routes.delete(f"{MODELS}/delete-tag", WRITE, summary="Remove a tag of a registered model")
async def delete_model_tag(call: Call, body: Fields) -> Any:
    """Remove a tag."""
    name = text(body, "name")
    await call.write_async(lambda tx: registry.delete_model_tag(tx, name, 0, body.get("key")))
    return {}


@routes.post(f"{MODELS}/alias", WRITE, summary="Point an alias to a version; production goes through the gate")
async def set_alias(call: Call, body: Fields) -> Any:
    """Move an alias."""
    name, alias, number = text(body, "name"), text(body, "alias"), _number(body)

    def work(tx: Transaction) -> None:
        version = registry.need_version(tx.connection, tx.project, name, number)
        if gate.is_production(alias) and version.version:
            gate.need_release(tx, version)
        registry.set_alias(tx, name, alias, number)

    await call.write_async(work)
    return {}


@routes.delete(f"{MODELS}/alias", WRITE, summary="Remove an alias")
async def delete_alias(call: Call, body: Fields) -> Any:
    """Remove an alias."""
    name, alias = text(body, "name"), text(body, "alias")
    await call.write_async(lambda tx: registry.delete_alias(tx, name, alias))
    return {}


@routes.get(f"{MODELS}/alias", READ, summary="Show the version an alias points to")
def get_by_alias(call: Call, body: Fields) -> Any:
    """Return the version an alias points to."""
    name, alias = text(body, "name"), text(body, "alias")
    return {"model_version": version_json(call.read(lambda c: registry.version_by_alias(c, call.project, name, alias)))}


@routes.post(f"{VERSIONS}/create", WRITE, summary="Register a model version; its bytes are scanned")
def create_version(call: Call, body: Fields) -> Any:
    """Register a version: its files are looked at first, and what they are becomes evidence about it."""
    wish = NewVersion(
        name=text(body, "name"),
        source=text(body, "source"),
        run=text(body, "run_id", ""),
        model=text(body, "model_id", ""),
        description=text(body, "description", ""),
        run_link=text(body, "run_link", ""),
        tags=tags_of(body, MODEL_TAG_LENGTH),
    )
    model = call.read(lambda c: registry.need_registered_model(c, call.project, wish.name))
    if registry.is_prompt(model):
        folder, scanned = "", Scan("clean", "prompt", 0, 0, "", "")
        registry.check_prompt_source(wish.source)
    else:
        folder = call.read(lambda c: registry.resolve_source(c, call.project, wish))
        files = call.read(lambda c: files_below(c, call.project, folder))
        scanned = registry.scan(call.stores.blobs, [(name, each.digest, each.size) for name, each in files])

    def work(tx: Transaction) -> ModelVersion:
        made = registry.create_version(tx, wish, folder, scanned)
        gate.note_scan(tx, made, scanned)
        return made

    return {"model_version": version_json(call.write(work))}


@routes.get(f"{VERSIONS}/get", READ, summary="Show a model version")
def get_version(call: Call, body: Fields) -> Any:
    """Return a version."""
    name, number = text(body, "name"), _number(body)
    return {"model_version": version_json(call.read(lambda c: registry.need_version(c, call.project, name, number)))}


@routes.patch(f"{VERSIONS}/update", WRITE, summary="Describe a model version")
async def update_version(call: Call, body: Fields) -> Any:
    """Change a version's description."""
    name, number, described = text(body, "name"), _number(body), text(body, "description", "")
    made = await call.write_async(lambda tx: registry.describe_version(tx, name, number, described))
    return {"model_version": version_json(made)}


@routes.post(f"{VERSIONS}/transition-stage", WRITE, summary="Move a version's stage; production through the gate")
async def transition(call: Call, body: Fields) -> Any:
    """Put a version into a stage."""
    name, number, stage = text(body, "name"), _number(body), registry.check_stage(body.get("stage"))
    archive = flag(body, "archive_existing_versions")

    def work(tx: Transaction) -> ModelVersion:
        if gate.is_production(stage):
            gate.need_release(tx, registry.need_version(tx.connection, tx.project, name, number))
        return registry.move_stage(tx, name, number, stage, archive=archive)

    return {"model_version": version_json(await call.write_async(work))}


@routes.delete(f"{VERSIONS}/delete", WRITE, summary="Delete a model version")
async def delete_version(call: Call, body: Fields) -> Any:
    """Delete a version."""
    name, number = text(body, "name"), _number(body)
    await call.write_async(lambda tx: registry.delete_version(tx, name, number))
    return {}


@routes.get(f"{VERSIONS}/search", READ, summary="Search model versions")
def search_versions(call: Call, body: Fields) -> Any:
    """Return a page of versions."""
    found, token = call.read(
        lambda c: registry.search_versions(
            c,
            call.project,
            text(body, "filter", ""),
            whole(body, "max_results", 10_000),
            texts(body, "order_by"),
            text(body, "page_token", ""),
        )
    )
    answer: dict[str, Any] = {"model_versions": [version_json(each) for each in found]}
    return answer | ({"next_page_token": token} if token else {})


@routes.get(f"{VERSIONS}/get-download-uri", READ, summary="Tell where a version's files are")
def get_download_uri(call: Call, body: Fields) -> Any:
    """Return the address of a version's files."""
    name, number = text(body, "name"), _number(body)
    return {"artifact_uri": call.read(lambda c: registry.need_version(c, call.project, name, number)).artifact_uri}


@routes.post(f"{VERSIONS}/set-tag", WRITE, summary="Set a tag of a model version")
async def set_version_tag(call: Call, body: Fields) -> Any:
    """Set a tag."""
    name, number = text(body, "name"), _number(body)
    await call.write_async(lambda tx: registry.set_model_tag(tx, name, number, body.get("key"), body.get("value")))
    return {}


@routes.delete(f"{VERSIONS}/delete-tag", WRITE, summary="Remove a tag of a model version")
async def delete_version_tag(call: Call, body: Fields) -> Any:
    """Remove a tag."""
    name, number = text(body, "name"), _number(body)
    await call.write_async(lambda tx: registry.delete_model_tag(tx, name, number, body.get("key")))
    return {}
