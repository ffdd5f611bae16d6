"""One call as it goes on: what is known of it so far, and the facts that are left when it has ended."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from holdtrue.core.clock import Stopwatch
from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.gateway.budgets import Amount, Reservation
from holdtrue.llm.gateway.model import (
    Attempt,
    Body,
    Caller,
    CallFacts,
    Capture,
    Operation,
    Outcome,
    Route,
    Usage,
)
from holdtrue.llm.gateway.rules import choices, cost, input_bound, stated_limit
from holdtrue.llm.gateway.table import Entry, ProjectTable

_PARAMETERS: Final = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
)
_NOTHING: Final = Amount()
_UNUSED: Final = Usage()


@dataclass(slots=True, eq=False)
class Call:
    """Hold one call under way.

    `limit` is the number of output tokens per choice that it is held to, None if nothing holds it; `ended`
    is the reason for which the gateway itself has cancelled it; `settled` is the part of its use that budgets
    have been told of before its end.
    """

    id: str
    caller: Caller
    operation: Operation
    route: Route
    body: Body
    stream: bool
    asked: str
    native: Body | None
    table: ProjectTable
    watch: Stopwatch
    loop: asyncio.AbstractEventLoop
    until: float
    limit: int | None = None
    sizes: tuple[int, int] | None = None
    reservation: Reservation | None = None
    settled: Amount = _NOTHING
    cache_key: bytes | None = None
    task: asyncio.Task[Any] | None = None
    ended: HoldtrueError | None = None
    over: bool = False
    entry: Entry | None = None
    provider: str = ""
    kind: str = ""
    model: str = ""
    answered_model: str = ""
    response_id: str = ""
    outcome: Outcome = Outcome.OK
    error: HoldtrueError | None = None
    reasons: tuple[str, ...] = ()
    usage: Usage = _UNUSED
    cost_micros: int = 0
    cached: bool = False
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    first_us: int | None = None
    answer: Body | None = None

    @property
    def capture(self) -> Capture:
        """Return what of its content may be kept."""
        return self.route.capture or self.table.capture

    def bound(self, limit: int | None) -> Usage:
        """Return the most that the call can use under a limit of output tokens per choice."""
        output = 0 if self.operation is Operation.EMBEDDING else choices(self.body) * (limit or 0)
        return Usage(self.input_sizes()[0], output)

    def input_sizes(self) -> tuple[int, int]:
        """Return how many input tokens the call can have at most, and how many the gateway counts."""
        if self.sizes is None:
            self.sizes = input_bound(self.operation, self.body)
        return self.sizes

    def entries(self) -> list[Entry]:
        """Return the providers of the route that there are, in its order."""
        found = (self.table.entries.get(target.provider) for target in self.route.targets)
        return [entry for entry in found if entry is not None]

    def at(self, entry: Entry, model: str) -> None:
        """Note who is asked now."""
        self.entry = entry
        self.provider, self.kind, self.model = entry.provider.name, entry.provider.kind, model

    def charge(self, usage: Usage) -> None:
        """Add what a provider did to what the call has used, and its price to what it costs."""
        mine = self.usage
        if mine is _UNUSED:
            self.usage = usage
        else:
            self.usage = Usage(
                mine.input + usage.input,
                mine.output + usage.output,
                mine.cached_input + usage.cached_input,
                mine.counted or usage.counted,
            )
        if self.entry is not None:
            self.cost_micros += cost(self.entry.price(self.model), usage)

    def charge_unknown(self) -> None:
        """Charge for work whose result nobody will see: the input, and all the output it was allowed."""
        allowed = stated_limit(self.body) if self.limit is None else self.limit
        self.charge(
            Usage(self.input_sizes()[1], self.bound(allowed).output, counted=True),
        )

    def used(self) -> Amount:
        """Return what the call has used, as budgets count it."""
        return Amount(self.cost_micros, self.usage.input + self.usage.output, 1)

    def facts(self) -> CallFacts:
        """Return what is left of the call, which ends now."""
        keeps = self.capture != "off"
        # By their places: one of so many fields is made for every call, and by names takes four times as long.
        return CallFacts(
            self.id,
            self.caller.request_id,
            self.caller.traceparent,
            self.caller.project,
            self.caller.key,
            self.caller.actor,
            self.operation,
            self.stream,
            self.asked,
            self.provider,
            self.kind,
            self.model,
            self.answered_model,
            self.response_id,
            self.outcome,
            "" if self.error is None else self.error.code,
            200 if self.error is None else self.error.status,
            self.reasons,
            self.usage,
            self.cost_micros,
            self.cached,
            tuple(self.attempts),
            self.watch.start,
            self.first_us,
            self.watch.now(),
            self.route.labels,
            parameters_of(self.body),
            self.capture,
            self.body if keeps else None,
            self.answer if keeps else None,
        )


def parameters_of(body: Body) -> Mapping[str, Any]:
    """Return the settings of a request that shape its answer, without its content."""
    return {name: body[name] for name in _PARAMETERS if body.get(name) is not None}
