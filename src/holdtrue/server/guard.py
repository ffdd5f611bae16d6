"""Checks that every request passes before a handler sees it, in the order of `asgi.py`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Message, Receive, Scope

from holdtrue.core.access import allowed
from holdtrue.core.actor import Actor
from holdtrue.core.errors import Forbidden, HoldtrueError, InvalidInput, NotFound, TooLarge, Unauthenticated
from holdtrue.door import Dialect, Route
from holdtrue.server.model import HeadersTooLarge, MethodNotAllowed, Misdirected, NotServed, UnsupportedMedia
from holdtrue.server.rules import (
    basic_credential,
    csrf_token,
    escaped_path,
    host_status,
    idempotency_key,
    json_depth,
    parse_token,
    plain_path,
    same_origin,
)
from holdtrue.server.settings import Settings
from holdtrue.server.table import Match

HEADER_BYTES = 16_384
QUERY_BYTES = 8_192
QUERY_FIELDS = 64
LIST_FIELDS = 512
JSON_DEPTH = 64
BODY_IDLE_SECONDS = 10.0
READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Credential:
    """Hold what a request identifies itself with: a bearer token, or a session's cookie.

    `project` is the user name beside a token that came as a password.
    """

    text: str
    cookie: bool
    project: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """Hold a request's body: the bytes, and the JSON value they are (None if empty)."""

    raw: bytes
    value: Any


def check_shape(scope: Scope, headers: Headers, hosts: frozenset[str], dialect: Dialect | None = None) -> None:
    """Refuse a request whose headers, host, path or query no client would send."""
    size = sum(len(name) + len(value) for name, value in headers.raw)
    if size > HEADER_BYTES or len(headers.raw) > 100:
        raise HeadersTooLarge(f"The request's headers are over {HEADER_BYTES} bytes.", mend="Send fewer headers.")
    status = host_status(headers.getlist("host"), hosts)
    if status == 400:
        raise InvalidInput("The request does not name one host.", mend="Send one Host header: host or host:port.")
    if status == 421:
        raise Misdirected(
            "This server does not answer for that host.",
            mend="Use the address that `holdtrue up` prints, or have the name added to host_names.",
        )
    path = raw_path(scope)
    free = dialect is not None and path.decode("latin-1").startswith(dialect.escaped)
    if not (escaped_path(path) if free else plain_path(path)):
        raise _not_plain()
    if len(scope["query_string"]) > QUERY_BYTES:
        raise HeadersTooLarge(f"The request's query is over {QUERY_BYTES} bytes.")


def check_spelling(path: str, match: Match | None) -> None:
    """Refuse escapes in an address whose end is not the name of a stored thing."""
    if match is not None and not plain_path(path.encode()):
        named = next(iter(match.routes.values())).path.endswith("{path:path}")
        if not named:
            raise _not_plain()


def _not_plain() -> InvalidInput:
    return InvalidInput(
        "The request's path is not written plainly.",
        why="A path has words of letters, digits and -._~@:+=, one slash between them, no escapes.",
        mend="Use the address as the documentation or a listing gives it.",
    )


def raw_path(scope: Scope) -> bytes:
    """Return the path as it was sent."""
    raw: bytes | None = scope.get("raw_path")
    return (scope["path"].encode() if raw is None else raw).partition(b"?")[0]


def query_of(scope: Scope) -> Mapping[str, str]:
    """Return the query's fields; one that comes twice, or holds control signs, raises InvalidInput."""
    found: dict[str, str] = {}
    for name, value in _pairs(scope, QUERY_FIELDS):
        if name in found:
            raise InvalidInput("A field of the query comes twice.", mend="Send each field once.")
        if any(ord(sign) < 32 or ord(sign) == 127 for sign in name + value):
            raise InvalidInput("The query holds control signs.")
        found[name] = value
    return found


def fields_of(scope: Scope) -> dict[str, Any]:
    """Return the query's fields as protocols with lists in the query mean them: one that comes twice is a list."""
    found: dict[str, Any] = {}
    for name, value in _pairs(scope, LIST_FIELDS):
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def _pairs(scope: Scope, most: int) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most
        )
    except (ValueError, UnicodeError):
        raise InvalidInput("The request's query is not well-formed.") from None


def credential_of(headers: Headers, cookie_name: str, *, basic: bool = False) -> Credential:
    """Return the request's bearer token, else its session cookie, else raise Unauthenticated.

    Where `basic` is allowed, the token may be the password, with a project as user name, or the user name alone.
    """
    values = headers.getlist("authorization")
    if len(values) == 1:
        scheme, _, text = values[0].partition(" ")
        if scheme.lower() == "bearer" and text:
            return Credential(text.strip(), cookie=False)
        if basic and scheme.lower() == "basic" and (pair := basic_credential(text)) is not None:
            user, password = pair
            if parse_token(user) is not None:
                return Credential(user, cookie=False)
            return Credential(password, cookie=False, project=user)
    if not values:
        cookie = cookie_parser(headers.get("cookie", "")).get(cookie_name)
        if cookie:
            return Credential(cookie, cookie=True)
    raise Unauthenticated(
        "This address needs a token.",
        mend="Send “Authorization: Bearer TOKEN”, or open the sign-in link that `holdtrue up` prints.",
    )


def route_of(match: Match | None, method: str, actor: Actor, path: str, dialect: Dialect | None) -> Route:
    """Return the declared route of a request, else raise NotFound, MethodNotAllowed or NotServed.

    That an address takes other methods is told to those who may use one of them; that a protocol has something at
    this address which is not served here, to everybody known.
    """
    if match is None:
        raise _missing(path, dialect)
    route = match.routes.get("GET" if method == "HEAD" else method)
    if route is not None:
        return route
    known = sorted(each.method for each in match.routes.values() if _permits(each, actor))
    # Other protocols know no such answer: there another method is another address.
    if not known or any(each.dialect is not None for each in match.routes.values()):
        raise _missing(path, dialect)
    raise MethodNotAllowed(f"This address does not take {method}.", why=f"It takes {', '.join(known)}.")


def _missing(path: str, dialect: Dialect | None) -> HoldtrueError:
    what = None if dialect is None else dialect.missing_at(path)
    return nothing_here() if what is None else NotServed.of(what)


def check_permission(route: Route, actor: Actor) -> None:
    """Refuse an actor none of whose roles grants what the matched route declares."""
    if route.permission == "public" or _permits(route, actor):
        return
    held = ", ".join(sorted(role.value for role in actor.roles)) or "none"
    raise Forbidden(
        f"You may not do this: it needs the permission {route.permission.value}.",
        why=f"Your roles are: {held}.",
        mend="Ask an administrator of the project for a token with another role.",
        facts={"permission": route.permission.value},
    )


def project_of(match: Match, query: Mapping[str, str], actor: Actor) -> str:
    """Return the project a request is about; another one than the token's is NotFound, as a missing one is.

    A route without a project in its path concerns the project the query names, else the token's, else (empty)
    the whole house.
    """
    named = [name for name in (match.parameters.get("project"), query.get("project")) if name is not None]
    if len(set(named)) > 1 or (named and actor.project is not None and named[0] != actor.project):
        raise nothing_here()
    return named[0] if named else actor.project or ""


def check_browser(headers: Headers, cookie: str, settings: Settings) -> None:
    """Refuse a change that a page of another site may have sent with this browser's cookie."""
    if not same_origin(headers.get("origin"), headers.get("sec-fetch-site"), settings.origin):
        raise Forbidden(
            "A change must come from a page of this server.",
            why="The request's Origin or Sec-Fetch-Site is another site's, or missing.",
            mend="Use the pages of this server, or a token in place of the cookie.",
        )
    if headers.get("x-csrf-token", "") != csrf_token(cookie):
        raise Forbidden(
            "The request lacks its page's token.",
            mend="Send the value `csrf` of /api/whoami in the header X-CSRF-Token.",
        )


def key_of(headers: Headers) -> str | None:
    """Return the request's idempotency key, if it has one."""
    values = headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not idempotency_key(values[0]):
        raise InvalidInput("The Idempotency-Key is not 1 to 200 visible ASCII signs.", mend="Use a random UUID.")
    return values[0]


async def stream_body(headers: Headers, receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """Yield the request's body piece by piece, no further than `limit` bytes; a body cut short raises
    InvalidInput.

    Of a body whose length is known nothing more is asked for once all of it is there: each time costs a turn through
    the thread that reads the socket, a tenth of a millisecond.
    """
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise InvalidInput("The Content-Length is not a number.")
    if int(length) > limit:
        raise _too_large(limit)
    whole = int(length) if "content-length" in headers else None
    size = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(BODY_IDLE_SECONDS):
                message: Message = await receive()
        except TimeoutError:
            raise InvalidInput(f"The body stood still for {BODY_IDLE_SECONDS:g} seconds.") from None
        if message["type"] == "http.disconnect":
            raise InvalidInput("The request ended before its body did.")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False) and size != whole
        if chunk:
            yield chunk
    if whole is not None and size != whole:
        raise InvalidInput("The body is not as long as its Content-Length says.")


async def read_body(headers: Headers, receive: Receive, limit: int) -> Body:
    """Return the request's JSON body, read no further than `limit` bytes.

    Raises TooLarge, UnsupportedMedia for anything but plain JSON, InvalidInput for JSON that is broken or too
    deep.
    """
    raw = b"".join([chunk async for chunk in stream_body(headers, receive, limit)])
    if not raw:
        return Body(b"", None)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Bodies are not taken compressed.", mend="Send the JSON as it is.")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMedia(
            "This address takes JSON.", mend="Send the header Content-Type: application/json and a JSON body."
        )
    return Body(raw, _parse(raw))


def nothing_here() -> NotFound:
    """Return the one answer for what does not exist and for what is not the caller's to see."""
    return NotFound("There is nothing here.", mend="Check the address, and the project your token is for.")


def _permits(route: Route, actor: Actor) -> bool:
    return route.permission == "public" or allowed(actor.roles, route.permission)


def _parse(raw: bytes) -> Any:
    if not json_depth(raw, JSON_DEPTH):
        raise InvalidInput(f"The JSON nests deeper than {JSON_DEPTH}.")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("The body is not JSON.", why=f"{error.msg} at sign {error.pos}.") from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body is over {limit} bytes.",
        mend="Send less at once, or have the operator raise body_limit.",
        facts={"limit": limit},
    )
