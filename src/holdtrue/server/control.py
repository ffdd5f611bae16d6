"""The control plane's process: the only one that writes the ledger; API, pages and background work.

`python -m holdtrue.server.control --home DIR --port N [--clock FILE] [--ready-fd N]`
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import uvloop

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import HoldtrueError
from holdtrue.server.asgi import App
from holdtrue.server.build import Built, keep_credentials, open_app
from holdtrue.server.home import Address, remove_address, write_address
from holdtrue.server.loops import Background
from holdtrue.server.ports import check_port, listening_at
from holdtrue.server.settings import Settings, load_settings
from holdtrue.storage.ledger import Ledger
from holdtrue.wire import answering

_LOOK_SECONDS = 1.0
_SWITCH_SECONDS = 0.0005
_YOUNG = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    os.umask(0o077)
    # The writing thread gives up the interpreter's lock at each step of SQLite and asks for it back from a busy
    # loop: with the default of 5 ms a batch of statements waits longer for the lock than for the disk.
    sys.setswitchinterval(_SWITCH_SECONDS)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = _options(arguments)
    try:
        settings = load_settings(options.home, port=options.port)
        check_port(settings.bind, settings.port)
        built = open_app(settings, clock_file=options.clock)
        # A page of a thousand runs is ten thousand small objects; with the default threshold their making set off
        # a dozen rounds through everything that is alive, code and routes among it.
        gc.freeze()
        gc.set_threshold(_YOUNG, 20, 20)
        try:
            uvloop.run(_serve(built, simulated=options.clock is not None, ready_fd=options.ready_fd))
        finally:
            built.close()
        if built.app.stores.ledger.failure is not None:
            raise built.app.stores.ledger.failure
    except HoldtrueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


async def _serve(built: Built, *, simulated: bool, ready_fd: int | None) -> None:
    """Listen, tell that it is so, and wait for the signal to stop."""
    app = built.app
    background = Background(
        app.due,
        wake=app.wake,
        seconds=app.settings.background_seconds,
        simulated=simulated,
        housekeep=lambda: _keep_house(app),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _listening(built, app.settings):
        write_address(app.stores.home, Address(app.settings.url, app.settings.data_url, os.getpid()))
        background.start()
        if ready_fd is not None:
            os.write(ready_fd, b"ready\n")
        await _stopped(stop, app.stores.ledger)
        remove_address(app.stores.home)
        await asyncio.to_thread(background.stop)


def _listening(built: Built, settings: Settings) -> AbstractAsyncContextManager[None]:
    """Answer requests while it is held."""
    listening = listening_at(settings.bind, settings.port)
    certificate = Path(settings.tls_certificate) if settings.tls_certificate else None
    key = Path(settings.tls_key) if certificate else None
    return answering(built.gate, listening, lambda: microseconds(built.app.clock.now()), certificate, key)


async def _stopped(stop: asyncio.Event, ledger: Ledger) -> None:
    """Wait for the signal to stop, or for the ledger to fail: only a new process knows what the disk holds."""
    while ledger.failure is None:
        try:
            await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
        except TimeoutError:
            continue
        return


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="holdtrue.server.control", allow_abbrev=False)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--ready-fd", type=int)
    return parser.parse_args(arguments)


def _keep_house(app: App) -> None:
    keep_credentials(app)
    app.stores.ledger.sign_late()


if __name__ == "__main__":
    sys.exit(main())
