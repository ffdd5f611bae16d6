"""Use cases of the gateway's control side: declare, stop and start providers, set budgets, publish all of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from holdtrue.core.actor import Actor
from holdtrue.core.codec import dump
from holdtrue.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from holdtrue.core.ids import check_name
from holdtrue.llm import store
from holdtrue.llm.gateway import HOUSE, Budget, Capture, GatewayConfig, Kind, Period, Price, ProjectConfig, Provider
from holdtrue.llm.gateway.budgets import read_standings
from holdtrue.llm.gateway.extractive import MODELS
from holdtrue.llm.gateway.keys import check_reference
from holdtrue.llm.gateway.model import LimitField
from holdtrue.llm.gateway.upstream import place_of
from holdtrue.storage.ledger import Transaction

_SECONDS: Final = 600.0
_MOST_MODELS: Final = 500
_MODEL_SIGNS: Final = 200


class ForeignKey(Conflict):
    """A key is bound to another host than the one it would be sent to."""

    code = "key_of_another_host"


@dataclass(frozen=True, slots=True)
class NewProvider:
    """Describe a provider: everything of `Provider` but its name, and whether it is stopped."""

    kind: Kind
    base_url: str = ""
    key: str = ""
    models: tuple[str, ...] = ()
    prices: Mapping[str, Price] | None = None
    private: bool = False
    timeout: float = 30.0
    idle: float = 60.0
    retries: int = 2
    output_limit: int = 4096
    limit_field: LimitField = "max_tokens"
    stream_usage: bool = True
    cache_seconds: float = 0.0
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scoped:
    """Hold something of the gateway with the project that declared it ("": the house)."""

    project: str
    value: Any


def put_provider(tx: Transaction, name: str, wish: NewProvider) -> Provider:
    """Declare a provider, or replace the one of that name; it stays stopped if it was.

    Only an administrator of the whole server may say where calls, and keys, go: Forbidden for others unless
    the provider answers within this server. Raises InvalidInput, ConfigurationError, and ForeignKey for a key
    that is bound to another host.
    """
    check_name(name, "provider name")
    before = store.provider(tx.connection, tx.project, name)
    made = Provider(
        name=name,
        kind=wish.kind,
        base_url=wish.base_url.strip(),
        key=check_reference(wish.key.strip()),
        models=wish.models or (MODELS if wish.kind == "extractive" else ()),
        prices=dict(wish.prices or {}),
        private=wish.private,
        timeout=wish.timeout,
        idle=wish.idle,
        retries=wish.retries,
        output_limit=wish.output_limit,
        limit_field=wish.limit_field,
        stream_usage=wish.stream_usage,
        cache_seconds=wish.cache_seconds,
        fallbacks=wish.fallbacks,
        stopped="" if before is None else before.stopped,
    )
    _check_provider(made)
    if made.kind != "extractive":
        _check_way_out(tx, made)
    store.put_provider(tx, made)
    tx.emit("provider.declared", f"provider:{name}", dump(made), before=_digested(before), after=_digested(made))
    return made


def remove_provider(tx: Transaction, name: str) -> None:
    """Remove a provider; raise NotFound."""
    before = need_provider(tx.connection, tx.project, name)
    store.remove_provider(tx, name)
    tx.emit("provider.removed", f"provider:{name}", before=_digested(before))


def switch_provider(tx: Transaction, name: str, stopped: str) -> Provider:
    """Stop a provider for the reason `stopped`, or ("") start it again; raise NotFound."""
    before = need_provider(tx.connection, tx.project, name)
    made = replace(before, stopped=stopped)
    store.put_provider(tx, made)
    action = "provider.stopped" if stopped else "provider.started"
    tx.emit(action, f"provider:{name}", before=_digested(before), after=_digested(made), reason=stopped)
    return made


def switch_gateway(tx: Transaction, stopped: str) -> None:
    """Refuse all calls of the project (or of the house) for the reason `stopped`, or ("") answer them again."""
    _, capture = store.all_switches(tx.connection).get(tx.project, ("", "full"))
    store.put_switches(tx, stopped, capture)
    tx.emit("gateway.stopped" if stopped else "gateway.started", "gateway", reason=stopped)


def set_capture(tx: Transaction, capture: Capture) -> None:
    """Say what is kept of the content of calls: nothing, masked text, or all."""
    stopped, _ = store.all_switches(tx.connection).get(tx.project, ("", "full"))
    store.put_switches(tx, stopped, capture)
    tx.emit("gateway.capture_set", "gateway", {"capture": capture})


def set_budget(tx: Transaction, budget: Budget) -> Budget:
    """Set a budget, in place of the one of its key and period; raise InvalidInput."""
    limits = {name: getattr(budget, name) for name in _LIMITS}
    if all(value is None for value in limits.values()):
        raise InvalidInput("A budget limits something.", mend=f"Give one of {', '.join(_LIMITS)}.")
    for name, value in limits.items():
        if value is not None and not 0 <= value < 2**53:
            raise InvalidInput(f"The limit {name} must be a whole number that is not negative.")
    if budget.key:
        check_name(budget.key, "token id")
    store.put_budget(tx, budget)
    tx.emit("budget.set", f"budget:{budget.key}/{budget.period.value}", dump(budget))
    return budget


def remove_budget(tx: Transaction, key: str, period: Period) -> None:
    """Remove a budget; raise NotFound."""
    if not store.remove_budget(tx, key, period):
        raise NotFound.of("budget", f"{key or 'all keys'} per {period.value}")
    tx.emit("budget.removed", f"budget:{key}/{period.value}")


def need_provider(connection: sa.Connection, project: str, name: str) -> Provider:
    """Return a provider that the project has declared itself; raise NotFound."""
    found = store.provider(connection, project, name)
    if found is None:
        raise NotFound.of("provider", name)
    return found


def providers(connection: sa.Connection, project: str) -> list[Scoped]:
    """Return what `project` may use, the house's included; for the house, the providers of all projects."""
    return [
        Scoped(owner, each)
        for owner, each in store.all_providers(connection)
        if project == HOUSE or owner in (HOUSE, project)
    ]


def budgets(connection: sa.Connection, project: str, home: Path) -> list[dict[str, Any]]:
    """Return budgets with what is used of them in the present period, about a second old."""
    used = {(each.project, each.key, each.period): each for each in read_standings(home / "gateway" / "budgets")}
    found: list[dict[str, Any]] = []
    for owner, budget in store.all_budgets(connection):
        if project not in (HOUSE, owner):
            continue
        standing = used.get((owner, budget.key, budget.period))
        found.append(
            {
                "project": owner,
                **dump(budget),
                "used": None if standing is None else dump(standing.used),
                "reserved": None if standing is None else dump(standing.reserved),
                "since": None if standing is None else standing.since,
            }
        )
    return found


def switches(connection: sa.Connection, project: str) -> dict[str, Any]:
    """Return why all calls are refused, if so, and what is kept of their content."""
    stopped, capture = store.all_switches(connection).get(project, ("", "full"))
    return {"stopped": stopped or None, "capture": capture}


def gateway_config(connection: sa.Connection) -> dict[str, Any]:
    """Return the gateway's configuration of all projects, as the routing snapshot carries it; {} for none."""
    parts: dict[str, dict[str, Any]] = {}
    for owner, provider in store.all_providers(connection):
        parts.setdefault(owner, {}).setdefault("providers", []).append(provider)
    for owner, budget in store.all_budgets(connection):
        parts.setdefault(owner, {}).setdefault("budgets", []).append(budget)
    for owner, (stopped, capture) in store.all_switches(connection).items():
        parts.setdefault(owner, {}).update(stopped=stopped, capture=capture)
    if not parts:
        return {}
    config = {
        owner: ProjectConfig(
            providers=tuple(each.get("providers", ())),
            budgets=tuple(each.get("budgets", ())),
            stopped=each.get("stopped", ""),
            capture=each.get("capture", "full"),
        )
        for owner, each in sorted(parts.items())
    }
    return dump(GatewayConfig(config))


_LIMITS: Final = ("money", "tokens", "requests", "requests_per_minute", "tokens_per_minute", "concurrent")


def _check_provider(made: Provider) -> None:
    """Raise InvalidInput for values that no provider can have."""
    if not made.models:
        raise InvalidInput("A provider has models.", mend="Name them: --models small,large")
    if len(made.models) > _MOST_MODELS or len(set(made.models)) != len(made.models):
        raise InvalidInput(f"A provider has up to {_MOST_MODELS} models, each once.")
    for model in made.models:
        if not 0 < len(model) <= _MODEL_SIGNS or not model.isprintable() or model != model.strip():
            raise InvalidInput(f"{model[:80]!r} cannot be a model's name.")
    bounds = (
        ("timeout", 0 < made.timeout <= _SECONDS),
        ("idle", 0 < made.idle <= _SECONDS),
        ("retries", 0 <= made.retries <= 5),
        ("output_limit", 1 <= made.output_limit <= 1_000_000),
        ("cache_seconds", 0 <= made.cache_seconds <= 30 * 86_400),
        ("prices", all(_is_price(price) for price in made.prices.values())),
        ("prices", set(made.prices) <= {*made.models, "*"}),
        ("fallbacks", all("/" in each and len(each) <= 2 * _MODEL_SIGNS for each in made.fallbacks)),
    )
    for name, holds in bounds:
        if not holds:
            raise InvalidInput(f"The setting {name} of the provider has a value that cannot be used.")


def _is_price(price: Price) -> bool:
    return all(0 <= each < 2**40 for each in (price.input, price.output, price.cached_input or 0))


def _check_way_out(tx: Transaction, made: Provider) -> None:
    if tx.context.actor.project is not None:
        raise Forbidden(
            "Only an administrator of the whole server may say where the gateway calls.",
            why="An address in this machine's network, or another project's key, could be named.",
            mend="Ask whoever runs `holdtrue up` for it: holdtrue provider add",
        )
    place = place_of(made)
    for owner, each in store.all_providers(tx.connection):
        if made.key and each.key == made.key and place_of(each).host != place.host:
            raise ForeignKey(
                f"The key {made.key} belongs to the host {place_of(each).host}.",
                why=f"The provider {each.name} of {owner or 'the house'} uses it; a key goes to one host only.",
                mend="Give this provider a key of its own, or remove the other one first.",
            )


def _digested(provider: Provider | None) -> Any:
    return None if provider is None else dump(provider)


def may_see_keys(actor: Actor) -> bool:
    """Tell whether somebody may see where keys are found: who may say so."""
    return actor.project is None
