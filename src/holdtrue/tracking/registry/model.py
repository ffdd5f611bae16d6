"""Nouns of the registry: logged models, registered models, versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from holdtrue.core.errors import NotFound
from holdtrue.tracking.model import ModelMetric, Pair

Stage = Literal["None", "Staging", "Production", "Archived"]

STAGES: Final[tuple[Stage, ...]] = ("None", "Staging", "Production", "Archived")
ACTIVE_STAGES: Final[tuple[Stage, ...]] = ("Staging", "Production")
PRODUCTION: Final = "production"
"""The alias, and in lower case the stage, that only an approved release may be given."""

PROMPT_TAG: Final = "mlflow.prompt.is_prompt"
"""The tag that makes a registered model a prompt."""

MODEL_TAG_LENGTH: Final = 100_000


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """Hold a model that a run made, before anybody registers it. `status`: PENDING, READY, UPLOAD_FAILED."""

    id: str
    experiment: int
    name: str
    created_ms: int
    updated_ms: int
    artifact_uri: str
    status: str
    model_type: str = ""
    source_run: str = ""
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()
    metrics: tuple[ModelMetric, ...] = ()
    registrations: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """Hold a name under which model versions are counted."""

    name: str
    description: str
    created_ms: int
    updated_ms: int
    user: str
    tags: tuple[Pair, ...] = ()
    aliases: tuple[tuple[str, int], ...] = ()
    latest: tuple["ModelVersion", ...] = ()


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Hold one version of a registered model. `version` is the id that the catalog knows its content by."""

    name: str
    number: int
    source: str
    run: str
    model: str
    description: str
    stage: Stage
    status: str
    status_message: str
    created_ms: int
    updated_ms: int
    user: str
    run_link: str
    version: str
    artifact_uri: str
    tags: tuple[Pair, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Ask for a version of a registered model."""

    name: str
    source: str
    run: str = ""
    model: str = ""
    description: str = ""
    run_link: str = ""
    tags: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """Tell what the bytes of a model version are, as evidence.

    `verdict`: clean (data only), code (would run code when loaded), unsafe (asks for what no model needs),
    unknown (something could not be read), empty.
    """

    verdict: str
    format: str
    files: int
    bytes: int
    digest: str
    licence: str
    findings: tuple[Mapping[str, str], ...] = field(default_factory=tuple)


class NoModel(NotFound):
    """No registered or logged model, version or alias has this name."""

    code = "no_model"


class NoAlias(NoModel):
    """A registered model has no alias of this name."""

    code = "no_alias"
