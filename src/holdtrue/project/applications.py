"""What a user writes of an application: files for prompt and test set, sources of the index, guards, the route."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdtrue.core.codec import dump
from holdtrue.core.errors import ConfigurationError
from holdtrue.delivery import Canary, ServiceSpec
from holdtrue.evaluation import Check, TestSet, load_test_set
from holdtrue.llm.gateway import Route, Target
from holdtrue.llm.guardrails import Guard, GuardrailSpec
from holdtrue.llm.model import Settings
from holdtrue.llm.prompts import Prompt, content_of, read_prompt
from holdtrue.llm.retrieval import Chunking, IndexSpec
from holdtrue.project.model import AssetSpec


@dataclass(frozen=True, slots=True)
class PromptFile:
    """Name the file that holds a prompt."""

    path: str

    def read(self, root: Path) -> tuple[str, Prompt]:
        """Return the prompt's name and the prompt; raise BadPrompt or NotFound."""
        return read_prompt(inside(root, self.path))


@dataclass(frozen=True, slots=True)
class TestSetFile:
    """Name the file that holds a test set."""

    path: str

    def read(self, root: Path) -> TestSet:
        """Return the test set; raise what names the file, the line and the field."""
        return load_test_set(inside(root, self.path))


@dataclass(frozen=True, slots=True)
class IndexSources:
    """Say which documents an index holds, and how it is made; `root` is relative to the project file."""

    spec: IndexSpec
    root: str = "."


@dataclass(frozen=True, slots=True)
class GuardrailsFile:
    """Hold the guards of an application."""

    name: str
    guards: tuple[Guard, ...]

    @property
    def spec(self) -> GuardrailSpec:
        """Return them as what is versioned."""
        return GuardrailSpec(self.name, self.guards)


@dataclass(frozen=True, slots=True)
class Application:
    """Hold an application's definition; `judge` is the model that grades by rubrics, if any check does.

    It takes `rate` requests a second (0: any number), and needs no rollout in the environments `at_once`.
    """

    name: str
    prompt: PromptFile
    route: Route
    index: IndexSources | None
    guardrails: GuardrailsFile | None
    test_set: TestSetFile | None
    checks: tuple[Check, ...]
    rollout: Canary
    answering: Settings = field(default_factory=Settings)
    judge: Route | None = None
    rate: float = 0.0
    at_once: tuple[str, ...] = ()

    @property
    def spec(self) -> ServiceSpec:
        """Return the service it is."""
        name = self.name
        return ServiceSpec(
            name, name, entity="user", rollout=self.rollout, kind="application", rate=self.rate, at_once=self.at_once
        )


def route(model: str, *fallbacks: str, **settings: Any) -> Route:
    """Say who answers: “provider/model”, and others in turn if it cannot."""
    return Route(targets=tuple(_target(each) for each in (model, *fallbacks)), **settings)


def index(
    name: str, *sources: str, root: str = ".", chunk_words: int = 160, overlap: int = 24, **settings: Any
) -> IndexSources:
    """Say which documents are searched: patterns of files below `root`, which is relative to the project file."""
    chunking = Chunking(words=chunk_words, overlap=overlap)
    return IndexSources(IndexSpec(name=name, sources=sources, chunking=chunking, **settings), root)


def guard(kind: Any, **settings: Any) -> Guard:
    """Declare a guard: “secrets”, “personal_data”, “injection”, “schema” or “grounding”, and what follows from it."""
    return Guard(kind, **settings)


def check(kind: str, *, name: str = "", **options: Any) -> Check:
    """Declare a check of answers by its kind and the options of that kind."""
    return Check(kind, options, name)


def _target(text: str) -> Target:
    provider, separator, model = text.partition("/")
    if not separator or not provider or not model:
        raise ConfigurationError(
            f"“{text}” is not a model of a provider.",
            why="A route names who answers as “provider/model”.",
            mend="Write for example “extractive/sentences”.",
        )
    return Target(provider, model)


def inside(root: Path, path: str) -> Path:
    """Return the file at `path` below `root`; raise ConfigurationError for one that lies elsewhere."""
    found = (root / path).resolve()
    if not found.is_relative_to(root.resolve()):
        raise ConfigurationError(
            f"The file {path} does not lie in the project's folder.",
            why="What a release is made of must come from the project's own repository.",
            mend="Move the file below the folder of the project file.",
        )
    return found


def contents(application: Application, root: Path) -> dict[str, tuple[str, str, Any]]:
    """Return, by role, kind, name and content of what an application's files say: prompt, guardrails, route."""
    name, prompt = application.prompt.read(root)
    found: dict[str, tuple[str, str, Any]] = {
        "prompt": ("prompt", name, content_of(prompt)),
        "route": ("route", application.name, dump(application.route)),
    }
    if application.guardrails is not None:
        found["guardrails"] = ("guardrail", application.guardrails.name, dump(application.guardrails.spec))
    return found


def assets_of(applications: Iterable[Application], root: Path) -> tuple[AssetSpec, ...]:
    """Return the assets that applying the project makes versions of, each once."""
    found: dict[tuple[str, str], AssetSpec] = {}
    for each in applications:
        for kind, name, content in contents(each, root).values():
            known = found.setdefault((kind, name), AssetSpec(kind, name, content))  # type: ignore[arg-type]
            if known.content != content:
                raise ConfigurationError(
                    f"Two files hold a {kind} named “{name}”, and they differ.",
                    mend="Give one of them another name.",
                )
    return tuple(found.values())
