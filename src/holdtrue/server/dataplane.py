"""The data plane process: Granian, raw ASGI, one or more workers; no database and no web framework."""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from holdtrue.core.errors import ConfigurationError, HoldtrueError
from holdtrue.server.settings import capture_of, load_settings

# Each worker is one thread of work; libraries that start a thread per core would fight over the cores.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_BACKLOG = 1024


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
    direct_port: int = 0
    memory: int = 1 << 30
    result_seconds: float = 86_400.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the data plane until it is told to stop; return the exit code."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments)
        _check_home(settings)
        if settings.grpc_port:
            from holdtrue.protocols.oipgrpc import check_installed

            check_installed()
        serve(settings)
    except HoldtrueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def read_settings(arguments: Sequence[str]) -> PlaneSettings:
    """Return the settings: arguments before HOLDTRUE_* variables, those before config.toml in the home."""
    parser = argparse.ArgumentParser(prog="holdtrue.server.dataplane", description=__doc__)
    parser.add_argument("--home", type=Path, help="the data folder")
    parser.add_argument("--port", type=int, help="port to listen on; the setting `port` plus 1 by default")
    parser.add_argument("--workers", type=int, help="number of processes")
    parser.add_argument("--clock", type=Path, help="file of a simulated clock")
    parser.add_argument("--records", choices=["strict", "fast"], help="when a prediction is answered")
    parser.add_argument("--grpc-port", type=int, help="port of the same over gRPC; 0 for none")
    parser.add_argument("--direct-port", type=int, help="port of the same over HTTP with less delay; 0 for none")
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
        direct_port=given.direct_port if given.direct_port is not None else common.direct_port,
        result_seconds=common.result_seconds,
    )


def _check_home(settings: PlaneSettings) -> None:
    if not (settings.home / "journal").is_dir():
        raise ConfigurationError(
            f"There is no data folder at {settings.home}.",
            why="The data plane serves what a control plane has published there.",
            mend=f"Start both with `holdtrue up --home {settings.home}`.",
        )


def serve(settings: PlaneSettings) -> None:
    """Listen and answer until SIGTERM or SIGINT; requests under way are finished."""
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
    from granian.constants import HTTPModes, Interfaces, Loops

    from holdtrue.server.listening import Listening
    from holdtrue.serving.direct import listening_socket

    server = Listening(
        "holdtrue.server.dataplane",
        address=settings.address,
        port=settings.port,
        workers=settings.workers,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=10,
        ssl_cert=settings.certificate,
        ssl_key=settings.key,
        log_enabled=False,
    )
    # Opened here once, so that the workers share it and it outlives them: docs/decisions/0046.
    direct = listening_socket(settings.address, settings.direct_port) if settings.direct_port else None
    server.serve(target_loader=lambda *_: build_app(settings, direct), wrap_loader=False)


def build_app(settings: PlaneSettings, direct: socket.socket | None = None) -> Callable[..., Any]:
    """Build the ASGI application of one worker process."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
    from holdtrue.core.clock import SystemClock
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
        listeners=_listeners(settings, direct),
    )
    return worker.app


def _listeners(settings: PlaneSettings, direct: socket.socket | None) -> list[Any]:
    """Return the other servers of the worker: those of gRPC and of the direct port, if they have one."""
    found: list[Any] = []
    if direct is not None:
        from holdtrue.serving.direct import direct_listener

        found.append(direct_listener(direct, settings.certificate, settings.key))
    if settings.grpc_port:
        from holdtrue.protocols.oipgrpc import Listen, listener

        found.append(listener(Listen(settings.address, settings.grpc_port, settings.certificate, settings.key)))
    return found


if __name__ == "__main__":
    sys.exit(main())
