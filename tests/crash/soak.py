"""Load at a running `holdtrue up` while its processes are killed, by clients that know which request was where.

A worker is stopped before it is killed and looked at for its connections (/proc), so that it is certain whose requests
it had. Each connection has one request at a time and ends with its first failure: so at most the one request fails that
was in flight on a connection of the killed worker. Any other request must be answered.
"""

import asyncio
import json
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdtrue.core.clock import SystemClock

CONTROL, PLANE, WORKER = "holdtrue.server.control", "holdtrue.server.dataplane", "holdtrue.server.worker"
_ESTABLISHED = "01"


@dataclass
class Attempt:
    """What became of one request: over which connection it went, and the ids it was answered with, or its failure."""

    key: str
    connection: int
    ids: Sequence[str] = ()
    failure: str = ""


@dataclass
class Soak:
    """A load over some connections, and what it found."""

    port: int
    token: str
    project: str
    service: str
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    open: dict[int, int] = field(default_factory=dict[int, int])
    dead: set[int] = field(default_factory=set[int])
    kills: Counter[str] = field(default_factory=Counter[str])
    stopping: bool = False
    count: int = 0
    connections: int = 0

    async def client(self, number: int) -> None:
        """Ask one question after the other over a connection, and open another one when it ends."""
        while not self.stopping:
            # Known by its port before a worker can accept it.
            mine = socket.socket()
            mine.bind(("127.0.0.1", 0))
            mine.setblocking(False)
            self.connections += 1
            connection, port = self.connections, mine.getsockname()[1]
            self.open[port] = connection
            try:
                await asyncio.get_running_loop().sock_connect(mine, ("127.0.0.1", self.port))
            except OSError as error:
                self.attempts.append(Attempt(f"connection {connection}", connection, failure=repr(error)))
                self.open.pop(port, None)
                mine.close()
                await asyncio.sleep(0.1)
                continue
            reader, writer = await asyncio.open_connection(sock=mine)
            try:
                while not self.stopping and not reader.at_eof():
                    if (await self._ask(reader, writer, connection, number)).failure:
                        break
            finally:
                # A port whose connection the server cut off may be another client's by now.
                if self.open.get(port) == connection:
                    del self.open[port]
                writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, number: int
    ) -> Attempt:
        self.count += 1
        key = f"soak-{number:02d}-{self.count:08d}"
        attempt = Attempt(key, connection)
        try:
            writer.write(self._request(key))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            if head[9:12] == b"200":
                attempt.ids = json.loads(body)["parameters"]["prediction_ids"]
            else:
                attempt.failure = f"{head[9:12].decode()}: {body[:200].decode(errors='replace')}"
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            attempt.failure = repr(error)
        self.attempts.append(attempt)
        return attempt

    def _request(self, key: str) -> bytes:
        tensors = [
            {"name": "id", "datatype": "BYTES", "shape": [1], "data": [key]},
            {"name": "asked_at", "datatype": "INT64", "shape": [1], "data": [1_900_000_000_000_000]},
            {"name": "amount", "datatype": "FP64", "shape": [1], "data": [0.5]},
        ]
        body = json.dumps({"inputs": tensors}).encode()
        lines = [
            f"POST /v2/models/{self.service}/infer HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self.token}",
            f"X-Holdtrue-Project: {self.project}",
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def kill(self, pid: int, kind: str) -> None:
        """Kill a process with SIGKILL; note the connections that were its own at that moment."""
        os.kill(pid, signal.SIGSTOP)
        self.dead.update(self.open[port] for port in connections_of(pid, self.port) if port in self.open)
        os.kill(pid, signal.SIGKILL)
        self.kills[kind] += 1

    def unexplained(self) -> list[Attempt]:
        """Return requests that failed although no killed process held their connection."""
        return [each for each in self.attempts if each.failure and each.connection not in self.dead]

    def answered(self) -> set[str]:
        """Return the ids of all predictions that were answered."""
        return {name for each in self.attempts for name in each.ids}


def children(pid: int) -> dict[int, str]:
    """Return the processes that a process has started, with their command lines."""
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            # The name in parentheses may hold anything; the second field after it is the parent (proc(5)).
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError):
            continue
    return found


def processes(up: int) -> Mapping[str, list[int]]:
    """Return the control plane and the data plane's workers under a running `up`."""
    found: dict[str, list[int]] = {CONTROL: [], PLANE: []}
    for pid, command in children(up).items():
        if CONTROL in command:
            found[CONTROL].append(pid)
        if PLANE in command:
            found[PLANE] += children(pid)
    return found


def connections_of(pid: int, port: int) -> list[int]:
    """Return the clients' ports of a process's connections at its own `port`."""
    inodes: set[str] = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = path.readlink().name
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    found: list[int] = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, state, inode = fields[1], fields[2], fields[3], fields[9]
        if state == _ESTABLISHED and inode in inodes and int(local.partition(":")[2], 16) == port:
            found.append(int(remote.partition(":")[2], 16))
    return found


async def soak(load: Soak, up: int, *, seconds: float, clients: int, seed: int) -> None:
    """Drive load for some seconds, and kill a worker or the control plane again and again at random moments."""
    moments = random.Random(seed)
    clock = SystemClock().monotonic
    until = clock() + seconds
    running = [asyncio.create_task(load.client(number)) for number in range(clients)]
    while clock() < until:
        # No event to wait for here: the point is that the moment is arbitrary.
        await asyncio.sleep(moments.uniform(0.3, 2.0))
        present = processes(up)
        kind = CONTROL if moments.random() < 0.3 else PLANE
        if present[kind]:
            load.kill(moments.choice(present[kind]), kind)
    load.stopping = True
    await asyncio.wait_for(asyncio.gather(*running), 60)
