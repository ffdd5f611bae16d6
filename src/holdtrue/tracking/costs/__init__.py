"""What a run cost, by what was recorded of it: each figure says how it is known, and what nobody measured is named.

Holdtrue's own recorder measures a run (`cost/…`). MLflow's client measures nothing but start and end, unless its
system metrics are on (`mlflow.enable_system_metrics_logging`): samples of the whole machine, as
`system/[NODE/]cpu_utilization_percentage`, `…/system_memory_usage_megabytes` and `…/gpu_N_…`.
"""

from holdtrue.tracking.costs.model import Cost, Figure, Samples
from holdtrue.tracking.costs.rules import cost_of
from holdtrue.tracking.costs.service import read_costs

__all__ = ["Cost", "Figure", "Samples", "cost_of", "read_costs"]
