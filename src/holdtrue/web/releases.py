"""Read what the pages about releases show."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog, delivery, governance
from holdtrue.catalog import Change, Release
from holdtrue.core.errors import NotFound
from holdtrue.delivery import Deployment, Rollout, RolloutState
from holdtrue.governance import Decision
from holdtrue.web import evidence, reasons, store, texts, urls
from holdtrue.web.model import (
    ChangeRow,
    Pin,
    ReleasePage,
    ReleaseRow,
    ReleasesPage,
    RuleRow,
)

PAGE = 25


def listing(connection: sa.Connection, project: str, service: str, after: str | None) -> ReleasesPage:
    """Return one page of releases, newest first, those after the release `after`."""
    found = catalog.releases(connection, project, service or None, limit=PAGE + 1, after=after)
    shown = found[:PAGE]
    deployments = delivery.deployments(connection, project)
    running = delivery.rollouts(connection, project, state=RolloutState.RUNNING)
    names = store.names(connection, (release.created_by for release in shown))
    rows: list[ReleaseRow] = []
    for release in shown:
        newest = governance.decisions(connection, project, release=release.id, limit=1)
        rows.append(
            ReleaseRow(
                release=release,
                author=names.get(release.created_by, texts.short(release.created_by)),
                model=model_label(connection, project, release),
                decision=newest[0] if newest else None,
                place=place(release.id, deployments, running),
            )
        )
    more = len(found) > PAGE
    return ReleasesPage(
        rows=tuple(rows),
        service=service,
        services=tuple(each.name for each in delivery.services(connection, project)),
        older=urls.releases(project, service=service, after=shown[-1].id) if more else None,
        first=after is None,
    )


def one(connection: sa.Connection, project: str, id: str) -> ReleasePage:
    """Return everything about one release; NotFound if the project has none of this id."""
    release = catalog.release(connection, project, id)
    decisions = governance.decisions(connection, project, release=id, limit=20)
    before = catalog.releases(connection, project, release.service, limit=1, after=id)
    previous = before[0].id if before else None
    changes = catalog.diff(connection, project, previous, id) if previous else ()
    return ReleasePage(
        release=release,
        author=store.names(connection, [release.created_by]).get(release.created_by, texts.short(release.created_by)),
        place=place(
            id,
            delivery.deployments(connection, project),
            delivery.rollouts(connection, project, state=RolloutState.RUNNING),
        ),
        pins=tuple(_pin(connection, project, *item) for item in sorted(release.manifest.versions.items())),
        config=tuple((name, texts.plain(value)) for name, value in release.manifest.config.items()),
        decisions=tuple(decisions),
        rules=_rules(decisions[0]) if decisions else (),
        evidence=evidence.views(governance.latest_evidence(connection, project, release)),
        approvals=tuple(governance.approvals(connection, project, id)),
        previous=previous,
        changes=tuple(_change(each) for each in changes),
        lineage=_made_from(connection, project, id),
        used_by=_used_by(connection, project, id),
    )


def place(id: str, deployments: list[Deployment], running: list[Rollout]) -> str:
    """Return in words where a release is used now, or nothing."""
    for rollout in running:
        if rollout.challenger == id:
            return f"Canary in {rollout.environment}, {texts.percent(rollout.percent / 100)}"
    found = [each.environment for each in deployments if each.release == id]
    return f"Answers in {' and '.join(found)}" if found else ""


def model_label(connection: sa.Connection, project: str, release: Release) -> str:
    """Return the name and number of the model a release pins, or nothing."""
    version = release.manifest.versions.get("model")
    if version is None:
        return ""
    try:
        return catalog.get(connection, project, version).label
    except NotFound:
        return texts.short(version)


def _pin(connection: sa.Connection, project: str, role: str, id: str) -> Pin:
    try:
        version = catalog.get(connection, project, id)
    except NotFound:
        return Pin(role, id, "–", "")
    return Pin(role, id, version.label, version.kind)


def _rules(decision: Decision) -> tuple[RuleRow, ...]:
    return tuple(
        RuleRow(each.rule, each.expression, each.passed, texts.plain(each.values), each.why, each.mend)
        for each in decision.findings
    )


def _made_from(connection: sa.Connection, project: str, id: str) -> reasons.Why | None:
    graph = catalog.lineage(connection, project, id, direction="upstream")
    if not graph.edges:
        return None
    return reasons.upstream(graph, id, lambda other: None if other == id else urls.of_object(project, other))


def _used_by(connection: sa.Connection, project: str, id: str) -> tuple[reasons.Why, ...]:
    graph = catalog.lineage(connection, project, id, direction="downstream")
    return reasons.downstream(graph, id, lambda other: urls.of_object(project, other))


def _change(change: Change) -> ChangeRow:
    detail = change.detail if isinstance(change.detail, Mapping) else {}
    return ChangeRow(
        change=change,
        before=_side(detail.get("before"), change.before),
        after=_side(detail.get("after"), change.after),
        differences=tuple(
            (str(each.get("path", "")), texts.plain(each.get("before")), texts.plain(each.get("after")))
            for each in detail.get("differences", ())
        ),
    )


def _side(summary: Any, value: str | None) -> str:
    if isinstance(summary, Mapping):
        return f"{summary.get('name')}@{summary.get('number')}"
    return texts.short(value) if value else texts.MISSING
