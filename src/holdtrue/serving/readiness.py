"""What a load balancer is told: whether a data plane can answer anything that it should, and what it cannot answer."""

from typing import Any

import orjson

from holdtrue.core.access import Permission
from holdtrue.serving.access import Grant
from holdtrue.serving.table import Table


def readiness(table: Table, unread: str, grant: Grant | None) -> tuple[int, bytes]:
    """Return status and body of `/health/ready`.

    The status is 200 while any service of the snapshot can be answered, or the snapshot has none; 503 if none can
    be, or if there is a snapshot that is not in force (`unread` says why). Which services are not served, and why,
    is told to whoever may ask them: to a token of their project.
    """
    served = len(table.services) > len(table.unserved)
    ready = not unread and (served or not table.unserved)
    found: dict[str, Any] = {"status": ("degraded" if table.unserved else "ok") if ready else "not ready"}
    if grant is not None and Permission.PREDICT in grant.permissions:
        if unread:
            found["why"] = unread
        unserved = [_told(table, *each) for each in sorted(table.unserved) if grant.project in (None, each[0])]
        if unserved:
            found["unserved"] = unserved
    return 200 if ready else 503, orjson.dumps(found)


def _told(table: Table, project: str, name: str) -> dict[str, str]:
    """Return what is told about a service that is not served."""
    releases = table.routes[project, name].releases
    why = " ".join(f"{each}: {table.failed[each]}" for each in releases if each in table.failed)
    return {"project": project, "service": name, "why": why or "None of its releases could be loaded."}
