"""State machines: every pair of states of every machine is tried."""

import itertools
from enum import StrEnum
from typing import Any

import pytest

from holdtrue.core.errors import StateError
from holdtrue.delivery.model import (
    DEPLOYMENT_MOVES,
    ROLLOUT_MOVES,
    TRIGGER_MOVES,
    DeploymentState,
    RolloutState,
    TriggerState,
    move,
)

ALLOWED: dict[type[StrEnum], set[str]] = {
    DeploymentState: {
        "pending-pending",
        "pending-live",
        "pending-failed",
        "live-pending",
        "live-failed",
        "failed-pending",
        "failed-live",
    },
    RolloutState: {"running-running", "running-promoted", "running-rolled_back", "running-stopped"},
    TriggerState: {"queued-done", "queued-failed", "done-rolled_out"},
}
TABLES: dict[type[StrEnum], tuple[str, Any]] = {
    DeploymentState: ("deployment", DEPLOYMENT_MOVES),
    RolloutState: ("rollout", ROLLOUT_MOVES),
    TriggerState: ("trigger", TRIGGER_MOVES),
}
PAIRS = [(cls, a, b) for cls in ALLOWED for a, b in itertools.product(cls, cls)]


@pytest.mark.parametrize(("machine", "before", "after"), PAIRS, ids=lambda value: str(value))
def test_every_pair_of_states(machine: type[StrEnum], before: StrEnum, after: StrEnum) -> None:
    name, table = TABLES[machine]
    if f"{before}-{after}" in ALLOWED[machine]:
        assert move(name, table, before, after) is after
        return
    with pytest.raises(StateError) as caught:
        move(name, table, before, after)
    assert caught.value.facts == {"machine": name, "current": before.value, "wanted": after.value}


def test_every_state_has_its_row() -> None:
    for machine, (_, table) in TABLES.items():
        assert set(table) == set(machine)
