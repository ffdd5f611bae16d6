"""Commands of the LLM gateway: providers and budgets."""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from holdtrue.cli.context import AsJson, Home, listing, open_client, show, text_of
from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import check_name
from holdtrue.server.client import Client

providers = typer.Typer(help="Providers of language models, as the gateway calls them.", no_args_is_help=True)
budgets = typer.Typer(help="What keys and projects may spend at providers.", no_args_is_help=True)

Scope = Annotated[str | None, typer.Option("--project", "-p", help="Project (default: every one).")]
Name = Annotated[str, typer.Argument(help="The provider's name.")]
Period = Annotated[str, typer.Option("--period", help="day, month or total; days and months are those of UTC.")]
Key = Annotated[str, typer.Option("--key", help="Id of a token (default: all of the project's).")]
_MILLION = 1_000_000


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    providers.command("add")(provider_add)
    providers.command("list")(provider_list)
    providers.command("remove")(provider_remove)
    providers.command("stop")(provider_stop)
    providers.command("start")(provider_start)
    budgets.command("set")(budget_set)
    budgets.command("list")(budget_list)
    budgets.command("remove")(budget_remove)
    app.add_typer(providers, name="provider")
    app.add_typer(budgets, name="budget")


def provider_add(
    name: Name,
    kind: Annotated[str, typer.Option("--kind", help="openai (any compatible server), anthropic or extractive.")],
    base_url: Annotated[str, typer.Option("--base-url", help="Its address, as in https://api.example.com/v1.")] = "",
    key: Annotated[
        str, typer.Option("--key", help="Where its key is found: env:VARIABLE or file:/PATH. The key is never stored.")
    ] = "",
    models: Annotated[str, typer.Option("--models", help="Its models, with commas between.")] = "",
    price: Annotated[
        list[str] | None,
        typer.Option("--price", help="Per million tokens: MODEL=INPUT/OUTPUT or MODEL=INPUT/OUTPUT/CACHED; again."),
    ] = None,
    fallback: Annotated[
        list[str] | None, typer.Option("--fallback", help="PROVIDER/MODEL to ask if this one cannot; again for more.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Its host name may lead to private addresses.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds until an answer or a stream's first byte.")] = 30,
    retries: Annotated[int, typer.Option("--retries", help="How often to try again where that is safe.")] = 2,
    output_limit: Annotated[
        int, typer.Option("--output-limit", help="Output tokens of a call that names no limit while a budget holds.")
    ] = 4096,
    limit_field: Annotated[
        str, typer.Option("--limit-field", help="The field that says so: max_tokens or max_completion_tokens.")
    ] = "max_tokens",
    cache_seconds: Annotated[
        float, typer.Option("--cache-seconds", help="How long equal deterministic requests share an answer.")
    ] = 0,
    project: Scope = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Declare a provider, or replace the one of that name; it is used within a second."""
    body = {
        "kind": kind,
        "base_url": base_url,
        "key": key,
        "models": _parts(models),
        "prices": dict(_price(each) for each in price or ()),
        "fallbacks": fallback or [],
        "private": private,
        "timeout": timeout,
        "retries": retries,
        "output_limit": output_limit,
        "limit_field": limit_field,
        "cache_seconds": cache_seconds,
    }
    with open_client(home) as client:
        made = _ask(client, "PUT", _provider(name), project, body)
    show(made, as_json, lambda value: typer.echo(f"{value['name']} answers for {', '.join(value['models'])}."))


def provider_list(project: Scope = None, home: Home = None, as_json: AsJson = False) -> None:
    """List providers."""
    with open_client(home) as client:
        found = _ask(client, "GET", "providers", project)["items"]
    columns = {
        "provider": lambda each: each["name"],
        "project": lambda each: each["project"] or "every one",
        "kind": lambda each: each["kind"],
        "address": lambda each: each["base_url"] or None,
        "key": lambda each: each["key"] or None,
        "models": lambda each: ", ".join(each["models"]),
        "stopped": lambda each: each["stopped"] or None,
    }
    listing(found, as_json, columns, empty="No provider yet: holdtrue provider add")


def provider_remove(name: Name, project: Scope = None, home: Home = None) -> None:
    """Remove a provider."""
    with open_client(home) as client:
        _ask(client, "DELETE", _provider(name), project)
    typer.echo(f"Removed {name}.")


def provider_stop(
    name: Annotated[str | None, typer.Argument(help="The provider's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Refuse all calls of the project, or of all.")] = False,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; whoever is refused is told.")] = "stopped by hand",
    project: Scope = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Stop a provider, or all calls, within a second; calls under way are ended."""
    with open_client(home) as client:
        done = _ask(client, "POST", _switched(name, everything, "stop"), project, {"reason": reason})
    show(done, as_json, lambda _: typer.echo(f"Stopped {name or 'all calls'}: {reason}."))


def provider_start(
    name: Annotated[str | None, typer.Argument(help="The provider's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Answer calls again.")] = False,
    project: Scope = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Start a stopped provider, or all calls, again."""
    with open_client(home) as client:
        done = _ask(client, "POST", _switched(name, everything, "start"), project)
    show(done, as_json, lambda _: typer.echo(f"Started {name or 'the gateway'}."))


def budget_set(
    key: Key = "",
    period: Period = "month",
    money: Annotated[str | None, typer.Option("--money", help="Money, in the unit of the prices, as in 12.50.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=0, help="Tokens of input and output.")] = None,
    requests: Annotated[int | None, typer.Option("--requests", min=0, help="Requests.")] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, help="Requests a minute.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", min=1, help="Tokens a minute.")
    ] = None,
    concurrent: Annotated[int | None, typer.Option("--concurrent", min=1, help="Requests at a time.")] = None,
    project: Scope = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Set a budget, in place of the one of its key and period; it counts from then on."""
    body = {
        "key": key,
        "period": period,
        "money": None if money is None else _micros(money),
        "tokens": tokens,
        "requests": requests,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent": concurrent,
    }
    with open_client(home) as client:
        made = _ask(client, "PUT", "budgets", project, body)
    show(made, as_json, lambda _: typer.echo(f"Set the budget per {period} of {key or 'all keys'}."))


def budget_list(project: Scope = None, home: Home = None, as_json: AsJson = False) -> None:
    """List budgets, with what is used of them (about a second old)."""
    with open_client(home) as client:
        found = _ask(client, "GET", "budgets", project)["items"]
    columns = {
        "project": lambda each: each["project"] or "every one",
        "key": lambda each: each["key"] or "all",
        "period": lambda each: each["period"],
        "money": lambda each: _share(each, "money"),
        "tokens": lambda each: _share(each, "tokens"),
        "requests": lambda each: _share(each, "requests"),
        "a minute": lambda each: _minute(each),
        "at a time": lambda each: each["concurrent"],
    }
    listing(found, as_json, columns, empty="No budget yet: holdtrue budget set")


def budget_remove(key: Key = "", period: Period = "month", project: Scope = None, home: Home = None) -> None:
    """Remove a budget."""
    with open_client(home) as client:
        _ask(client, "DELETE", f"budgets/{period}", project, key=key)
    typer.echo(f"Removed the budget per {period} of {key or 'all keys'}.")


def _ask(client: Client, method: str, part: str, project: str | None, body: Any = None, *, key: str = "") -> Any:
    """Send a request to the gateway's routes."""
    query = {"project": project or None, "key": key or None}
    return client.request(method, f"/api/gateway/{part}", body=body, query=query)


def _provider(name: str) -> str:
    return f"providers/{check_name(name, 'provider name')}"


def _switched(name: str | None, everything: bool, action: str) -> str:
    if (name is None) != everything:
        raise InvalidInput("Name a provider, or say --all.")
    return action if name is None else f"{_provider(name)}/{action}"


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _price(text: str) -> tuple[str, dict[str, Any]]:
    model, separator, numbers = text.rpartition("=")
    parts = numbers.split("/")
    if not separator or not 1 <= len(parts) <= 3:
        raise InvalidInput(f"“{text}” is not a price.", mend="Write it like small=0.15/0.60.")
    names = ("input", "output", "cached_input")
    return model, {name: _micros(part) for name, part in zip(names, parts, strict=False)}


def _micros(text: str) -> int:
    """Return an amount of money in micro-units."""
    try:
        value = Decimal(text) * _MILLION
    except InvalidOperation:
        raise InvalidInput(f"“{text}” is not an amount of money.", mend="Write it like 12.50.") from None
    if not value.is_finite() or value < 0 or value != value.to_integral_value():
        raise InvalidInput(f"“{text}” is not an amount of money.", why="It has up to six decimals.")
    return int(value)


def _share(each: Any, what: str) -> str | None:
    """Return “used of limit”, the used alone where nothing limits it."""
    used = (each["used"] or {}).get(what, 0)
    shown, most = (used / _MILLION, each[what]) if what == "money" else (used, each[what])
    if most is not None and what == "money":
        most /= _MILLION
    return f"{shown:g} of {most:g}" if most is not None else f"{shown:g}"


def _minute(each: Any) -> str | None:
    parts = [
        f"{text_of(each[field])} {word}"
        for field, word in (("requests_per_minute", "requests"), ("tokens_per_minute", "tokens"))
        if each[field] is not None
    ]
    return ", ".join(parts) or None
