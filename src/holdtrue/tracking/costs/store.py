"""SQL of what runs cost."""

from collections.abc import Sequence

import sqlalchemy as sa

from holdtrue.tracking.store import metric_points

_IN_ONE_QUERY = 500


def summed(
    connection: sa.Connection, project: str, run: int, keys: Sequence[str]
) -> dict[str, tuple[int, float, float]]:
    """Return number, mean and greatest of the points of metrics of a run, what is no number left out.

    So is a zero at step 0: who asks psutil for the load of processors is told 0 the first time, which it calls
    meaningless.
    """
    table = metric_points
    mine = (table.c.project == project) & (table.c.run == run) & (table.c.nan == 0)
    columns = table.c.key, sa.func.count(), sa.func.avg(table.c.value), sa.func.max(table.c.value)
    found: dict[str, tuple[int, float, float]] = {}
    for start in range(0, len(keys), _IN_ONE_QUERY):
        query = sa.select(*columns).where(mine, table.c.key.in_(keys[start : start + _IN_ONE_QUERY]))
        query = query.where(sa.or_(table.c.step != 0, table.c.value != 0)).group_by(table.c.key)
        found |= {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query)}
    return found
