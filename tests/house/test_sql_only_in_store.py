"""Hold the places of SQL: a room's `store.py`, and the ledger itself; and never a statement pasted from strings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "holdtrue"
LEDGER = SOURCE / "storage" / "ledger"

# What a module without SQL may still name: types of values that are handed through.
TYPES = {"Connection", "Row", "RowMapping", "Engine"}
VERSIONS = {"sqlite_version", "sqlite_version_info"}
BUILDERS = {"project_table", "scoped", "metadata"}
RUNNERS = {"execute", "executemany", "executescript", "exec_driver_sql", "text", "scalar", "scalars"}

# Exceptions, one line each with its reason: "path": reason.
EXCEPTIONS: dict[str, str] = {}


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _may_hold_sql(path: Path) -> bool:
    return path.name == "store.py" or LEDGER in path.parents


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, str, str]]:
    """Yield (line, module, name, local name) of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, "", alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, node.module, alias.name, alias.asname or alias.name


def sql_outside(tree: ast.Module) -> Iterator[str]:
    """Yield each use of SQL in a module that must have none."""
    packages: set[str] = set()
    drivers: set[str] = set()
    for line, module, name, local in _imports(tree):
        if module == "sqlite3" and name not in VERSIONS:
            if name:
                yield f"{line}: imports {name} from sqlite3"
            drivers.add(local)
        elif module.split(".")[0] == "sqlalchemy" and name and name not in TYPES:
            yield f"{line}: imports {name} from {module}"
        elif module == "sqlalchemy" and not name:
            packages.add(local)
        elif module.startswith("holdtrue.storage.ledger") and name in BUILDERS:
            yield f"{line}: imports {name}, with which tables are made and read"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        allowed = TYPES if node.value.id in packages else VERSIONS
        if node.value.id in packages | drivers and node.attr not in allowed:
            yield f"{node.lineno}: {node.value.id}.{node.attr}"
        elif node.value.id == "tx" and node.attr in RUNNERS:
            yield f"{node.lineno}: tx.{node.attr}"
        elif packages and node.value.id == "connection" and node.attr in RUNNERS:
            yield f"{node.lineno}: connection.{node.attr}"


def pasted_sql(tree: ast.Module) -> Iterator[str]:
    """Yield each statement that is built from strings instead of bound parameters."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in RUNNERS:
            continue
        statement = node.args[0]
        formatted = isinstance(statement, ast.Call) and getattr(statement.func, "attr", "") in ("format", "join")
        if isinstance(statement, ast.JoinedStr | ast.BinOp) or formatted:
            yield f"{node.lineno}: {name}({ast.unparse(statement)[:60]})"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sql_is_only_in_stores(path: Path) -> None:
    """Prevent queries that forget the project: one of them somewhere in a handler shows a stranger's rows."""
    if str(path.relative_to(ROOT)) in EXCEPTIONS or _may_hold_sql(path):
        return
    assert list(sql_outside(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "path", [path for path in _modules() if _may_hold_sql(path)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_statements_are_never_pasted_together(path: Path) -> None:
    """Prevent injection: the error paths and the sort columns are where it came in elsewhere."""
    assert list(pasted_sql(ast.parse(path.read_text()))) == []


def test_every_exception_still_exists() -> None:
    """Prevent a list of exceptions that outlives what it excuses."""
    assert [each for each in EXCEPTIONS if not (ROOT / each).exists()] == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("import sqlalchemy as sa\ndef f(c: sa.Connection): ...", 0),
        ("import sqlalchemy as sa\nsa.select(1)", 1),
        ("import sqlalchemy\nsqlalchemy.text('x')", 1),
        ("from sqlalchemy import select", 1),
        ("from sqlalchemy import Connection", 0),
        ("import sqlite3\nsqlite3.connect('x')", 1),
        ("from sqlite3 import connect", 1),
        ("import sqlite3\nprint(sqlite3.sqlite_version)", 0),
        ("from holdtrue.storage.ledger import project_table", 1),
        ("from holdtrue.storage.ledger import Transaction", 0),
        ("def f(tx): tx.execute('x')", 1),
        ("import sqlalchemy as sa\ndef f(connection: sa.Connection): connection.execute('x')", 1),
    ],
)
def test_the_check_sees_sql(code: str, count: int) -> None:
    assert len(list(sql_outside(ast.parse(code)))) == count


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("c.execute('SELECT 1')", 0),
        ("c.execute('SELECT ?', (a,))", 0),
        ("c.execute(f'SELECT {a}')", 1),
        ("c.execute('SELECT ' + a)", 1),
        ("c.execute('SELECT %s' % a)", 1),
        ("c.execute('SELECT {}'.format(a))", 1),
        ("sa.text(f'{a}')", 1),
        ("text('SELECT ' + a)", 1),
    ],
)
def test_the_check_sees_pasted_statements(code: str, count: int) -> None:
    assert len(list(pasted_sql(ast.parse(code)))) == count
