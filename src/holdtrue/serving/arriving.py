"""What arrives of a request over HTTP: the headers that count, the host it is for, and a body within its limit."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from holdtrue.core.errors import InvalidInput, TooLarge

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_COLLECTED: Final = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"x-holdtrue-environment",
        b"x-holdtrue-contributions",
        b"prefer",
        b"idempotency-key",
        b"inference-header-content-length",
        b"traceparent",
        b"x-api-key",
        b"x-holdtrue-project",
        b"x-holdtrue-service",
        b"x-holdtrue-sets",
        b"x-request-id",
        b"x-request-timeout-ms",
    }
)


def collect(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Pick the headers that matter here; one of them given twice is an error."""
    collected: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _COLLECTED:
            if name in collected:
                raise InvalidInput(f"The header {name.decode()} is given twice.")
            collected[name] = value
    return collected


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """Return the body of a request; raise TooLarge beyond `limit` bytes, and InvalidInput if it is cut off."""
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or len(length) > 12 or int(length) > limit):
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise InvalidInput("The client went away before its request was complete.")
        body: bytes = message.get("body", b"")
        size += len(body)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            break
        parts.append(body)
    return b"".join([*parts, body]) if parts else body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        "The body is too large.",
        why=f"One request holds up to {limit >> 20} MiB.",
        mend="Send it in several requests.",
    )


def host_name(host: str) -> str:
    """Return the name in a Host header of the form host[:port], or "" if it has another form."""
    name, separator, port = host.rpartition(":")
    if not separator or host.endswith("]"):
        return host
    return name if port.isdigit() and (":" not in name or name.startswith("[")) else ""
