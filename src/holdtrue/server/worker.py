"""The worker's process: leases jobs from the control plane, runs and reports them, never opens the ledger.

`python -m holdtrue.server.worker --home DIR --port N [--file FILE] [--ready-fd N]`
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import Forbidden, HoldtrueError, Unauthenticated
from holdtrue.core.jobs import JobKind
from holdtrue.server.client import Client
from holdtrue.server.home import WORKER_TOKEN, queue_mark, read_token
from holdtrue.server.settings import Settings, load_settings, own_trust

# Whoever puts a job into the queue of this data folder marks it; to ask is for jobs whose worker went away.
_IDLE_SECONDS = 2.0
_LOOK_SECONDS = 0.02
_AGAIN_SECONDS = 0.2
_STARTING_SECONDS = 60.0
_HEARTBEAT_SECONDS = 60.0
# Looking is a read, leasing a write: done on sight of a job, and now and then for one whose worker went away.
_LEASE_EVERY = 3
_log = logging.getLogger("holdtrue.worker")

Job = Mapping[str, Any]
Execute = Callable[[Job], Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """Hold what the worker works with: its client, its name, what runs a job, and what tells it to stop.

    `mark` returns something else once a job waits that did not wait before. With a `kind`, it does jobs of that kind
    only.
    """

    client: Client
    name: str
    execute: Execute
    stop: threading.Event
    mark: Callable[[], bytes]
    kind: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or SIGINT; return the exit status. A job that is cut off is leased again later."""
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = _options(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop))
    try:
        settings = load_settings(options.home, port=options.port)
        token = partial(_token, settings.home)
        with Client.at(settings.url, token, trust=own_trust(settings)) as client:
            execute = _executor(client, settings, options.file)
            desk = Desk(client, f"worker-{os.getpid()}", execute, stop, partial(queue_mark, settings.home))
            if not _wait_for_control(desk):
                return 0
            if options.ready_fd is not None:
                os.write(options.ready_fd, b"ready\n")
            # Features that are to be fresh cannot wait until a training has ended. What is cut off with the process
            # goes on where it was.
            threading.Thread(target=_fill, args=(replace(desk, kind=JobKind.FILL),), daemon=True).start()
            work(desk)
    except _Stopped:
        return 0
    except HoldtrueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def work(desk: Desk) -> None:
    """Run jobs of all projects, one at a time, until told to stop. An absent control plane is waited for."""
    rounds = 0
    while not desk.stop.is_set():
        mark, rest = desk.mark(), _IDLE_SECONDS
        try:
            done = sum(_one_job(desk, project, rounds) for project in desk.client.get("/api/projects")["items"])
        except (Forbidden, Unauthenticated):
            raise
        except HoldtrueError as error:
            _log.warning("%s", error.what)
            done, rest = 0, _AGAIN_SECONDS
        rounds += 1
        if not done:
            _rest(desk, mark, rest)


def _fill(desk: Desk) -> None:
    """Work beside the main thread; that one tells what is wrong with the token."""
    with contextlib.suppress(Forbidden, Unauthenticated):
        work(desk)


def _rest(desk: Desk, mark: bytes, seconds: float) -> None:
    """Wait until a job may wait: the mark is another one than before the worker last asked, or time is up."""
    timer = SystemClock()
    until = timer.monotonic() + seconds
    while desk.mark() == mark and timer.monotonic() < until:
        if desk.stop.wait(_LOOK_SECONDS):
            return


def _one_job(desk: Desk, project: str, rounds: int) -> int:
    """Lease and run the next job of a project; return how many there were, 0 or 1."""
    base = f"/api/projects/{project}"
    if desk.kind is None:
        kinds, looks = {}, rounds % _LEASE_EVERY != 0
    else:
        # Who works beside another leaves it to that one to find jobs whose worker went away.
        kinds, looks = {"kinds": [desk.kind]}, True
    if looks and not desk.client.get(f"{base}/jobs", state="queued", kind=desk.kind)["items"]:
        return 0
    job = desk.client.post(f"{base}/lease", {"worker": desk.name, **kinds})["job"]
    if job is None:
        return 0
    path, fence = f"{base}/jobs/{job['id']}", job["fence"]
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(desk.client, path, fence, ended), daemon=True)
    beating.start()
    try:
        result = desk.execute(job)
    except HoldtrueError as error:
        # The same input would be refused again; what the server could not do now, it may do later.
        report = {"fence": fence, "reason": str(error), "final": error.status < 500}
        desk.client.post(f"{path}/fail", report)
    except Exception as error:  # noqa: BLE001  # whatever a user's code raises is the job's failure, not the worker's
        _log.error("job %s of %s failed", job["id"], project, exc_info=error)
        desk.client.post(f"{path}/fail", {"fence": fence, "reason": f"{type(error).__name__}: {error}"})
    else:
        desk.client.post(f"{path}/complete", {"fence": fence, "result": result})
    finally:
        ended.set()
        beating.join()
    return 1


def _beat(client: Client, path: str, fence: int, ended: threading.Event) -> None:
    """Keep a lease while its job runs."""
    while not ended.wait(_HEARTBEAT_SECONDS):
        try:
            client.post(f"{path}/heartbeat", {"fence": fence})
        except HoldtrueError as error:
            # The report at the end tells whether the lease was lost.
            _log.warning("heartbeat: %s", error.what)


def _token(home: Path) -> str:
    """Return the worker's token as it is now; the control plane renews it."""
    return read_token(home, WORKER_TOKEN) or ""


def _executor(client: Client, settings: Settings, file: Path | None) -> Execute:
    """Return what runs a job; the project file and its libraries are imported with the first one."""
    # One thread runs the user's file at a time, and one fills an online store.
    loading, filling = threading.Lock(), threading.Lock()

    def execute(job: Job) -> Any:
        with loading:
            from holdtrue.project import execute as run

        with filling if job["kind"] == JobKind.FILL else contextlib.nullcontext():
            return run(job, client=client, home=settings.home, file=file, loading=loading, online=settings.online_store)

    return execute


def _wait_for_control(desk: Desk) -> bool:
    """Wait until the control plane answers; False if told to stop before."""
    timer = SystemClock()
    until = timer.monotonic() + _STARTING_SECONDS
    while not desk.stop.is_set():
        try:
            desk.client.get("/api/whoami")
            return True
        except HoldtrueError:
            if timer.monotonic() > until:
                raise
        desk.stop.wait(0.02)
    return False


class _Stopped(BaseException):
    """Told to stop in the middle of a job."""


def _stop(stop: threading.Event) -> None:
    """Stop between jobs at once; in the middle of one too, since its steps are kept."""
    if not stop.is_set():
        stop.set()
        raise _Stopped


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="holdtrue.server.worker", allow_abbrev=False)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--ready-fd", type=int)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
