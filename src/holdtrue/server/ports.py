"""Ports: whether one is free, and what to say when it is not."""

import errno
import secrets
import socket
from typing import Final

from holdtrue.core.errors import ConfigurationError, Unavailable
from holdtrue.server.model import PortInUse
from holdtrue.wire import listening_socket

_LOWEST: Final = 10_240
_GIVEN: Final = 32_768
"""The first of the ports that Linux gives to connections, unless it is told otherwise (ip(7))."""


def listening_at(bind: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens; a `shared` one is inherited by the processes that this one starts.

    Raises PortInUse if something listens there, ConfigurationError if `bind` is not this machine's.
    """
    try:
        return listening_socket(bind, port, shared=shared)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_in_use(bind, port) from None
        raise ConfigurationError(
            f"This machine cannot listen on {bind}, port {port}.",
            why=f"The system says: {error.strerror}.",
            mend="Correct the setting “bind” or “port”.",
            facts={"bind": bind, "port": port},
        ) from None


def check_port(bind: str, port: int) -> None:
    """Raise what `listening_at` raises."""
    listening_at(bind, port).close()


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
