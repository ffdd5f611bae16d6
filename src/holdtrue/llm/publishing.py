"""What data planes need to know for the gateway, as it goes into the routing snapshot."""

from typing import Any

import sqlalchemy as sa


def gateway_config(connection: sa.Connection) -> dict[str, Any]:
    """Return the gateway's configuration of all projects."""
    return {}
