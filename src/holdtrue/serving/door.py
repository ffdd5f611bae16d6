"""Who is let in, and where to: hosts, tokens and routes, looked at once for headers that come again."""

import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdtrue.core.access import Permission
from holdtrue.core.errors import Forbidden, HoldtrueError, InvalidInput, NotFound, Unauthenticated
from holdtrue.serving.access import AccessTable, Grant
from holdtrue.serving.arriving import host_name
from holdtrue.serving.endpoints import Direct, Endpoint, Request

_NOTE: Final = "door"
# With other headers a request asks for more than its answer.
_PLAIN: Final = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"x-holdtrue-project", b"x-request-id"}
)
_MATCHES: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_REST: Final = 300


class WrongHost(InvalidInput):
    """A request came for a host that this server is not."""

    code = "wrong_host"
    status = 421


class MethodNotAllowed(HoldtrueError):
    """The path exists, and not for this method."""

    code = "method_not_allowed"
    status = 405


@dataclass(frozen=True, slots=True)
class Entry:
    """Say what the head of a request comes to, held to the table of tokens `access`.

    `begin` is the endpoint's, where it asks for nothing but its answer and no rate bounds it.
    """

    access: AccessTable
    path: str
    headers: Mapping[bytes, bytes]
    grant: Grant
    endpoint: Endpoint
    parameters: tuple[str, ...]
    begin: Callable[[Request, Direct], bool] | None


class Door:
    """Let requests in whose host, token and route are known.

    A server that keeps notes with a head, for as long as requests of a connection begin with the same bytes, has their
    entry kept there, too: it holds until the table of tokens is another. To look anew costs a twentieth of a request.
    """

    def __init__(self, endpoints: Sequence[Endpoint], hosts: Sequence[str]) -> None:
        self.access = AccessTable()
        self._routes = _Router(endpoints)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._known_hosts: set[bytes] = set()

    def known(self, scope: Mapping[str, Any]) -> Entry | None:
        """Return the entry of a head that was let in before, by the same table of tokens."""
        notes = scope.get("notes")
        entry: Entry | None = None if notes is None else notes.get(_NOTE)
        return entry if entry is not None and entry.access is self.access else None

    def enter(self, scope: MutableMapping[str, Any], path: str, headers: Mapping[bytes, bytes]) -> Entry:
        """Let a request in that is for this host; raise Unauthenticated, Forbidden, NotFound or MethodNotAllowed."""
        grant = self.authenticate(headers)
        endpoint, parameters = self._routes.match(scope["method"], path)
        permit(grant, endpoint.permission)
        begin = endpoint.begin if grant.rate is None and headers.keys() <= _PLAIN else None
        entry = Entry(self.access, path, headers, grant, endpoint, parameters, begin)
        notes = scope.get("notes")
        if notes is not None:
            notes[_NOTE] = entry
        return entry

    def check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise WrongHost unless a request is for one of this server's hosts."""
        host = headers.get(b"host", b"")
        if host in self._known_hosts:
            return
        if host_name(host.decode("latin-1").lower()) not in self._hosts:
            raise WrongHost("This server does not answer for that host.")
        if len(self._known_hosts) < _MATCHES:
            self._known_hosts.add(host)

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Grant:
        """Return the grant of a request's token; raise Unauthenticated without a valid one."""
        header = headers.get(b"authorization", b"")
        key = headers.get(b"x-api-key")
        if key is not None:
            # Clients of Anthropic's API send their key so. Two credentials at once would leave open whose it is.
            header = b"bearer " + key if not header else b""
        if header[:7].lower() == b"bearer ":
            grant = self.access.check(header[7:].strip())
            if grant is not None:
                return grant
        raise Unauthenticated(
            "A valid token is needed.",
            why="The request has no token, or one that is unknown, revoked or expired.",
            mend="Send the header “Authorization: Bearer TOKEN”, or “x-api-key: TOKEN” (one of them); "
            "`holdtrue token create` makes a token.",
        )


class _Router:
    """Find the endpoint of a method and raw path."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._patterns = [(each.path.split("/"), each) for each in endpoints]
        self._matches: dict[tuple[str, str], tuple[Endpoint, tuple[str, ...]]] = {}

    def match(self, method: str, path: str) -> tuple[Endpoint, tuple[str, ...]]:
        """Return the endpoint and the path's parameters; raise NotFound or MethodNotAllowed."""
        found = self._matches.get((method, path))
        if found is not None:
            return found
        parts = path.split("/")
        other_method = False
        for pattern, endpoint in self._patterns:
            parameters = _match(pattern, parts)
            if parameters is None:
                continue
            if endpoint.method != method:
                other_method = True
                continue
            if len(self._matches) >= _MATCHES:
                self._matches.clear()
            self._matches[method, path] = endpoint, parameters
            return endpoint, parameters
        if other_method:
            raise MethodNotAllowed("The path exists, and not for this method.")
        raise NotFound("There is nothing at this path.")


def _match(pattern: list[str], parts: list[str]) -> tuple[str, ...] | None:
    if pattern[-1].endswith("...}"):
        start = len(pattern) - 1
        rest = "/".join(parts[start:])
        if parts[:start] != pattern[:-1] or not 0 < len(rest) <= _REST:
            return None
        return (rest,)
    if len(pattern) != len(parts):
        return None
    parameters: list[str] = []
    for expected, part in zip(pattern, parts, strict=True):
        if expected[:1] == "{":
            # A name needs no decoding, so a path that does names nothing here.
            if _NAME.fullmatch(part) is None:
                return None
            parameters.append(part)
        elif expected != part:
            return None
    return tuple(parameters)


def permit(grant: Grant, permission: Permission) -> None:
    """Raise Forbidden unless a token may do that."""
    if permission not in grant.permissions:
        raise Forbidden(
            "This token may not do that.",
            why=f"It lacks the permission {permission.value}.",
            mend="Ask an administrator for a token with a role that has it.",
        )
