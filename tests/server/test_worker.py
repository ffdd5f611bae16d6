"""The worker: jobs of the queue are run once, and reported, whatever happens in them."""

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from holdtrue.core.access import Role
from holdtrue.core.errors import Conflict, Unauthenticated, Unavailable
from holdtrue.server.client import Client
from holdtrue.server.home import queue_mark
from holdtrue.server.worker import Desk, work
from tests.server.conftest import Door

JOBS = "/api/projects/flights/jobs"
SECONDS = 30.0


@pytest.fixture
def owner(whole: Door) -> Client:
    """Call as the owner."""
    return Client(whole.owner())


def run_until(whole: Door, owner: Client, execute: Callable[[Any], Any], settled: Callable[[Any], bool]) -> Any:
    """Let a worker run jobs until the only one there is has settled; return that job."""
    stop = threading.Event()
    seen: list[Any] = []

    def watched(job: Any) -> Any:
        seen.append(job)
        return execute(job)

    desk = Desk(
        Client(whole.client(whole.token(Role.SERVICE, project=None))),
        "worker-1",
        watched,
        stop,
        partial(queue_mark, whole.home),
    )
    thread = threading.Thread(target=work, args=(desk,))
    thread.start()
    job: Any = None
    for _ in range(600):
        job = owner.get(JOBS)["items"][0]
        if settled(job):
            break
        stop.wait(0.05)
    stop.set()
    thread.join()
    assert settled(job), job
    return {**job, "runs": len(seen)}


def test_a_job_is_run_once_and_its_result_kept(whole: Door, owner: Client) -> None:
    owner.post(JOBS, {"kind": "ingest", "payload": {"window": "2013-01"}})
    done = run_until(whole, owner, lambda job: {"read": job["payload"]["window"]}, lambda job: job["state"] == "done")
    assert (done["result"], done["attempts"], done["runs"]) == ({"read": "2013-01"}, 1, 1)
    assert done["worker"] == "worker-1"


def test_what_will_be_refused_again_is_not_tried_again(whole: Door, owner: Client) -> None:
    owner.post(JOBS, {"kind": "ingest", "payload": {}})

    def refuse(job: Any) -> Any:
        raise Conflict("The window is not there.", mend="Deliver it.")

    dead = run_until(whole, owner, refuse, lambda job: job["state"] == "dead")
    assert dead["runs"] == 1
    assert "The window is not there." in dead["reason"]
    assert "Deliver it." in dead["reason"]


@pytest.mark.parametrize("error", [Unavailable("Not now."), ZeroDivisionError("division by zero")])
def test_what_may_succeed_later_is_tried_three_times(whole: Door, owner: Client, error: Exception) -> None:
    owner.post(JOBS, {"kind": "ingest", "payload": {}})

    def fall(job: Any) -> Any:
        raise error

    dead = run_until(whole, owner, fall, lambda job: job["state"] == "dead")
    assert dead["runs"] == 3


def test_a_worker_whose_token_is_revoked_ends(whole: Door) -> None:
    token = whole.token(Role.SERVICE, project=None)
    client = Client(whole.client(token))
    whole.owner().delete(f"/api/tokens/{client.get('/api/whoami')['token']}")
    with pytest.raises(Unauthenticated):
        work(Desk(client, "worker-1", lambda job: None, threading.Event(), bytes))


def test_a_job_is_marked_when_it_begins_to_wait_and_not_before(whole: Door, owner: Client) -> None:
    marks = [queue_mark(whole.home)]
    job = owner.post(JOBS, {"kind": "ingest", "payload": {}})
    marks.append(queue_mark(whole.home))
    owner.post("/api/tokens", {"roles": ["viewer"], "project": "flights"})
    assert queue_mark(whole.home) == marks[-1]
    worker = Client(whole.client(whole.token(Role.SERVICE, project=None)))
    leased = worker.post("/api/projects/flights/lease", {"worker": "w"})["job"]
    assert queue_mark(whole.home) == marks[-1]
    worker.post(f"{JOBS}/{job['id']}/fail", {"fence": leased["fence"], "reason": "not now"})
    marks.append(queue_mark(whole.home))
    assert len(set(marks)) == 3


def test_a_mark_makes_a_resting_worker_ask_again(whole: Door, owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdtrue.server.worker._IDLE_SECONDS", 3600.0)
    monkeypatch.setattr("holdtrue.server.worker._LEASE_EVERY", 1)
    stop, ran, rests = threading.Event(), threading.Event(), threading.Event()
    looks = itertools.count()

    def mark() -> bytes:
        # Once before it asks, and again only when it rests.
        if next(looks) > 1:
            rests.set()
        return queue_mark(whole.home)

    def execute(job: Any) -> Any:
        ran.set()
        return {}

    client = Client(whole.client(whole.token(Role.SERVICE, project=None)))
    thread = threading.Thread(target=work, args=(Desk(client, "worker-1", execute, stop, mark),))
    thread.start()
    assert rests.wait(SECONDS)
    owner.post(JOBS, {"kind": "ingest", "payload": {}})
    assert ran.wait(SECONDS)
    stop.set()
    thread.join()
