"""What the catalog keeps: versions, aliases, lineage, releases, and what differs between two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from holdtrue.core.errors import Conflict

ChangeKind = Literal["added", "removed", "changed", "same"]
Direction = Literal["upstream", "downstream", "both"]


class Relation(StrEnum):
    """Name how data or trust flows along an edge of the lineage, from its source to its target."""

    DERIVED = "derived"
    PINNED = "pinned"
    PRODUCED = "produced"
    EVALUATED = "evaluated"
    TRIGGERED = "triggered"


@dataclass(frozen=True, slots=True)
class Version:
    """Hold one immutable version of an asset.

    `id` names the content; `number` counts the versions of this kind and name in the project, from 1;
    `blobs` are the digests of the bytes that the content refers to; `created_by` is a person's id.
    """

    id: str
    project: str
    kind: str
    name: str
    number: int
    content: Any
    blobs: tuple[str, ...]
    created_at: datetime
    created_by: str

    @property
    def label(self) -> str:
        """Return the name people use, as in “flights@7”."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True)
class Alias:
    """Hold a movable name for one version, as in “flights@production”."""

    kind: str
    name: str
    alias: str
    version: str
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Pin everything a release consists of.

    `versions` maps a role (model, features, dataset, contract, policy, …) to a version id.
    """

    service: str
    commit: str = ""
    environment_lock: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form whose hash names the release."""
        return {
            "service": self.service,
            "commit": self.commit,
            "environment_lock": self.environment_lock,
            "versions": dict(self.versions),
            "config": dict(self.config),
        }


@dataclass(frozen=True, slots=True)
class Release:
    """Hold one release: a manifest, who made it and when, and the run it came from."""

    id: str
    project: str
    service: str
    manifest: Manifest
    created_at: datetime
    created_by: str
    run: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Hold one difference between two JSON values.

    `path` reads like “columns[name=distance].ge”. `before` is None for what was added, `after` for
    what was removed.
    """

    path: str
    kind: Literal["added", "removed", "changed"]
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """Tell what happened to one role between two releases, and how.

    `before` and `after` are version ids, or the values of “commit” and “environment_lock”.
    """

    role: str
    before: str | None
    after: str | None
    kind: ChangeKind
    detail: Any


@dataclass(frozen=True, slots=True)
class Node:
    """Hold one end of lineage edges: a version, release, run, prediction or incident."""

    id: str
    kind: str
    name: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """Hold one step of the lineage, in the direction in which data flows."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Hold a part of the lineage; `truncated` tells that it goes on beyond the limit."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class VersionFilter:
    """Choose versions: None means any. The page begins after the cursor of the page before."""

    kind: str | None = None
    name: str | None = None
    limit: int = 100
    after: str | None = None


class IdTaken(Conflict):
    """Two different contents have the same id."""

    code = "id_taken"
