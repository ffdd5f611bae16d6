"""Use cases of what runs cost."""

from collections.abc import Sequence

import sqlalchemy as sa

from holdtrue.tracking.costs import rules, store
from holdtrue.tracking.costs.model import Cost, Samples
from holdtrue.tracking.model import Run


def read_costs(connection: sa.Connection, project: str, runs: Sequence[Run]) -> dict[str, Cost]:
    """Return what each run cost; of the samples of its machine only sums are read."""
    found: dict[str, Cost] = {}
    for run in runs:
        sampled = [each.key for each in run.metrics if rules.is_sample(each.key)]
        sums = store.summed(connection, project, run.info.number, sampled)
        found[run.info.id] = rules.cost_of(run, {key: Samples(*each) for key, each in sums.items()})
    return found
