"""Whether what is deployed is still what the project declares, and whether what is served is what is deployed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa

from holdtrue import catalog, governance
from holdtrue.core.canonical import content_hash
from holdtrue.delivery import store
from holdtrue.delivery.backing import backup_of
from holdtrue.delivery.model import Deployment, DeploymentState, ServiceSpec
from holdtrue.serving.acks import read_acks
from holdtrue.storage import Stores

_SETTINGS: Final = ("key", "entity", "prediction_time", "fallback", "abstain")
_PARTS: Final = ("services", "releases", "applications", "gateway")


@dataclass(frozen=True, slots=True)
class Drift:
    """Tell one way in which the deployed state is not what it should be, why, and what would mend it."""

    subject: str
    what: str
    why: str
    mend: str


def drift(stores: Stores, project: str) -> list[Drift]:
    """Return how the deployed state of a project differs from what is declared and recorded; none is good."""

    def look(connection: sa.Connection) -> tuple[list[Drift], Any]:
        services = {each.name: each.spec for each in store.list_services(connection, project)}
        found = [
            each
            for row in store.list_deployments(connection, project)
            for each in _of_deployment(connection, project, row, services.get(row.service))
        ]
        return found, store.latest_snapshot(connection)

    found, latest = stores.ledger.read(look)
    return found if latest is None else [*found, *_of_planes(stores.home, latest[0], latest[1])]


def _of_deployment(
    connection: sa.Connection, project: str, row: Deployment, spec: ServiceSpec | None
) -> Iterator[Drift]:
    subject = f"{row.service} in {row.environment}"
    again = f"holdtrue promote {row.service} RELEASE --environment {row.environment}"
    if row.state is DeploymentState.FAILED:
        failed = row.failed or row.release
        yield Drift(
            subject,
            f"The release {failed} could not be loaded; {row.release} is wished for.",
            row.why.removeprefix(f"The release {failed} could not be loaded: "),
            f"Promote a release that can be loaded: {again}",
        )
    decision = governance.decision(connection, project, row.decision)
    bound = governance.policies(connection, project).get(row.environment)
    if bound is None or bound[0] != decision.policy:
        now = "no policy is declared now" if bound is None else f"the policy is now {bound[0]}"
        yield Drift(
            subject,
            f"{row.release} was let in under another policy than the one that holds.",
            f"It was decided on {decision.policy}, and {now}.",
            f"See whether it would be let in today: holdtrue gate {row.release} --environment {row.environment}",
        )
    backup = backup_of(connection, project, row, spec)
    if backup.why:
        yield Drift(
            subject,
            "The declared backup does not stand behind the deployed release.",
            backup.why,
            "If the model fails, the constant answers; declare another fallback, or deploy what is named.",
        )
    if spec is not None and spec.kind == "model":
        yield from _of_settings(connection, project, row, spec, subject)


def _of_settings(
    connection: sa.Connection, project: str, row: Deployment, spec: ServiceSpec, subject: str
) -> Iterator[Drift]:
    config = catalog.release(connection, project, row.release).manifest.config
    for name in _SETTINGS:
        declared, pinned = getattr(spec, name), config.get(name)
        if isinstance(declared, tuple):
            declared = list(declared)
        if declared != pinned:
            yield Drift(
                subject,
                f"The {name.replace('_', ' ')} of the service is not the one that is deployed.",
                f"{declared!r} is declared, and {row.release} pins {pinned!r}: a release keeps its settings.",
                f"Make a release with the present ones and promote it: holdtrue run {spec.model}",
            )


def _of_planes(home: Path, sequence: int, digest: str) -> Iterator[Drift]:
    path = home / "routing" / "current.json"
    told = "The control plane writes it anew within seconds while it runs: holdtrue up"
    try:
        data = orjson.loads(path.read_bytes())
        written, content = int(data["sequence"]), content_hash({name: data[name] for name in _PARTS})
    except (OSError, ValueError, KeyError, TypeError):
        yield Drift(
            "routing", "The routing snapshot cannot be read.", f"It is snapshot {sequence}, at {path.name}.", told
        )
        return
    if written != sequence:
        yield Drift("routing", f"The routing file holds snapshot {written}.", f"The newest is {sequence}.", told)
    elif content != digest:
        yield Drift(
            "routing",
            f"The routing file of snapshot {sequence} was changed by another hand.",
            "Its hash is not the one that was recorded when it was issued.",
            "Take the file away; the control plane writes it anew. Then find out who changed it: holdtrue activity",
        )
    for ack in read_acks(home):
        if ack.sequence < sequence:
            yield Drift(
                f"data plane {ack.worker}",
                f"It serves snapshot {ack.sequence}, and {sequence} is the newest.",
                "It has not loaded it yet, or it does not run.",
                "Look whether it runs: holdtrue doctor",
            )
        for release, why in sorted(ack.failed.items()):
            yield Drift(f"data plane {ack.worker}", f"It cannot load {release}.", why, "Promote another release.")
