"""A small client of the data plane: one kept connection, JSON in, JSON out.

A year is 20,000 requests, and the libraries' clients take a millisecond for each, as long as the server does.
"""

import socket
import time
from collections.abc import Mapping
from typing import Any, Self

import orjson

from holdtrue.core.errors import Unavailable

_INPUTS = {
    "flight_id": "BYTES",
    "carrier": "BYTES",
    "number": "BYTES",
    "origin": "BYTES",
    "dest": "BYTES",
    "distance": "INT64",
    "scheduled_departure": "INT64",
    "scheduled_hour": "INT64",
}

_IDLE_SECONDS = 5.0
_DEADLINE_SECONDS = 60.0


class Plane:
    """Send predictions, events and labels over one kept connection; each answer is waited for with `end`."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"
        self._socket: socket.socket | None = None
        self._used = 0.0
        self._path = ""
        self.requests = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def predict(self, service: str, columns: Mapping[str, list[Any]]) -> Any:
        """Ask for a prediction of each row, in the Open Inference Protocol."""
        rows = len(columns["flight_id"])
        inputs = [
            {"name": name, "datatype": datatype, "shape": [rows], "data": columns[name]}
            for name, datatype in _INPUTS.items()
        ]
        self._begin(f"/v2/models/{service}/infer", {"inputs": inputs})
        return self.end()

    def begin_events(self, sources: Mapping[str, Mapping[str, list[Any]]]) -> None:
        """Send rows of sources as they became known."""
        self._begin("/events", {"sources": sources})

    def begin_labels(self, service: str, columns: Mapping[str, list[Any]]) -> None:
        """Send the truth about predictions made before."""
        self._begin("/labels", {"service": service, "columns": columns})

    def end(self) -> Any:
        """Return the answer to what was begun last; Unavailable if it is a refusal."""
        try:
            status, text = self._read()
        except (OSError, ValueError) as error:
            raise self._broken(error) from error
        self.requests += 1
        if status >= 300:
            raise Unavailable(
                f"The data plane answered {status} to {self._path}.",
                why=text[:500].decode(errors="replace"),
                mend="Look at the log of the demo's processes: up.log in its folder.",
            )
        return orjson.loads(text)

    def _begin(self, path: str, body: Any) -> None:
        now = time.monotonic()
        if now - self._used > _IDLE_SECONDS:
            # A server closes connections that nobody uses for a while: the next request opens a new one.
            self._close()
        self._used, self._path = now, path
        data = orjson.dumps(body)
        head = f"POST {path} HTTP/1.1\r\n{self._head}\r\nContent-Length: {len(data)}\r\n\r\n"
        try:
            if self._socket is None:
                self._open()
            assert self._socket is not None
            self._socket.sendall(head.encode() + data)
        except OSError as error:
            raise self._broken(error) from error

    def _open(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), _DEADLINE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def _close(self) -> None:
        if self._socket is not None:
            self._reader.close()
            self._socket.close()
            self._socket = None

    def _read(self) -> tuple[int, bytes]:
        """Return status and body; the data plane states the length of every body."""
        status = self._reader.readline().split(b" ", 2)
        length = -1
        while (line := self._reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = self._reader.read(length) if length >= 0 else b""
        if len(status) < 2 or len(body) != length:
            raise ValueError("The connection was closed before the answer was complete.")
        return int(status[1]), body

    def _broken(self, error: Exception) -> Unavailable:
        self._close()
        return Unavailable(
            f"The data plane broke off the request to {self._path}.",
            why=f"{type(error).__name__}: {error}",
            mend="Look at the log of the demo's processes: up.log in its folder.",
        )
