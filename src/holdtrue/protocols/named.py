"""What the forms of a request that name their columns share: which service is asked, and by what it answers."""

from typing import Any

from holdtrue.protocols.bodies import inflate
from holdtrue.protocols.columns import BadRequest, check_columns
from holdtrue.serving import BODY_LIMIT, Answer, Engine, Plan, Request

_SERVICE = b"x-holdtrue-service"
_NAME_LIMIT = 80


def service_of(engine: Engine, request: Request) -> str:
    """Return the service that a request names in its path or header, or else the only one of its project."""
    if request.path:
        return request.path[0]
    named = request.headers.get(_SERVICE)
    if named is not None:
        return named.decode("latin-1")[:_NAME_LIMIT]
    return engine.only(request.project)


async def plan_of(engine: Engine, request: Request) -> Plan:
    """Return the plan of the service, or of the release, that a request is about."""
    release = request.path[1] if len(request.path) > 1 else None
    return await engine.find(request.project, service_of(engine, request), release)


def given_id(request: Request) -> str | None:
    """Return the id that the client gave its request in the header, under which its predictions are recorded."""
    return None if b"x-request-id" not in request.headers else request.id


def body_of(request: Request) -> bytes:
    """Return the body of a request, inflated if it came compressed."""
    encoding = request.headers.get(b"content-encoding")
    return request.body if encoding is None else inflate(request.body, encoding, BODY_LIMIT, BadRequest)


async def answer_columns(engine: Engine, request: Request, plan: Plan, columns: dict[str, list[Any]]) -> Answer:
    """Check the columns of a request and answer them; the same checks, arms and records as for every protocol."""
    checked, rows = check_columns(columns, plan.bundle)
    return await engine.predict(plan, checked, rows, given_id(request), request.started)
