"""Use cases of the registry. Every change of a registered model is an event of the log."""

import re
import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.errors import InvalidInput
from holdtrue.core.filters import Condition, Id, Order, Vocabulary, parse_filter, parse_order
from holdtrue.core.paging import place_of, token_of
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import rules
from holdtrue.tracking import service as runs
from holdtrue.tracking.artifacts import service as artifacts
from holdtrue.tracking.model import NameTaken, Pair
from holdtrue.tracking.registry import store
from holdtrue.tracking.registry.model import (
    MODEL_TAG_LENGTH,
    PROMPT_TAG,
    STAGES,
    LoggedModel,
    ModelVersion,
    NewVersion,
    NoAlias,
    NoModel,
    RegisteredModel,
    Scan,
    Stage,
)
from holdtrue.tracking.search.service import ATTRIBUTES_ALONE, check_limit

_ALIAS = re.compile(r"[\w-]{1,255}")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)
_SOURCE = re.compile(r"(mlflow-artifacts|runs|models):/([^/].*)", re.DOTALL)
_WORD = re.compile(r"[\w.-]{0,100}", re.ASCII)
_BAD_SIGNS = re.compile(r"[\x00-\x1f\x7f\\#?;]")
_VERDICTS: Mapping[str, str] = MappingProxyType(
    {
        "unsafe": "The scan found code that no model needs.",
        "unknown": "The scan could not judge every file.",
        "code": "Loading this model runs code it brings along.",
        "empty": "The source holds no files.",
        "clean": "",
    }
)

_TAGS = dict.fromkeys(("tag", "tags"), "tag")
_ATTRIBUTES = dict.fromkeys(("attribute", "attributes", "attr"), "attribute")
_TIMES = {
    "creation_timestamp": ("created_ms", int),
    "creation_time": ("created_ms", int),
    "last_updated_timestamp": ("updated_ms", int),
    "last_updated_time": ("updated_ms", int),
    "timestamp": ("updated_ms", int),
}

MODELS: Final = Vocabulary(
    entities=MappingProxyType({**_TAGS, **_ATTRIBUTES}), attributes=MappingProxyType({"name": ("name", str), **_TIMES})
)
VERSIONS: Final = Vocabulary(
    entities=MappingProxyType({**_TAGS, **_ATTRIBUTES}),
    attributes=MappingProxyType(
        {
            "name": ("name", str),
            "version_number": ("number", Id),
            "run_id": ("run", str),
            "source_path": ("source", str),
            "source": ("source", str),
            "current_stage": ("stage", str),
            **_TIMES,
        }
    ),
)
LOGGED: Final = Vocabulary(
    entities=MappingProxyType(
        {
            **dict.fromkeys(("metric", "metrics"), "metric"),
            **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
            **_TAGS,
            **_ATTRIBUTES,
        }
    ),
    attributes=MappingProxyType(
        {
            "name": ("name", str),
            "model_id": ("id", str),
            "experiment_id": ("experiment", Id),
            "model_type": ("model_type", str),
            "status": ("status", str),
            "source_run_id": ("source_run", str),
            "creation_timestamp_ms": ("created_ms", int),
            "last_updated_timestamp_ms": ("updated_ms", int),
            **_TIMES,
        }
    ),
    numeric=frozenset({"metric"}),
)


def check_model_name(name: Any) -> str:
    """Return `name` if a registered model may have it."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidInput(
            "Missing value for required parameter 'name'.", mend="Registered model name cannot be empty."
        )
    if "/" in name or ":" in name or len(name) > 256 or name in (".", ".."):
        raise InvalidInput(f"Invalid model name '{name[:200]}'.", why="Names cannot contain '/' or ':'.")
    return rules.check_text(name, "name")


def check_alias(alias: Any) -> str:
    """Return `alias` if it may point to a version."""
    if not isinstance(alias, str) or not alias:
        raise InvalidInput("Registered model alias name cannot be empty.")
    if _ALIAS.fullmatch(alias) is None:
        raise InvalidInput(
            f"Invalid alias name: '{alias[:200]}'.",
            why="Names may only contain alphanumerics, underscores (_), and dashes (-).",
        )
    if _RESERVED.fullmatch(alias):
        raise InvalidInput(f"Alias name '{alias}' is reserved.", mend="Choose another name.")
    return alias


def create_logged_model(
    tx: Transaction,
    experiment: int,
    name: str,
    model_type: str,
    source_run: str,
    params: Sequence[Pair],
    tags: Sequence[Pair],
) -> LoggedModel:
    """Note a model that a run is about to upload."""
    place = runs.find_experiment(tx.connection, tx.project, id=experiment)
    if source_run:
        runs.find_run_info(tx.connection, tx.project, source_run)
    if any(sign in name for sign in "/:.%\"'"):
        raise InvalidInput(
            f"Invalid model name {name[:200]!r} provided.",
            why="Model name must be a non-empty string and cannot contain the following characters: / : . % \" '.",
        )
    own = f"m-{secrets.token_hex(16)}"
    now = runs.milliseconds(tx)
    uri = f"{place.artifact_location}/models/{own}/artifacts"
    named = rules.check_text(name, "name") or rules.random_name()
    made = LoggedModel(
        own,
        experiment,
        named,
        now,
        now,
        uri,
        "LOGGED_MODEL_PENDING",
        model_type,
        source_run,
        tuple(params),
        tuple(tags),
    )
    store.insert_logged_model(tx, made)
    tx.emit("model.logged", own, {"name": named, "run": source_run})
    return made


def check_logged_model_id(id: str) -> str:
    """Return an id that a logged model may have: it is part of addresses and of folders' names."""
    if re.fullmatch(r"m-[0-9A-Za-z_-]{1,60}", id) is None:
        raise InvalidInput(f"Invalid logged model id: {id[:100]!r}.")
    return id


def insert_logged_model(tx: Transaction, row: LoggedModel) -> None:
    """Write a logged model down as another system had it."""
    store.insert_logged_model(tx, row)


def need_logged_model(connection: sa.Connection, project: str, id: str) -> LoggedModel:
    """Return a logged model; raise NoModel."""
    found = store.logged_model(connection, project, id)
    if found is None:
        raise NoModel(f"Logged model with ID '{id[:100]}' not found.", mend="Check the id.")
    return found


def finish_logged_model(tx: Transaction, id: str, status: str) -> LoggedModel:
    """Say whether a logged model was uploaded whole."""
    need_logged_model(tx.connection, tx.project, id)
    if status not in ("LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_PENDING"):
        raise InvalidInput(f"Invalid model status: {status[:80]!r}.")
    store.change_logged_model(tx, id, status=status, updated_ms=runs.milliseconds(tx))
    return need_logged_model(tx.connection, tx.project, id)


def delete_logged_model(tx: Transaction, id: str) -> None:
    """Delete a logged model."""
    need_logged_model(tx.connection, tx.project, id)
    store.change_logged_model(tx, id, lifecycle="deleted", updated_ms=runs.milliseconds(tx))
    tx.emit("model.deleted", id)


def add_to_logged_model(
    tx: Transaction, id: str, *, params: Sequence[Pair] = (), tags: Sequence[Pair] = ()
) -> LoggedModel:
    """Set parameters and tags of a logged model."""
    need_logged_model(tx.connection, tx.project, id)
    store.put_model_pairs(tx, id, "param", params)
    store.put_model_pairs(tx, id, "tag", tags)
    store.change_logged_model(tx, id, updated_ms=runs.milliseconds(tx))
    return need_logged_model(tx.connection, tx.project, id)


def delete_logged_model_tag(tx: Transaction, id: str, key: str) -> None:
    """Remove a tag of a logged model."""
    need_logged_model(tx.connection, tx.project, id)
    if not store.delete_model_tag(tx, id, key):
        raise NoModel(f"No tag with key {key[:100]!r} found for model with ID {id!r}.")


def search_logged_models(
    connection: sa.Connection,
    project: str,
    experiments: Sequence[int],
    filter: str,
    orders: Sequence[Mapping[str, Any]],
    datasets: Sequence[tuple[str, str]],
    limit: int,
    page: str | None,
) -> tuple[list[LoggedModel], str | None]:
    """Return a page of logged models, and the token of the next page."""
    check_limit(limit, 1000)
    terms: list[tuple[Order, str, str]] = []
    for each in orders:
        (order,) = parse_order([str(each.get("field_name", ""))], LOGGED)
        up = each.get("ascending", True) not in (False, "false")
        name, digest = str(each.get("dataset_name") or ""), str(each.get("dataset_digest") or "")
        if bool(digest) and not name:
            raise InvalidInput("`dataset_digest` can only be specified together with `dataset_name`.")
        terms.append((Order(order.subject, up), name, digest))
    conditions = parse_filter(filter, LOGGED)
    question = ["logged", list(experiments), filter, [dict(each) for each in orders], [list(each) for each in datasets]]
    found, last = store.search_logged_models(
        connection, project, experiments, conditions, terms, datasets, limit, place_of(question, page)
    )
    return found, None if last is None else token_of(question, last)


def create_registered_model(tx: Transaction, name: str, description: str, tags: Sequence[Pair]) -> RegisteredModel:
    """Make a name under which versions are counted; raise NameTaken."""
    check_model_name(name)
    if store.registered_model(tx.connection, tx.project, name) is not None:
        raise NameTaken(f"Registered Model (name={name}) already exists.", mend="Use it, or choose another name.")
    now = runs.milliseconds(tx)
    made = RegisteredModel(name, description, now, now, tx.context.actor.owner, tuple(tags))
    store.insert_registered_model(tx, made)
    tx.emit("registered_model.created", f"model:{name}", {"name": name})
    return made


def need_registered_model(connection: sa.Connection, project: str, name: str) -> RegisteredModel:
    """Return a registered model; raise NoModel."""
    found = store.registered_model(connection, project, check_model_name(name))
    if found is None:
        raise NoModel(f"Registered Model with name={name} not found", mend="List the registered models.")
    return found


def describe_registered_model(tx: Transaction, name: str, description: str) -> RegisteredModel:
    """Change a registered model's description."""
    need_registered_model(tx.connection, tx.project, name)
    store.change_registered_model(tx, name, description=description, updated_ms=runs.milliseconds(tx))
    tx.emit("registered_model.described", f"model:{name}", {"description": description})
    return need_registered_model(tx.connection, tx.project, name)


def rename_registered_model(tx: Transaction, name: str, new: str) -> RegisteredModel:
    """Give a registered model another name; its versions, aliases and tags go along."""
    need_registered_model(tx.connection, tx.project, name)
    check_model_name(new)
    if store.registered_model(tx.connection, tx.project, new) is not None:
        raise NameTaken(f"Registered Model (name={new}) already exists.", mend="Choose another name.")
    store.rename(tx, name, new)
    store.change_registered_model(tx, new, updated_ms=runs.milliseconds(tx))
    tx.emit("registered_model.renamed", f"model:{new}", {"from": name, "to": new})
    return need_registered_model(tx.connection, tx.project, new)


def delete_registered_model(tx: Transaction, name: str) -> None:
    """Remove a registered model with all its versions; what the catalog knows of them stays."""
    need_registered_model(tx.connection, tx.project, name)
    store.delete_registered_model(tx, name)
    tx.emit("registered_model.deleted", f"model:{name}", {"name": name})


def set_model_tag(tx: Transaction, name: str, number: int, key: Any, value: Any) -> None:
    """Set a tag of a version, or (number 0) of the registered model."""
    tag = rules.pair(key, value, MODEL_TAG_LENGTH, "tag")
    _need(tx, name, number)
    store.put_tags(tx, name, number, [tag])


def delete_model_tag(tx: Transaction, name: str, number: int, key: Any) -> None:
    """Remove a tag of a version or registered model; one that is not there is no error."""
    rules.check_key(key, "key")
    _need(tx, name, number)
    store.delete_tag(tx, name, number, key)


def _need(tx: Transaction, name: str, number: int) -> None:
    if number:
        need_version(tx.connection, tx.project, name, number)
    else:
        need_registered_model(tx.connection, tx.project, name)


def is_prompt(model: RegisteredModel) -> bool:
    """Tell whether a registered model is a prompt."""
    return any(tag.key == PROMPT_TAG and tag.value.lower() == "true" for tag in model.tags)


def resolve_source(connection: sa.Connection, project: str, wish: NewVersion) -> str:
    """Return the folder in which the files of a wished version stand; "" for a prompt, which has none.

    Only places that this server keeps are taken: anything else is refused before a row is written.
    """
    source = wish.source
    found = None if _BAD_SIGNS.search(source) else _SOURCE.fullmatch(source)
    if found is None:
        raise InvalidInput(
            f"Invalid model version source: '{source[:200]}'.",
            why="A version's files are those this server keeps: mlflow-artifacts:/…, runs:/RUN/PATH or models:/ID.",
            mend="Log the model to a run first (mlflow.<flavor>.log_model), then register it from there.",
        )
    scheme, rest = found.groups()
    rest = rest.strip("/")
    if scheme == "mlflow-artifacts":
        return rules.artifact_path(rest)
    head, _, tail = rest.partition("/")
    if scheme == "runs":
        info = runs.find_run_info(connection, project, head)
        return rules.artifact_path(f"{folder_of(info.artifact_uri)}/{tail}".rstrip("/"))
    if head.startswith("m-"):
        return folder_of(need_logged_model(connection, project, head).artifact_uri)
    return folder_of(find_version(connection, project, rest).artifact_uri)


def check_prompt_source(source: str) -> None:
    """Refuse a prompt's source that says more than a word: a prompt's text is its tag, and it has no files."""
    if _WORD.fullmatch(source) is None:
        raise InvalidInput(f"Invalid prompt source: '{source[:200]}'.", why="A prompt has no files.")


def folder_of(uri: str) -> str:
    """Return the folder of artifacts that an address of ours names."""
    return uri.removeprefix("mlflow-artifacts:").strip("/")


def create_version(
    tx: Transaction, wish: NewVersion, folder: str, scanned: Scan, *, number: int | None = None
) -> ModelVersion:
    """Register a version of a registered model, and its content in the catalog, with its lineage from the run.

    It gets the next number, unless an importer says which it had.
    """
    model = need_registered_model(tx.connection, tx.project, wish.name)
    number = store.take_number(tx, wish.name, number)
    now = runs.milliseconds(tx)
    version = ""
    run = wish.run
    if wish.model:
        logged = need_logged_model(tx.connection, tx.project, wish.model)
        run = run or logged.source_run
    if run:
        runs.find_run_info(tx.connection, tx.project, run)
    if not is_prompt(model):
        files = artifacts.files_below(tx.connection, tx.project, folder)
        content = {
            "registry": "mlflow",
            "format": scanned.format,
            "files": {name: stored.digest for name, stored in files},
        }
        named = re.sub(r"[^A-Za-z0-9._-]+", "-", wish.name).strip("-._")[:63] or "model"
        blobs = sorted({stored.digest for _, stored in files})
        origin = (run,) if run else ()
        version = catalog.register(tx, "model", named, content, blobs=blobs, derived_from=origin).id
    made = ModelVersion(
        name=wish.name,
        number=number,
        source=wish.source,
        run=run,
        model=wish.model,
        description=wish.description,
        stage="None",
        status="READY",
        status_message=_VERDICTS[scanned.verdict] if version else "",
        created_ms=now,
        updated_ms=now,
        user=tx.context.actor.owner,
        run_link=wish.run_link,
        version=version,
        artifact_uri=f"mlflow-artifacts:/{folder}" if folder else wish.source,
        tags=wish.tags,
    )
    store.insert_version(tx, made)
    store.change_registered_model(tx, wish.name, updated_ms=now)
    tx.emit(
        "model_version.created", f"model:{wish.name}/{number}", {"version": version, "run": run, "source": wish.source}
    )
    return made


def need_version(connection: sa.Connection, project: str, name: str, number: int) -> ModelVersion:
    """Return a version; raise NoModel."""
    found = store.version(connection, project, check_model_name(name), number)
    if found is None:
        raise NoModel(f"Model Version (name={name}, version={number}) not found", mend="List the model's versions.")
    return found


def find_version(connection: sa.Connection, project: str, text: str) -> ModelVersion:
    """Return the version that “name/3”, “name/latest”, “name/Production” or “name@alias” means; raise NoModel."""
    if "@" in text:
        name, _, alias = text.rpartition("@")
        return version_by_alias(connection, project, name, alias)
    name, _, which = text.partition("/")
    if not which:
        raise InvalidInput(
            f"“{text[:200]}” names no version.",
            mend=f"Name one: {name[:200]}/3, {name[:200]}/latest or {name[:200]}@alias.",
        )
    if which.isdigit():
        return need_version(connection, project, name, int(which))
    model = need_registered_model(connection, project, name)
    wanted = [each for each in model.latest if which.lower() in ("latest", each.stage.lower())]
    if not wanted:
        raise NoModel(f"No versions of model with name '{name}' and stage '{which[:80]}' found")
    return max(wanted, key=lambda each: each.number)


def version_by_alias(connection: sa.Connection, project: str, name: str, alias: str) -> ModelVersion:
    """Return the version an alias points to; raise NoModel."""
    need_registered_model(connection, project, name)
    if alias.lower() == "latest":
        return find_version(connection, project, f"{name}/latest")
    number = store.alias_number(connection, project, name, alias)
    if number is None:
        raise NoAlias(f"Registered model alias {alias[:100]} not found.", mend="List the model's aliases.")
    return need_version(connection, project, name, number)


def describe_version(tx: Transaction, name: str, number: int, description: str) -> ModelVersion:
    """Change a version's description."""
    need_version(tx.connection, tx.project, name, number)
    store.change_version(tx, name, number, description=description, updated_ms=runs.milliseconds(tx))
    return need_version(tx.connection, tx.project, name, number)


def check_stage(stage: Any) -> Stage:
    """Return the stage that `stage` means in any case of its letters."""
    for known in STAGES:
        if isinstance(stage, str) and stage.lower() == known.lower():
            return known
    raise InvalidInput(
        f"Invalid Model Version stage: {str(stage)[:80]}.", why=f"Value must be one of {', '.join(STAGES)}."
    )


def move_stage(tx: Transaction, name: str, number: int, stage: Stage, *, archive: bool) -> ModelVersion:
    """Put a version into a stage, and archive what was there if asked."""
    before = need_version(tx.connection, tx.project, name, number)
    if archive and stage not in ("Staging", "Production"):
        raise InvalidInput(
            "Model version transition cannot archive existing model versions because "
            f"'{stage}' is not an Active stage.",
            why="Valid stages are Staging and Production.",
        )
    now = runs.milliseconds(tx)
    if archive:
        store.archive_stage(tx, name, stage, number, now)
    store.change_version(tx, name, number, stage=stage, updated_ms=now)
    tx.emit("model_version.staged", f"model:{name}/{number}", {"stage": stage}, before=before.stage, after=stage)
    return need_version(tx.connection, tx.project, name, number)


def set_alias(tx: Transaction, name: str, alias: str, number: int) -> None:
    """Point an alias to a version."""
    check_alias(alias)
    need_version(tx.connection, tx.project, name, number)
    before = store.put_alias(tx, name, alias, number)
    if before != number:
        told = "" if before is None else str(before)
        tx.emit("model_alias.moved", f"model:{name}@{alias}", {"number": number}, before=told, after=str(number))


def delete_alias(tx: Transaction, name: str, alias: str) -> None:
    """Remove an alias; one that is not there is no error."""
    need_registered_model(tx.connection, tx.project, name)
    if store.delete_alias(tx, name, alias):
        tx.emit("model_alias.deleted", f"model:{name}@{alias}")


def delete_version(tx: Transaction, name: str, number: int) -> None:
    """Remove a version from the registry; its number is never given again, and the catalog keeps its content."""
    need_version(tx.connection, tx.project, name, number)
    store.delete_version(tx, name, number)
    tx.emit("model_version.deleted", f"model:{name}/{number}")


def search_registered_models(
    connection: sa.Connection, project: str, filter: str, limit: int, order: Sequence[str], page: str | None
) -> tuple[list[RegisteredModel], str | None]:
    """Return a page of registered models (prompts only if asked for), and the token of the next page."""
    check_limit(limit, 1000)
    conditions, prompts = _about_prompts(parse_filter(filter, MODELS))
    orders = parse_order(order, MODELS, ATTRIBUTES_ALONE)
    question = ["models", filter, list(order)]
    among = None if prompts is None else store.is_prompt(project, PROMPT_TAG, versions=False, wanted=prompts)
    found, last = store.search_registered_models(
        connection, project, conditions, orders, limit, place_of(question, page), prompts=among
    )
    return found, None if last is None else token_of(question, last)


def search_versions(
    connection: sa.Connection, project: str, filter: str, limit: int, order: Sequence[str], page: str | None
) -> tuple[list[ModelVersion], str | None]:
    """Return a page of versions (of prompts only if asked for), and the token of the next page."""
    check_limit(limit, 200_000)
    conditions, prompts = _about_prompts(parse_filter(filter, VERSIONS))
    orders = parse_order(order, VERSIONS, ATTRIBUTES_ALONE)
    question = ["versions", filter, list(order)]
    among = None if prompts is None else store.is_prompt(project, PROMPT_TAG, versions=True, wanted=prompts)
    found, last = store.search_versions(
        connection, project, conditions, orders, limit, place_of(question, page), prompts=among
    )
    return found, None if last is None else token_of(question, last)


def _about_prompts(conditions: Sequence[Condition]) -> tuple[list[Condition], bool | None]:
    """Return the other conditions, and whether prompts are wanted: they do not appear among models unasked."""
    rest = [each for each in conditions if each.subject.key != PROMPT_TAG]
    if len(rest) == len(conditions):
        return rest, False
    asked = next(each for each in conditions if each.subject.key == PROMPT_TAG)
    positive = str(asked.value).lower() == "true"
    return rest, positive if asked.operator in ("=", "LIKE", "ILIKE") else not positive
