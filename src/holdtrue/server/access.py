"""The file by which data planes know tokens: `routing/access.json`, replaced at every change."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import orjson

from holdtrue.core.access import PERMISSIONS, Permission, Role
from holdtrue.core.clock import Clock
from holdtrue.server import store
from holdtrue.server.service import access_table
from holdtrue.storage import Stores, write_atomic

# The data plane does nothing else, so it is told of nothing else.
_DATA_PLANE = frozenset({Permission.PREDICT, Permission.LABELS_WRITE, Permission.EVENTS_WRITE, Permission.TRACES_WRITE})
_GRANTED: Mapping[Role, frozenset[str]] = MappingProxyType(
    {role: frozenset(each.value for each in granted & _DATA_PLANE) for role, granted in PERMISSIONS.items()}
)


def publish_access(stores: Stores, clock: Clock) -> Path:
    """Write the access file for all data planes of this folder and return its path.

    The version is the ledger's length: it grows with each change of a token.
    """
    newest = stores.ledger.events(limit=1, newest_first=True)
    tokens = stores.ledger.read(lambda connection: store.live_tokens(connection, clock.now()))
    table = access_table(tokens, newest[0].seq if newest else 0, _GRANTED)
    path = stores.home / "routing" / "access.json"
    write_atomic(path, orjson.dumps(table, option=orjson.OPT_INDENT_2))
    return path
