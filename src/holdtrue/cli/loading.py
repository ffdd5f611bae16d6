"""The command that puts a release under load: `load-test`."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from holdtrue.cli.context import AsJson, File, Home, base, lines, open_client, project_file, show
from holdtrue.cli.decide import Release
from holdtrue.cli.run import check_beside, report_steps

REGRESSED = 3
"""What `load-test` ends with if a measure is surely worse than allowed."""
_UNITS = {
    "throughput": ("requests a second", "{:,.0f}"),
    "p50_ms": ("p50, ms", "{:.2f}"),
    "p99_ms": ("p99, ms", "{:.2f}"),
    "memory_mib": ("memory, MiB", "{:.0f}"),
    "start_seconds": ("start, s", "{:.2f}"),
}


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command("load-test")(load_test)


def load_test(
    release: Release,
    against: Annotated[
        str | None, typer.Option("--against", help="Release to compare with (default: the one in production).")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Seconds of load in a round.")] = 1.0,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds, of which intervals are made.")] = 10,
    connections: Annotated[int, typer.Option("--connections", "-c", help="Connections at a time.")] = 8,
    rows: Annotated[int, typer.Option("--rows", help="Rows in a request.")] = 1,
    starts: Annotated[int, typer.Option("--starts", help="How often each release is started.")] = 3,
    margin: Annotated[float, typer.Option("--margin", help="How much worse a measure may be: 0.25 is a quarter.")] = (
        0.25
    ),
    record: Annotated[bool, typer.Option("--record", help="Record the result as evidence on the release.")] = False,
    file: File = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put a release under load on its real runtime, beside the one that answers now; nobody is answered by it.

    Requests are the newest rows of its own data. Ends with 3 if a measure is surely worse than allowed.
    """
    from holdtrue.project import Workshop, load_project
    from holdtrue.server.settings import load_settings
    from holdtrue.serving import LoadTest, check_load_test

    project = load_project(project_file(file))
    plan = LoadTest(seconds, rounds, connections, rows, starts, margin)
    check_load_test(plan)
    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings, "load-test")
        found = Workshop(project, settings.home, client, on_step=report_steps(as_json)).load_test(
            release, plan, against
        )
        if record:
            body = {"kind": "performance", "subject": release, "content": found}
            client.post(f"{base(project.name)}/evidence", body)
    show(found, as_json, lambda value: lines(_told(value)))
    raise typer.Exit(REGRESSED if found["regressions"] else 0)


def _told(found: Any) -> Iterator[str]:
    load = found["load"]
    yield (
        f"{found['n']} rounds of {load['seconds']:g} s, {load['connections']} connections, {load['rows']} "
        f"{'row' if load['rows'] == 1 else 'rows'} a request; times at {load['rate']:,.0f} requests a second"
    )
    live = found.get("against")
    yield f"{'':20}{'this release':>26}" + (f"{live:>26}{'times worse':>24}" if live else "")
    for name, (words, form) in _UNITS.items():
        if name not in found:
            continue
        line = f"{words:20}{_spread(found[name], form):>26}"
        if live and name in found["times"]:
            line += f"{_spread(found['live'][name], form):>26}{_spread(found['times'][name], '{:.2f}'):>24}"
        yield line
    if found["failed"]:
        yield f"{found['failed']} of {load['requests']} requests failed."
    for each in found["failures"]:
        yield f"✗ {each['what']}: {each['why']}"
    if live and not found["failures"]:
        yield f"No measure is surely more than {1 + found['margin']:g} times that of {live}."


def _spread(value: Any, form: str) -> str:
    if value["lower"] is None:
        return form.format(value["value"])
    return f"{form.format(value['value'])} ({form.format(value['lower'])} to {form.format(value['upper'])})"
