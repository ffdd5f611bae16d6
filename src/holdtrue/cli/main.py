"""The command line's entry: commands, and errors printed without a traceback."""

import gc
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdtrue.cli import quick
from holdtrue.cli.declaring import Group, echo
from holdtrue.core.errors import HoldtrueError

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
_YOUNG = 50_000

GROUPS = frozenset({"data", "features", "prompts", "traces"})
"""Groups of commands all of which are registered by the module of this name."""


def command_line(group: str | None = None) -> "typer.Typer":
    """Return the library's application with every command, or with those of one group."""
    from holdtrue.cli import library

    return library.command_line(group)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    if arguments is None:
        # What a command makes lives to its end; with the default threshold, looking for garbage among it took a tenth
        # of the time of short ones.
        gc.set_threshold(_YOUNG, 20, 20)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
    except HoldtrueError as error:
        echo(f"Error: {error}", err=True)
        return error.exit_code
    return status if isinstance(status, int) else 0


def _run(words: Sequence[str]) -> Any:
    """Run the command that the words name and return what it returns, or the status it ends with."""
    group = words[0] if words and words[0] in GROUPS else None
    if group is not None and len(words) > 1:
        declared = getattr(importlib.import_module(f"holdtrue.cli.{group}"), "group", None)
        command = declared.find(words[1]) if isinstance(declared, Group) else None
        given = None if command is None else quick.read(command, words[2:])
        if command is not None and given is not None:
            return quick.call(command, given, INTERRUPTED)
    # Imported here: a plain line of commands that are declared without it needs none of it.
    from holdtrue.cli import library

    return library.run(words, group, INTERRUPTED)
