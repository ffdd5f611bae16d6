"""What a call may use and has used: reserved before a provider is asked, settled after."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.gateway.budgets import Amount, Budgets
from holdtrue.llm.gateway.call import Call
from holdtrue.llm.gateway.model import Body, Operation, Outcome, UnpricedModel, Usage
from holdtrue.llm.gateway.rules import (
    MOST_TOKENS,
    checked_usage,
    choices,
    cost,
    count_output,
    stated_limit,
)
from holdtrue.llm.gateway.table import Table

_SAVE_SECONDS: Final = 1.0
_EXPIRE_EVERY: Final = 30
_GRACE_SECONDS: Final = 60.0


class Accounts:
    """Hold calls to their budgets; the counters are opened when the first budget holds."""

    def __init__(self, path: Path, name: str, clock: Clock) -> None:
        self._path = path
        self._name = name
        self._clock = clock
        self._budgets: Budgets | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._log = logging.getLogger("holdtrue.gateway")

    def start(self) -> None:
        """Take up what a worker of this name left, and begin to keep a copy of the counters."""
        if (self._path / "data.mdb").exists():
            self._open()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Write the last copy and close."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._budgets is not None:
            self._budgets.close()
            self._budgets = None

    def reserve(self, call: Call, table: Table) -> None:
        """Reserve the most that a call can cost with any of its targets; raise QuotaExhausted or RateLimited."""
        limits = table.limits(call.caller.project, call.caller.key)
        if not limits.each:
            return
        if limits.tokens:
            # Only a call that is bounded can be reserved, so one without a limit gets the provider's.
            call.limit = stated_limit(call.body)
            if call.limit is None and call.operation is not Operation.EMBEDDING:
                call.limit = max((entry.provider.output_limit for entry in call.entries()), default=0)
        most = call.bound(call.limit)
        money = max([cost(price, most) for price in _prices(call)], default=0) if limits.money else 0
        amount = Amount(money, most.input + most.output, 1)
        seconds = call.until - call.loop.time() + _GRACE_SECONDS
        call.reservation = self._open().reserve(limits.each, amount, seconds)

    def again(self, call: Call, table: Table) -> None:
        """Settle the work of a target that gave no answer, and reserve for the next one."""
        if call.reservation is None:
            return
        self._settle(call, _since(call, 0))
        call.settled = call.used()
        self.reserve(call, table)

    def settle(self, call: Call) -> None:
        """Replace the reservation of a call by what it has used; one that nobody worked for costs nothing."""
        if call.reservation is None:
            return
        worked = call.outcome is Outcome.OK or call.used().tokens > 0
        self._settle(call, _since(call, 1 if worked else 0))

    def _settle(self, call: Call, amount: Amount) -> None:
        reservation, call.reservation = call.reservation, None
        assert reservation is not None
        self._open().settle(reservation, amount)

    def _open(self) -> Budgets:
        if self._budgets is None:
            self._budgets = Budgets(self._path, self._name, self._clock)
        return self._budgets

    async def _keep(self) -> None:
        """Save the counters every second, and bill now and then what nobody has settled."""
        turn = 0
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            turn += 1
            budgets = self._budgets
            if budgets is None:
                continue
            try:
                if turn % _EXPIRE_EVERY == 0:
                    budgets.expire()
                await asyncio.get_running_loop().run_in_executor(None, budgets.save)
            except (HoldtrueError, OSError) as error:
                self._log.error("The counters of budgets cannot be saved: %s", error)


def measured(call: Call, reported: Any, texts: Iterable[str], *, whole: bool) -> Usage:
    """Return what an answer used: as the provider reports it where that can be, else as the gateway counts."""
    input_most, input_counted = call.input_sizes()
    counted = Usage(input_counted, count_output(texts), counted=True)
    limit = stated_limit(call.body) if call.limit is None else call.limit
    usage = checked_usage(
        reported,
        counted,
        input_most=input_most,
        output_most=MOST_TOKENS if limit is None else limit * choices(call.body),
    )
    # Numbers that came before the end of a stream say only what was known by then.
    return usage if whole else usage._replace(output=max(usage.output, counted.output))


def usage_body(operation: Operation, usage: Usage) -> Body:
    """Return a usage in OpenAI's form."""
    total = {"prompt_tokens": usage.input, "total_tokens": usage.input + usage.output}
    return total if operation is Operation.EMBEDDING else {**total, "completion_tokens": usage.output}


def _since(call: Call, requests: int) -> Amount:
    """Return what a call has used since its budgets were told last."""
    used, before = call.used(), call.settled
    return Amount(used.money - before.money, used.tokens - before.tokens, requests)


def _prices(call: Call) -> list[Any]:
    found: list[Any] = []
    for target in call.route.targets:
        entry = call.table.entries.get(target.provider)
        if entry is None:
            continue
        price = entry.price(target.model)
        if price is None:
            raise UnpricedModel(
                f"The model {target.label} has no price.",
                why="A budget in money holds, which could not be counted.",
                mend=f"State it: holdtrue provider add {target.provider} … --price {target.model}=INPUT/OUTPUT",
            )
        found.append(price)
    return found
