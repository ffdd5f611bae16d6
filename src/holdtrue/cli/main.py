"""The command line's entry: commands, and errors printed without a traceback."""

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from holdtrue._version import __version__
from holdtrue.cli import quick
from holdtrue.core.errors import HoldtrueError

# Typer brings its own copy of click, whose errors are no others' errors: this is the base of them all.
_Usage: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

INTERRUPTED = 130
_YOUNG = 50_000

GROUPS = frozenset({"data", "features", "prompts", "traces"})
"""Groups of commands all of which are registered by the module of this name."""


@cache
def command_line(group: str | None = None) -> typer.Typer:
    """Return the application with every command, or with those of one group: loading the others takes a while."""
    app = typer.Typer(
        name="holdtrue",
        help="Models that hold true in production: every change is a decision made on evidence.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_version)
    if group is not None:
        importlib.import_module(f"holdtrue.cli.{group}").register(app)
        return app
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
    if arguments is None:
        # What a command makes lives to its end; with the default threshold, looking for garbage among it took a tenth
        # of the time of short ones.
        gc.set_threshold(_YOUNG, 20, 20)
    words = list(sys.argv[1:] if arguments is None else arguments)
    group = words[0] if words and words[0] in GROUPS else None
    try:
        status = _run(command_line(group), words)
    except typer.Abort:
        return INTERRUPTED
    except _Usage as error:
        error.show()
        return error.exit_code
    except HoldtrueError as error:
        typer.echo(f"Error: {error}", err=True)
        return error.exit_code
    return status if isinstance(status, int) else 0


def _run(app: typer.Typer, words: list[str]) -> Any:
    """Run the command that the words name and return what it returns, or the status it ends with."""
    found = quick.find(app, words)
    given = None if found is None else quick.read(*found)
    if found is None or given is None:
        return typer.main.get_command(app).main(args=words, prog_name="holdtrue", standalone_mode=False)
    try:
        return found[0](**given)
    except typer.Exit as ended:
        return ended.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except EOFError:
        typer.echo(err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on; what is still to be written, when the interpreter ends, is written nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
) -> None:
    if version:
        typer.echo(f"holdtrue {__version__}")
        raise typer.Exit
