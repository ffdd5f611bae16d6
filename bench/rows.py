"""Rows of the table of results that stand alone, without a peer."""

from typing import Any


def own_row(
    topic: str, work: str, unit: str, ours: float | None, goal: float | None = None, *, more: bool = False
) -> dict[str, Any]:
    """Return a row with no peer; the goal, if there is one, is an upper bound, or with `more` a lower one."""
    met = None if goal is None or ours is None else (ours >= goal if more else ours < goal)
    return {
        "topic": topic,
        "work": work,
        "unit": unit,
        "ours": ours,
        "peer": None,
        "peer_version": None,
        "theirs": None,
        "ratio": None,
        "goal": None if goal is None else f"{'≥' if more else '<'} {goal:g}",
        "met": met,
    }
