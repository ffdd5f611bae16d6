"""Requests that are answered later: accepted when they are on the disk, answered in the order in which they came.

A client asks for it with the header `Prefer: respond-async` (RFC 7240), and fetches the result under the request's id.
What is accepted is answered whatever dies meanwhile; a request that was begun and not ended is begun again, under the
same key, so that its predictions are recorded once. Requests that others are paid for are begun at most once: that one
was begun is on the disk before anybody is asked, and one whose end is not known has that as its result.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import from_microseconds
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.core.ids import check_name
from holdtrue.serving.access import Grant
from holdtrue.serving.endpoints import Endpoint, Headers, Reply, Request, Stream
from holdtrue.serving.naming import environment_of
from holdtrue.serving.plane import TooSlow
from holdtrue.serving.queueing import DONE, MOST_TRIES, Entry, Queue, digest_of

T = TypeVar("T")
ErrorForms = Callable[[str], Callable[[HoldtrueError], bytes]]
PREFER: Final = b"prefer"
ASYNC: Final = b"respond-async"
STATE: Final = b"x-holdtrue-request-state"
_KEPT: Final = (
    "content-type",
    "content-encoding",
    "inference-header-content-length",
    "x-holdtrue-service",
    "x-holdtrue-contributions",
    "x-holdtrue-sets",
    "x-holdtrue-environment",
)
# Kept too, and not part of what is asked: the same request may come again in another trace.
_BESIDE: Final = "traceparent"
_RUNNERS: Final = 4
_BATCH: Final = 16
_LOOK_SECONDS: Final = 2.0
_LONGEST_PAUSE: Final = 60.0
_log: Final = logging.getLogger("holdtrue.dataplane")


class Abandoned(HoldtrueError):
    """A request that is answered later was begun too often without coming to an end."""

    code = "request_abandoned"


class Unsure(HoldtrueError):
    """A request that is begun at most once was begun, and nobody knows how it ended."""

    code = "request_unsure"


@dataclass(frozen=True, slots=True)
class Keeping:
    """Say where requests are kept, by which worker, how long their results are, and how long one may take."""

    path: Path
    owner: str
    seconds: float
    deadline: float


class Deferring:
    """Accept requests for later, answer them, and give their results out.

    `now_us` is the time of day and `stopwatch` the engine's; `forms` gives, by path, a protocol's form of an error.
    """

    def __init__(
        self, keeping: Keeping, now_us: Callable[[], int], stopwatch: Callable[[], float], forms: ErrorForms
    ) -> None:
        self._keeping = keeping
        self._now_us = now_us
        self._stopwatch = stopwatch
        self._forms = forms
        self._endpoints: dict[str, Endpoint] = {}
        self._queue: Queue | None = None
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="requests")
        self._coming: list[tuple[Entry, bytes, asyncio.Future[Entry]]] = []
        self._ready: dict[bytes, None] = {}
        self._busy: set[bytes] = set()
        self._paused: set[bytes] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._accepting: asyncio.Task[None] | None = None

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Return the endpoint that gives results out."""
        return (Endpoint("GET", "/requests/{request}", Permission.PREDICT, self._result),)

    def taking(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint, which also takes requests for later if it is one that may."""
        if not endpoint.deferrable:
            return endpoint
        self._endpoints[endpoint.path] = endpoint

        def handle(request: Request) -> Awaitable[Reply | Stream]:
            prefers = request.headers.get(PREFER)
            if prefers is None or ASYNC not in prefers.replace(b" ", b"").split(b","):
                return endpoint.handle(request)
            if endpoint.once and _streams(request.body):
                # The header is a preference, and an answer in pieces is one at once.
                return endpoint.handle(request)
            return self._accept(endpoint, request)

        return replace(endpoint, handle=handle)

    async def start(self) -> None:
        """Go on with what an earlier process of this name, or a worker that died, has left."""
        self._tasks = [asyncio.create_task(self._look())]
        self._tasks += [asyncio.create_task(self._run()) for _ in range(_RUNNERS)]

    async def close(self) -> None:
        """Stop; what is not answered yet is answered by whoever comes next."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        if self._accepting is not None:
            await self._accepting
        if self._queue is not None:
            await self._on_disk(self._queue.close)
        self._disk.shutdown()

    async def _accept(self, endpoint: Endpoint, request: Request) -> Reply:
        """Put a request on the disk, and tell where its result will be."""
        name = request.id
        if endpoint.once:
            # Such a request has an id of the house, by which its call is known; what is fetched has the client's.
            name = request.headers.get(b"x-request-id", name.encode()).decode("latin-1")
        try:
            check_name(name, "request id")
        except InvalidInput as error:
            raise InvalidInput("The X-Request-Id of a request for later has another form.", why=error.why) from None
        given = ((each, request.headers.get(each.encode())) for each in (*_KEPT, _BESIDE))
        headers = {each: value.decode("latin-1") for each, value in given if value is not None}
        meant = {each: value for each, value in headers.items() if each != _BESIDE}
        entry = Entry(
            id=name,
            project=request.project,
            route=endpoint.path,
            path=request.path,
            headers=headers,
            token=request.grant.token,
            actor=request.grant.actor,
            environment=environment_of(request),
            digest=digest_of(endpoint.path, request.path, meant, request.body),
            accepted=self._now_us(),
            owner=self._keeping.owner,
        )
        kept: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._coming.append((entry, request.body, kept))
        if self._accepting is None or self._accepting.done():
            self._accepting = asyncio.create_task(self._take_in())
        # A client that goes away does not take its request with it.
        return _accepted(await asyncio.shield(kept))

    async def _take_in(self) -> None:
        """Commit the requests that wait together: while the disk is busy with some, others gather."""
        while self._coming:
            batch, self._coming = self._coming, []
            try:
                queue = await self._opened()
                found = await self._on_disk(queue.accept, [(entry, body) for entry, body, _ in batch])
            except HoldtrueError as error:
                found = [error] * len(batch)
            for (_, _, kept), each in zip(batch, found, strict=True):
                if isinstance(each, HoldtrueError):
                    _fail(kept, each)
                    continue
                if not kept.done():
                    kept.set_result(each)
                if each.state != DONE and each.owner == self._keeping.owner:
                    self._add(each.key)

    async def _result(self, request: Request) -> Reply:
        """Return the result of a request, or that it waits."""
        if self._queue is None and not self._keeping.path.is_dir():
            raise NotFound.of("request", request.path[0])
        queue = await self._opened()
        entry, body = await self._on_disk(queue.find, request.project, request.path[0], self._now_us())
        if request.grant.environment not in (None, entry.environment):
            raise NotFound.of("request", request.path[0])
        if entry.state != DONE:
            return _accepted(entry)
        headers = tuple((name.encode(), value.encode("latin-1")) for name, value in entry.answer_headers.items())
        ends = from_microseconds(entry.ends).isoformat().encode()
        told: Headers = ((STATE, DONE.encode()), (b"x-holdtrue-result-until", ends), *headers)
        return Reply(entry.status, body, told, media=entry.media.encode("latin-1"))

    def _add(self, key: bytes) -> None:
        if key not in self._busy and key not in self._paused:
            self._ready[key] = None
            self._wake.set()

    async def _look(self) -> None:
        """Look for requests that nobody answers, and forget results whose time is over, again and again."""
        while True:
            try:
                if self._queue is not None or self._keeping.path.is_dir():
                    queue = await self._opened()
                    for key in await self._on_disk(queue.mine):
                        self._add(key)
                    await self._on_disk(queue.forget, self._now_us())
            except HoldtrueError as error:
                _log.error("Requests for later cannot be looked through: %s", error.what)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _run(self) -> None:
        """Answer what is ready, a few requests at a time."""
        while True:
            await self._wake.wait()
            keys = [key for key, _ in zip(list(self._ready), range(_BATCH), strict=False)]
            if not keys:
                self._wake.clear()
                continue
            for key in keys:
                del self._ready[key]
            self._busy.update(keys)
            try:
                await self._answer(keys)
            except HoldtrueError as error:
                # They are found again at the next look.
                _log.error("Requests for later cannot be answered: %s", error.what)
            finally:
                self._busy.difference_update(keys)

    async def _answer(self, keys: Sequence[bytes]) -> None:
        queue = await self._opened()
        begun = await self._on_disk(queue.begin, keys)
        answered = await asyncio.gather(*(self._one(entry, body) for entry, body in begun))
        await self._on_disk(queue.answer, [each for each in answered if each is not None])

    async def _one(self, entry: Entry, body: bytes) -> tuple[Entry, bytes] | None:
        """Return a request with its result; None for one that is to be tried again."""
        endpoint = self._endpoints.get(entry.route)
        form = self._forms(entry.route)
        once = endpoint is not None and endpoint.once
        try:
            if entry.tries > MOST_TRIES or endpoint is None:
                raise Abandoned(
                    f"The request was begun {entry.tries - 1} times and never ended.",
                    why="A process died, or ran out of time, whenever it was answered.",
                    mend="Look at the log of the data plane; send it in smaller parts.",
                )
            if once and entry.tries > 1:
                raise _unsure("The process that had begun it died or was stopped")
            reply = await _in_time(endpoint.handle(self._request(entry, body)), self._keeping.deadline)
            assert isinstance(reply, Reply)
        except TimeoutError:
            late = Unavailable("The request was not answered in time.")
            reply = self._again(entry, form, _unsure("It took longer than a request may") if once else late, once=once)
        except HoldtrueError as error:
            reply = self._again(entry, form, error, once=once)
        except Exception:  # noqa: BLE001  # the last resort: the log learns what, the client only that
            _log.exception("The request %s failed.", entry.id)
            reply = self._again(entry, form, HoldtrueError("The request failed."), once=once)
        if reply is None:
            return None
        headers = {name.decode(): value.decode("latin-1") for name, value in reply.headers}
        ends = self._now_us() + round(self._keeping.seconds * 1_000_000)
        media = reply.media.decode("latin-1")
        done = replace(entry, status=reply.status, media=media, answer_headers=headers, ends=ends)
        if once:
            # What was paid for is kept at once, and not when the slowest of those beside it has ended.
            await self._on_disk((await self._opened()).answer, [(done, reply.body)])
            return None
        return done, reply.body

    def _again(
        self, entry: Entry, form: Callable[[HoldtrueError], bytes], error: HoldtrueError, *, once: bool
    ) -> Reply | None:
        """Return an error as a result, or None for one that may pass: then the request is tried again after a pause."""
        passing = (error.status in (408, 429) or error.status >= 500) and not once
        if not passing or entry.tries >= MOST_TRIES or isinstance(error, Abandoned):
            return Reply(error.status, form(error))
        pause = min(float(error.facts.get("retry_after", 2.0 ** (entry.tries - 1))), _LONGEST_PAUSE)
        # Until then it is not looked for.
        self._paused.add(entry.key)

        def due() -> None:
            self._paused.discard(entry.key)
            self._add(entry.key)

        asyncio.get_running_loop().call_later(pause, due)
        return None

    def _request(self, entry: Entry, body: bytes) -> Request:
        endpoint = self._endpoints[entry.route]
        name = entry.id
        if endpoint.once:
            known = bytes_hash(entry.key + b"%d" % entry.accepted)
            name = f"req_{known[:16]}"
        headers: Mapping[bytes, bytes] = {
            **{name.encode(): value.encode("latin-1") for name, value in entry.headers.items()},
            b"x-request-id": entry.id.encode(),
            b"idempotency-key": f"later/{entry.id}/{entry.accepted}".encode(),
        }
        allowed = frozenset({Permission.PREDICT.value})
        grant = Grant(entry.token, entry.actor, entry.project, allowed, None, b"", entry.environment)
        return Request(body, entry.project, entry.path, headers, self._stopwatch(), grant, name)

    async def _opened(self) -> Queue:
        if self._queue is None:
            opened = await self._on_disk(self._open)
            self._queue = opened
        return self._queue

    def _open(self) -> Queue:
        # Calls follow one another in one thread, so that the file is opened once.
        return self._queue or Queue(self._keeping.path, self._keeping.owner)

    async def _on_disk(self, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *given)


async def _in_time(answer: Awaitable[T], seconds: float) -> T:
    """Return what is awaited; raise TimeoutError if it takes longer, which it is told as a request at once is."""
    work = asyncio.ensure_future(answer)
    ended: str | None = None
    try:
        if (await asyncio.wait({work}, timeout=seconds))[0]:
            return work.result()
        ended = TooSlow.code
    finally:
        if not work.done():
            # An answer that comes too late is the failure of whoever gives it; the end of a process is nobody's.
            work.cancel(ended)
            await asyncio.wait({work})
    raise TimeoutError


def _streams(body: bytes) -> bool:
    """Tell whether a request asks for an answer in pieces; one that cannot be read is refused when it is begun."""
    try:
        asked: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(asked, dict) and asked.get("stream") is True


def _unsure(why: str) -> Unsure:
    return Unsure(
        "Nobody knows how this request ended, and it is not begun again.",
        why=f"{why}; whoever was asked may have answered, and been paid.",
        mend="Send it under another id if it is worth paying for twice.",
    )


def _accepted(entry: Entry) -> Reply:
    where = f"/requests/{entry.id}"
    told = {"id": entry.id, "state": entry.state, "accepted_at": from_microseconds(entry.accepted), "result": where}
    headers: Headers = (
        (b"location", where.encode()),
        (b"retry-after", b"1"),
        (b"preference-applied", ASYNC),
        (STATE, entry.state.encode()),
    )
    return Reply(202, orjson.dumps(told), headers)


def _fail(kept: "asyncio.Future[Entry]", error: HoldtrueError) -> None:
    if not kept.done():
        kept.set_exception(error)
