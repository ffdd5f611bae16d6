"""A wire between a ledger and its database that can be cut where it hurts."""

import contextlib
import socket
import threading
from typing import Literal

Cut = Literal["before", "after", "unseen"]


class Wire:
    """Pass bytes on to a server; cut the connection once at the next COMMIT: before it arrives, or before its answer,
    or before it arrives and so that the server does not see the end.

    The protocol sends COMMIT in one message, and these tests send nothing else with that word.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.cut: Cut | None = None
        self.cuts = 0
        self.held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()
        for server in self.held:
            _end(server)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if self.cut is not None and b"COMMIT" in data:
                    how, self.cut = self.cut, None
                    self.cuts += 1
                    # Nothing more reaches the client, whatever the server answers.
                    client.shutdown(socket.SHUT_RDWR)
                    if how == "after":
                        server.sendall(data)
                        # The server reads on to the end of what was sent, and commits, before it sees the end.
                        server.shutdown(socket.SHUT_WR)
                        continue
                    if how == "unseen":
                        self.held.append(server)
                        return
                    break
                server.sendall(data)
        _end(client)
        _end(server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    _end(target)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
