"""A small client of the data plane: one kept connection, JSON in, JSON out."""

import http.client
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


class Plane:
    """Send predictions, events and labels over one kept connection."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.requests = 0
        self._used = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def predict(self, service: str, columns: Mapping[str, list[Any]]) -> Any:
        """Ask for a prediction of each row, in the Open Inference Protocol."""
        rows = len(columns["flight_id"])
        inputs = [
            {"name": name, "datatype": datatype, "shape": [rows], "data": columns[name]}
            for name, datatype in _INPUTS.items()
        ]
        return self._post(f"/v2/models/{service}/infer", {"inputs": inputs})

    def events(self, source: str, columns: Mapping[str, list[Any]]) -> Any:
        """Send rows of a source as they became known."""
        return self._post(f"/events/{source}", {"columns": columns})

    def labels(self, service: str, columns: Mapping[str, list[Any]]) -> Any:
        """Send the truth about predictions made before."""
        return self._post("/labels", {"service": service, "columns": columns})

    def _post(self, path: str, body: Any) -> Any:
        now = time.monotonic()
        if now - self._used > _IDLE_SECONDS:
            # A server closes connections that nobody uses for a while: the next request opens a new one.
            self._connection.close()
        self._used = now
        try:
            self._connection.request("POST", path, orjson.dumps(body), self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"The data plane broke off the request to {path}.",
                why=f"{type(error).__name__}: {error}",
                mend="Look at the log of the demo's processes: up.log in its folder.",
            ) from error
        self.requests += 1
        if answer.status >= 300:
            raise Unavailable(
                f"The data plane answered {answer.status} to {path}.",
                why=text[:500].decode(errors="replace"),
                mend="Look at the log of the demo's processes: up.log in its folder.",
            )
        return orjson.loads(text)
