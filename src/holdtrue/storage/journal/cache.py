"""The sealed tables read last, within a bound of memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


class TableCache:
    """Keep tables of immutable files by (path, columns), the least recently used leaving first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._tables: OrderedDict[tuple[str, frozenset[str] | None], pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: "tuple[str, frozenset[str] | None]", read: "Callable[[], pa.Table]") -> "pa.Table":
        """Return the table of `key`, read if it is not kept."""
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
                return table
        table = read()
        # One table may not push out all others.
        if table.nbytes * 8 <= self._limit:
            with self._lock:
                if key not in self._tables:
                    self._tables[key] = table
                    self._size += table.nbytes
                while self._size > self._limit:
                    self._size -= self._tables.popitem(last=False)[1].nbytes
        return table

    def clear(self) -> None:
        """Forget all tables."""
        with self._lock:
            self._tables.clear()
            self._size = 0
