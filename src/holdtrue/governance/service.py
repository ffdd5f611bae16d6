"""Use cases of governance: record evidence, bind policies, decide, approve."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.catalog import Release
from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.canonical import canonical_bytes, content_hash
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import Forbidden, NotFound
from holdtrue.core.ids import check_name, new_id
from holdtrue.governance import calendar, rules, store
from holdtrue.governance.model import (
    APPROVAL_LIFE,
    COMPUTED,
    EVIDENCE_BYTES,
    EVIDENCE_NAMES,
    Approval,
    BadEvidence,
    ChangeFrozen,
    Decision,
    Evidence,
    NoPolicy,
    NotAllowed,
    NotApprovable,
    NotSeparate,
    Outcome,
    Policy,
)
from holdtrue.storage.ledger import EventFilter, Transaction, select_events

_MAKING = ("release.", "version.")


def check_stated(kind: str) -> None:
    """Raise BadEvidence for a kind of evidence that nobody may state."""
    if kind in COMPUTED:
        raise BadEvidence(
            f"Evidence of the kind “{kind}” cannot be recorded.",
            why="It is computed from the lineage of a release when it is submitted.",
            mend="Leave it out.",
        )


def record_evidence(tx: Transaction, kind: str, subject: str, content: Any, *, run: str | None = None) -> Evidence:
    """Record a measurement about a release or version; the same one again changes nothing.

    Raises BadEvidence for an unknown kind or more than 256 KiB, NotFound for an unknown subject.
    """
    if kind not in EVIDENCE_NAMES:
        raise BadEvidence(
            f"There is no kind of evidence “{kind}”.",
            why=f"The kinds are {', '.join(sorted(EVIDENCE_NAMES))}.",
            mend="Use one of them.",
        )
    if len(canonical_bytes(content)) > EVIDENCE_BYTES:
        raise BadEvidence(
            f"This {kind} evidence is larger than {EVIDENCE_BYTES} bytes.",
            why="Evidence holds measurements, not the rows they were computed from.",
            mend="Put the rows into a blob and record their digest.",
        )
    _check_subject(tx.connection, tx.project, subject)
    name = f"evd_{content_hash({'kind': kind, 'subject': subject, 'content': content, 'run': run})[:16]}"
    known = store.evidence_by_id(tx.connection, tx.project, name)
    if known is not None:
        return known
    row = Evidence(name, kind, subject, content, run, tx.now, tx.context.actor.id)
    store.insert_evidence(tx, row)
    tx.emit("evidence.recorded", subject, {"evidence": name, "kind": kind, "run": run}, after=name)
    return row


def declare(tx: Transaction, policies: Iterable[Policy]) -> list[str]:
    """Compile policies and bind each to its environment; return their version ids.

    Raises BadRule with the place of the first mistake; nothing is bound then.
    """
    return [_bind(tx, policy) for policy in policies]


def _bind(tx: Transaction, policy: Policy) -> str:
    check_name(policy.environment, "environment name")
    rules.check_policy(policy)
    version = catalog.register(tx, "policy", policy.environment, dump(policy))
    before = store.bound_policy(tx.connection, tx.project, policy.environment)
    if before != version.id:
        store.bind_policy(tx, policy.environment, version.id)
        tx.emit("policy.bound", policy.environment, {"policy": version.id}, before=before or "", after=version.id)
    return version.id


def unbind(tx: Transaction, environment: str, reason: str) -> None:
    """Take the environment's policy away: without one nothing new is let in. Decisions made on it stay."""
    before = store.bound_policy(tx.connection, tx.project, environment)
    if before is not None:
        store.unbind_policy(tx, environment)
        tx.emit("policy.unbound", environment, {"policy": before}, before=before, after="", reason=reason)


def policy_of(connection: sa.Connection, project: str, environment: str) -> tuple[str, Policy]:
    """Return the environment's policy and its version id; raise NoPolicy."""
    version = store.bound_policy(connection, project, environment)
    if version is None:
        raise NoPolicy.of(environment)
    return version, load(Policy, catalog.get(connection, project, version).content, "The policy")


def closed(connection: sa.Connection, project: str, environment: str, now: datetime) -> ChangeFrozen | None:
    """Return why nothing may be changed in an environment now; None if it may, or if it has no policy."""
    if store.bound_policy(connection, project, environment) is None:
        return None
    return calendar.closed(policy_of(connection, project, environment)[1], now)


def policies(connection: sa.Connection, project: str) -> dict[str, tuple[str, Policy]]:
    """Return each environment's policy with its version id."""
    return {
        environment: (version, load(Policy, catalog.get(connection, project, version).content, "The policy"))
        for environment, version in store.bound_policies(connection, project).items()
    }


def gate(tx: Transaction, release_id: str, environment: str) -> Decision:
    """Apply the environment's policy to a release and record the decision, if it is a new one.

    Raises NotFound for an unknown release, NoPolicy.
    """
    release = catalog.release(tx.connection, tx.project, release_id)
    policy_id, policy = policy_of(tx.connection, tx.project, environment)
    digest = manifest_digest(release)
    evidence = latest_evidence(tx.connection, tx.project, release)
    facts = _facts(tx.connection, tx.project, release, environment)
    context = rules.build_context([(each.kind, each.content) for each in evidence], facts)
    findings = rules.evaluate(policy, context, f"release {release_id}")
    approvals = _valid_approvals(tx, release, digest, environment)
    outcome = rules.decide(findings, len(approvals), policy.approvals)
    body = {
        "release": release_id,
        "release_digest": digest,
        "environment": environment,
        "outcome": outcome.value,
        "findings": [dump(finding) for finding in findings],
        "policy": policy_id,
        "evidence": [each.id for each in evidence],
        "approvals": [each.id for each in approvals],
        "approvals_needed": policy.approvals,
    }
    before = store.latest_decision(tx.connection, tx.project, release_id, environment)
    fingerprint = content_hash(body)
    if before is not None and before.digest == fingerprint:
        return before
    number = 1 if before is None else before.number + 1
    decision = Decision(
        id=f"dec_{content_hash({'digest': fingerprint, 'number': number})[:16]}",
        number=number,
        release=release_id,
        release_digest=digest,
        service=release.service,
        environment=environment,
        outcome=outcome,
        findings=findings,
        policy=policy_id,
        evidence=tuple(each.id for each in evidence),
        approvals=tuple(each.id for each in approvals),
        approvals_needed=policy.approvals,
        digest=fingerprint,
        created_at=tx.now,
        created_by=tx.context.actor.id,
    )
    store.insert_decision(tx, decision)
    _tell(tx, decision, before)
    return decision


def _tell(tx: Transaction, decision: Decision, before: Decision | None) -> None:
    tx.emit(
        f"decision.{decision.outcome.value}",
        decision.release,
        {
            "decision": decision.id,
            "environment": decision.environment,
            "policy": decision.policy,
            "evidence": list(decision.evidence),
            "approvals": list(decision.approvals),
            "failed": [finding.rule for finding in decision.findings if not finding.passed],
        },
        before=before.digest if before else "",
        after=decision.digest,
    )


def need_allowed(tx: Transaction, release_id: str, environment: str) -> Decision:
    """Return a decision, made now, that allows this release in this environment; else raise NotAllowed.

    Deciding again inside the transaction that changes production leaves no moment in which evidence,
    policy or approvals could have changed or expired.
    """
    decision = gate(tx, release_id, environment)
    if decision.outcome is not Outcome.ALLOWED:
        raise NotAllowed.of(decision)
    return decision


def approve(tx: Transaction, release_id: str, environment: str, reason: str) -> Decision:
    """Approve a release for an environment, for seven days; return the decision that follows.

    Raises Forbidden for who is no reviewer, NotSeparate for who took part in making it, NotApprovable when
    rules fail or the person approved already.
    """
    actor = tx.context.actor
    _check_reviewer(actor, tx.project)
    release = catalog.release(tx.connection, tx.project, release_id)
    _check_separate(tx, actor, release)
    decision = gate(tx, release_id, environment)
    if decision.outcome is Outcome.REFUSED:
        refusal = NotAllowed.of(decision)
        raise NotApprovable(
            f"The release {release_id} cannot be approved for {environment}: the policy refuses it.",
            why=refusal.why,
            mend=refusal.mend,
            facts=refusal.facts,
        )
    digest = manifest_digest(release)
    if any(each.person == actor.owner for each in _valid_approvals(tx, release, digest, environment)):
        raise NotApprovable(
            f"{actor.name} has already approved the release {release_id} for {environment}.",
            why="A quorum counts people, not approvals.",
            mend="Ask another reviewer if the policy needs one more.",
        )
    approval = Approval(
        id=new_id("apr", tx.now),
        release=release_id,
        digest=digest,
        environment=environment,
        person=actor.owner,
        name=actor.name,
        reason=reason,
        created_at=tx.now,
        expires_at=tx.now + APPROVAL_LIFE,
    )
    store.insert_approval(tx, approval)
    tx.emit(
        "approval.given",
        release_id,
        {
            "approval": approval.id,
            "environment": environment,
            "decision": decision.id,
            "expires_at": approval.expires_at.isoformat(),
        },
        before=decision.digest,
        after=digest,
        reason=reason,
    )
    tx.seal()
    return gate(tx, release_id, environment)


def note_contributors(tx: Transaction, subject: str, persons: Iterable[str], part: str) -> None:
    """Note who took part (“author”, “trainer”, “requester”) in making something: none of them approves it."""
    store.add_contributors(tx, subject, [person for person in persons if person], part)


def record_effect(tx: Transaction, decision: Decision, action: str) -> None:
    """Note what a decision brought about in its environment, such as “deployed” or “rolled_back”."""
    store.insert_effect(
        tx,
        decision.service,
        decision.environment,
        store.Effect(decision.id, decision.release, action, tx.now),
    )


def manifest_digest(release: Release) -> str:
    """Return the hash of everything a release pins."""
    return content_hash(release.manifest.to_json())


def latest_evidence(connection: sa.Connection, project: str, release: Release) -> list[Evidence]:
    """Return the newest evidence of each kind about a release, or else about a version it pins; by kind."""
    subjects = [release.id, *release.manifest.versions.values()]
    newest: dict[str, Evidence] = {}
    for each in store.evidence_of(connection, project, subjects):
        known = newest.get(each.kind)
        if known is None or each.subject == release.id or known.subject != release.id:
            newest[each.kind] = each
    return [newest[kind] for kind in sorted(newest)]


def evidence_of(connection: sa.Connection, project: str, subject: str) -> list[Evidence]:
    """Return all evidence about a release (its pinned versions included) or a version, oldest first."""
    subjects = [subject]
    if subject.startswith("rel_"):
        subjects += catalog.release(connection, project, subject).manifest.versions.values()
    return store.evidence_of(connection, project, subjects)


def evidence(connection: sa.Connection, project: str, id: str) -> Evidence:
    """Return one piece of evidence; raise NotFound."""
    found = store.evidence_by_id(connection, project, id)
    if found is None:
        raise NotFound.of("piece of evidence", id)
    return found


def decision(connection: sa.Connection, project: str, id: str) -> Decision:
    """Return one decision; raise NotFound."""
    found = store.decision_by_id(connection, project, id)
    if found is None:
        raise NotFound.of("decision", id)
    return found


def decisions(
    connection: sa.Connection,
    project: str,
    *,
    release: str | None = None,
    service: str | None = None,
    limit: int = 100,
) -> list[Decision]:
    """Return decisions, newest first."""
    return store.list_decisions(connection, project, release=release, service=service, limit=limit)


def latest_decision(connection: sa.Connection, project: str, release: str, environment: str) -> Decision | None:
    """Return the newest decision about a release in an environment, or None."""
    return store.latest_decision(connection, project, release, environment)


def approvals(connection: sa.Connection, project: str, release: str) -> list[Approval]:
    """Return the approvals of a release, expired ones too, oldest first."""
    return store.approvals_of(connection, project, release)


def _facts(connection: sa.Connection, project: str, release: Release, environment: str) -> dict[str, Any]:
    past = store.effects_of(connection, project, release.service, environment)
    others = [each.release for each in past if each.action == "deployed" and each.release != release.id]
    return {
        "id": release.id,
        "service": release.service,
        "first": not others,
        "champion": others[-1] if others else "none",
        "deployed_in": [
            name
            for name in store.bound_policies(connection, project)
            if any(
                each.release == release.id and each.action == "deployed"
                for each in store.effects_of(connection, project, release.service, name)
            )
        ],
    }


def _valid_approvals(tx: Transaction, release: Release, digest: str, environment: str) -> Sequence[Approval]:
    """Return the approvals that count now: unexpired, of these bytes, one a person, none by who made it."""
    makers = makers_of(tx.connection, tx.project, release)
    counted: dict[str, Approval] = {}
    for each in store.approvals_of(tx.connection, tx.project, release.id, environment):
        if each.digest == digest and each.expires_at > tx.now and each.person not in makers:
            counted.setdefault(each.person, each)
    return list(counted.values())


def makers_of(connection: sa.Connection, project: str, release: Release) -> set[str]:
    """Return the ids of everybody who made a release or a version it pins, owners of service tokens included.

    The event log is asked as well: it names actor and owner of each making, whatever code path it took.
    """
    subjects = [release.id, *release.manifest.versions.values()]
    found = set(store.contributors_of(connection, project, subjects)) | {release.created_by}
    for subject in subjects:
        for event in select_events(connection, EventFilter(project, object=subject, limit=1000)):
            if event.action.startswith(_MAKING):
                found |= {event.actor, event.on_behalf_of}
    return found - {""}


def _check_reviewer(actor: Actor, project: str) -> None:
    if actor.kind == "human" and Role.REVIEWER in actor.roles and actor.project in (None, project):
        return
    raise Forbidden(
        f"{actor.name} may not approve releases.",
        why="Approving takes a person with the role reviewer in this project; a program never approves.",
        mend="Ask a reviewer; `holdtrue token create --role reviewer` makes a token for one.",
    )


def _check_separate(tx: Transaction, actor: Actor, release: Release) -> None:
    makers = makers_of(tx.connection, tx.project, release)
    mine = {actor.id, actor.owner, actor.name} & makers
    if mine:
        raise NotSeparate(
            f"{actor.name} may not approve the release {release.id}.",
            why="Nobody approves what they, or a program of theirs, authored, trained or requested.",
            mend="Ask another reviewer.",
            facts={"release": release.id, "person": actor.owner},
        )


def _check_subject(connection: sa.Connection, project: str, subject: str) -> None:
    if subject.startswith("rel_"):
        catalog.release(connection, project, subject)
    else:
        catalog.get(connection, project, subject)
