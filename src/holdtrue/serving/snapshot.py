"""The routing snapshot: all a data plane needs to know to serve, in one immutable file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import orjson

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.core.ids import check_name
from holdtrue.stats.conformal import ClassSets, Ranges, Sets
from holdtrue.storage import write_atomic

DATATYPES: Mapping[str, tuple[int, int] | None] = MappingProxyType(
    {
        "BOOL": None,
        "INT8": (-(2**7), 2**7 - 1),
        "INT16": (-(2**15), 2**15 - 1),
        "INT32": (-(2**31), 2**31 - 1),
        "INT64": (-(2**63), 2**63 - 1),
        "UINT8": (0, 2**8 - 1),
        "UINT16": (0, 2**16 - 1),
        "UINT32": (0, 2**32 - 1),
        "UINT64": (0, 2**64 - 1),
        "FP32": None,
        "FP64": None,
        "BYTES": None,
    }
)
"""Tensor datatypes of the Open Inference Protocol that an input may have; integers with their range."""


class BadSnapshot(InvalidInput):
    """A routing snapshot contradicts itself and is not served."""

    code = "bad_snapshot"


@dataclass(frozen=True, slots=True)
class Input:
    """Name one column of a request and its Open Inference Protocol datatype."""

    name: str
    datatype: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Name the blob that holds a model, and its format as `load_model` knows it."""

    format: Literal["onnx", "onnx-file", "lightgbm", "xgboost", "skops", "python", "torch", "graph"]
    digest: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """Hold everything that one release needs to answer a request.

    `features` is the JSON of a feature set, `contract` that of a contract; `prediction_time` names the
    input that says for which moment features are looked up (None: the moment of the request). `matrix` names a
    tensor of shape [rows, inputs] in which all inputs, numbers of one datatype, may be sent at once. `background` is
    the digest of the training rows against which an answer is explained; `sets` say which outcomes a score leaves
    possible. A model of three or more `classes` answers with the name of one; `class_sets` say which are possible; of a
    predicted number, `ranges` say how far off it may be. `event` tells that it surely answers with the chance of an
    event, whose truth is 0 or 1; of a file that is served as it is, that is not known.
    """

    release: str
    project: str
    service: str
    inputs: tuple[Input, ...]
    contract: Any
    features: Any
    model: ModelFile
    output: str
    prediction_time: str | None = None
    matrix: str | None = None
    background: str | None = None
    sets: Sets | None = None
    classes: tuple[str, ...] = ()
    class_sets: ClassSets | None = None
    ranges: Ranges | None = None
    event: bool = False

    @property
    def chances(self) -> str:
        """Return the name of the tensor that holds the probability of each class."""
        return f"{self.output}_probabilities"


@dataclass(frozen=True, slots=True)
class Application:
    """Hold everything that one release of an application needs to answer.

    `versions` maps a role (prompt, index, guardrails, route) to the id of the version the release pins, and
    `parts` to its content.
    """

    release: str
    project: str
    service: str
    versions: dict[str, str]
    parts: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Arm:
    """Give a release a share of a service's rows, in percent."""

    name: str
    release: str
    percent: float


@dataclass(frozen=True, slots=True)
class Route:
    """Say how one service is answered: by which arms, with which shadows, and by what if all fails.

    `key` and `entity` name inputs; rows of one entity stay on one arm as long as `seed` and the shares
    stand. With `paired`, every row the last arm answers is scored by the first arm too. Where a model fails, the
    first arm's answers, then the release `backup` (also of another service), then the constant `fallback`. `stopped`
    is the reason for which the service is switched off: then every row gets the constant, and an application says
    `words`. A score within `abstain`, both ends included, is marked as no decision.

    A route that is `named` answers the requests that name its `environment`; the other one of the service also those
    that name none. `rate` is how many requests a second it takes (0: any number).
    """

    project: str
    service: str
    key: str | None
    entity: str | None
    arms: tuple[Arm, ...]
    seed: str = ""
    rollout: str | None = None
    shadows: tuple[str, ...] = ()
    paired: bool = False
    fallback: float | None = None
    backup: str | None = None
    stopped: str | None = None
    abstain: tuple[float, float] | None = None
    words: str | None = None
    environment: str = "production"
    named: bool = False
    rate: float = 0.0

    @property
    def name(self) -> str:
        """Return what it is asked and recorded by: the service, with the environment where that must be named."""
        return f"{self.service}@{self.environment}" if self.named else self.service

    @property
    def unit(self) -> str | None:
        """Return the input whose value decides the arm: the entity, or else the key."""
        return self.entity or self.key

    @property
    def releases(self) -> tuple[str, ...]:
        """Return every release this route needs, arms first, each once."""
        backup = () if self.backup is None else (self.backup,)
        return tuple(dict.fromkeys([*(arm.release for arm in self.arms), *self.shadows, *backup]))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State what all data planes of a home shall serve; a higher sequence replaces a lower one.

    `services` are routes of models and of applications; `releases` hold the models' bundles, `applications` the
    applications'. `gateway` is the JSON by which the gateway is configured: providers, budgets, prompts.
    """

    sequence: int
    issued_at: datetime
    services: dict[str, Route] = field(default_factory=dict[str, Route])
    releases: dict[str, Bundle] = field(default_factory=dict[str, Bundle])
    applications: dict[str, Application] = field(default_factory=dict[str, Application])
    gateway: dict[str, Any] = field(default_factory=dict[str, Any])


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Check `snapshot` and put it at `path` atomically and durably."""
    check_snapshot(snapshot)
    write_atomic(path, orjson.dumps(dump(snapshot)))


def read_snapshot(path: Path) -> Snapshot:
    """Return the snapshot at `path`; raise BadSnapshot if it is unreadable or contradicts itself."""
    try:
        data = orjson.loads(path.read_bytes())
        snapshot = load(Snapshot, data, "The routing snapshot")
    except (OSError, ValueError) as error:
        raise BadSnapshot(
            "The routing snapshot cannot be read.",
            why=f"{type(error).__name__}: {error}",
            mend="The control plane writes it again at its next pass; look at its log if it does not.",
        ) from None
    except BadSnapshot:
        raise
    except HoldtrueError as error:
        raise BadSnapshot(error.what, why=error.why, mend=error.mend) from None
    check_snapshot(snapshot)
    return snapshot


def check_snapshot(snapshot: Snapshot) -> None:
    """Raise BadSnapshot unless every route is complete and every name resolves."""
    for identity, bundle in snapshot.releases.items():
        if identity != bundle.release:
            raise _bad(f"release {bundle.release} is listed as {identity}")
        _check_names(bundle)
        _check_bundle(bundle)
    for identity, application in snapshot.applications.items():
        if identity != application.release or identity in snapshot.releases:
            raise _bad(f"application {application.release} is listed as {identity}, or as a model too")
        _check_names(application)
    for identity, route in snapshot.services.items():
        _check_route(identity, route, snapshot)


def _check_names(part: Bundle | Application) -> None:
    try:
        check_name(part.project, "project name")
        check_name(part.service, "service name")
    except InvalidInput as error:
        raise _bad(f"release {part.release} is of another form: {error.what}") from None


def _check_bundle(bundle: Bundle) -> None:
    names = [each.name for each in bundle.inputs]
    if len(set(names)) != len(names):
        raise _bad(f"release {bundle.release} has an input twice")
    for each in bundle.inputs:
        if each.datatype not in DATATYPES:
            raise _bad(f"input {each.name} of release {bundle.release} has the datatype {each.datatype}")
    if bundle.prediction_time is not None and bundle.prediction_time not in names:
        raise _bad(f"release {bundle.release} has no input {bundle.prediction_time} for the prediction time")
    if len(bundle.classes) in (1, 2) or len(set(bundle.classes)) != len(bundle.classes):
        raise _bad(f"release {bundle.release} has the classes {list(bundle.classes)}")
    if bundle.class_sets is not None and len(bundle.class_sets.at_least) != len(bundle.classes):
        raise _bad(f"release {bundle.release} has prediction sets of other classes than its own")
    if bundle.matrix is not None:
        kinds = {each.datatype for each in bundle.inputs}
        if bundle.matrix in names or len(kinds) != 1 or not kinds.isdisjoint({"BYTES", "BOOL"}):
            raise _bad(f"release {bundle.release} takes a matrix of inputs that are not numbers of one datatype")


def _check_route(identity: str, route: Route, snapshot: Snapshot) -> None:
    if identity != f"{route.project}/{route.name}":
        raise _bad(f"the route of {route.project}/{route.name} is listed as {identity}")
    if not route.arms:
        raise _bad(f"{identity} has no arm")
    if len({arm.name for arm in route.arms}) != len(route.arms):
        raise _bad(f"{identity} has an arm twice")
    if any(arm.percent < 0 for arm in route.arms) or abs(sum(a.percent for a in route.arms) - 100) > 1e-6:
        raise _bad(f"the shares of {identity} do not add up to 100 percent")
    if sum(arm.percent > 0 for arm in route.arms) > 1 and route.unit is None:
        raise _bad(f"{identity} has several arms, and no entity or key that could tell rows apart")
    if route.abstain is not None and not route.abstain[0] <= route.abstain[1]:
        raise _bad(f"{identity} abstains between {route.abstain[0]} and {route.abstain[1]}, where nothing is")
    known: dict[str, Bundle | Application] = {**snapshot.releases, **snapshot.applications}
    for release in route.releases:
        part = known.get(release)
        if part is None:
            raise _bad(f"{identity} names release {release}, which is not in the snapshot")
        # The same manifest in two projects is the same release, so one bundle may serve both.
        if part.service != route.service and release != route.backup:
            raise _bad(f"{identity} names release {release}, which belongs to another service")
    kinds = {release in snapshot.applications for release in route.releases}
    if len(kinds) > 1:
        raise _bad(f"{identity} names a model and an application")
    if kinds == {True}:
        if route.shadows or route.paired:
            raise _bad(f"{identity} is an application, which is not answered twice")
        return
    told = {snapshot.releases[release].classes for release in route.releases}
    if len(told) > 1:
        raise _bad(f"the releases of {identity} tell different classes apart")
    inputs = {each.name for each in snapshot.releases[route.arms[0].release].inputs}
    for name in (route.key, route.entity):
        if name is not None and name not in inputs:
            raise _bad(f"{identity} takes {name} as key or entity, which is not an input")
    if route.backup is not None and not {each.name for each in snapshot.releases[route.backup].inputs} <= inputs:
        raise _bad(f"the backup of {identity} reads inputs that its requests do not carry")


def first_environments(snapshot: Snapshot) -> dict[tuple[str, str], str]:
    """Return, by (project, service), the environment that answers requests which name none."""
    return {
        (route.project, route.service): route.environment for route in snapshot.services.values() if not route.named
    }


def planned_name(first: Mapping[tuple[str, str], str], project: str, name: str) -> str:
    """Return by which name a service is planned: `delay@dev` is `delay` where dev answers what names none."""
    service, _, environment = name.partition("@")
    return service if environment and first.get((project, service)) == environment else name


def _bad(why: str) -> BadSnapshot:
    return BadSnapshot(
        "The routing snapshot contradicts itself.",
        why=f"In it, {why}.",
        mend="The data plane keeps its last good snapshot; correct the deployment and let it reconcile.",
    )
