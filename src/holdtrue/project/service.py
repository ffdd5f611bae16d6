"""Compare what a project declares with what is applied, and apply it."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog, data, delivery, governance, llm, monitoring
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import NotFound
from holdtrue.project import rules
from holdtrue.project.model import PlannedChange, ProjectSpec
from holdtrue.storage.ledger import Transaction

_REMOVED = "It was taken out of the project file."
_PARTS = ("datasets", "models", "policies", "services", "monitors", "retrains")


def applied(connection: sa.Connection, project: str) -> ProjectSpec | None:
    """Return what was applied last."""
    try:
        version = catalog.find(connection, project, "config", project, alias="applied")
    except NotFound:
        return None
    return load(ProjectSpec, version.content, f"The project {project}")


def plan(connection: sa.Connection, project: str, wanted: ProjectSpec) -> tuple[PlannedChange, ...]:
    """Return every difference between what is applied and what is wanted; none means nothing to do.

    Raises ConfigurationError for parts that do not fit together, Conflict for a removal that is not possible.
    """
    rules.check_whole(wanted)
    before = applied(connection, project)
    old, new = {} if before is None else dump(before), dump(wanted)
    changes = [
        PlannedChange("project", key, "change" if before else "add", old.get(key), new[key])
        for key in ("owner", "risk")
        if old.get(key) != new[key]
    ]
    for part in _PARTS:
        changes += _differences(part, _named(old.get(part, ())), _named(new[part]))
    for kind in ("prompt", "guardrail", "route"):
        before_kind, after_kind = (
            [each for each in side.get("assets", ()) if each["kind"] == kind] for side in (old, new)
        )
        changes += _differences(kind, _named(before_kind), _named(after_kind))
    for name in _removed(changes, "service"):
        delivery.check_removable(connection, project, name)
    return tuple(changes)


def contract_plan(connection: sa.Connection, project: str, wanted: ProjectSpec) -> list[dict[str, Any]]:
    """Return what changes in the contracts of datasets that stay; a breaking change names who depends on it."""
    before = applied(connection, project)
    old = {} if before is None else {each.name: each.tagged() for each in before.datasets}
    found: list[dict[str, Any]] = []
    for dataset in wanted.datasets:
        changes = data.contract_changes(old[dataset.name], dataset.tagged()) if dataset.name in old else []
        for change in changes:
            breaking = change.effect == "breaking"
            who = data.dependents(connection, project, dataset.name, change.columns) if breaking else []
            found.append({"dataset": dataset.name, **dump(change), "dependents": who})
    return found


def apply(tx: Transaction, wanted: ProjectSpec) -> tuple[PlannedChange, ...]:
    """Make `wanted` the project's definitions, in one transaction; return what changed.

    What is no longer declared is no longer in force; versions, decisions and events of it stay.
    """
    changes = plan(tx.connection, tx.context.project, wanted)
    if not changes:
        return ()
    _remove(tx, changes)
    data.declare(tx, wanted.datasets)
    llm.declare(tx, [(each.kind, each.name, each.content) for each in wanted.assets])
    governance.declare(tx, wanted.policies)
    delivery.declare(tx, wanted.services, wanted.retrains)
    monitoring.declare(tx, wanted.monitors)
    version = catalog.register(tx, "config", tx.context.project, dump(wanted))
    catalog.set_alias(tx, "config", tx.context.project, "applied", version.id)
    tx.emit(
        "project.applied",
        f"project:{tx.context.project}",
        {"version": version.id, "changes": [f"{each.action} {each.kind} {each.name}" for each in changes]},
    )
    return changes


def _remove(tx: Transaction, changes: Iterable[PlannedChange]) -> None:
    for name in _removed(changes, "retrain"):
        delivery.remove_retrain(tx, name, _REMOVED)
    for name in _removed(changes, "service"):
        delivery.remove_service(tx, name, _REMOVED)
    for name in _removed(changes, "policy"):
        governance.unbind(tx, name, _REMOVED)
    for name in _removed(changes, "dataset"):
        data.remove(tx, name, _REMOVED)


def _removed(changes: Iterable[PlannedChange], kind: str) -> list[str]:
    return [each.name for each in changes if each.kind == kind and each.action == "remove"]


def _named(items: Any) -> dict[str, Any]:
    return {str(item.get("name") or item.get("environment") or item.get("model")): item for item in items}


def _differences(part: str, old: dict[str, Any], new: dict[str, Any]) -> list[PlannedChange]:
    kind = {"policies": "policy"}.get(part, part.removesuffix("s"))
    found: list[PlannedChange] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before != after:
            action = "add" if before is None else "remove" if after is None else "change"
            by_path = catalog.differences(before, after)[0] if action == "change" else ()
            found.append(PlannedChange(kind, name, action, before, after, tuple(by_path)))
    return found
