"""The one way in which a server calls another machine.

The address is resolved once, every result is checked, and the connection goes to the checked address: a name
that resolves to something else a moment later changes nothing.
"""

import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

import httpx

from holdtrue.core.addresses import is_public
from holdtrue.core.errors import Forbidden, InvalidInput, Unavailable

Resolve: TypeAlias = Callable[[str, int], list[str]]

_SECONDS = 10.0
_LIMIT = 1_048_576


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """State which calls may leave this machine: ports, and hosts whose private addresses are allowed."""

    ports: tuple[int, ...] = (443,)
    private_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """Say how a call ended. The answer's body is read within its limit and thrown away."""

    status: int
    size: int


@dataclass(frozen=True, slots=True)
class Target:
    """Hold a checked address: what to connect to, and whom to expect there."""

    host: str
    address: str
    port: int
    path: str


def resolve(host: str, port: int) -> list[str]:
    """Return every address of `host`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"The host {host} has no address.", mend="Correct the address, or try later.") from error
    return [str(entry[4][0]) for entry in found]


def check_target(url: str, policy: OutboundPolicy, resolver: Resolve = resolve) -> Target:
    """Return where a call to `url` may connect to.

    Raises InvalidInput for anything but a plain https address, Forbidden for a port or an address that is not
    allowed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise InvalidInput("That is not a web address.", why=str(error)) from error
    if parts.scheme != "https" or not parts.hostname or any(ord(sign) < 33 for sign in url) or "\\" in url:
        raise InvalidInput("Only https addresses are called.", mend="Write it like https://host/path.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput("An address that is called carries no user, password or fragment.")
    if port not in policy.ports:
        raise Forbidden(
            f"Port {port} is not called from here.",
            why=f"The setting outbound_ports allows {', '.join(map(str, policy.ports))}.",
            mend="Use an allowed port, or have the operator add this one.",
        )
    addresses = resolver(parts.hostname, port)
    for address in addresses:
        # One private address among public ones is how a name is made to point inside.
        if not is_public(address) and parts.hostname not in policy.private_hosts:
            raise Forbidden(
                f"The host {parts.hostname} is not called from here.",
                why="It has an address that is not public.",
                mend="Have the operator add the host to the setting outbound_hosts.",
            )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host=parts.hostname, address=addresses[0], port=port, path=path)


def send(
    method: str,
    url: str,
    *,
    policy: OutboundPolicy,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    resolver: Resolve = resolve,
    trust: ssl.SSLContext | None = None,
) -> Delivery:
    """Send one request and return its status: ten seconds, one mebibyte, no redirect followed.

    Raises Unavailable when no answer came or it was too long. `trust` replaces the usual certificates.
    """
    target = check_target(url, policy, resolver)
    address = f"[{target.address}]" if ":" in target.address else target.address
    port = "" if target.port == 443 else f":{target.port}"
    sent = {**(headers or {}), "host": target.host + port}
    try:
        # The environment's proxies would see every call, and resolve the name again.
        with (
            httpx.Client(trust_env=False, timeout=_SECONDS, follow_redirects=False, verify=trust or True) as client,
            client.stream(
                method,
                f"https://{address}:{target.port}{target.path}",
                content=body,
                headers=sent,
                extensions={"sni_hostname": target.host},
            ) as answer,
        ):
            size = 0
            for chunk in answer.iter_raw():
                size += len(chunk)
                if size > _LIMIT:
                    raise Unavailable(f"The answer of {target.host} is over one mebibyte.")
            return Delivery(status=answer.status_code, size=size)
    except httpx.HTTPError as error:
        raise Unavailable(
            f"The host {target.host} did not answer.", why=type(error).__name__, mend="Try again later."
        ) from error
