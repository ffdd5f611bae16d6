"""What `holdtrue status` says of rollouts."""

import pytest

from holdtrue.cli.context import listing
from holdtrue.cli.decide import told_rollback
from holdtrue.cli.look import told_rollout

ENDED = {
    "challenger": "rel_b",
    "environment": "production",
    "state": "promoted",
    "percent": 50.0,
    "reason": "It is better.",
}


def test_a_promoted_release_that_was_taken_back_is_not_told_as_if_it_answered() -> None:
    assert told_rollout(ENDED, ["rel_b"]) == "rollout of rel_b: promoted. It is better."
    gone = "rollout of rel_b: promoted. It is better. Since then another release has taken its place."
    assert told_rollout(ENDED, ["rel_a"]) == gone


def test_a_rollout_that_runs_is_told_with_its_share() -> None:
    running = {**ENDED, "state": "running", "reason": ""}
    assert told_rollout(running, ["rel_a"]) == "rollout of rel_b: running, 50 %."


def test_a_rollout_elsewhere_names_its_environment() -> None:
    back = {**ENDED, "environment": "staging", "state": "rolled_back", "reason": "It is worse."}
    assert told_rollout(back, ["rel_a"]) == "rollout of rel_b in staging: rolled back. It is worse."


def test_a_rollback_tells_what_answers_after_it() -> None:
    deployment = {"release": "rel_a"}
    ended = told_rollback("delay", {"deployment": deployment, "rollout": ENDED})
    assert ended == "The rollout of rel_b is ended; rel_a goes on answering for delay."
    assert "delay goes back to rel_a" in told_rollback("delay", {"deployment": deployment, "rollout": None})


def test_an_id_in_a_listing_is_never_broken_over_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    item = {"id": "rol_01m8dy45f558kmhwp7cy24zh0x", "reason": "It is better. " * 40}
    columns = {name: (lambda each: each["id"]) for name in ("rollout", "challenger", "champion", "decision")}
    listing([item], False, {**columns, "reason": lambda each: each["reason"]}, empty="")
    assert capsys.readouterr().out.count(item["id"]) == 4
