"""Granian as the data plane runs it: one listening socket that outlives its workers, and workers that always come back.

On Linux Granian gives each worker a listening socket of its own. Who waits there is cut off when that worker is killed,
and with no worker left connections are refused. Here the first process holds the socket and the workers share it, as
Granian itself does on other systems: whoever comes while no worker runs waits for the next one.
"""

import signal
import socket
from collections.abc import Sequence
from typing import Any

from granian.net import SocketSpec  # pyright: ignore[reportPrivateImportUsage]  # what Granian itself takes from there
from granian.server.mp import MPServer


class Listening(MPServer):
    """Serve on one socket, shared by all workers.

    What is overridden is Granian's own and not public: `tests/crash/test_soak.py` notices if it changes.
    """

    def _init_shared_socket(self) -> None:
        self._shd = SocketSpec(self.bind_addr, self.bind_port, self.backlog).build()
        self._sfd = self._shd.get_fd()
        self._ssp = None
        self._sso = socket.socket(fileno=self._sfd)
        self._sso.set_inheritable(True)

    def _respawn_workers(self, workers: Sequence[int], *given: Any, **named: Any) -> None:
        """Start workers again; one that somebody killed is not counted as having crashed.

        Granian gives up when a worker dies within seconds of its last start, which is right for one that cannot run.
        """
        killed = [each for each in workers if self.wrks[each].inner.exitcode == -signal.SIGKILL]
        super()._respawn_workers(workers, *given, **named)
        for each in killed:
            self.respawned_wrks.pop(each, None)
