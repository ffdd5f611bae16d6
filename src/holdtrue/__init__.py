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
        Tags,
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
        on_demand,
    )
    from holdtrue.llm import prompt
    from holdtrue.project import Project, Training, check, guard, index, route
    from holdtrue.server.recording import run
    from holdtrue.serving import Ensemble, LoadTest, Processed, PythonModel, Stack, TorchModel

__all__ = [
    "ABTest",
    "Bandit",
    "BlueGreen",
    "Canary",
    "Column",
    "Contract",
    "Distribution",
    "Ensemble",
    "Expect",
    "Fresh",
    "KeyInto",
    "Latest",
    "LoadTest",
    "Processed",
    "Project",
    "PythonModel",
    "RowCount",
    "Shadow",
    "Stack",
    "Tags",
    "TorchModel",
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
    "on_demand",
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
        "LoadTest": "serving",
        "Project": "project",
        "Tags": "data",
        "Trailing": "features",
        "Training": "project",
        "PythonModel": "serving",
        "TorchModel": "serving",
        "Ensemble": "serving",
        "Stack": "serving",
        "Processed": "serving",
        "category": "features",
        "check": "project",
        "column": "data",
        "day_of_week": "features",
        "guard": "project",
        "hour_of_day": "features",
        "index": "project",
        "month": "features",
        "numeric": "features",
        "on_demand": "features",
        "prompt": "llm",
        "read_files": "data",
        "read_query": "data",
        "read_sql": "data",
        "route": "project",
        "run": "server.recording",
    },
)
