"""Answer the messages of a stream: each is asked of the data plane, told its answer, and done with; none is lost.

What a stream must be able to do stands in `Stream`; Redis is one (`redisstream`), and a topic of Kafka's kind is
another for whoever writes these three methods. A message that comes again, since whoever took it died, is asked under
the same key: its prediction is the same one, and is recorded once.
"""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    import httpx

    from holdtrue.server.client import Client

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 15.0
_POLL_SECONDS: Final = 1.0
_WHERE: Final = "x-holdtrue-environment"
_log: Final = logging.getLogger("holdtrue.consume")


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one message: an id that it keeps when it comes again, and a JSON row of inputs, or a list of rows.

    `given_up` says why it shall not be asked any more, `wrong` why it cannot be asked, "" if it shall and can.
    """

    id: str
    body: bytes
    given_up: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """Hold the answer to a message: the JSON that the data plane gave, and whether it is one (or else an error)."""

    message: Message
    body: bytes
    good: bool
    prediction: str = ""


class Stream(Protocol):
    """Where messages come from and answers go to; of one such, one thread uses its methods at a time."""

    def take(self, most: int, seconds: float) -> Sequence[Message]:
        """Return up to `most` messages that nobody else has, waiting up to `seconds` for the first.

        Also those that were taken and not settled by whoever has died since.
        """
        ...

    def settle(self, told: Sequence[Told]) -> int:
        """Keep the answers and be done with their messages: in one step, or else the answers first.

        Return how many were told; a message that somebody else has settled meanwhile is not told twice.
        """
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


@dataclass(slots=True)
class Counts:
    """Count what was done: messages answered, refused for what they are, told twice not, and tries that failed."""

    answered: int = 0
    refused: int = 0
    repeated: int = 0
    again: int = 0


@dataclass(frozen=True, slots=True)
class Later(Exception):
    """The data plane cannot answer now; after `seconds`, if it says so, it may."""

    why: str
    seconds: float | None = None


Ask = Callable[[Message], Told]


def check_served(http: "httpx.Client", project: str, service: str, environment: str | None = None) -> None:
    """Raise NotFound if the data plane does not serve that, or not to this token: no message would be answered."""
    given = {"x-holdtrue-project": project}
    answer = http.get(f"/v2/models/{service}", headers=given if environment is None else {**given, _WHERE: environment})
    if answer.status_code in (400, 401, 403, 404):
        raise NotFound(
            f"The data plane serves no model {service} for this token.",
            why=str(answer.json().get("error", "")),
            mend="See what is deployed: holdtrue status",
        )


def renewing(client: "Client", clock: Clock, seconds: float = 6 * 3600.0) -> Callable[[], None]:
    """Return what lets a program's token live on, once in so many seconds; a person's token ends when it ends."""
    begun = clock.monotonic()

    def renew() -> None:
        nonlocal begun
        if clock.monotonic() - begun < seconds:
            return
        begun = clock.monotonic()
        try:
            client.post("/api/tokens/renew")
        except HoldtrueError as error:
            _log.warning("The token is not renewed: %s", error.what)

    return renew


def asking(http: "httpx.Client", project: str, service: str, environment: str | None = None) -> Ask:
    """Return what asks the data plane for a service; it raises Later, and HoldtrueError where asking is no use."""
    import httpx

    headers = {"content-type": "application/json", "x-holdtrue-project": project}
    if environment is not None:
        headers[_WHERE] = environment

    def ask(message: Message) -> Told:
        if message.given_up or message.wrong:
            return Told(message, orjson.dumps(_never_asked(message).to_json()), good=False)
        mine = {**headers, "idempotency-key": f"stream/{message.id}"[:200], "x-request-id": message.id[:128]}
        try:
            answer = http.post(f"/predict/{service}", content=message.body, headers=mine)
        except httpx.TransportError as error:
            raise Later(f"The data plane does not answer ({type(error).__name__}).") from None
        if answer.status_code in (401, 403, 404):
            # The consumer's own matter, not the message's: who gives it up now would lose it.
            raise Later(f"The data plane answers {answer.status_code}: {_what(answer)}")
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            wait = answer.headers.get("retry-after", "")
            raise Later(f"The data plane answers {answer.status_code}.", float(wait) if wait.isdecimal() else None)
        if answer.status_code != 200:
            return Told(message, answer.content, good=False)
        return Told(message, answer.content, good=True, prediction=_prediction(answer.json()))

    return ask


def consume(
    stream: Stream,
    ask: Ask,
    stop: threading.Event,
    *,
    most: int = 64,
    concurrent: int = 16,
    until_empty: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Counts:
    """Answer messages until `stop` is set, or with `until_empty` until none comes; return what was done.

    `between` is called before each look at the stream.

    A message that the data plane cannot answer now is asked again after growing pauses; the others wait with it. One
    that is wrong is told its error and is done with.
    """
    counts = Counts()
    with ThreadPoolExecutor(concurrent, thread_name_prefix="consume") as pool:
        while not stop.is_set():
            between()
            messages = _patiently(stop, counts, stream.take, most, _POLL_SECONDS)
            if not messages:
                if until_empty and messages is not None:
                    break
                continue
            found = pool.map(lambda message: _patiently(stop, counts, ask, message), messages)
            told = [each for each in found if each is not None]
            done = _patiently(stop, counts, stream.settle, told) if told else 0
            counts.answered += sum(each.good for each in told)
            counts.refused += sum(not each.good for each in told)
            counts.repeated += len(told) - (done or 0)
    return counts


def _patiently(stop: threading.Event, counts: Counts, work: Callable[..., Any], *given: Any) -> Any:
    """Return what `work` does, tried again while it may yet succeed; None if it was stopped before."""
    pause = _FIRST_PAUSE
    while not stop.is_set():
        try:
            return work(*given)
        except Later as later:
            why, seconds = later.why, later.seconds
        except HoldtrueError as error:
            if error.status < 500:
                raise
            why, seconds = f"{error.what} {error.why}", None
        counts.again += 1
        wait = min(seconds if seconds is not None else pause, _LONGEST_PAUSE)
        _log.warning("%s Trying again in %.1f s.", why, wait)
        # Not all at the same moment: a server that comes back is not to be run over.
        stop.wait(wait * random.uniform(0.8, 1.2))  # no secret hangs on it
        pause = min(2 * pause, _LONGEST_PAUSE)
    return None


def _never_asked(message: Message) -> HoldtrueError:
    """Return why a message is told an error without being asked."""
    if message.wrong:
        mend = "Put the row there, as JSON that /predict takes."
        return InvalidInput("The message is no request.", why=message.wrong, mend=mend)
    return Unavailable("The message was given up.", why=message.given_up)


def _prediction(answer: Any) -> str:
    rows = answer if isinstance(answer, list) else [answer]
    return str(rows[0]["prediction_id"]) if rows else ""


def _what(answer: "httpx.Response") -> str:
    try:
        return str(answer.json()["error"]["what"])
    except (ValueError, KeyError, TypeError):
        return "no reason is given."
