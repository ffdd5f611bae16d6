"""A worker in a process of its own that spends a budget: `python -m tests.llm.gateway.spender PATH NAME HOW`.

`settle` reserves and settles until nothing is left, and prints how many calls it made; `hold` reserves one call,
says so, and waits to be killed.
"""

import sys
from pathlib import Path

from holdtrue.core.clock import SystemClock
from holdtrue.llm.gateway import Budget, Period, QuotaExhausted
from holdtrue.llm.gateway.budgets import Amount, Budgets, Limit

LIMITS = (Limit("p", Budget(period=Period.TOTAL, money=100_000, tokens=10**9, requests=10**9)),)


def main(path: str, name: str, how: str) -> None:
    budgets = Budgets(Path(path), name, SystemClock())
    calls = 0
    try:
        while True:
            held = budgets.reserve(LIMITS, Amount(70, 7, 1), 60.0)
            if how == "hold":
                print("held", flush=True)
                sys.stdin.read()
            budgets.settle(held, Amount(50, 5, 1))
            calls += 1
    except QuotaExhausted:
        print(calls, flush=True)
        budgets.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
