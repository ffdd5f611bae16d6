"""Write docs/reference.md from the code: commands, routes, events and error codes. `--check` only compares."""

import ast
import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import typer

import holdtrue
from holdtrue.cli.main import command_line
from holdtrue.core.errors import HoldtrueError
from holdtrue.door import Route
from holdtrue.governance import Outcome
from holdtrue.server.build import open_app
from holdtrue.server.settings import load_settings

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reference.md"
# Events whose names end in a state.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "decision.": tuple(each.value for each in Outcome),
    "incident.": ("acknowledged", "resolved"),
    "quarantine.": ("mended", "discarded"),
    "retrain.": ("done", "failed", "rolled_out"),
    "rollout.": ("started", "advanced", "promoted", "rolled_back", "stopped"),
}


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
    for route in sorted(_declared(), key=lambda each: (each.path, each.method)):
        yield route.method, f"`{route.path}`", str(route.permission), route.summary.rstrip(".")


def _declared() -> tuple[Route, ...]:
    """Return every route of the control plane, those of the server itself included."""
    with tempfile.TemporaryDirectory() as folder:
        built = open_app(load_settings(Path(folder) / "home", environ={}))
        try:
            return built.gate.table.routes
        finally:
            built.close()


def _events() -> Iterator[tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "emit":
                for name in _names(node.args[0], tree) if node.args else ():
                    found.setdefault(name, set()).add(path.parent.name)
    for name in sorted(found):
        yield f"`{name}`", ", ".join(sorted(found[name]))


def _names(node: ast.expr, tree: ast.Module) -> list[str]:
    """Return every name that an event may have by this expression; ValueError for one that cannot be read."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*_names(node.body, tree), *_names(node.orelse, tree)]
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        family = str(node.values[0].value)
        return [family + ending for ending in _FAMILIES[family]]
    if isinstance(node, ast.Name):
        found = [name for value in _assigned(tree, node.id) for name in _names(value, tree)]
        if found:
            return found
    raise ValueError(f"The name of an event cannot be read: {ast.unparse(node)}")


def _assigned(tree: ast.Module, name: str) -> list[ast.expr]:
    """Return what is assigned to a name in a module, or in the module that it is imported from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and any(each.name == name for each in node.names):
            source = importlib.import_module(node.module).__file__
            return _assigned(ast.parse(Path(source or "").read_text(encoding="utf-8")), name)
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
    ]


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
