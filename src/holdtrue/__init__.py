"""Models that hold true in production: every change to production is a decision made on evidence.

These are the names a project file uses; everything else may move.
"""

from typing import TYPE_CHECKING

from holdtrue._version import __version__
from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.data import (
        Column,
        Contract,
        Distribution,
        Expect,
        Fresh,
        KeyInto,
        RowCount,
        Unique,
        column,
        read_files,
        read_query,
        read_sql,
    )
    from holdtrue.delivery import ABTest, Bandit, BlueGreen, Canary, Shadow
    from holdtrue.features import (
        Latest,
        Trailing,
        category,
        day_of_week,
        hour_of_day,
        month,
        numeric,
    )
    from holdtrue.llm import prompt
    from holdtrue.project import Project, Training, check, guard, index, route
    from holdtrue.server.recording import run

__all__ = [
    "ABTest",
    "Bandit",
    "BlueGreen",
    "Canary",
    "Column",
    "Contract",
    "Distribution",
    "Expect",
    "Fresh",
    "KeyInto",
    "Latest",
    "Project",
    "RowCount",
    "Shadow",
    "Trailing",
    "Training",
    "Unique",
    "__version__",
    "category",
    "check",
    "column",
    "day_of_week",
    "guard",
    "hour_of_day",
    "index",
    "month",
    "numeric",
    "prompt",
    "read_files",
    "read_query",
    "read_sql",
    "route",
    "run",
]

__getattr__ = attach(
    __name__,
    {
        "Shadow": "delivery",
        "BlueGreen": "delivery",
        "Bandit": "delivery",
        "ABTest": "delivery",
        "Canary": "delivery",
        "Column": "data",
        "Contract": "data",
        "Unique": "data",
        "RowCount": "data",
        "KeyInto": "data",
        "Fresh": "data",
        "Expect": "data",
        "Distribution": "data",
        "Latest": "features",
        "Project": "project",
        "Trailing": "features",
        "Training": "project",
        "category": "features",
        "check": "project",
        "column": "data",
        "day_of_week": "features",
        "guard": "project",
        "hour_of_day": "features",
        "index": "project",
        "month": "features",
        "numeric": "features",
        "prompt": "llm",
        "read_files": "data",
        "read_query": "data",
        "read_sql": "data",
        "route": "project",
        "run": "server.recording",
    },
)
