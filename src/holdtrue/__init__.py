"""Models that hold true in production: every change to production is a decision made on evidence.

These are the names a project file uses; everything else may move.
"""

from typing import TYPE_CHECKING

from holdtrue._version import __version__
from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.data import Column, Contract, column
    from holdtrue.delivery import Canary
    from holdtrue.features import (
        Latest,
        Trailing,
        category,
        day_of_week,
        hour_of_day,
        month,
        numeric,
    )
    from holdtrue.project import Project, Training

__all__ = [
    "Canary",
    "Column",
    "Contract",
    "Latest",
    "Project",
    "Trailing",
    "Training",
    "__version__",
    "category",
    "column",
    "day_of_week",
    "hour_of_day",
    "month",
    "numeric",
]

__getattr__ = attach(
    __name__,
    {
        "Canary": "delivery",
        "Column": "data",
        "Contract": "data",
        "Latest": "features",
        "Project": "project",
        "Trailing": "features",
        "Training": "project",
        "category": "features",
        "column": "data",
        "day_of_week": "features",
        "hour_of_day": "features",
        "month": "features",
        "numeric": "features",
    },
)
