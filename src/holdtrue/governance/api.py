"""HTTP routes of governance."""

from dataclasses import dataclass
from typing import Any

from holdtrue import catalog
from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.governance import service
from holdtrue.storage.ledger import Transaction

routes = Routes("governance")
_PAGE = 500


@dataclass(frozen=True, slots=True)
class EvidenceBody:
    """Carry a measurement about a release or version."""

    kind: str
    subject: str
    content: Any
    run: str | None = None


@dataclass(frozen=True, slots=True)
class GateBody:
    """Name the environment that a release shall enter."""

    environment: str = "production"


@dataclass(frozen=True, slots=True)
class ApprovalBody:
    """Name the environment, and say why the release may enter it."""

    environment: str = "production"
    reason: str = ""


def listing(items: list[Any]) -> dict[str, Any]:
    """Return the one shape of a listing that fits on one page."""
    return {"items": items, "next": None}


def limit_of(call: Call) -> int:
    """Return the query's limit, 1 to 500 (default 100)."""
    text = call.query.get("limit", "100")
    if not text.isdigit() or not 1 <= int(text) <= _PAGE:
        raise InvalidInput(f"The limit “{text[:20]}” cannot be used.", mend=f"Use a number from 1 to {_PAGE}.")
    return int(text)


@routes.get("/api/projects/{project}/policies", Permission.RELEASES_READ, summary="List each environment's policy.")
def list_policies(call: Call) -> Any:
    """Return each environment's policy with its version id."""
    found = call.read(lambda connection: service.policies(connection, call.project))
    return listing([{"id": version, **dump(policy)} for version, policy in found.values()])


@routes.get("/api/projects/{project}/evidence", Permission.EVIDENCE_READ, summary="List evidence of a subject.")
def list_evidence(call: Call) -> Any:
    """Return the evidence about the query's `subject`."""
    subject = call.query.get("subject", "")
    if not subject:
        raise InvalidInput("The query names no subject.", mend="Add ?subject=<release or version id>.")
    found = call.read(lambda connection: service.evidence_of(connection, call.project, subject))
    return listing([dump(each) for each in found])


@routes.post("/api/projects/{project}/evidence", Permission.EVIDENCE_WRITE, summary="Record evidence.")
def post_evidence(call: Call, body: EvidenceBody) -> Any:
    """Record a measurement."""
    service.check_stated(body.kind)

    def work(tx: Transaction) -> Any:
        return dump(service.record_evidence(tx, body.kind, body.subject, body.content, run=body.run))

    return call.write(work)


@routes.get(
    "/api/projects/{project}/evidence/{evidence}",
    Permission.EVIDENCE_READ,
    summary="Show a piece of evidence.",
)
def get_evidence(call: Call) -> Any:
    """Return one piece of evidence."""
    return dump(call.read(lambda connection: service.evidence(connection, call.project, call.path["evidence"])))


@routes.get("/api/projects/{project}/decisions", Permission.RELEASES_READ, summary="List decisions.")
def list_decisions(call: Call) -> Any:
    """Return decisions, newest first; the query may name a `release` or `service`."""
    limit = limit_of(call)
    found = call.read(
        lambda connection: service.decisions(
            connection,
            call.project,
            release=call.query.get("release"),
            service=call.query.get("service"),
            limit=limit,
        )
    )
    return listing([dump(each) for each in found])


@routes.get("/api/projects/{project}/decisions/{decision}", Permission.RELEASES_READ, summary="Show a decision.")
def get_decision(call: Call) -> Any:
    """Return one decision with its findings."""
    return dump(call.read(lambda connection: service.decision(connection, call.project, call.path["decision"])))


@routes.post(
    "/api/projects/{project}/releases/{release}/gate",
    Permission.GATES_EVALUATE,
    summary="Apply an environment's policy to a release.",
)
def post_gate(call: Call, body: GateBody) -> Any:
    """Decide whether a release may enter an environment."""
    return call.write(lambda tx: dump(service.gate(tx, call.path["release"], body.environment)))


@routes.get(
    "/api/projects/{project}/releases/{release}/approvals",
    Permission.RELEASES_READ,
    summary="List approvals of a release.",
)
def list_approvals(call: Call) -> Any:
    """Return the approvals of a release."""

    def work(connection: Any) -> Any:
        catalog.release(connection, call.project, call.path["release"])
        return [dump(each) for each in service.approvals(connection, call.project, call.path["release"])]

    return listing(call.read(work))


@routes.post(
    "/api/projects/{project}/releases/{release}/approve",
    Permission.APPROVALS_WRITE,
    summary="Approve a release for an environment.",
)
def post_approval(call: Call, body: ApprovalBody) -> Any:
    """Approve a release and return the decision that follows."""
    return call.write(lambda tx: dump(service.approve(tx, call.path["release"], body.environment, body.reason)))
