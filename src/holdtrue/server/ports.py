"""Ports: whether one is free, and what to say when it is not."""

import errno
import secrets
import socket
from typing import Final

from holdtrue.core.errors import ConfigurationError, Unavailable
from holdtrue.server.model import PortInUse

_LOWEST: Final = 10_240
_GIVEN: Final = 32_768
"""The first of the ports that Linux gives to connections, unless it is told otherwise (ip(7))."""


def check_port(bind: str, port: int) -> None:
    """Raise PortInUse if something listens on `port`, ConfigurationError if `bind` is not this machine's.

    Granian shares a port with other servers of its kind, so listening alone would not find out.
    """
    with _socket(bind) as probe:
        try:
            probe.bind((bind, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_in_use(bind, port) from None
            raise ConfigurationError(
                f"This machine cannot listen on {bind}, port {port}.",
                why=f"The system says: {error.strerror}.",
                mend="Correct the setting “bind” or “port”.",
                facts={"bind": bind, "port": port},
            ) from None


def free_ports(bind: str, count: int = 3, attempts: int = 64) -> int:
    """Return a port that is free together with those that follow it, `count` in all.

    It lies below those that the system gives to connections: one of these could take it before it is used.
    """
    for _ in range(attempts):
        port = _LOWEST + secrets.randbelow(_GIVEN - _LOWEST - count)
        if all(_is_free(bind, port + step) for step in range(count)):
            return port
    raise Unavailable("No free ports were found.", mend="Name a port: --port N")


def port_in_use(bind: str, port: int) -> PortInUse:
    """Return the error for a port that another program has."""
    return PortInUse(
        f"Port {port} on {bind} is in use by another program.",
        why="Another server listens there, perhaps another Holdtrue.",
        mend=f"Stop that program (ss -ltnp 'sport = :{port}' shows it), or choose another port: --port N",
        facts={"port": port},
    )


def _is_free(bind: str, port: int) -> bool:
    try:
        check_port(bind, port)
    except PortInUse:
        return False
    return True


def _socket(bind: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    # Connections of a server that has just stopped do not count; a listening one still does.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe
