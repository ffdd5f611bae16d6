"""The command line's entry: commands, and errors printed without a traceback."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from holdtrue._version import __version__
from holdtrue.core.errors import HoldtrueError

# Typer brings its own copy of click, whose errors are no others' errors: this is the base of them all.
_Usage: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="holdtrue",
    help="Models that hold true in production: every change is a decision made on evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cache
def command_line() -> typer.Typer:
    """Return the application with every command, each registered once."""
    # Each brings the libraries of its commands.
    from holdtrue.cli import (
        applications,
        consuming,
        data,
        decide,
        features,
        gateway,
        loading,
        look,
        prompts,
        rolling,
        run,
        serve,
        traces,
        track,
    )

    for module in (
        run, data, features, applications, decide, rolling, loading, look, prompts, serve, consuming, gateway, traces,
        track,
    ):  # fmt: skip
        module.register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    try:
        status = typer.main.get_command(command_line()).main(
            args=list(arguments) if arguments is not None else None,
            prog_name="holdtrue",
            standalone_mode=False,
        )
    except typer.Abort:
        return 130
    except _Usage as error:
        error.show()
        return error.exit_code
    except HoldtrueError as error:
        typer.echo(f"Error: {error}", err=True)
        return error.exit_code
    return status if isinstance(status, int) else 0


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
) -> None:
    if version:
        typer.echo(f"holdtrue {__version__}")
        raise typer.Exit
