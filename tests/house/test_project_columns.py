"""Every table says whose its rows are."""

import importlib
from pathlib import Path

import sqlalchemy as sa

from holdtrue.storage.ledger import metadata

SOURCE = Path(__file__).parents[2] / "src" / "holdtrue"

# Tables without a project column, each with its reason.
EXCEPTIONS = {
    "checkpoints": "a checkpoint seals the events of all projects at once",
    "snapshots": "a routing snapshot holds the routes of all projects at once",
}


def all_tables() -> dict[str, sa.Table]:
    for path in sorted(SOURCE.rglob("store.py")):
        importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    return dict(metadata.tables)


def test_every_table_has_a_project_that_is_never_null() -> None:
    """Prevent rows that belong to nobody: no base query can keep them from strangers."""
    wrong = [
        name
        for name, table in all_tables().items()
        if name not in EXCEPTIONS and ("project" not in table.c or table.c.project.nullable)
    ]
    assert wrong == []


def test_every_exception_is_still_a_table_without_a_project() -> None:
    tables = all_tables()
    assert [name for name in EXCEPTIONS if name not in tables or "project" in tables[name].c] == []


def test_no_key_leaves_the_project_out() -> None:
    """Prevent one project's id from shutting out, or showing, the same id of another."""
    one_sequence = {"events", "payloads", *EXCEPTIONS}
    wrong = [
        name
        for name, table in all_tables().items()
        if name not in one_sequence and "project" not in table.primary_key.columns
    ]
    assert wrong == []
