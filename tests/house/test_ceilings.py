"""Hold the ceilings: a file, class or function that grows past one has the wrong shape."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE, CLASS, FUNCTION = 600, 300, 60

# Exceptions, one line each with its reason: "path" or "path::name": reason.
EXCEPTIONS = {
    "src/holdtrue/storage/ledger/migrations/versions/0001_foundation.py": "lays every table, one function each",
}


def _modules() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


def _too_long(path: Path) -> Iterator[str]:
    text = path.read_text()
    name = str(path.relative_to(ROOT))
    if len(text.splitlines()) > MODULE and name not in EXCEPTIONS:
        yield f"{name}: {len(text.splitlines())} lines in a module, at most {MODULE}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            limit = CLASS
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            limit = FUNCTION
        else:
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > limit and f"{name}::{node.name}" not in EXCEPTIONS:
            yield f"{name}:{node.lineno} {node.name}: {length} lines, at most {limit}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_over_its_ceiling(path: Path) -> None:
    """Prevent the store class of 10,000 lines: it grew by a few lines a week, and nothing said stop."""
    assert list(_too_long(path)) == []


def test_every_exception_still_exists() -> None:
    """Prevent a list of exceptions that outlives what it excuses."""
    gone = [each for each in EXCEPTIONS if not (ROOT / each.split("::")[0]).exists()]
    assert gone == []
