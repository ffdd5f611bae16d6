"""What the forms of a request that name their columns share: which service is asked, and by what it answers."""

from typing import Any

from holdtrue.protocols.bodies import inflate
from holdtrue.protocols.columns import BadRequest, check_columns
from holdtrue.serving import BODY_LIMIT, Answer, Engine, Plan, Request, in_environment
from holdtrue.serving.possible import check_sets, possible

_SERVICE = b"x-holdtrue-service"
_NAME_LIMIT = 80
_KEY_LIMIT = 200


def service_of(engine: Engine, request: Request) -> str:
    """Return the service that a request names in its path or header, or else the only one of its project."""
    if request.path:
        return in_environment(request, request.path[0])
    named = request.headers.get(_SERVICE)
    if named is not None:
        return in_environment(request, named.decode("latin-1")[:_NAME_LIMIT])
    return in_environment(request, engine.only(request.project))


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


def key_of(request: Request) -> bytes | None:
    """Return the key under which a request may come again; raise BadRequest for one of another form."""
    key = request.headers.get(b"idempotency-key")
    if key is not None and not (0 < len(key) <= _KEY_LIMIT and key.isascii() and key.decode().isprintable()):
        raise BadRequest(f"The header Idempotency-Key is not 1 to {_KEY_LIMIT} printable characters.")
    return key


def wants_contributions(request: Request) -> bool:
    """Tell whether a request asks, by its header, what each feature contributed to its answer."""
    return _wanted(request, b"x-holdtrue-contributions")


def wants_sets(request: Request, plan: Plan, *, asked: bool = False) -> bool:
    """Tell whether a request asks, by its header or as `asked` says, which outcomes its answer leaves possible.

    Raises NoSets where a release that may answer has no prediction sets.
    """
    wanted = asked or _wanted(request, b"x-holdtrue-sets")
    if wanted:
        check_sets(plan)
    return wanted


def _wanted(request: Request, header: bytes) -> bool:
    given = request.headers.get(header)
    if given in (None, b"false"):
        return False
    if given != b"true":
        raise BadRequest(f"The header {header.decode().title()} is neither true nor false.")
    return True


async def answer_columns(engine: Engine, request: Request, plan: Plan, columns: dict[str, list[Any]]) -> Answer:
    """Check the columns of a request and answer them; the same checks, arms and records as for every protocol."""
    checked, rows = check_columns(columns, plan.bundle)
    explain, key, sets = wants_contributions(request), key_of(request), wants_sets(request, plan)
    answer = await engine.predict(plan, checked, rows, given_id(request), request.started, explain=explain, key=key)
    if sets:
        answer.sets = possible(plan, answer)
    return answer
