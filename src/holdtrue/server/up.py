"""The supervisor: starts the three processes, says when all of them answer, and keeps them running.

`python -m holdtrue.server.up --home DIR --port N [--file FILE] [--clock FILE]`

It only needs the standard library and small modules of ours, so that the processes start before anything
else.
"""

import argparse
import http.client
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import HoldtrueError
from holdtrue.server.home import LOCAL_TOKEN, check_private, read_token
from holdtrue.server.model import ServerFailed
from holdtrue.server.ports import check_port, free_ports
from holdtrue.server.processes import Child, Command, Signals, stop, supervise
from holdtrue.server.settings import Settings, load_settings, own_trust
from holdtrue.serving.acks import read_acks
from holdtrue.storage import make_folder

_STARTING_SECONDS = 60.0
# How long all may wait for a data plane that answers, and cannot answer for every service.
_UNSERVED_SECONDS = 1.0
_STOPPING_SECONDS = 15.0
_LOOK_SECONDS = 0.015
_OK, _UNSERVED = 200, 503


@dataclass(frozen=True, slots=True)
class Wish:
    """Say what to start: the data folder, the first port (0: any), the project file, a simulated clock's
    file, and the service (of the project of the same name) that has to answer before all is ready.
    """

    home: Path | None = None
    port: int | None = None
    file: Path | None = None
    clock: Path | None = None
    service: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from command line arguments; return the exit status."""
    parser = argparse.ArgumentParser(prog="holdtrue.server.up", allow_abbrev=False)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--clock", type=Path)
    given = parser.parse_args(arguments)
    try:
        return up(Wish(given.home, given.port, given.file, given.clock))
    except HoldtrueError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def up(wish: Wish, out: TextIO | None = None) -> int:
    """Start everything and stay until SIGTERM or SIGINT; return the exit status, 0 for a clean stop.

    Prints the sign-in link and then one line that begins with `ready `. Raises HoldtrueError for settings,
    ports and folders that cannot be used.
    """
    os.umask(0o077)
    settings = load_settings(wish.home, port=wish.port)
    if settings.port == 0:
        settings = replace(settings, port=free_ports(settings.bind))
    more = [settings.grpc_port] if settings.grpc_port else []
    for port in (settings.port, settings.port + 1, *more):
        check_port(settings.bind, port)
    check_private(settings.home)
    make_folder(settings.home / "journal")
    timer = SystemClock()
    children = tuple(Child(command, timer.monotonic) for command in commands(settings, wish))
    with Signals() as signals:
        try:
            for child in children:
                child.start()
            if not _wait_until_ready(settings, children, signals, timer.monotonic, wish.service):
                return 0
            _tell_unserved(settings)
            _announce(settings, out or sys.stdout)
            supervise(children, signals)
        finally:
            stop(children, timer.monotonic, _STOPPING_SECONDS)
    return 0


def commands(settings: Settings, wish: Wish) -> tuple[Command, ...]:
    """Return how each of the three processes is started."""
    home = ("--home", str(settings.home))
    clock = () if wish.clock is None else ("--clock", str(wish.clock.absolute()))
    file = () if wish.file is None else ("--file", str(wish.file.absolute()))
    port = ("--port", str(settings.port))
    # Only the control plane opens the ledger: nobody else, and no code of a user, needs the database's password.
    without = MappingProxyType({"HOLDTRUE_DATABASE": ""})
    return (
        Command("control plane", "holdtrue.server.control", (*home, *port, *clock)),
        Command(
            "data plane",
            "holdtrue.server.dataplane",
            (*home, "--port", str(settings.port + 1), *clock),
            tells=False,
            environ=without,
        ),
        Command("worker", "holdtrue.server.worker", (*home, *port, *file), environ=without),
    )


def _wait_until_ready(
    settings: Settings,
    children: Sequence[Child],
    signals: Signals,
    monotonic: Callable[[], float],
    service: str | None = None,
) -> bool:
    """Wait until all children answer; False if told to stop. Raises ServerFailed if one cannot start.

    A data plane that cannot answer for some service holds up nothing for longer than `_UNSERVED_SECONDS`: the others
    are answered, and whoever shall mend it needs the control plane.
    """
    until = monotonic() + _STARTING_SECONDS
    unserved_since: float | None = None
    waiting = set(children)
    while waiting and not signals.stopped:
        for child in children:
            status = child.exit_status()
            if status is not None:
                # What went wrong is on the error stream already, in the process's own words.
                raise _failed(child, status)
        for child in list(waiting):
            if child.command.tells:
                ready = child.told_ready()
            else:
                answer, _ = _status(settings, service)
                if answer == _UNSERVED and service is None and len(waiting) == 1:
                    unserved_since = unserved_since or monotonic()
                ready = answer == _OK or (unserved_since or math.inf) + _UNSERVED_SECONDS < monotonic()
            if ready:
                waiting.discard(child)
        if monotonic() > until:
            late = ", ".join(child.command.name for child in waiting)
            raise ServerFailed(
                f"The {late} did not answer within {_STARTING_SECONDS:g} seconds.",
                mend="Look at the messages above, then run `holdtrue doctor`.",
            )
        if waiting:
            telling = [child.ready_fd for child in waiting if child.command.tells]
            # A process that answers HTTP says nothing here, so it is asked; one that tells wakes this up at
            # once.
            signals.wait(_LOOK_SECONDS if len(telling) < len(waiting) else 1.0, telling)
    return not signals.stopped


def _failed(child: Child, status: int) -> HoldtrueError:
    failure = ServerFailed(
        f"The {child.command.name} ended before it was ready (status {status}).",
        mend="Read the message above; `holdtrue doctor` looks for what is usually wrong.",
    )
    if status > 0:
        # The process knows better what happened: whoever started `up` gets its status.
        failure.exit_code = status  # type: ignore[misc]  # of this instance alone
    return failure


def _status(settings: Settings, service: str | None = None) -> tuple[int, bytes]:
    """Return status and body with which the data plane says whether it is ready, or a service is; 0 if it is silent."""
    connection = _connection(settings, settings.port + 1, 0.5)
    path, headers = "/health/ready", dict[str, str]()
    if service is not None:
        path = f"/v2/models/{service}/ready"
        headers = {"authorization": f"Bearer {read_token(settings.home) or ''}", "x-holdtrue-project": service}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _tell_unserved(settings: Settings) -> None:
    """Say on the error stream that some service cannot be answered, and why."""
    status, body = _status(settings)
    if not status or b'"ok"' in body:
        return
    print("Not every service can be answered.", file=sys.stderr)
    failed = {release: why for ack in read_acks(settings.home) for release, why in ack.failed.items()}
    for release, reason in failed.items():
        print(f"  {release}: {reason}", file=sys.stderr)
    print("To mend it: See what is wrong and what mends it with `holdtrue plan`.", file=sys.stderr, flush=True)


def _announce(settings: Settings, out: TextIO) -> None:
    """Print how to sign in, how clients are set up, and that all is ready."""
    token_file = settings.home / LOCAL_TOKEN
    link = _sign_in_link(settings)
    if link is not None:
        print(f"sign-in  {link}", file=out)
    print(f'clients  export HOLDTRUE_URL={settings.url} HOLDTRUE_TOKEN="$(cat {token_file})"', file=out)
    print(f"ready {settings.url}", file=out, flush=True)


def _sign_in_link(settings: Settings) -> str | None:
    """Return a link that signs one browser in once."""
    connection = _connection(settings, settings.port, 5.0)
    try:
        headers = {"authorization": f"Bearer {read_token(settings.home) or ''}"}
        connection.request("POST", "/api/sign-in-codes", headers=headers)
        answer = connection.getresponse()
        return str(json.loads(answer.read())["url"]) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _connection(settings: Settings, port: int, seconds: float) -> http.client.HTTPConnection:
    host = settings.url.split("://", 1)[1].rsplit(":", 1)[0].strip("[]")
    trust = own_trust(settings)
    if trust is None:
        return http.client.HTTPConnection(host, port, timeout=seconds)
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=trust)


if __name__ == "__main__":
    sys.exit(main())
