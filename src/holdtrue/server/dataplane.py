"""The data plane: raw ASGI, no database and no web framework.

The first process holds the listening socket and keeps one or more workers running, which share it: whoever comes while
none runs waits for the next one.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import ConfigurationError, HoldtrueError
from holdtrue.server.ports import listening_at
from holdtrue.server.processes import Child, Command, Signals, stop, supervise
from holdtrue.server.settings import capture_of, load_settings

if TYPE_CHECKING:
    from holdtrue.serving import Plane

_THREAD_VARIABLES: tuple[str, ...] = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_STOPPING_SECONDS = 12.0
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """Hold what one data plane process is started with."""

    home: Path
    address: str
    port: int
    workers: int
    clock: Path | None
    records: Literal["strict", "fast"]
    hosts: tuple[str, ...]
    deadline: float
    certificate: Path | None
    key: Path | None
    requests: int = 256
    trace_capture: str = "full"
    trace_captures: tuple[str, ...] = ()
    online_store: str = field(default="", repr=False)
    code: bool = False
    grpc_port: int = 0
    memory: int = 1 << 30
    result_seconds: float = 86_400.0
    socket: int = -1
    ready_fd: int = -1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the data plane, or one worker of it, until it is told to stop; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        settings = read_settings(given)
        if settings.socket >= 0:
            return work(settings)
        _check_home(settings)
        if settings.grpc_port:
            from holdtrue.protocols.oipgrpc import check_installed

            check_installed()
        return keep(settings, given)
    except HoldtrueError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def read_settings(arguments: Sequence[str]) -> PlaneSettings:
    """Return the settings: arguments before HOLDTRUE_* variables, those before config.toml in the home."""
    parser = argparse.ArgumentParser(prog="holdtrue.server.dataplane", description=__doc__)
    parser.add_argument("--home", type=Path, help="the data folder")
    parser.add_argument("--port", type=int, help="port to listen on; the setting `port` plus 1 by default")
    parser.add_argument("--workers", type=int, help="number of processes")
    parser.add_argument("--clock", type=Path, help="file of a simulated clock")
    parser.add_argument("--records", choices=["strict", "fast"], help="when a prediction is answered")
    parser.add_argument("--grpc-port", type=int, help="port of the same over gRPC; 0 for none")
    parser.add_argument("--socket", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, default=-1, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    common = load_settings(given.home)
    return PlaneSettings(
        home=common.home,
        address=common.bind,
        port=given.port if given.port is not None else common.port + 1,
        workers=given.workers or common.data_workers,
        clock=given.clock,
        records=given.records or common.records,
        hosts=tuple(sorted(common.names())),
        deadline=common.request_seconds,
        certificate=Path(common.tls_certificate) if common.tls_certificate else None,
        key=Path(common.tls_key) if common.tls_key else None,
        requests=common.data_requests,
        trace_capture=common.trace_capture,
        trace_captures=common.trace_captures,
        online_store=common.online_store,
        memory=common.model_memory << 20,
        code=common.model_code == "isolated",
        grpc_port=given.grpc_port if given.grpc_port is not None else common.grpc_port,
        result_seconds=common.result_seconds,
        socket=given.socket,
        ready_fd=given.ready_fd,
    )


def _check_home(settings: PlaneSettings) -> None:
    if not (settings.home / "journal").is_dir():
        raise ConfigurationError(
            f"There is no data folder at {settings.home}.",
            why="The data plane serves what a control plane has published there.",
            mend=f"Start both with `holdtrue up --home {settings.home}`.",
        )


def keep(settings: PlaneSettings, arguments: Sequence[str]) -> int:
    """Hold the listening socket and keep the workers running; return the exit code.

    That is a worker's own if one of them ends by itself before it ever answered.
    """
    timer = SystemClock()
    listening = listening_at(settings.address, settings.port, shared=True)
    descriptor = listening.fileno()
    # Each worker is one thread of work; libraries that start a thread per core would fight over the cores.
    threads = MappingProxyType(dict.fromkeys(_THREAD_VARIABLES, "1"))
    command = Command(
        "data plane's worker",
        "holdtrue.server.dataplane",
        (*arguments, "--socket", str(descriptor)),
        leads=False,
        inherits=(descriptor,),
        environ=threads,
    )
    workers = [Child(command, timer.monotonic) for _ in range(settings.workers)]
    with listening, Signals() as signals:
        try:
            failed = _start(workers, signals)
            if not failed:
                supervise(workers, signals)
        finally:
            # Whoever comes from now on is refused, and does not wait for what ends.
            listening.close()
            stop(workers, timer.monotonic, _STOPPING_SECONDS)
    return failed


def _start(workers: Sequence[Child], signals: Signals) -> int:
    """Start the workers; return 0 once all answer or stopping is wanted, else the status of one that can't."""
    for each in workers:
        each.start()
    waiting = set(workers)
    while waiting and not signals.stopped:
        for each in list(waiting):
            status = each.exit_status()
            if status is not None and status >= 0:
                # Why is on the error stream already, in its own words.
                return status or 1
            if each.told_ready():
                waiting.discard(each)
            else:
                each.revive()
        if waiting:
            signals.wait(_LOOK_SECONDS, [each.ready_fd for each in waiting if each.exit_status() is None])
    return 0


def work(settings: PlaneSettings) -> int:
    """Answer as one worker until SIGTERM or SIGINT, and finish the requests under way; return the exit code."""
    import uvloop

    with socket.socket(fileno=settings.socket) as listening:
        # It is the workers' alone: no process of a model's or an application's code inherits it.
        listening.set_inheritable(False)
        uvloop.run(_live(build_app(settings, listening), settings.ready_fd))
    return 0


async def _live(app: "Plane", ready_fd: int) -> None:
    # The first process only listens and waits: it needs no event loop.
    import asyncio

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with app.living():
        if ready_fd >= 0:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
        await stopped.wait()


def build_app(settings: PlaneSettings, listening: socket.socket | None = None) -> "Plane":
    """Build the ASGI application of one worker process, which answers on a listening socket while it lives."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
    from holdtrue.llm.masking import Masker
    from holdtrue.protocols import anthropic, invocations, oip, openai, otlp, predict
    from holdtrue.server.gateway import gateway_part
    from holdtrue.serving import Limits, Worker
    from holdtrue.storage import FileClock
    from holdtrue.traces import Capture

    clock = FileClock(settings.clock) if settings.clock is not None else SystemClock()
    worker = Worker(
        settings.home,
        clock,
        records=settings.records,
        hosts=settings.hosts,
        limits=Limits(requests=settings.requests, deadline=settings.deadline),
        protocols=[oip.endpoints, predict.endpoints, invocations.endpoints],
        # The first prefix that fits decides, so the longer ones stand first.
        errors={
            "/v2": oip.error_body,
            invocations.PATH: invocations.error_body,
            otlp.PATH: otlp.error_body,
            "/v1/messages": anthropic.error_body,
            "/v1": openai.error_body,
        },
        parts=[gateway_part(settings.home, clock, settings.clock)],
        result_seconds=settings.result_seconds,
        telemetry=[otlp.endpoints],
        capture=Capture(settings.trace_capture),
        captures={project: Capture(mode) for project, mode in map(capture_of, settings.trace_captures)},
        mask=Masker(),
        online=settings.online_store,
        code=settings.code,
        memory=settings.memory,
        listeners=_listeners(settings, listening),
    )
    return worker.app


def _listeners(settings: PlaneSettings, listening: socket.socket | None) -> list[Any]:
    """Return the servers of the worker: of HTTP, and of gRPC if it has a port."""
    found: list[Any] = []
    if listening is not None:
        from holdtrue.wire import answering

        found.append(
            lambda plane, engine: answering(
                plane, listening, engine.now_us, settings.certificate, settings.key, engine.turn, plane.begin
            )
        )
    if settings.grpc_port:
        from holdtrue.protocols.oipgrpc import Listen, listener

        found.append(listener(Listen(settings.address, settings.grpc_port, settings.certificate, settings.key)))
    return found


if __name__ == "__main__":
    sys.exit(main())
