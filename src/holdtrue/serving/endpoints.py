"""What a route of the data plane is: what it gets, what it answers, and what may be asked of it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError
from holdtrue.serving.access import Grant

BODY_LIMIT: Final = 16 << 20
ErrorForm = Callable[[HoldtrueError], bytes]
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Request:
    """Hold what an endpoint gets: the body, the project, the path's parameters, who asks, and when it began.

    `id` is the one that the client gave its request, or else one made for it (of a patient endpoint, always one
    made for it). `seconds` bounds a patient one; an endpoint that streams raises it to `longest`.
    """

    body: bytes
    project: str
    path: tuple[str, ...]
    headers: Mapping[bytes, bytes]
    started: float
    grant: Grant
    id: str = ""
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(slots=True)
class Reply:
    """Hold an answer, JSON unless it says otherwise; `named` if its headers need no id of the request."""

    status: int
    body: bytes
    headers: Headers = ()
    media: bytes = b"application/json"
    named: bool = False


@dataclass(slots=True)
class Stream:
    """Hold an answer of server-sent events that comes in pieces.

    `close` is called in the end whatever happens, also if the client goes away before the first piece. If
    they end in an error, `broken` gives the last piece, and the connection is cut after it: no client can
    take what it got for the whole.
    """

    parts: AsyncGenerator[bytes]
    broken: ErrorForm
    close: Callable[[], Awaitable[None]]
    headers: Headers = ()


class Direct(Protocol):
    """Be told of a request's answer, once, and send the reply that is made of it."""

    def shape(self, form: Callable[[Any], Reply], /) -> None:
        """Take what makes a reply of an answer."""
        ...

    def done(self) -> bool:
        """Tell whether nobody waits any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, exception: HoldtrueError, /) -> None:
        """Take the reason why there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Describe one route: nothing is served that is not described so.

    `path` has parameters in braces; one that ends in an ellipsis takes the rest of the path as it came. A
    `patient` endpoint waits for other servers: its requests are counted apart, end when the client goes away,
    and may answer with a `Stream`. `body_limit` is the
    most bytes its body may have. The requests of a `deferrable` one may be answered later; of one
    that is asked `once`, since others are paid for it, what was begun is never begun again. `begin` begins with
    a request as `handle` does, and needs no task to end it; it says whether it could, and has done nothing if not.
    """

    method: str
    path: str
    permission: Permission
    handle: Callable[[Request], Awaitable[Reply | Stream]]
    patient: bool = False
    body_limit: int = BODY_LIMIT
    deferrable: bool = False
    once: bool = False
    begin: Callable[[Request, Direct], bool] | None = None
