"""Read plain command lines from the same declarations as the library of commands does, at a tenth of its price.

The library builds a validator for each option before it looks at one word, which takes longer than most commands do.
What is read here means the same to it (a test reads both ways); whatever is not plain is left to it: help, mistakes,
abbreviations, and every kind of value but texts, paths, numbers and switches.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

Command = Callable[..., Any]
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

_PLAIN = {name: value for name, value in vars(OptionInfo()).items() if name not in _SHOWN}
_WHOLE = re.compile(r"[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")


class _NotPlain(Exception):
    """A declaration or a word is not plain."""


@dataclass(slots=True)
class _Parameter:
    name: str
    read: _Read
    several: bool
    needed: bool


def find(app: typer.Typer, words: Sequence[str]) -> tuple[Command, Sequence[str]] | None:
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
    for each in inspect.signature(command).parameters.values():
        kind, info = _split(each.annotation)
        read, several = _reading(kind, info)
        needed = each.default is inspect.Parameter.empty
        parameter = _Parameter(each.name, read, several, needed)
        if isinstance(info, OptionInfo):
            options.update(dict.fromkeys(_names(info), parameter))
        else:
            if read is bool or (arguments and arguments[-1].several):
                raise _NotPlain
            arguments.append(parameter)
    return options, arguments


def _names(info: OptionInfo) -> tuple[str, ...]:
    """Return what an option is called; in an annotation, the library keeps the first name as the default."""
    first: Any = info.default
    # A switch without names has two, of which one says no, as has one with a name for each.
    if not isinstance(first, str) or any("/" in name for name in (first, *(info.param_decls or ()))):
        raise _NotPlain
    return (first, *(info.param_decls or ()))


def _split(annotation: Any) -> tuple[Any, OptionInfo | ArgumentInfo]:
    if typing.get_origin(annotation) is not typing.Annotated:
        raise _NotPlain
    kind, *more = typing.get_args(annotation)
    if len(more) != 1 or not isinstance(more[0], OptionInfo | ArgumentInfo):
        raise _NotPlain
    if any(value != _PLAIN[name] for name, value in vars(more[0]).items() if name in _PLAIN):
        raise _NotPlain
    return kind, more[0]


def _reading(kind: Any, info: OptionInfo | ArgumentInfo) -> tuple[_Read, bool]:
    """Return how one value is read, and whether there may be several."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kinds = [each for each in typing.get_args(kind) if each is not types.NoneType]
        kind = kinds[0] if len(kinds) == 1 else None
    several = typing.get_origin(kind) is list
    if several:
        (kind,) = typing.get_args(kind)
    if kind in (int, float):
        return _number(kind, info), several
    if kind not in (str, Path, bool) or (several and kind is bool):
        raise _NotPlain
    return kind, several


def _number(kind: type[int] | type[float], info: OptionInfo | ArgumentInfo) -> _Read:
    form = _WHOLE if kind is int else _DECIMAL

    def read(text: str) -> float:
        value = kind(text) if form.fullmatch(text) else None
        if value is None or (info.min is not None and value < info.min) or (info.max is not None and value > info.max):
            raise _NotPlain
        return value

    return read


def _spelled(name: str) -> str:
    return name.lower().replace("_", "-")
