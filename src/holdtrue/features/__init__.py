"""Features: one definition, computed as of then for training and as of now for serving."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.features.functions import on_demand
    from holdtrue.features.model import (
        Computed,
        Latest,
        OnDemand,
        Trailing,
        View,
        category,
        day_of_week,
        hour_of_day,
        microseconds_of,
        month,
        numeric,
    )
    from holdtrue.features.offline import point_in_time
    from holdtrue.features.online import OnlineStore, open_online
    from holdtrue.features.vector import FeatureSet

__all__ = [
    "Computed",
    "FeatureSet",
    "Latest",
    "OnDemand",
    "OnlineStore",
    "Trailing",
    "View",
    "category",
    "day_of_week",
    "hour_of_day",
    "microseconds_of",
    "month",
    "numeric",
    "on_demand",
    "open_online",
    "point_in_time",
]

# The data plane looks features up and must not load DuckDB for it.
__getattr__ = attach(
    __name__,
    dict.fromkeys(
        (
            "Computed",
            "Latest",
            "OnDemand",
            "Trailing",
            "View",
            "category",
            "day_of_week",
            "hour_of_day",
            "microseconds_of",
            "month",
            "numeric",
        ),
        "model",
    )
    | {
        "on_demand": "functions",
        "point_in_time": "offline",
        "OnlineStore": "online",
        "open_online": "online",
        "FeatureSet": "vector",
    },
)
