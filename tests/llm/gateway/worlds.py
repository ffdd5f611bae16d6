"""A data folder whose snapshot configures the gateway, and the real data plane process over it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai

from holdtrue.core.codec import dump
from holdtrue.llm.gateway import GatewayConfig, ProjectConfig, Provider
from holdtrue.serving import Snapshot, write_snapshot
from holdtrue.testing import FakeProvider
from tests.serving.plane_home import PROJECT, TOKEN, Home, Process

KEY = "sk-canary-4f1c9b7e2d"


@dataclass
class World(Home):
    """A home, and the moves of the control plane that a gateway notices."""

    def configure(self, own: ProjectConfig, others: Mapping[str, ProjectConfig] | None = None) -> None:
        """Publish a snapshot with the configuration of the project (and of others)."""
        self.sequence += 1
        config = GatewayConfig({PROJECT: own, **(others or {})})
        snapshot = Snapshot(self.sequence, self.clock.now(), gateway=dump(config))
        write_snapshot(self.path / "routing" / "current.json", snapshot)

    def plane(self, own: ProjectConfig, *arguments: str, **variables: str) -> Process:
        """Start a data plane with this configuration; it knows the providers' key."""
        self.configure(own)
        return self.start(*arguments, **{"FAKE_KEY": KEY, **variables})

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.kill()
        self.clock.close()


@dataclass
class Served:
    """A data plane that runs over a fake provider, and the official clients of both dialects."""

    world: World
    fake: FakeProvider
    plane: Process
    _clients: list[Any] = field(default_factory=list[Any])

    def configure(self, own: ProjectConfig, others: Mapping[str, ProjectConfig] | None = None) -> None:
        """Give it another configuration, and wait until it is in force."""
        self.world.configure(own, others)
        self.plane.until_acked()

    def openai(self, token: str = TOKEN, **changes: Any) -> openai.OpenAI:
        """Return the official client of OpenAI's API; it does not try again by itself."""
        known: dict[str, Any] = {"base_url": f"{self.url}/v1", "max_retries": 0, "timeout": 20, **changes}
        client = openai.OpenAI(api_key=token, **known)
        self._clients.append(client)
        return client

    def anthropic(self, token: str = TOKEN, **changes: Any) -> anthropic.Anthropic:
        """Return the official client of Anthropic's API; it does not try again by itself."""
        known: dict[str, Any] = {"base_url": self.url, "max_retries": 0, "timeout": 20, **changes}
        client = anthropic.Anthropic(api_key=token, **known)
        self._clients.append(client)
        return client

    @property
    def url(self) -> str:
        """Return the address of the data plane."""
        return f"http://127.0.0.1:{self.plane.port}"

    def close_clients(self) -> None:
        """Close the clients of a test."""
        while self._clients:
            self._clients.pop().close()


def provider(url: str, name: str = "fake", **changes: Any) -> Provider:
    """Return a provider in OpenAI's dialect at a fake's address, which tries once."""
    known: dict[str, Any] = {
        "name": name,
        "kind": "openai",
        "base_url": f"{url}/v1",
        "key": "env:FAKE_KEY",
        "models": ("small", "large"),
        "retries": 0,
    }
    return Provider(**{**known, **changes})


def only(*providers: Provider, **changes: Any) -> ProjectConfig:
    """Return a project's configuration with these providers."""
    return ProjectConfig(providers=providers, **changes)
