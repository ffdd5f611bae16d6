"""What commands share: their options, the client, the project, and how a listing is printed."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from holdtrue.cli.declaring import echo, option
from holdtrue.core.errors import ConfigurationError, Conflict, NotFound

if TYPE_CHECKING:
    # Loaded by the first table: most commands print lines.
    from rich.console import Console

    from holdtrue.server.client import Client
    from holdtrue.server.settings import Settings

BLOCKED = 4
"""What a command ends with if a delivery was blocked."""

Home = Annotated[Path | None, option("--home", help="Data folder (default: HOLDTRUE_HOME, or .holdtrue here).")]
ProjectName = Annotated[
    str | None, option("--project", "-p", help="Project (default: HOLDTRUE_PROJECT, or the only one).")
]
AsJson = Annotated[bool, option("--json", help="Print JSON, for scripts.")]
File = Annotated[
    Path | None,
    option("--file", "-f", help="Project file (default: HOLDTRUE_FILE, or project.py here)."),
]
_ID_LENGTH = 40
_CONTROLS = {code: "�" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
Columns = Mapping[str, Callable[[Any], Any]]


def open_client(home: Path | None) -> "Client":
    """Return a client of the running server, or of the data folder itself."""
    from holdtrue.server.client import Client

    return Client.open(home)


def check_beside(client: "Client", settings: "Settings", command: str = "run") -> None:
    """Refuse to work for a server on another machine: what is made here would not be in its data folder."""
    if not client.keeps(settings):
        raise Conflict(
            f"`holdtrue {command}` works beside the data folder of its server, and {client.url} has another one.",
            why=f"What it reads and makes is put into {settings.home}; the server would not find it.",
            mend="Run it on the server's machine with --home DIR, or let the server's worker train: "
            "POST /api/projects/{project}/triggers.",
        )


def project_file(file: Path | None) -> Path:
    """Return the project file that is meant."""
    if file is not None:
        return file
    return Path(os.environ.get("HOLDTRUE_FILE", "project.py"))


def project_file_here(file: Path | None) -> Path | None:
    """Return the project file that is meant, None where none was named and none is here; a named one must be there."""
    chosen = project_file(file)
    if chosen.is_file():
        return chosen
    if file is None and "HOLDTRUE_FILE" not in os.environ:
        return None
    raise NotFound(
        f"There is no project file at {chosen}.",
        mend="Write one with `holdtrue init`, or name yours with --file.",
        facts={"path": str(chosen)},
    )


def project_name(client: "Client", given: str | None, *, first: str | None = None) -> str:
    """Return the project that is meant: the one given, the environment's, or the only one there is.

    Where there is none yet, `first` is meant if that is given.
    """
    name = given or os.environ.get("HOLDTRUE_PROJECT")
    if name:
        return name
    names = [str(each) for each in client.get("/api/projects")["items"]]
    if len(names) == 1:
        return names[0]
    if not names and first is not None:
        return first
    if not names:
        raise NotFound(
            "There is no project in this data folder yet.",
            mend="Write a project file (holdtrue init) and apply it: holdtrue apply --file project.py",
        )
    raise ConfigurationError(
        "Several projects are here, and none was named.",
        why=f"Projects: {', '.join(names)}.",
        mend="Name one with --project.",
    )


def base(project: str) -> str:
    """Return the address below which everything of a project lies."""
    return f"/api/projects/{project}"


def wide_console() -> "Console":
    """Return a console for standard output; where there is no terminal, lines are not broken at 80 columns."""
    from rich.console import Console

    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=160)


def show(value: Any, as_json: bool, text: Callable[[Any], None]) -> None:
    """Print `value` as JSON, or through `text`."""
    if as_json:
        echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        text(value)


def listing(items: Sequence[Any], as_json: bool, columns: Columns, *, empty: str) -> None:
    """Print a listing as a table, or as JSON; `empty` says what to do when there is nothing."""
    if as_json:
        echo(json.dumps(list(items), indent=2, ensure_ascii=False))
        return
    if not items:
        echo(empty)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = [[text_of(column(item)) for column in columns.values()] for item in items]
    for place, name in enumerate(columns):
        # An id that is broken over two lines cannot be copied; words may be.
        whole = all(len(row[place]) <= _ID_LENGTH and " " not in row[place] for row in rows)
        table.add_column(name, overflow="fold", no_wrap=whole)
    for row in rows:
        # As plain text: brackets in what users wrote are no markup.
        table.add_row(*(Text(cell) for cell in row))
    wide_console().print(table)


def text_of(value: Any) -> str:
    """Return a value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str) and len(value) >= 19 and value[4:5] == "-" and value[10:11] == "T":
        return f"{value[:10]} {value[11:16]}"
    return harmless(str(value))


def harmless(text: str) -> str:
    """Return a text without the signs by which a terminal is told to do something."""
    return text.translate(_CONTROLS)


def lines(items: Iterable[str]) -> None:
    """Print lines."""
    for each in items:
        echo(harmless(each))
