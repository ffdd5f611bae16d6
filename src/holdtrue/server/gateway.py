"""The LLM side of a data plane worker: gateway, prompts and applications, from start to stop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdtrue.core.clock import Clock
from holdtrue.llm.gateway import Front, Gateway, GatewayFront, PlainModels
from holdtrue.llm.gateway.extractive import Extractive
from holdtrue.llm.names import Names, PromptBook
from holdtrue.llm.telling import Telling
from holdtrue.protocols import anthropic, openai
from holdtrue.protocols.applications import ApplicationAnswering, ApplicationFront, provider_of, streaming_provider_of
from holdtrue.serving import Answering, Application, Endpoint, Fitting, Part, Snapshot
from holdtrue.traces import Capture, Span

PROMPTS = "prompts"


@dataclass(frozen=True, slots=True)
class Inside:
    """Hold what the part is made of."""

    gateway: Gateway
    names: Names
    front: Front
    telling: Telling
    fitting: Fitting
    clock: Clock


class GatewayPart:
    """Let one worker answer for language models, prompts and applications."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self.endpoints: Sequence[Endpoint] = (*openai.endpoints(inside.front), *anthropic.endpoints(inside.front))

    @property
    def projects(self) -> frozenset[str]:
        """Return the projects that have declared something of their own."""
        return frozenset(self._inside.gateway.table.projects).union(self._inside.names.book.prompts)

    def load(self, application: Application) -> Answering | None:
        """Compile what a release pins."""
        # What an application needs is loaded with the first one: embeddings, detectors, JSON Schema.
        from holdtrue.llm.online import build_application, compile_parts

        inside = self._inside
        parts = compile_parts(inside.fitting.blobs, application.parts, application.versions, application.config)
        complete, begin = provider_of(inside.gateway), streaming_provider_of(inside.gateway)

        def keep(project: str, spans: list[Span]) -> None:
            inside.telling.keep(project, spans, Capture(inside.gateway.table.of(project).capture))

        ready = build_application(parts, complete, keep, inside.clock, begin=begin)
        return ApplicationAnswering(ready)

    def configure(self, snapshot: Snapshot) -> None:
        """Take over what a new snapshot says; a HoldtrueError keeps what was before."""
        book = PromptBook.read(snapshot.gateway.get(PROMPTS, {}))
        self._inside.gateway.configure({name: each for name, each in snapshot.gateway.items() if name != PROMPTS})
        self._inside.names.book = book

    async def start(self) -> None:
        """Begin, in the worker's event loop."""
        await self._inside.gateway.start()

    async def close(self) -> None:
        """End: no request comes any more."""
        await self._inside.gateway.close()
        await self._inside.telling.close()


def gateway_part(home: Path, clock: Clock, simulated: Path | None = None) -> Callable[[Fitting], Part]:
    """Return what makes the LLM side of a worker; `simulated` is the file that its clock is read from, if any is."""

    def make(fitting: Fitting) -> GatewayPart:
        extractive = Extractive()
        command = ["-m", "holdtrue.server.telling", "--home", str(home), "--worker", fitting.name]
        telling = Telling(fitting.spans, [*command, *(("--clock", str(simulated)) if simulated else ())])
        gateway = Gateway(home, fitting.name, clock, extractive=lambda _: extractive, observe=telling.call)
        names = Names(PlainModels(gateway))
        front = ApplicationFront(
            fitting.engine.applications, GatewayFront(gateway, names), lambda: int(clock.now().timestamp())
        )
        return GatewayPart(Inside(gateway, names, front, telling, fitting, clock))

    return make
