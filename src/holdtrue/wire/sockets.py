"""Sockets to listen on."""

import socket
from typing import Final

BACKLOG: Final = 1024


def listening_socket(address: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens; a `shared` one outlives this process in those that it starts."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    made.set_inheritable(shared)
    return made
