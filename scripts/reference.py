"""Write docs/reference.md from the code: commands, routes, events and error codes. `--check` only compares."""

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

import holdtrue
from holdtrue.cli.main import command_line
from holdtrue.core.errors import HoldtrueError
from holdtrue.server.table import room_routes

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reference.md"


def reference() -> str:
    """Return the whole page."""
    parts = [
        "# Reference",
        "Made from the code by `python scripts/reference.py`; the tests fail if it is behind.",
        "## Commands",
        *_table(("command", "what it does"), _commands()),
        "## Routes of the control plane",
        "`public` routes ask for no token; each other one for the permission it names.",
        *_table(("method", "path", "permission", "what it does"), _routes()),
        "## Events",
        "Each change writes one into the event log, in the same transaction.",
        *_table(("event", "written in"), _events()),
        "## Errors",
        "An error says what happened, why, and how to mend it; its code is stable.",
        *_table(("code", "HTTP", "exit", "meaning"), _errors()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "--|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["\n".join(lines)]


def _commands() -> Iterator[tuple[str, ...]]:
    root = typer.main.get_command(command_line())
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]  # a group, by construction
        inner = getattr(command, "commands", None)
        if inner is None:
            yield f"`holdtrue {name}`", (command.help or "").splitlines()[0]
        else:
            if getattr(command, "invoke_without_command", False):
                yield f"`holdtrue {name}`", (command.help or "").splitlines()[0]
            for part, each in sorted(inner.items()):
                yield f"`holdtrue {name} {part}`", (each.help or "").splitlines()[0]


def _routes() -> Iterator[tuple[str, ...]]:
    for route in sorted(room_routes(), key=lambda each: (each.path, each.method)):
        yield route.method, f"`{route.path}`", str(route.permission), route.summary.rstrip(".")


def _events() -> Iterator[tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "emit":
                name = _text(node.args[0]) if node.args else None
                if name:
                    found.setdefault(name, set()).add(path.parent.name)
    for name in sorted(found):
        yield f"`{name}`", ", ".join(sorted(found[name]))


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def _errors() -> Iterator[tuple[str, ...]]:
    for module in pkgutil.walk_packages(holdtrue.__path__, "holdtrue."):
        if "migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known: dict[str, type[HoldtrueError]] = {}
    for kind in _below(HoldtrueError):
        known.setdefault(kind.code, kind)
    for code, kind in sorted(known.items()):
        yield f"`{code}`", str(kind.status), str(kind.exit_code), (kind.__doc__ or "").splitlines()[0]


def _below(kind: type[HoldtrueError]) -> Iterator[type[HoldtrueError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _below(each)


if __name__ == "__main__":
    text = reference()
    if "--check" in sys.argv:
        sys.exit(
            0 if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text else "docs/reference.md is behind."
        )
    TARGET.write_text(text, encoding="utf-8")
