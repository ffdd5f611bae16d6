"""What model names stand for, and the front that the wire protocols talk to."""

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.gateway.asking import missing
from holdtrue.llm.gateway.gateway import Gateway
from holdtrue.llm.gateway.model import (
    Body,
    Caller,
    ChunkStream,
    Completion,
    Operation,
    Resolved,
    Resolver,
    Route,
    Target,
)
from holdtrue.llm.gateway.table import ProjectTable


class PlainModels:
    """Know the models of providers: `provider/model`, or a bare name that only one provider offers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._table = gateway.table
        self._known: dict[tuple[str, str], Route] = {}

    async def resolve(self, caller: Caller, name: str, body: Body) -> Resolved:
        """Return the model's own route: its provider, then the provider's fallbacks."""
        table = self._gateway.table
        if table is not self._table:
            self._table, self._known = table, {}
        route = self._known.get((caller.project, name))
        if route is None:
            # Only names that there are get this far, so the dictionary is as small as the configuration.
            route = self._known[caller.project, name] = route_to(table.of(caller.project), name)
        return Resolved(route, body)

    def models(self, project: str) -> list[str]:
        """Return `provider/model` of every model, in order."""
        entries = self._gateway.table.of(project).entries
        return [Target(each.provider.name, model).label for each in entries.values() for model in each.provider.models]


def route_to(table: ProjectTable, name: str) -> Route:
    """Return the route of a plain model name; raise ModelNotFound, or InvalidInput for one that means several."""
    targets = table.find(name)
    if not targets:
        raise missing(name)
    first, *others = targets
    if others:
        raise InvalidInput(
            f"Several providers have the model “{name[:100]}”.",
            mend=f"Name one: {', '.join(target.label for target in targets)}",
            facts={"param": "model"},
        )
    provider = table.entries[first.provider].provider
    fallbacks = [table.find(fallback) for fallback in provider.fallbacks]
    return Route(
        targets=tuple(dict.fromkeys([first, *(target for found in fallbacks for target in found)])),
        timeout=provider.timeout,
        retries=provider.retries,
        cache_seconds=provider.cache_seconds,
    )


class GatewayFront:
    """Answer requests by the name of their model."""

    def __init__(self, gateway: Gateway, resolver: Resolver | None = None) -> None:
        """`resolver` knows the names; plain models alone by default."""
        self._gateway = gateway
        self._resolver: Resolver = resolver or PlainModels(gateway)

    async def complete(
        self, caller: Caller, operation: Operation, body: Body, native: Body | None = None
    ) -> Completion:
        """Answer a request whole; `native` is what the client sent, if it speaks Anthropic's dialect."""
        name, resolved = await self._resolved(caller, body)
        own = native if resolved.body is body else None
        return await self._gateway.complete(caller, resolved.route, resolved.body, operation, asked=name, native=own)

    async def stream(self, caller: Caller, operation: Operation, body: Body, native: Body | None = None) -> ChunkStream:
        """Begin to answer a request in pieces."""
        name, resolved = await self._resolved(caller, body)
        own = native if resolved.body is body else None
        return await self._gateway.stream(caller, resolved.route, resolved.body, operation, asked=name, native=own)

    def models(self, project: str) -> list[str]:
        """Return the names of what can be asked for in a project."""
        return self._resolver.models(project)

    async def _resolved(self, caller: Caller, body: Body) -> tuple[str, Resolved]:
        name = body.get("model")
        if type(name) is not str or not name:
            raise InvalidInput("The field model is missing.", facts={"param": "model"})
        return name, await self._resolver.resolve(caller, name, body)
