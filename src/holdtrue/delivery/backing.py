"""Which release answers where a service's own fails: the one before it, or that of a simpler service."""

from dataclasses import dataclass

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.catalog import Release
from holdtrue.core.errors import HoldtrueError
from holdtrue.delivery import bundles, rules, store
from holdtrue.delivery.model import PREVIOUS, Deployment, ServiceSpec


@dataclass(frozen=True, slots=True)
class Backup:
    """Name the release that stands behind a service's own, or say why none does."""

    release: str | None
    why: str = ""


def backup_of(connection: sa.Connection, project: str, present: Deployment, spec: ServiceSpec | None) -> Backup:
    """Return what stands behind a deployed release, as its service declares it.

    It must be servable, and read no input that requests of the deployed release do not carry. What cannot stand in is
    left out, with the reason: a service must not stop for want of its backup.
    """
    if spec is None or spec.backup is None:
        return Backup(None)
    try:
        release = _named(connection, project, present, spec.backup)
        if release is None:
            return Backup(None, _nothing(spec.backup, present))
        champion = catalog.release(connection, project, present.release)
        return _fitting(connection, project, release, champion)
    except HoldtrueError as error:
        return Backup(None, f"{error.what} {error.why}".strip())


def _named(connection: sa.Connection, project: str, present: Deployment, wanted: str) -> str | None:
    """Return the release that is meant: the one before, one by its id, or what is deployed of another service."""
    if wanted == PREVIOUS:
        changes = store.list_changes(connection, project, present.service, present.environment)
        back = rules.earlier(changes)
        return None if back is None else back.release
    if wanted.startswith("rel_"):
        return wanted
    other = store.deployment(connection, project, wanted, present.environment)
    return None if other is None else other.release


def _fitting(connection: sa.Connection, project: str, name: str, champion: Release) -> Backup:
    if name == champion.id:
        return Backup(None, f"{name} is the deployed release itself.")
    release = catalog.release(connection, project, name)
    if bundles.is_application(release) or bundles.is_application(champion):
        return Backup(None, "An application falls back by its route, from one model to the next.")
    mine, other = (bundles.bundle(connection, project, each) for each in (champion, release))
    if mine.classes != other.classes:
        return Backup(None, f"{name} does not tell the same classes apart.")
    carried = {(each.name, each.datatype) for each in mine.inputs}
    extra = {(each.name, each.datatype) for each in other.inputs} - carried
    if extra:
        wanted, datatype = min(extra)
        return Backup(None, f"{name} reads the input {wanted} ({datatype}), which requests do not carry.")
    return Backup(name)


def _nothing(wanted: str, present: Deployment) -> str:
    if wanted == PREVIOUS:
        return f"There is no release before {present.release} in {present.environment}."
    return f"Nothing of the service {wanted} is deployed in {present.environment}."
