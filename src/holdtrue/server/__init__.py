"""Composition roots: the three processes, their settings, and the one door that all requests go through.

Names are imported on first use: a command that only calls the API loads neither stores nor rooms.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.server.build import Built, open_app
    from holdtrue.server.client import Client
    from holdtrue.server.model import NewToken
    from holdtrue.server.outbound import OutboundPolicy, send
    from holdtrue.server.settings import Settings, describe, load_settings
    from holdtrue.server.transport import in_process

__all__ = [
    "Built",
    "Client",
    "NewToken",
    "OutboundPolicy",
    "Settings",
    "describe",
    "in_process",
    "load_settings",
    "open_app",
    "send",
]

__getattr__ = attach(
    __name__,
    {
        "Built": "build",
        "Client": "client",
        "NewToken": "model",
        "OutboundPolicy": "outbound",
        "Settings": "settings",
        "describe": "settings",
        "in_process": "transport",
        "load_settings": "settings",
        "open_app": "build",
        "send": "outbound",
    },
)
