"""A project's definitions as plain data."""

from dataclasses import dataclass
from typing import Any, Literal

from holdtrue.catalog import Difference
from holdtrue.data import DatasetSpec
from holdtrue.delivery import RetrainSpec, ServiceSpec
from holdtrue.governance import Policy
from holdtrue.monitoring import MonitorSpec


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Describe a model: what it predicts, from which features, with which parameters."""

    name: str
    dataset: str
    label: str
    outcome: str
    features: tuple[str, ...]
    params: dict[str, Any]
    purpose: str = ""
    classes: tuple[str, ...] = ()
    number: bool = False


@dataclass(frozen=True, slots=True)
class AssetSpec:
    """Hold an asset that is written in files: applying the project makes a version of it."""

    kind: Literal["prompt", "guardrail", "route"]
    name: str
    content: Any


@dataclass(frozen=True, slots=True)
class ProjectSpec:
    """Hold everything a project declares; applying it twice changes nothing the second time."""

    name: str
    owner: str
    risk: str
    datasets: tuple[DatasetSpec, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    policies: tuple[Policy, ...] = ()
    services: tuple[ServiceSpec, ...] = ()
    monitors: tuple[MonitorSpec, ...] = ()
    retrains: tuple[RetrainSpec, ...] = ()
    assets: tuple[AssetSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """Name one difference between what a project declares and what is applied; of a change, by path what differs."""

    kind: str
    name: str
    action: str
    before: Any
    after: Any
    differences: tuple[Difference, ...] = ()
