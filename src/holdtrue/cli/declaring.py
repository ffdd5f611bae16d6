"""Declare commands without the library of commands, which is loaded for help, and for lines that are not plain.

What is declared here is read in two ways that mean the same: by `quick`, and by the library after `library.typed`.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Command = Callable[..., Any]
_C = TypeVar("_C", bound=Command)


class Declared(NamedTuple):
    """Say how a parameter is given: by one of its `names`, or by its place if it has none.

    Here and in all that a quick command needs first: no data class, for making one loads what reads source code.
    """

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    least: float | None = None
    most: float | None = None


def option(*names: str, help: str) -> Any:
    """Declare a parameter that is given by name, inside `Annotated`."""
    return Declared(names, help)


def argument(*, help: str, metavar: str | None = None) -> Any:
    """Declare a parameter that is given by its place, inside `Annotated`."""
    return Declared((), help, metavar)


class Group:
    """Hold the commands of a group by name, in the order in which help shows them."""

    def __init__(self, help: str) -> None:
        self.help = help
        self._commands: dict[str, Callable[[], Command]] = {}

    def command(self, name: str) -> Callable[[_C], _C]:
        """Add a command."""

        def add(command: _C) -> _C:
            self._commands[name] = lambda: command
            return command

        return add

    def later(self, name: str, module: str, function: str) -> None:
        """Add a command whose module is imported when it is asked for."""
        self._commands[name] = lambda: getattr(importlib.import_module(module), function)

    def find(self, name: str) -> Command | None:
        """Return the command of this name."""
        found = self._commands.get(name)
        return None if found is None else found()

    def commands(self) -> dict[str, Command]:
        """Return all commands by name."""
        return {name: found() for name, found in self._commands.items()}


class Exit(Exception):
    """End the command with a status, all that was to be said having been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text, to the standard error if `err`."""
    print(text, end="\n" if nl else "", file=sys.stderr if err else sys.stdout, flush=True)
