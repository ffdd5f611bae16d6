"""Read plain command lines from the same declarations as the library of commands does, at a tenth of its price.

The library builds a validator for each option before it looks at one word, which takes longer than most commands do.
What is read here means the same to it (a test reads both ways); whatever is not plain is left to it: help, mistakes,
abbreviations, and every kind of value but texts, paths, numbers and switches.
"""

import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdtrue.cli.declaring import Command, Declared, Exit, echo

if TYPE_CHECKING:
    import typer

_Read = Callable[[str], Any]

_SHOWN = frozenset(
    {
        "default",
        "param_decls",
        "metavar",
        "shell_complete",
        "autocompletion",
        "show_default",
        "show_choices",
        "show_envvar",
    }
    | {"help", "hidden", "rich_help_panel", "case_sensitive", "min", "max"}
)
"""Fields of a declaration that change what help says, or are minded here; one that sets another is not plain."""

# Flags of a function that takes more arguments than it names (`inspect.CO_VARARGS`, `CO_VARKEYWORDS`).
_MORE_PLACED, _MORE_NAMED = 4, 8
_WHOLE = re.compile(r"[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")


class _NotPlain(Exception):
    """A declaration or a word is not plain."""


class _Parameter(NamedTuple):
    name: str
    read: _Read
    several: bool
    needed: bool


def find(app: "typer.Typer", words: Sequence[str]) -> tuple[Command, Sequence[str]] | None:
    """Return the command that the first words name, and the words after it; None if that is not plain."""
    if not words:
        return None
    for each in app.registered_commands:
        if each.callback is not None and (each.name or _spelled(each.callback.__name__)) == words[0]:
            return each.callback, words[1:]
    for group in app.registered_groups:
        inner = group.typer_instance
        if group.name == words[0] and inner is not None and inner.registered_callback is None:
            return find(inner, words[1:])
    return None


def read(command: Command, words: Sequence[str]) -> dict[str, Any] | None:
    """Return what `command` is called with for these words, None for words or declarations that are not plain."""
    try:
        return _read(command, words)
    except _NotPlain:
        return None


def call(command: Command, given: Mapping[str, Any], interrupted: int) -> Any:
    """Call a command and return what it returns, or the status it ends with, as the library does."""
    try:
        return command(**given)
    except Exit as ended:
        return ended.status
    except KeyboardInterrupt:
        return interrupted
    except EOFError:
        echo(err=True)
        return interrupted
    except BrokenPipeError:
        # Nobody reads on; what is still to be written, when the interpreter ends, is written nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _read(command: Command, words: Sequence[str]) -> dict[str, Any]:
    options, arguments = _declared(command)
    found: dict[str, Any] = {}
    placed: list[str] = []
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if not word.startswith("-"):
            placed.append(word)
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        option = options.get(name)
        if option is None or (option.name in found and not option.several):
            raise _NotPlain
        if option.read is bool:
            if equals:
                raise _NotPlain
            found[option.name] = True
            continue
        if not equals:
            value = waiting.pop() if waiting else ""
        # A value that is empty, or looks like an option, may be meant in more than one way.
        if not value or value.startswith("-"):
            raise _NotPlain
        _keep(found, option, value)
    _place(found, arguments, placed)
    if any(option.needed and option.name not in found for option in options.values()):
        raise _NotPlain
    return found


def _place(found: dict[str, Any], arguments: Sequence[_Parameter], placed: Sequence[str]) -> None:
    left = list(reversed(placed))
    for argument in arguments:
        if argument.needed and not left:
            raise _NotPlain
        while left and (argument.several or argument.name not in found):
            _keep(found, argument, left.pop())
    if left:
        raise _NotPlain


def _keep(found: dict[str, Any], parameter: _Parameter, value: str) -> None:
    if not value:
        raise _NotPlain
    if parameter.several:
        found.setdefault(parameter.name, []).append(parameter.read(value))
    else:
        found[parameter.name] = parameter.read(value)


def _declared(command: Command) -> tuple[Mapping[str, _Parameter], Sequence[_Parameter]]:
    options: dict[str, _Parameter] = {}
    arguments: list[_Parameter] = []
    for name, annotation, needed in _signature(command):
        kind, declared = _split(annotation)
        read, several = _reading(kind, declared)
        parameter = _Parameter(name, read, several, needed)
        if declared.names:
            # A switch with a name for each of its sides says no by one of them.
            if any("/" in name for name in declared.names):
                raise _NotPlain
            options.update(dict.fromkeys(declared.names, parameter))
        else:
            if read is bool or (arguments and arguments[-1].several):
                raise _NotPlain
            arguments.append(parameter)
    return options, arguments


def _signature(command: Command) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, annotation and whether it must be given, of each parameter; of a plain function alone."""
    command = getattr(command, "__wrapped__", command)
    if not isinstance(command, types.FunctionType):
        raise _NotPlain
    code = command.__code__
    if code.co_posonlyargcount or code.co_flags & (_MORE_PLACED | _MORE_NAMED):
        raise _NotPlain
    placed, named = code.co_argcount, code.co_kwonlyargcount
    given = {*code.co_varnames[placed - len(command.__defaults__ or ()) : placed], *(command.__kwdefaults__ or ())}
    for name in code.co_varnames[: placed + named]:
        yield name, command.__annotations__.get(name), name not in given


def _split(annotation: Any) -> tuple[Any, Declared]:
    if typing.get_origin(annotation) is not typing.Annotated:
        raise _NotPlain
    kind, *more = typing.get_args(annotation)
    if len(more) != 1:
        raise _NotPlain
    return kind, more[0] if isinstance(more[0], Declared) else _translated(more[0])


def _translated(info: Any) -> Declared:
    """Return what the library's declaration says, if it says no more than ours do."""
    from typer.models import ArgumentInfo, OptionInfo

    if not isinstance(info, OptionInfo | ArgumentInfo):
        raise _NotPlain
    plain = vars(OptionInfo())
    if any(value != plain[name] for name, value in vars(info).items() if name in plain and name not in _SHOWN):
        raise _NotPlain
    if isinstance(info, ArgumentInfo):
        return Declared((), "", None, info.min, info.max)
    # In an annotation, the library keeps the first name as the default; without one, a switch has two names.
    first: Any = info.default
    if not isinstance(first, str):
        raise _NotPlain
    return Declared((first, *(info.param_decls or ())), "", None, info.min, info.max)


def _reading(kind: Any, declared: Declared) -> tuple[_Read, bool]:
    """Return how one value is read, and whether there may be several."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kinds = [each for each in typing.get_args(kind) if each is not types.NoneType]
        kind = kinds[0] if len(kinds) == 1 else None
    several = typing.get_origin(kind) is list
    if several:
        (kind,) = typing.get_args(kind)
    if kind in (int, float):
        return _number(kind, declared), several
    if kind not in (str, Path, bool) or (several and kind is bool):
        raise _NotPlain
    return kind, several


def _number(kind: type[int] | type[float], declared: Declared) -> _Read:
    form = _WHOLE if kind is int else _DECIMAL

    def read(text: str) -> float:
        value = kind(text) if form.fullmatch(text) else None
        least, most = declared.least, declared.most
        if value is None or (least is not None and value < least) or (most is not None and value > most):
            raise _NotPlain
        return value

    return read


def _spelled(name: str) -> str:
    return name.lower().replace("_", "-")
