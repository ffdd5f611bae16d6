"""Plain command lines mean the same to our own reading and to the library; all others are left to the library."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.cli import data, quick
from holdtrue.cli.library import typed
from holdtrue.cli.main import command_line
from tests.sampling import examples

_VALUES = ["a", "7", "-1", "x=y", "", "-", "--", "0", "501", "1.5", "07", " 7", "ä", "a b", "-h", "--help", "--no"]


def _commands(app: typer.Typer) -> Iterator[Callable[..., Any]]:
    yield from (each.callback for each in app.registered_commands if each.callback is not None)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _commands(group.typer_instance)


@functools.cache
def _every() -> list[Callable[..., Any]]:
    return [*_commands(command_line()), *data.group.commands().values()]


@functools.cache
def _library(command: Callable[..., Any]) -> Any:
    """Return the library's reading of a command that does nothing but say what it was called with."""

    @functools.wraps(command)
    def say(**given: Any) -> dict[str, Any]:
        return given

    app = typer.Typer(add_completion=False)
    app.command()(typed(say))
    return typer.main.get_command(app)


@functools.cache
def _words(command: Callable[..., Any]) -> list[str]:
    """Return words that a command may be given: its options, and values."""
    library = _library(command)
    names = [name for each in library.params for name in (*each.opts, *each.secondary_opts) if name.startswith("-")]
    return [*names, *(f"{name}=v" for name in names), *_VALUES]


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load the library before examples are drawn: while it is loaded, random numbers are asked for."""
    assert _words(_every()[0])


@st.composite
def _lines(draw: st.DrawFn) -> tuple[Callable[..., Any], list[str]]:
    command = draw(st.sampled_from(_every()))
    return command, draw(st.lists(st.sampled_from(_words(command)), max_size=5))


@given(_lines())
@settings(max_examples=examples(400), deadline=None)
def test_what_is_read_quickly_means_the_same_to_the_library(line: tuple[Callable[..., Any], list[str]]) -> None:
    command, words = line
    found = quick.read(command, words)
    if found is not None:
        defaults = {name: each.default for name, each in inspect.signature(command).parameters.items()}
        meant = _library(command).main(args=list(words), prog_name="x", standalone_mode=False)
        assert {**defaults, **found} == meant


@pytest.mark.parametrize(
    "words",
    [
        "data ls", "data ls flights --json", "data add things folder --files", "data add things a b --key id --home h",
        "data show flights@3", "data diff flights@3 flights@4", "status --json", "plan --file f", "releases",
        "approve rel_1 --reason fine", "why prd_1", "doctor", "up --port 0",
    ],
)  # fmt: skip
def test_common_lines_are_read_quickly(words: str) -> None:
    found = quick.find(command_line(), words.split())
    assert found is not None
    assert quick.read(*found) is not None


@pytest.mark.parametrize(
    "words",
    [
        "data", "data --help", "data ls --help", "data ls --jso", "data ls a b", "data add", "data ls --home",
        "data ls --home --json", "data ls --json=1", "data ls --home a --home b", "data ls --", "data nothing",
        "nothing", "", "--version", "traces --text x",
    ],
)  # fmt: skip
def test_lines_that_are_not_plain_are_left_to_the_library(words: str) -> None:
    found = quick.find(command_line(), words.split())
    assert found is None or quick.read(*found) is None
