"""Judge running rollouts on what their records say, and move them on."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from holdtrue import governance
from holdtrue.core.actor import SYSTEM
from holdtrue.core.codec import dump
from holdtrue.delivery import changing, reading, rules, store
from holdtrue.delivery.model import Rollout, RolloutState
from holdtrue.delivery.strategies import strategy_of
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction, WriteContext

_QUIET: Final = timedelta(hours=1)


def judge(stores: Stores, project: str) -> list[dict[str, Any]]:
    """Judge every running rollout of `project` on the records since the last look; return the verdicts.

    Only new records are read. A rollout that no data plane serves yet is left alone.
    """
    running = stores.ledger.read(
        lambda connection: store.list_rollouts(connection, project, state=RolloutState.RUNNING)
    )
    return [_judge_one(stores, project, each) for each in running if each.cursor is not None]


def _judge_one(stores: Stores, project: str, rollout: Rollout) -> dict[str, Any]:
    assert rollout.cursor is not None
    strategy = strategy_of(rollout.canary)
    before = strategy.start(rollout.cursor) if rollout.judging is None else strategy.load(rollout.judging)
    # Labels first: every label read here then has its prediction among those read next.
    stream = stores.ledger.read(
        lambda connection: reading.stream(connection, project, rollout.service, rollout.environment)
    )
    where = None if strategy.everywhere else stream
    labels, labels_cursor = stores.journal.tail(strategy.truth, project, where, before.labels_cursor)
    predictions, cursor = stores.journal.tail("prediction", project, stream, before.cursor)
    now = stores.clock.now()
    counted_rows = strategy.absorb(before, rollout, predictions, labels, now)
    judging = replace(counted_rows, cursor=cursor, labels_cursor=labels_cursor)
    new = labels.num_rows + predictions.num_rows
    if strategy.refusals is not None:
        refusals, upto = stores.journal.tail("refusal", project, stream, before.refusals_cursor or rollout.cursor)
        judging = replace(strategy.refusals(judging, rollout, refusals), refusals_cursor=upto)
        new += refusals.num_rows
    found, facts = strategy.judge(rollout.canary, judging, rollout, now)
    if found.verdict in ("advance", "promote"):
        found = stores.ledger.read(lambda connection: _held(connection, project, rollout, found, now))
    if found.verdict == "wait":
        judging = strategy.move(rollout.canary, judging, rollout, now)
    verdict = {
        "rollout": rollout.id,
        "service": rollout.service,
        **dump(found),
        "facts": facts,
        "judged_at": now.isoformat(),
    }
    quiet = new == 0 and found.verdict == "wait"
    if quiet and rollout.verdict is not None and now - _judged_at(rollout) < _QUIET:
        return verdict
    counted = replace(rollout, judging=judging.to_json(), verdict=verdict)
    stores.ledger.write(WriteContext(SYSTEM, project), lambda tx: _act(tx, rollout, counted, found, verdict))
    return verdict


def _held(
    connection: sa.Connection, project: str, rollout: Rollout, found: rules.Judgement, now: datetime
) -> rules.Judgement:
    """Return a judgement that waits if the environment is closed to changes; going back is never held."""
    closed = governance.closed(connection, project, rollout.environment, now)
    return found if closed is None else rules.Judgement("wait", f"{closed.what} {closed.why} {found.why}")


def _judged_at(rollout: Rollout) -> datetime:
    return datetime.fromisoformat(rollout.verdict["judged_at"])


def _act(tx: Transaction, before: Rollout, counted: Rollout, found: rules.Judgement, verdict: dict[str, Any]) -> None:
    """Take the one step that a judgement asks for, unless somebody moved the rollout meanwhile."""
    present = store.rollout(tx.connection, tx.project, before.id)
    if present.state is not RolloutState.RUNNING or present.step != before.step:
        return
    store.put_rollout(tx, counted)
    facts = verdict["facts"]
    match found.verdict:
        case "wait":
            changing.move_share(tx, before, counted, found.why, facts)
        case "advance":
            changing.advance_rollout(tx, counted, found.why, facts)
        case "promote":
            changing.end_rollout(tx, counted, RolloutState.PROMOTED, found.why, facts)
        case "roll_back":
            changing.end_rollout(tx, counted, RolloutState.ROLLED_BACK, found.why, facts)
        case "stop":
            changing.end_rollout(tx, counted, RolloutState.STOPPED, found.why, facts)
