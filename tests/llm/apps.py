"""Applications in a real data plane process over a fake provider: no control plane, index or evaluation around them."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from holdtrue.core.clock import SystemClock
from holdtrue.core.codec import dump
from holdtrue.llm.gateway import GatewayConfig
from holdtrue.serving import Application, Arm, Route, Snapshot, write_snapshot
from holdtrue.storage import Journal
from holdtrue.testing import FakeProvider
from tests.llm.gateway.conftest import empty_world
from tests.llm.gateway.worlds import KEY, Served, World, only, provider
from tests.serving.plane_home import PROJECT, TOKEN

PROMPT: Mapping[str, Any] = {
    "messages": [
        {"role": "system", "content": "Answer in a {{tone}} tone."},
        {"role": "user", "content": "{{question}}"},
    ],
    "variables": {
        "question": {"source": "user"},
        "tone": {"default": "plain", "required": False},
    },
}


def guard(kind: str, on: str, action: str, **more: Any) -> dict[str, Any]:
    """Return the content of one guard."""
    return {"kind": kind, "on": on, "action": action, **more}


APPLICATIONS: Mapping[str, list[dict[str, Any]]] = {
    "bare": [],
    "masked": [
        guard("secrets", "both", "mask"),
        guard("personal_data", "both", "mask"),
        guard("injection", "input", "block"),
    ],
    "logged": [guard("secrets", "input", "log"), guard("grounding", "output", "log")],
    "stopping": [guard("secrets", "output", "block"), guard("personal_data", "output", "mask")],
    "judged": [guard("grounding", "output", "block")],
    "echo": [guard("secrets", "output", "mask"), guard("personal_data", "output", "mask")],
    "tools": [guard("secrets", "output", "mask"), guard("grounding", "output", "log")],
    "tools_stopping": [guard("secrets", "output", "block")],
}
LOOK_UP: Mapping[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
PROMPTS: Mapping[str, Mapping[str, Any]] = {
    # What a client gives as the tone is said by the user last, so that the provider says it again.
    "echo": {
        "messages": [{"role": "user", "content": "{{question}}"}, {"role": "user", "content": "{{tone}}"}],
        "variables": PROMPT["variables"],
    },
    "tools": {**PROMPT, "tools": [LOOK_UP]},
    "tools_stopping": {**PROMPT, "tools": [LOOK_UP]},
}


def content(name: str, guards: list[dict[str, Any]], model: str = "small", **settings: Any) -> Application:
    """Return a release of an application, which pins what it is made of."""
    parts: dict[str, Any] = {
        "prompt": PROMPTS.get(name, PROMPT),
        "route": {"targets": [{"provider": "fake", "model": model}]},
    }
    if guards:
        parts["guardrails"] = {"name": name, "guards": guards}
    return Application(f"rel_{name}", PROJECT, name, {role: f"{role}_1" for role in parts}, parts, settings)


@dataclass
class Desk(Served):
    """A data plane that answers for applications, and what it leaves behind."""

    def route(self, name: str, **changes: Any) -> Route:
        """Return the route of an application that one release answers."""
        known = Route(PROJECT, name, key=None, entity="user", arms=(Arm("champion", f"rel_{name}", 100.0),), seed="s")
        return replace(known, **changes)

    def serve(self, *applications: Application, routes: Mapping[str, Route] | None = None, **own: Any) -> None:
        """Publish a snapshot with these applications, and wait until it is in force."""
        publish(self.world, self.fake, applications, routes, **own)
        self.plane.until_acked()

    def fresh(self, **own: Any) -> None:
        """Publish all of APPLICATIONS anew."""
        self.serve(*(content(name, guards) for name, guards in APPLICATIONS.items()), **own)

    def kept(self, kind: str, count: int = 1, **wanted: Any) -> list[dict[str, Any]]:
        """Return the records of a kind that have such values, once there are so many."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            journal = Journal(self.world.path / "journal", SystemClock())
            try:
                rows = journal.table(kind, PROJECT).to_pylist()
            finally:
                journal.close()
            found[:] = [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]
            return len(found) >= count

        self.plane.until(there)
        return found

    def everything(self) -> bytes:
        """Return all bytes of the data folder."""
        return b"\n".join(path.read_bytes() for path in self.world.path.rglob("*") if path.is_file())


def publish(
    world: World,
    fake: FakeProvider,
    applications: tuple[Application, ...],
    routes: Mapping[str, Route] | None = None,
    **own: Any,
) -> None:
    """Write the next snapshot: these applications, and the gateway with the fake provider."""
    world.sequence += 1
    # Another timeout makes it another provider, whose circuit breaker knows nothing of failures before.
    asked = provider(fake.url, timeout=20.0 + world.sequence / 1000)
    config = dump(GatewayConfig({PROJECT: only(asked, **own)}))
    arms = {each.service: (Arm("champion", each.release, 100.0),) for each in applications}
    plain = {name: Route(PROJECT, name, key=None, entity="user", arms=arm, seed="s") for name, arm in arms.items()}
    chosen = {**plain, **(routes or {})}
    snapshot = Snapshot(
        world.sequence,
        world.clock.now(),
        services={f"{PROJECT}/{name}": route for name, route in chosen.items()},
        applications={each.release: each for each in applications},
        gateway=config,
    )
    write_snapshot(world.path / "routing" / "current.json", snapshot)


@contextmanager
def open_desk(folder: Path, **variables: str) -> Generator[Desk]:
    """Run a data plane with all of APPLICATIONS over a fake provider."""
    with FakeProvider(key=KEY) as fake:
        world = empty_world(folder / "home")
        applications = tuple(content(name, guards) for name, guards in APPLICATIONS.items())
        publish(world, fake, applications)
        desk = Desk(world, fake, world.start(FAKE_KEY=KEY, **variables))
        desk.plane.until_acked()
        try:
            yield desk
        finally:
            desk.close_clients()
            world.end()


def said_to(fake: FakeProvider) -> list[dict[str, Any]]:
    """Return the messages of the last request that reached the provider."""
    return fake.received[-1].body["messages"]


def checks_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the checks in an answer's record."""
    return orjson.loads(record["checks"])


__all__ = ["APPLICATIONS", "TOKEN", "Desk", "checks_of", "content", "guard", "open_desk", "publish", "said_to"]
