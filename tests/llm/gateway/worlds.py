"""A data folder whose snapshot configures the gateway, and the real data plane process over it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdtrue.core.codec import dump
from holdtrue.llm.gateway import GatewayConfig, ProjectConfig, Provider
from holdtrue.serving import Snapshot, write_snapshot
from tests.serving.plane_home import PROJECT, Home, Process

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
