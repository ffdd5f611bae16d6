"""HTTP/1.1 on the event loop itself: an ASGI application answers on the thread that reads the socket.

Names are imported on first use: whoever only listens, and leaves the answers to other processes, loads no event loop.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.wire.connections import Connections, Sent, Turn, answering
    from holdtrue.wire.sockets import listening_socket

__all__ = ["Connections", "Sent", "Turn", "answering", "listening_socket"]

__getattr__ = attach(
    __name__,
    {
        "Connections": "connections",
        "Sent": "connections",
        "Turn": "connections",
        "answering": "connections",
        "listening_socket": "sockets",
    },
)
