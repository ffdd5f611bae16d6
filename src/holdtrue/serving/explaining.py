"""Explanations at request time: beside the answer, in a thread of their own, a few requests at a time."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from holdtrue.core.errors import TooLarge, Unavailable
from holdtrue.serving.contributions import (
    MOST_ROWS,
    Explain,
    Explainer,
    NotExplained,
    explainer,
    read_background,
)
from holdtrue.serving.plan import ANSWER, Plan, Scored
from holdtrue.serving.runtime import Model
from holdtrue.serving.snapshot import Bundle

_WAITING: Final = 32
_EXACT: Final = frozenset({"lightgbm", "xgboost"})


def explaining(bundle: Bundle, model: Model, names: Sequence[str], read: Callable[[str], bytes]) -> Explain | None:
    """Return what explains a release's scores, None where it keeps nothing to do so; `read` gives a blob's bytes."""
    kind, kept = bundle.model.format, bundle.background
    if kept is None and kind not in _EXACT:
        return None

    def make() -> Explain:
        exact = kind in _EXACT
        rows = None if kept is None or exact else read_background(read(kept), kept, len(names))
        return explainer(model, kind, read(bundle.model.digest) if exact else b"", names, rows, bundle.classes)

    return Explainer(make)


class Explaining:
    """Explain answers one request after the other, so that those who ask for none wait for none."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._waiting = 0

    def check(self, plan: Plan, rows: int) -> None:
        """Raise TooLarge, Unavailable or NotExplained for a request whose answer would not be explained."""
        if rows > MOST_ROWS:
            raise TooLarge(
                f"{rows} rows are too many to explain at once.",
                why=f"One request explains up to {MOST_ROWS}.",
                mend="Send them in several requests.",
            )
        if self._waiting >= _WAITING:
            raise Unavailable("Too many answers wait to be explained.", mend="Try again in a second.")
        for arm in plan.route.arms:
            loaded = plan.loaded.get(arm.release)
            if loaded is not None and loaded.explain is None:
                raise NotExplained(
                    f"The answers of {arm.release} are not explained.",
                    why="It keeps no sample of training rows to compare with, and its model tells nothing by itself.",
                    mend="Make a release with `holdtrue run`, which keeps one.",
                )

    async def explain(self, plan: Plan, results: Sequence[Scored], rows: int) -> list[dict[str, Any] | None]:
        """Return what each row's features contributed, None for a row that its release's model did not answer."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="explaining")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _explain, plan, results, rows)
        finally:
            self._waiting -= 1


def _explain(plan: Plan, results: Sequence[Scored], rows: int) -> list[dict[str, Any] | None]:
    told: list[dict[str, Any] | None] = [None] * rows
    for each in results:
        loaded = plan.loaded.get(each.release)
        if each.role != ANSWER or each.matrix is None or loaded is None or loaded.explain is None:
            continue
        own = [place for place in range(len(each.scores)) if each.failed is None or not each.failed[place]]
        if not own:
            continue
        found = loaded.explain(each.matrix[own])
        for number, place in enumerate(own):
            told[place if each.rows is None else each.rows[place]] = found.of_row(number)
    return told
