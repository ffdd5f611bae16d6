"""The gateway's configuration, checked and compiled: replaced as a whole when it changes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from holdtrue.core.canonical import content_hash
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import HoldtrueError
from holdtrue.core.ids import check_name
from holdtrue.llm.gateway.adapters import Adapter, HttpAdapter
from holdtrue.llm.gateway.breaker import Breaker
from holdtrue.llm.gateway.budgets import Limits, limits_of
from holdtrue.llm.gateway.completions import ChatOnly
from holdtrue.llm.gateway.dialects.anthropic import AnthropicDialect
from holdtrue.llm.gateway.dialects.openai import OpenAIDialect
from holdtrue.llm.gateway.keys import check_reference, read_key
from holdtrue.llm.gateway.model import (
    HOUSE,
    BadGatewayConfig,
    Budget,
    Capture,
    GatewayConfig,
    Price,
    ProjectConfig,
    Provider,
    Target,
)
from holdtrue.llm.gateway.upstream import Place, Upstream, place_of

_MOST_KNOWN: Final = 4096
MakeExtractive = Callable[[Provider], Adapter]


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold one provider as it is used: how it is asked, and its circuit breaker."""

    provider: Provider
    adapter: Adapter
    breaker: Breaker
    fingerprint: str

    def price(self, model: str) -> Price | None:
        """Return the price of a model, that of `*` if it has none of its own; the gateway's own is free."""
        prices = self.provider.prices
        free = Price(0) if self.provider.kind == "extractive" else None
        return prices.get(model) or prices.get("*") or free


@dataclass(frozen=True, slots=True)
class ProjectTable:
    """Hold what one project may use: its own providers, and those of the house that it does not replace."""

    entries: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    stopped: str = ""
    capture: Capture = "full"
    bare: Mapping[str, tuple[Target, ...]] = field(default_factory=dict[str, tuple[Target, ...]])

    def find(self, name: str) -> tuple[Target, ...]:
        """Return what a model name can mean: `provider/model`, or the bare name of a model of any provider."""
        provider, _, model = name.partition("/")
        entry = self.entries.get(provider)
        if entry is not None and model in entry.provider.models:
            return (Target(provider, model),)
        return self.bare.get(name, ())


@dataclass(frozen=True, slots=True)
class Table:
    """Hold the tables of all projects, and the budgets that calls count against."""

    house: ProjectTable
    projects: Mapping[str, ProjectTable]
    budgets: Mapping[str, tuple[Budget, ...]]
    known: dict[tuple[str, str], Limits] = field(default_factory=dict[tuple[str, str], Limits], compare=False)

    def of(self, project: str) -> ProjectTable:
        """Return the table of a project; one that has declared nothing has what the house has."""
        return self.projects.get(project) or self.house

    def limits(self, project: str, key: str) -> Limits:
        """Return the budgets that a call counts against."""
        found = self.known.get((project, key))
        if found is None:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            found = self.known[project, key] = limits_of(self.budgets, project, key)
        return found


@dataclass(slots=True)
class Builder:
    """Compile configurations; what has not changed keeps its circuit breaker."""

    home: Path
    upstream: Upstream
    extractive: MakeExtractive
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    breakers: dict[str, Breaker] = field(default_factory=dict[str, Breaker])

    def build(self, data: Mapping[str, Any]) -> Table:
        """Return the table for a configuration's JSON; raise BadGatewayConfig if it contradicts itself."""
        try:
            config = load(GatewayConfig, dict(data), "The gateway's configuration")
            places: list[Place] = []
            built = {
                project: {each.name: self._entry(project, each, places) for each in own.providers}
                for project, own in config.projects.items()
            }
        except HoldtrueError as error:
            raise BadGatewayConfig(error.what, why=error.why, mend=error.mend) from None
        self.upstream.allow(places)
        house = config.projects.get(HOUSE, ProjectConfig())
        shared = built.get(HOUSE, {})
        return Table(
            house=_project(shared, house),
            projects={
                name: _project({**shared, **built[name]}, _inherit(own, house))
                for name, own in config.projects.items()
                if name != HOUSE
            },
            budgets={name: own.budgets for name, own in config.projects.items() if own.budgets},
        )

    def _entry(self, project: str, provider: Provider, places: list[Place]) -> Entry:
        check_name(provider.name, "provider name")
        check_reference(provider.key)
        # Whether it is stopped does not change what it answers.
        fingerprint = content_hash(dump(replace(provider, stopped="")))
        breaker = self.breakers.setdefault(f"{project}/{fingerprint}", Breaker(self.monotonic))
        if provider.kind == "extractive":
            return Entry(provider, ChatOnly(self.extractive(provider)), breaker, fingerprint)
        place = place_of(provider)
        places.append(place)
        chat_only = provider.kind == "anthropic"
        dialect = (
            AnthropicDialect(output_limit=provider.output_limit)
            if chat_only
            else OpenAIDialect(stream_usage=provider.stream_usage)
        )
        adapter = HttpAdapter(
            provider, place, dialect, self.upstream, lambda reference: read_key(reference, self.home), self.now
        )
        return Entry(provider, ChatOnly(adapter) if chat_only else adapter, breaker, fingerprint)


def _project(entries: Mapping[str, Entry], config: ProjectConfig) -> ProjectTable:
    bare: dict[str, tuple[Target, ...]] = {}
    for entry in entries.values():
        for model in entry.provider.models:
            bare[model] = (*bare.get(model, ()), Target(entry.provider.name, model))
    return ProjectTable(entries, config.stopped, config.capture, bare)


def _inherit(own: ProjectConfig, house: ProjectConfig) -> ProjectConfig:
    return replace(own, stopped=own.stopped or house.stopped)
