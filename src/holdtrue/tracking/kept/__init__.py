"""Large batches of metrics: kept as they came, and brought into the tables of metrics a little later."""

from holdtrue.tracking.kept.store import keep

__all__ = ["keep"]
