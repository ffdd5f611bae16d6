"""What a fake provider can do wrong, and how it is told to."""

from dataclasses import dataclass, fields
from typing import Any

from holdtrue.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Fault:
    """Say what shall go wrong with one answer; several may be asked for at once.

    `status` answers with an error status, and `retry_after` adds that header. `hang` never answers. `reset`
    closes the connection before any answer, `half` within one: of a whole answer after half its bytes, of a
    stream within an event. `drop` closes a stream in order after so many pieces, `error_event` ends it with
    an error instead. `bad_json` cuts the JSON off, `content_type` replaces the header. `usage` replaces the
    usage: `missing`, or “input:output”. `slow` waits so many seconds before each piece. `redirect` answers
    302 to that address. `size` makes the answer at least so many bytes long. `unfinished` leaves out the
    reason why the answer is finished, `no_done` the mark at the end of the stream. `stall` sends so many pieces of a
    stream and no more, until the client goes away.
    """

    status: int = 0
    retry_after: str = ""
    hang: bool = False
    reset: bool = False
    half: bool = False
    drop: int = -1
    error_event: bool = False
    bad_json: bool = False
    content_type: str = ""
    usage: str = ""
    slow: float = 0.0
    redirect: str = ""
    size: int = 0
    unfinished: bool = False
    no_done: bool = False
    stall: int = -1

    @classmethod
    def read(cls, text: str) -> "Fault":
        """Return the fault that a text like “status=429;retry_after=1” or “hang” names; raise InvalidInput."""
        kinds = {each.name: type(each.default) for each in fields(cls)}
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, _, value = part.partition("=")
            if name not in kinds:
                raise InvalidInput(f"There is no fault “{name}”.", mend=f"Use one of {', '.join(kinds)}.")
            kind = kinds[name]
            try:
                values[name] = True if kind is bool else kind(value)
            except ValueError:
                raise InvalidInput(f"The fault {name} cannot be “{value}”.") from None
        return cls(**values)


NONE = Fault()
"""Nothing goes wrong."""
