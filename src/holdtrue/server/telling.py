"""The process that tells of a busy worker's calls: it makes their spans and stores them, as the worker would."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.beside import serve_calls
from holdtrue.llm.gateway import CallFacts
from holdtrue.llm.masking import Masker
from holdtrue.llm.telling import Teller
from holdtrue.server.settings import capture_of, load_settings
from holdtrue.storage import FileClock, Journal
from holdtrue.traces import Capture, SpanSink, TraceSettings
from holdtrue.traces.online import SPAN_SEGMENT


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell of the calls that come over a socket until the worker has gone; return the exit code."""
    parser = argparse.ArgumentParser(prog="holdtrue.server.telling", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the data folder")
    parser.add_argument("--clock", type=Path, help="file of a simulated clock")
    parser.add_argument("--worker", required=True, help="name of the worker")
    parser.add_argument("channel", type=int, help="number of the socket to the worker")
    given = parser.parse_args(arguments)
    # Its end is that of the worker, who has more to say when all are told to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Answers come before what is told of them; what this process is then behind with, the worker tells itself. Of two
    # cores that are busy, one went idle where this took turns with the provider that the worker waited for.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
    try:
        _tell(given.home, given.clock, given.worker, socket.socket(fileno=given.channel))
    except HoldtrueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _tell(home: Path, simulated: Path | None, worker: str, channel: socket.socket) -> None:
    clock = FileClock(simulated) if simulated is not None else SystemClock()
    settings = load_settings(home)
    writer = Journal(home / "journal", clock).writer(f"{worker}-calls", "strict", segment_bytes=SPAN_SEGMENT)
    captures = {project: TraceSettings(Capture(mode)) for project, mode in map(capture_of, settings.trace_captures)}
    default = TraceSettings(Capture(settings.trace_capture))
    teller = Teller(SpanSink(writer, clock, captures, default=default, mask=Masker()))

    async def tell(calls: list[CallFacts]) -> int:
        return await teller.tell(calls, {})

    try:
        asyncio.run(serve_calls(channel, tell))
    finally:
        writer.close()


if __name__ == "__main__":
    sys.exit(main())
