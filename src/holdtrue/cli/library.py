"""The library of commands: help, mistakes, and every line that is not plain."""

import functools
import importlib
import inspect
import typing
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer

from holdtrue._version import __version__
from holdtrue.cli import quick
from holdtrue.cli.declaring import Command, Declared, Group

# Typer brings its own copy of click, whose errors are no others' errors: this is the base of them all.
_Usage: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


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
    # Each brings the libraries of its commands.
    names = (
        "run", "data", "features", "applications", "decide", "rolling", "loading", "look", "prompts", "serve",
        "consuming", "gateway", "traces", "track",
    )  # fmt: skip
    for name in names if group is None else (group,):
        module = importlib.import_module(f"holdtrue.cli.{name}")
        declared: Group | None = getattr(module, "group", None)
        if isinstance(declared, Group):
            app.add_typer(_grouped(declared), name=name)
        else:
            module.register(app)
    _type(app)
    return app


def run(words: Sequence[str], group: str | None, interrupted: int) -> Any:
    """Run the command that the words name and return what it returns, or the status it ends with."""
    app = command_line(group)
    found = quick.find(app, words)
    given = None if found is None else quick.read(*found)
    try:
        if found is not None and given is not None:
            return quick.call(found[0], given, interrupted)
        return typer.main.get_command(app).main(args=list(words), prog_name="holdtrue", standalone_mode=False)
    except typer.Exit as ended:
        return ended.exit_code
    except typer.Abort:
        return interrupted
    except _Usage as error:
        error.show()
        return error.exit_code


def typed(command: Command) -> Command:
    """Return a command whose declarations are the library's."""
    given = inspect.signature(command)
    parameters = [each.replace(annotation=_annotation(each.annotation)) for each in given.parameters.values()]

    @functools.wraps(command)
    def same(*arguments: Any, **named: Any) -> Any:
        return command(*arguments, **named)

    typing.cast("Any", same).__signature__ = given.replace(parameters=parameters)
    same.__annotations__ = {each.name: each.annotation for each in parameters}
    return same


def _annotation(annotation: Any) -> Any:
    if typing.get_origin(annotation) is not Annotated:
        return annotation
    kind, *more = typing.get_args(annotation)
    if len(more) != 1 or not isinstance(more[0], Declared):
        return annotation
    declared = more[0]
    if declared.names:
        return Annotated[kind, typer.Option(*declared.names, help=declared.help)]
    return Annotated[kind, typer.Argument(help=declared.help, metavar=declared.metavar)]


def _grouped(group: Group) -> typer.Typer:
    app = typer.Typer(help=group.help, no_args_is_help=True)
    for name, command in group.commands().items():
        app.command(name)(command)
    return app


def _type(app: typer.Typer) -> None:
    """Give every command of an application declarations that the library knows."""
    for each in app.registered_commands:
        if each.callback is not None:
            each.callback = typed(each.callback)
    for group in app.registered_groups:
        inner = group.typer_instance
        if inner is not None:
            if inner.registered_callback is not None and inner.registered_callback.callback is not None:
                inner.registered_callback.callback = typed(inner.registered_callback.callback)
            _type(inner)


def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
) -> None:
    if version:
        typer.echo(f"holdtrue {__version__}")
        raise typer.Exit
