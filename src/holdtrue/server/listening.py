"""Granian as the data plane runs it: one listening socket that outlives its workers, and workers that always come back.

On Linux Granian gives each worker a listening socket of its own. Who waits there is cut off when that worker is killed,
and with no worker left connections are refused. Here the first process holds the socket and the workers share it, as
Granian itself does on other systems: whoever comes while no worker runs waits for the next one.
"""

import socket
import time
from collections import deque
from typing import Any, Final

from granian import Granian
from granian.net import SocketSpec

_DEATHS: Final = 20
_WITHIN: Final = 30.0


class Listening(Granian):
    """Serve on one socket, shared by all workers."""

    def __init__(self, target: str, **settings: Any) -> None:
        super().__init__(target, **settings)
        self.respawned_wrks = _Deaths()

    def _init_shared_socket(self) -> None:
        # The name and the three values are Granian's own; `tests/crash/test_soak.py` notices if they change.
        self._shd = SocketSpec(self.bind_addr, self.bind_port, self.backlog).build()
        self._sfd = self._shd.get_fd()
        self._ssp = None
        self._sso = socket.socket(fileno=self._sfd)
        self._sso.set_inheritable(True)


class _Deaths(dict[int, float]):
    """Tell Granian when a worker was started again last, but only if workers die so often that nothing can help.

    Granian gives up when a worker dies within seconds of its start; one that was killed twice is no loop of crashes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._times: deque[float] = deque(maxlen=_DEATHS)

    def __setitem__(self, worker: int, moment: float) -> None:
        self._times.append(moment)
        super().__setitem__(worker, moment)

    def get(self, worker: int, default: Any = None) -> Any:
        many = len(self._times) == _DEATHS and time.monotonic() - self._times[0] < _WITHIN
        return super().get(worker, default) if many else default
