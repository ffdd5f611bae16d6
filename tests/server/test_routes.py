"""The whole application, every room's routes: closed by default, and open to exactly whom the table says."""

import asyncio
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httpx

from holdtrue.core.access import Permission, Role
from holdtrue.door import Route
from holdtrue.server.table import PUBLIC_AT_MOST
from tests.server import matrix
from tests.server.conftest import Door

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
# Every permission is held by somebody here, so that “pass” is tried for each route.
EVERY_ROLE = tuple(role for role in Role if role is not Role.SERVICE)


def address(route: Route, project: str = "flights") -> str:
    """Return an address that matches a route, about things that do not exist."""
    path = route.path.replace("{project}", project)
    return re.sub(r"\{[a-z_]+(?::path)?\}", "rel_0123456789abcdef", path)


def test_without_a_token_nothing_is_open_and_nothing_changes(whole: Door) -> None:
    anybody = whole.client()
    gate = whole.built.gate.table
    before = whole.digest()
    public: list[tuple[str, str]] = []
    for route in gate.routes:
        path = address(route)
        for method in METHODS:
            status = anybody.request(method, path).status_code
            if gate.is_public(method, path):
                public.append((method, path))
                assert status != 401 or path == "/login"
            else:
                assert status == 401, (method, path)
    assert whole.digest() == before
    assert len({pair for pair in public if pair[0] != "HEAD"}) <= PUBLIC_AT_MOST


def test_resources_named_like_public_ones_are_protected(whole: Door) -> None:
    anybody = whole.client()
    for word in (
        "health",
        "health/live",
        "ready",
        "login",
        "static",
        "metrics",
        "docs",
        "redoc",
        "v2",
        "ajax-api",
    ):
        for prefix in (
            "/api",
            "/api/projects/flights",
            "/projects",
            "/api/projects/health/ready",
            "/api/2.0",
        ):
            assert anybody.get(f"{prefix}/{word}").status_code == 401


def spellings(path: str) -> list[str]:
    """Return sixty other ways to write an address."""
    first, _, rest = path[1:].partition("/")
    encoded = "".join(f"%{ord(sign):02x}" for sign in first)
    double = encoded.replace("%", "%25")
    tail = f"/{rest}" if rest else ""
    return [
        f"/{path}", f"//{path}", f"/{first}/{tail}", f"/./{first}{tail}", f"/{first}/.{tail}",
        f"/x/..{path}", f"/x/../..{path}", f"{path}/.", f"{path}/..", f"{path}/../{first}",
        f"{path}/", f"{path}//", f"{path}/./", f"/{encoded}{tail}", f"/{double}{tail}",
        f"/%2e{path}", f"/%2e%2e{path}", f"/%252e%252e{path}", f"/x/%2e%2e{path}", f"/x%2f..{path}",
        f"%2f{path}", f"/%2f{path}", f"/%5c{path}", f"/\\{path}", f"\\{path}",
        f"{path}%2f", f"{path}%00", f"{path}%00.html", f"{path}%20", f"{path}%0a",
        f"{path}%0d%0aX: y", f"{path};", f"{path};x=y", f"/;{path}", f"/{first};a=b{tail}",
        f"{path}%3f", f"{path}%23", f"{path}.json", f"{path}.css", f"{path}~",
        f"/static{path}", f"/health{path}", f"/health/live{path}", f"/login{path}",
        f"/static/..{path}", f"/health/live/..{path}", f"/health/../{first}{tail}",
        f"/health/live;{path}", f"/health/live%2f..{path}",
        f"/health/live%3f{path}", path.upper() + "X", f"/{first.upper()}{tail}",
        f"/{first.capitalize()}{tail}", f"/ajax-api{path}", f"/api/2.0{path}", f"/v1{path}",
        f"/v2{path}", f"http://127.0.0.1:7700{path}", f"http://evil.example{path}", f"*{path}",
        f"/api/.{path}", f"/projects/..{path}", f"{path}%ff", f"/{first}%00{tail}", f"/{first}%3b{tail}",
    ]  # fmt: skip


def send_raw(whole: Door, method: str, target: str, token: str | None) -> int:
    """Send a request whose target is exactly this text, as a server hands it on, and return the status."""
    raw, _, query = target.partition("?")
    headers = [(b"host", b"127.0.0.1:7700")]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": headers,
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asyncio.run(whole.built.gate(scope, receive, send))
    return statuses[0]


def test_sixty_spellings_of_protected_addresses_open_none(whole: Door) -> None:
    powerless = whole.token(Role.SERVICE, project="elsewhere")
    # Where the rest of a path is a stored thing's name, another spelling is another name, in the caller's own project.
    routes = [
        route
        for route in whole.built.gate.table.routes
        if route.permission != "public" and route.path != "/" and not route.path.endswith("{path:path}")
    ]
    sample = routes[:: max(1, len(routes) // 24)]
    before = whole.digest()
    tried = 0
    for route in sample:
        path = address(route)
        others = spellings(path)
        assert len(set(others)) >= 60
        for spelling in others:
            for token in (None, powerless):
                status = send_raw(whole, route.method, spelling, token)
                assert status in (400, 401, 403, 404, 501), (spelling, status)
                tried += 1
    assert tried >= 120 * len(sample)
    assert whole.digest() == before


def test_the_matrix_is_the_one_checked_in(whole: Door) -> None:
    now = matrix.table(whole.built.gate.table.routes)
    assert now == matrix.read(), "run `python -m tests.server.matrix` and review the difference"


def outcome(answer: httpx.Response) -> int | str:
    """Tell what the gate did: 401, 403 for a missing permission, else “pass”."""
    if answer.status_code == 401:
        return 401
    if answer.status_code == 403:
        told = answer.json()
        if "permission" in told["error"]["facts"] if "error" in told else "needs the permission" in told["message"]:
            return 403
    return matrix.PASS


def callers(whole: Door) -> dict[str, Callable[[], httpx.Client]]:
    """Return a client for each kind of caller."""
    expired = whole.token(*EVERY_ROLE, hours=1)
    whole.clock.advance(3600)
    revoked = whole.token(*EVERY_ROLE)
    whole.owner().delete(f"/api/tokens/{whole.client(revoked).get('/api/whoami').json()['token']}")
    known = {
        "anonymous": whole.client(),
        "expired": whole.client(expired),
        "revoked": whole.client(revoked),
        "other project": whole.client(whole.token(*EVERY_ROLE, project="elsewhere")),
        **{role.value: whole.client(whole.token(role)) for role in Role},
    }
    return {name: lambda client=client: client for name, client in known.items()}


def test_every_cell_of_the_matrix_holds(whole: Door) -> None:
    clients = callers(whole)
    rows = matrix.read()
    cells = 0
    wrong: list[tuple[str, str, int | str, int]] = []
    for route in whole.built.gate.table.routes:
        row = rows[f"{route.method} {route.path}"]
        for caller, client in clients.items():
            json = {} if route.body is not None else None
            answer = client().request(route.method, address(route), json=json)
            got = outcome(answer) if row[caller] != 404 else answer.status_code
            cells += 1
            if route.permission != "public" and (got != row[caller] or answer.status_code >= 500):
                wrong.append((f"{route.method} {route.path}", caller, got, answer.status_code))
    assert wrong == []
    assert cells == len(rows) * (4 + len(Role))


def test_each_permission_guards_something_and_each_route_is_described(whole: Door) -> None:
    routes = whole.built.gate.table.routes
    document = whole.owner().get("/openapi.json").json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in routes if route.kind == "json"}
    for route in routes:
        if route.kind == "json":
            operation = document["paths"][route.path][route.method.lower()]
            assert operation["x-permission"] == str(route.permission)
            assert (operation["security"] == []) == (route.permission == "public")
    # What the data plane guards has no route here.
    elsewhere = {Permission.PREDICT, Permission.LABELS_WRITE, Permission.EVENTS_WRITE, Permission.TRACES_WRITE}
    used = {route.permission for route in routes}
    assert set(Permission) - used - elsewhere <= {Permission.DATA_WRITE, Permission.VERSIONS_WRITE}


def test_another_projects_404_is_that_of_a_missing_project(whole: Door) -> None:
    stranger = whole.client(whole.token(*EVERY_ROLE, project="elsewhere"))
    before = whole.digest()
    for route in whole.built.gate.table.routes:
        if "{project}" not in route.path:
            continue
        answers = [stranger.request(route.method, address(route, project)) for project in ("flights", "never-heard-of")]
        errors = [answer.json()["error"] for answer in answers]
        for error in errors:
            del error["request_id"]
        assert errors[0] == errors[1]
        assert {answer.status_code for answer in answers} == {404}
    assert whole.digest() == before
