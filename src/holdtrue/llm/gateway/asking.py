"""Ask the targets of a route until one answers: retries where they are safe, then the next target."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from holdtrue.core.errors import Unavailable
from holdtrue.llm.gateway.adapters import Failed, timely
from holdtrue.llm.gateway.breaker import RetryBudget
from holdtrue.llm.gateway.call import Call
from holdtrue.llm.gateway.dialects.base import Sent
from holdtrue.llm.gateway.model import Attempt, ModelNotFound, ProviderStopped, ProviderTimeout, Target
from holdtrue.llm.gateway.rules import jitter, stated_limit
from holdtrue.llm.gateway.table import Entry

T = TypeVar("T")
Ask = Callable[[Entry, Sent], Awaitable[T]]
_PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bound the seconds between two attempts: `base` for the first, doubling up to `cap`."""

    base: float = 0.2
    cap: float = 5.0


@dataclass(slots=True)
class Asker:
    """Ask providers on behalf of calls."""

    backoff: Backoff
    generator: random.Random
    retries: RetryBudget = field(default_factory=RetryBudget)

    async def reach(self, call: Call, ask: Ask[T], again: Callable[[], None]) -> T:
        """Return what the first target says that can answer; raise Failed with the last one's error.

        `again` is called before another target is asked although one before may have done the work.
        """
        self.retries.note_request()
        last: Failed | None = None
        targets = call.route.targets
        for place, target in enumerate(targets):
            entry = call.table.entries.get(target.provider)
            if entry is None:
                last = last or Failed(missing(target.label), ill=False)
                continue
            if entry.provider.stopped:
                last = last or Failed(stopped(entry), ill=False)
                continue
            if last is not None and last.worked:
                again()
            try:
                return await self._ask(call, entry, target, ask, more=place + 1 < len(targets))
            except Failed as failed:
                last = failed
                if not failed.elsewhere or call.loop.time() >= call.until:
                    break
        assert last is not None, "a route has at least one target"
        raise last

    async def _ask(self, call: Call, entry: Entry, target: Target, ask: Ask[T], *, more: bool) -> T:
        """Ask one target, and again where that is safe."""
        loop = call.loop
        sent = _sent(call, entry, target)
        for attempt in range(1, call.route.retries + 2):
            left = call.until - loop.time()
            if left <= 0:
                raise Failed(ProviderTimeout("The call was not answered in time."), ill=False)
            if not entry.breaker.admits():
                raise Failed(_left_alone(entry), ill=False)
            try:
                return await self._once(call, entry, target, ask(entry, sent), left)
            except Failed as failed:
                wait = self._wait(failed, attempt, call.until - loop.time(), more=more)
                if wait is None or attempt > call.route.retries or not self.retries.take():
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, call: Call, entry: Entry, target: Target, asking: Awaitable[T], left: float) -> T:
        """Ask once, and note how it went."""
        call.at(entry, target.model)
        began = call.watch.now()
        try:
            answer = await timely(call.loop, min(left, entry.provider.timeout), asking)
        except Failed as failed:
            if failed.ill:
                entry.breaker.failed()
            else:
                entry.breaker.succeeded()
            if failed.worked:
                call.charge_unknown()
            call.attempts.append(_attempt(call, target, began, failed.status, failed.error.code))
            raise
        except BaseException:
            # The client went away, or the gateway was stopped: the provider may go on for a while.
            entry.breaker.abandoned()
            call.charge_unknown()
            call.attempts.append(_attempt(call, target, began, 0, "left"))
            raise
        entry.breaker.succeeded()
        call.attempts.append(_attempt(call, target, began, 200, ""))
        return answer

    def _wait(self, failed: Failed, attempt: int, left: float, *, more: bool) -> float | None:
        """Return the seconds until the same request may be sent again, None if it must not be."""
        if not failed.again:
            return None
        wait = jitter(attempt, self.generator, base=self.backoff.base, cap=self.backoff.cap)
        if failed.wait is not None:
            wait += failed.wait
        if wait >= left or (more and wait > _PATIENCE):
            return None
        return wait


def _sent(call: Call, entry: Entry, target: Target) -> Sent:
    body = call.body
    if call.limit is not None and stated_limit(body) is None:
        body = {**body, entry.provider.limit_field: call.limit}
    native = call.native if entry.provider.kind == "anthropic" else None
    return Sent(call.operation, target.model, body, call.stream, call.watch.start // 1_000_000, native)


def missing(name: str) -> ModelNotFound:
    """Say that a project has no such model."""
    return ModelNotFound(
        f"The model “{name[:100]}” does not exist, or this project may not use it.",
        mend="List the models: GET /v1/models",
        facts={"param": "model"},
    )


def stopped(entry: Entry) -> ProviderStopped:
    """Say that somebody has stopped a provider."""
    name = entry.provider.name
    return ProviderStopped(
        f"The provider {name} is stopped.", why=entry.provider.stopped, mend=f"holdtrue provider start {name}"
    )


def _left_alone(entry: Entry) -> Unavailable:
    seconds = max(1, round(entry.breaker.seconds_left()))
    return Unavailable(
        f"The provider {entry.provider.name} is left alone for a moment.",
        why="Too many calls to it failed.",
        mend=f"Try again in {seconds} seconds.",
        facts={"retry_after": seconds},
    )


def _attempt(call: Call, target: Target, began: int, status: int, error: str) -> Attempt:
    return Attempt(target.provider, target.model, status, error, began, call.watch.now() - began)
