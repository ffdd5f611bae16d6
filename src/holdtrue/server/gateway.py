"""The LLM gateway as a part of a data plane worker: its endpoints, its configuration, its beginning and end."""

from collections.abc import Callable, Sequence
from pathlib import Path

from holdtrue.core.clock import Clock
from holdtrue.llm.gateway import Front, Gateway, GatewayFront
from holdtrue.llm.gateway.extractive import Extractive
from holdtrue.llm.gateway.gateway import Observe
from holdtrue.protocols import anthropic, openai
from holdtrue.serving import Answering, Application, Endpoint, Fitting, Part, Snapshot


class GatewayPart:
    """Let one worker answer for language models."""

    def __init__(self, gateway: Gateway, front: Front) -> None:
        self._gateway = gateway
        self.endpoints: Sequence[Endpoint] = (*openai.endpoints(front), *anthropic.endpoints(front))

    @property
    def projects(self) -> frozenset[str]:
        """Return the projects that have declared something of their own."""
        return frozenset(self._gateway.table.projects)

    def load(self, application: Application) -> Answering | None:
        """Leave applications to whoever runs them."""
        return None

    def configure(self, snapshot: Snapshot) -> None:
        """Take over what a new snapshot says; a HoldtrueError keeps what was before."""
        self._gateway.configure(snapshot.gateway)

    async def start(self) -> None:
        """Begin, in the worker's event loop."""
        await self._gateway.start()

    async def close(self) -> None:
        """End: no request comes any more."""
        await self._gateway.close()


def gateway_part(home: Path, clock: Clock, observe: Observe | None = None) -> Callable[[Fitting], Part]:
    """Return what makes the gateway of a worker, given the worker's name."""

    def make(fitting: Fitting) -> GatewayPart:
        extractive = Extractive()
        gateway = Gateway(home, fitting.name, clock, extractive=lambda _: extractive, observe=observe)
        return GatewayPart(gateway, GatewayFront(gateway))

    return make
