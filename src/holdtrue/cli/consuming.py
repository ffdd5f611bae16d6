"""The command that answers the messages of a stream."""

import os
import signal
import socket
import threading
from typing import Annotated, Any

import typer

from holdtrue.cli.context import AsJson, Home, ProjectName, open_client, project_name, show
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput, Unavailable


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(consume)


def consume(
    service: Annotated[str, typer.Argument(help="Service of a model.")],
    stream: Annotated[str, typer.Option("--stream", help="Stream of Redis with the requests.")],
    answers: Annotated[
        str | None, typer.Option("--answers", help="Stream of answers (default: STREAM.answers).")
    ] = None,
    url: Annotated[
        str, typer.Option("--redis", envvar="REDIS_URL", help="Address of Redis.")
    ] = "redis://127.0.0.1:6379/0",
    group: Annotated[
        str, typer.Option("--group", help="Consumer group; each message goes to one of a group.")
    ] = "holdtrue",
    consumer: Annotated[
        str | None, typer.Option("--consumer", help="Its name in the group (default: host-process).")
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Environment (default: the first).")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=10_000, help="Messages taken at a time.")] = 64,
    concurrent: Annotated[int, typer.Option("--concurrent", min=1, max=256, help="Requests at a time.")] = 16,
    idle: Annotated[
        float, typer.Option("--idle", min=0.1, help="Seconds until what another one took is taken over.")
    ] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="End when the stream is empty.")] = False,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Answer the messages of a Redis stream: each row is predicted, answered in another stream, and acknowledged."""
    from holdtrue.server.consuming import asking, check_served, renewing
    from holdtrue.server.consuming import consume as run
    from holdtrue.server.redisstream import Place, RedisStream

    if answers == stream:
        raise InvalidInput("Answers cannot go where requests come from.", mend="Name another stream: --answers NAME")
    place = Place(
        stream, answers or f"{stream}.answers", group, consumer or f"{socket.gethostname()}-{os.getpid()}", idle
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with open_client(home) as client:
        http = client.data_plane()
        if http is None:
            raise Unavailable("No server runs, so nothing answers.", mend="Start it with `holdtrue up`.")
        source = RedisStream(url, place)
        try:
            with http:
                name = project_name(client, project)
                check_served(http, name, service, environment)
                ask = asking(http, name, service, environment)
                between = renewing(client, SystemClock())
                done = run(source, ask, stop, most=batch, concurrent=concurrent, until_empty=once, between=between)
        finally:
            source.close()
    told = {name: getattr(done, name) for name in ("answered", "refused", "repeated", "again")}
    show(told, as_json, _print)


def _print(done: Any) -> None:
    typer.echo(
        f"{done['answered']:,} answered, {done['refused']:,} refused, {done['repeated']:,} settled by others, "
        f"{done['again']:,} tries that failed"
    )
