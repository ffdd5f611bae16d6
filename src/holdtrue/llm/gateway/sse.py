"""Server-sent events as they arrive: bytes in, whole events out, however the network cut them."""

from typing import Final

from holdtrue.llm.gateway.model import ProviderFailed

EVENT_LIMIT: Final = 1 << 20


class EventParser:
    """Take the bytes of a `text/event-stream` and give its events (WHATWG HTML, section 9.2.6).

    An event or line beyond 1 MiB raises ProviderFailed.
    """

    __slots__ = ("_data", "_event", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._event = ""
        self._size = 0

    @property
    def pending(self) -> bool:
        """Tell whether an event has begun and not ended."""
        return bool(self._rest.strip() or self._data)

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Return the (name, data) of each event that `data` completes; a name is "" where none was given."""
        if b"\r" in data or b"\r" in self._rest:
            joined = self._rest + data
            # A carriage return at the end may be half of a line end.
            held = joined.endswith(b"\r")
            lines = joined.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if held:
                lines.pop()
                lines[-1] += b"\r"
        else:
            lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > EVENT_LIMIT:
            raise _too_long()
        found: list[tuple[str, bytes]] = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                found.append((self._event, b"\n".join(self._data)))
                self._data, self._event, self._size = [], "", 0
            else:
                self._event = ""
        return found

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._size += len(value)
            if self._size > EVENT_LIMIT:
                raise _too_long()
            self._data.append(value)
        elif name == b"event":
            self._event = value[:64].decode("utf-8", "replace")


def _too_long() -> ProviderFailed:
    return ProviderFailed("The provider's stream cannot be read.", why="One of its events is over one mebibyte.")
