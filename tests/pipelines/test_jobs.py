"""The queue of jobs: order, leases, fences, attempts; against a plain model of it and over its routes."""

import dataclasses
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdtrue import pipelines
from holdtrue.core.errors import InvalidInput, NotFound, StateError
from holdtrue.pipelines import Job, JobFilter, JobState, LostLease
from holdtrue.pipelines.model import JOB_MOVES, LEASE_SECONDS, MAX_ATTEMPTS
from tests.pipelines.conftest import Room, opened
from tests.sampling import examples


def _enqueue(room: Room, kind: str = "train", key: str = "", **payload: Any) -> Job:
    return room.write(lambda tx: pipelines.enqueue(tx, kind, payload, unique_key=key))


def _lease(room: Room, worker: str = "w1", *kinds: str) -> Job | None:
    return room.write(lambda tx: pipelines.lease(tx, worker, kinds))


def _leased(room: Room, worker: str = "w1") -> Job:
    job = _lease(room, worker)
    assert job is not None
    return job


def _job(room: Room, id: str) -> Job:
    return room.read(lambda connection: pipelines.job(connection, "flights", id))


def test_jobs_are_leased_in_the_order_in_which_they_were_asked_for(room: Room) -> None:
    asked = [_enqueue(room, n=number).id for number in range(20)]
    assert [_leased(room).id for _ in range(20)] == asked
    assert _lease(room) is None


def test_a_worker_gets_only_the_kinds_it_knows(room: Room) -> None:
    _enqueue(room, "train")
    profile = _enqueue(room, "profile")
    assert _lease(room, "w", "evaluate") is None
    found = _lease(room, "w", "evaluate", "profile")
    assert found is not None
    assert found.id == profile.id


def test_an_open_job_with_the_same_key_is_the_same_job(room: Room) -> None:
    first = _enqueue(room, key="retrain delay", n=1)
    assert _enqueue(room, key="retrain delay", n=2) == first
    lease = _leased(room)
    assert _enqueue(room, key="retrain delay").id == first.id
    room.write(lambda tx: pipelines.complete(tx, first.id, lease.fence, {"release": "rel_1"}))
    assert _enqueue(room, key="retrain delay").id != first.id


def test_a_result_is_kept_and_reporting_it_twice_changes_nothing(room: Room) -> None:
    job = _enqueue(room)
    fence = _leased(room).fence
    done = room.write(lambda tx: pipelines.complete(tx, job.id, fence, {"rows": 3}))
    events = room.actions()
    assert room.write(lambda tx: pipelines.complete(tx, job.id, fence, {"rows": 3})) == done
    assert room.actions() == events == ["job.queued", "job.done"]
    assert _job(room, job.id).result == {"rows": 3}


def test_a_lease_that_ran_out_goes_to_another_and_the_first_is_refused(room: Room) -> None:
    job = _enqueue(room)
    slow = _leased(room, "slow")
    room.clock.advance(LEASE_SECONDS)
    assert _lease(room, "quick") is None
    room.clock.advance(1)
    quick = _leased(room, "quick")
    assert quick.id == job.id
    assert quick.fence > slow.fence
    for report in (
        lambda tx: pipelines.complete(tx, job.id, slow.fence, "late"),
        lambda tx: pipelines.fail(tx, job.id, slow.fence, "late"),
        lambda tx: pipelines.heartbeat(tx, job.id, slow.fence),
    ):
        with pytest.raises(LostLease):
            room.write(report)
    room.write(lambda tx: pipelines.complete(tx, job.id, quick.fence, "in time"))
    assert _job(room, job.id).result == "in time"
    assert "job.failed" in room.actions()


def test_a_heartbeat_keeps_a_lease(room: Room) -> None:
    job = _enqueue(room)
    held = _leased(room)
    for _ in range(3):
        room.clock.advance(LEASE_SECONDS - 1)
        room.write(lambda tx: pipelines.heartbeat(tx, job.id, held.fence))
    assert _lease(room, "other") is None
    assert _job(room, job.id).attempts == 1


def test_a_late_report_counts_while_nobody_else_has_the_job(room: Room) -> None:
    job = _enqueue(room)
    held = _leased(room)
    room.clock.advance(10 * LEASE_SECONDS)
    room.write(lambda tx: pipelines.complete(tx, job.id, held.fence, 1))
    assert _job(room, job.id).state is JobState.DONE


@pytest.mark.parametrize("by_silence", [True, False])
def test_after_three_attempts_a_job_is_put_aside_with_its_reason(room: Room, by_silence: bool) -> None:
    job = _enqueue(room)
    for attempt in range(MAX_ATTEMPTS):
        held = _leased(room, f"w{attempt}")
        if by_silence:
            room.clock.advance(LEASE_SECONDS + 1)
        else:
            room.write(lambda tx, fence=held.fence: pipelines.fail(tx, job.id, fence, "no memory left"))
    assert _lease(room) is None
    dead = _job(room, job.id)
    assert dead.state is JobState.DEAD
    assert dead.attempts == MAX_ATTEMPTS
    assert dead.reason == ("The worker w2 did not report in time." if by_silence else "no memory left")
    assert room.actions() == ["job.queued", "job.failed", "job.failed", "job.dead"]


def test_a_final_failure_is_not_tried_again_until_asked_for(room: Room) -> None:
    job = _enqueue(room)
    held = _leased(room)
    room.write(lambda tx: pipelines.fail(tx, job.id, held.fence, "no such dataset", final=True))
    assert _lease(room) is None
    again = room.write(lambda tx: pipelines.retry(tx, job.id))
    assert (again.state, again.attempts) == (JobState.QUEUED, 0)
    assert _leased(room).fence > held.fence
    with pytest.raises(StateError, match="leased"):
        room.write(lambda tx: pipelines.retry(tx, job.id))


def test_every_pair_of_states_follows_the_table(room: Room) -> None:
    job = _enqueue(room)
    for current in JobState:
        for wanted in JobState:
            standing = dataclasses.replace(job, state=current)
            if wanted in JOB_MOVES[current]:
                standing.check_move(wanted)
            else:
                with pytest.raises(StateError, match=f"{current.value}.*{wanted.value}"):
                    standing.check_move(wanted)


def test_projects_do_not_see_each_other(room: Room) -> None:
    job = _enqueue(room)
    assert room.write(lambda tx: pipelines.lease(tx, "w"), project="other") is None
    with pytest.raises(NotFound):
        room.read(lambda connection: pipelines.job(connection, "other", job.id))
    assert room.read(lambda connection: pipelines.jobs(connection, "other")) == []


def test_the_routes_take_a_job_from_asking_to_its_end(room: Room) -> None:
    asked = room.call("POST", "jobs", {"kind": "train", "payload": {"windows": "all"}})
    assert room.call("GET", f"jobs/{asked['id']}")["state"] == "queued"
    held = room.call("POST", "lease", {"worker": "w1"})["job"]
    assert held["id"] == asked["id"]
    assert room.call("POST", "lease", {"worker": "w2"})["job"] is None
    path = f"jobs/{held['id']}"
    room.call("POST", f"{path}/heartbeat", {"fence": held["fence"]})
    with pytest.raises(LostLease):
        room.call("POST", f"{path}/heartbeat", {"fence": held["fence"] + 1})
    room.call("POST", f"{path}/fail", {"fence": held["fence"], "reason": "no data", "final": True})
    assert room.call("GET", "jobs", state="dead")["items"][0]["reason"] == "no data"
    room.call("POST", f"{path}/retry")
    held = room.call("POST", "lease", {"worker": "w2"})["job"]
    ended = room.call("POST", f"{path}/complete", {"fence": held["fence"], "result": {"release": "rel_1"}})
    assert (ended["state"], ended["result"]) == ("done", {"release": "rel_1"})


def test_a_long_listing_goes_on_from_its_cursor(room: Room) -> None:
    asked = [_enqueue(room, n=number).id for number in range(130)]
    first = room.call("GET", "jobs")
    rest = room.call("GET", "jobs", cursor=first["next"])
    assert [job["id"] for job in first["items"] + rest["items"]] == asked[::-1]
    assert rest["next"] is None


@pytest.mark.parametrize("query", [{"state": "lost"}, {"cursor": "-1"}, {"cursor": "١"}, {"cursor": "x"}])
def test_a_listing_refuses_what_it_does_not_know(room: Room, query: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        room.call("GET", "jobs", **query)


class QueueMachine(RuleBasedStateMachine):
    """Do anything in any order; a plain list of jobs must agree at every step."""

    def __init__(self) -> None:
        super().__init__()
        self._context = opened()
        self.room = self._context.__enter__()
        self.jobs: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        self._context.__exit__(None, None, None)

    @rule(key=st.sampled_from(["", "a", "b"]))
    def enqueue(self, key: str) -> None:
        job = _enqueue(self.room, key=key)
        known = [name for name, each in self.jobs.items() if key and each["key"] == key and each["state"] in _OPEN]
        assert known in ([], [job.id])
        if not known:
            self.jobs[job.id] = {"key": key, "state": "queued", "attempts": 0, "until": 0.0, "fence": 0}

    @rule()
    def lease(self) -> None:
        self._expire()
        found = _lease(self.room)
        waiting = [name for name, each in self.jobs.items() if each["state"] == "queued"]
        assert (found.id if found else None) == (waiting[0] if waiting else None)
        if found:
            mine = self.jobs[found.id]
            mine |= {"state": "leased", "attempts": mine["attempts"] + 1, "fence": mine["fence"] + 1}
            mine["until"] = self.room.clock.monotonic() + LEASE_SECONDS
            assert (found.attempts, found.fence) == (mine["attempts"], mine["fence"])

    @rule(seconds=st.sampled_from([1.0, LEASE_SECONDS / 2, LEASE_SECONDS + 1]))
    def wait(self, seconds: float) -> None:
        self.room.clock.advance(seconds)

    @rule(pick=st.integers(0, 50), old=st.booleans(), how=st.sampled_from(["complete", "fail", "final", "beat"]))
    def report(self, pick: int, old: bool, how: str) -> None:
        if not self.jobs:
            return
        name, mine = list(self.jobs.items())[pick % len(self.jobs)]
        fence = mine["fence"] - int(old)
        calls: dict[str, Any] = {
            "complete": lambda tx: pipelines.complete(tx, name, fence, None),
            "fail": lambda tx: pipelines.fail(tx, name, fence, "no"),
            "final": lambda tx: pipelines.fail(tx, name, fence, "no", final=True),
            "beat": lambda tx: pipelines.heartbeat(tx, name, fence),
        }
        held = mine["state"] == "leased" and not old
        repeated = how == "complete" and mine["state"] == "done" and not old
        if not (held or repeated):
            with pytest.raises(LostLease):
                self.room.write(calls[how])
            return
        self.room.write(calls[how])
        if held and how == "beat":
            mine["until"] = self.room.clock.monotonic() + LEASE_SECONDS
        elif held and how == "complete":
            mine["state"] = "done"
        elif held:
            mine["state"] = "dead" if how == "final" or mine["attempts"] == MAX_ATTEMPTS else "queued"

    @invariant()
    def same(self) -> None:
        listed = self.room.read(lambda c: pipelines.jobs(c, "flights", JobFilter(limit=1000)))
        assert {job.id: job.state.value for job in listed} == {name: each["state"] for name, each in self.jobs.items()}

    def _expire(self) -> None:
        now = self.room.clock.monotonic()
        for each in self.jobs.values():
            if each["state"] == "leased" and each["until"] < now:
                each["state"] = "dead" if each["attempts"] == MAX_ATTEMPTS else "queued"


_OPEN = ("queued", "leased")
QueueMachine.TestCase.settings = settings(max_examples=examples(32), stateful_step_count=30, deadline=None)
TestQueue = QueueMachine.TestCase
