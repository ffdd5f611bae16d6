"""Commands about how releases reach production: `rollout simulate`, `rollout report`, `dora`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.context import (
    AsJson,
    File,
    Home,
    ProjectName,
    base,
    listing,
    open_client,
    project_file_here,
    project_name,
    show,
)
from holdtrue.cli.decide import Environment, told_estimate
from holdtrue.core.errors import ConfigurationError, InvalidInput, NotFound

if TYPE_CHECKING:
    from holdtrue.delivery import Canary, Scenario, ServiceSpec

_NEWEST = "newest"
_NONE_BY_BOTH = "No row was scored by both releases yet; in A/B tests and bandits none is: see `holdtrue status`."


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(no_args_is_help=True, help="Rollouts: before they begin, and what they show.")
    group.command()(simulate)
    group.command()(report)
    group.command()(estimate)
    app.add_typer(group, name="rollout")
    app.command()(dora)


def simulate(
    service: Annotated[str | None, typer.Argument(help="Service (default: the only one).")] = None,
    effects: Annotated[
        list[float] | None,
        typer.Option("--effect", help="How much worse the release is; again for more (default: 0, 2 and 5 margins)."),
    ] = None,
    base_rate: Annotated[float, typer.Option("--base", help="Mean loss of the champion, such as its errors.")] = 0.2,
    swing: Annotated[float, typer.Option("--swing", help="How far the base rate moves with the hour.")] = 0.0,
    requests: Annotated[int, typer.Option("--requests", help="Requests until a rollout counts as undecided.")] = 50_000,
    per_day: Annotated[float | None, typer.Option("--per-day", help="Requests a day (default: 10,000).")] = None,
    label_delay: Annotated[float | None, typer.Option("--label-delay", help="Hours until a label comes.")] = None,
    shared: Annotated[float, typer.Option("--shared", help="Share of rows that both releases decide alike.")] = 0.0,
    per_user: Annotated[float, typer.Option("--per-user", help="Requests of one user.")] = 5.0,
    spread: Annotated[float, typer.Option("--spread", help="Standard deviation of the rate between users.")] = 0.0,
    look_hours: Annotated[float, typer.Option("--look-hours", help="Hours between two judgements.")] = 1.0,
    history: Annotated[
        str | None,
        typer.Option("--history", help=f"Play recorded losses of a rollout: its id, or “{_NEWEST}”."),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, max=100_000, help="Rollouts to play for each effect.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed plays the same rollouts.")] = 0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes (default: the cores).")] = None,
    file: File = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Play a planned rollout many times, with the rules of production, and tell how often it ends in which way.

    The plan is that of the project file, or else the one that is applied.
    """
    from holdtrue import delivery

    spec, recorded = _plan(service, file, home, project, history)
    delivery.check_service(spec)
    if recorded is not None and spec.rollout.metric != "brier":
        raise ConfigurationError(
            f"The rollout of “{spec.name}” is judged by each arm's own answers, of which no pairs are recorded.",
            mend="Play synthetic effects instead: leave --history out.",
        )
    scenario = delivery.Scenario(
        base=base_rate,
        swing=swing,
        requests=requests,
        per_day=_first(per_day, recorded and recorded["per_day"], 10_000.0),
        label_delay_hours=_first(label_delay, recorded and recorded["label_delay_hours"], 0.0),
        shared=shared,
        requests_per_user=per_user,
        spread=spread,
        look_hours=look_hours,
        losses=tuple(tuple(day) for day in recorded["days"].values()) if recorded else (),
    )
    found = _simulated(spec.rollout, scenario, effects, runs, seed, workers or os.cpu_count() or 1)
    show({**_told(spec, scenario, recorded), "seed": seed, "simulations": found}, as_json, _print)


def _told(spec: "ServiceSpec", scenario: "Scenario", recorded: Any) -> dict[str, Any]:
    return {
        "service": spec.name,
        "steps": list(spec.rollout.steps),
        "margin": spec.rollout.margin,
        "metric": spec.rollout.metric,
        "per_day": scenario.per_day,
        "requests": scenario.requests,
        "history": recorded and {key: value for key, value in recorded.items() if key != "days"},
    }


def estimate(
    service: Annotated[str, typer.Argument(help="Service.")],
    environment: Environment = "production",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Say about how long a rollout of an equal release would take at the present traffic, before it begins."""
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/services/{service}/estimate"
        found = client.get(path, environment=environment)
    show(found, as_json, lambda value: typer.echo(told_estimate(value)))


def report(
    rollout: Annotated[str, typer.Argument(help=f"Rollout id, rol_…, or “{_NEWEST}”.")] = _NEWEST,
    service: Annotated[str | None, typer.Option("--service", help="Whose newest rollout (default: of all).")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Show how a rollout's two releases answer the same rows differently: on the whole, by slice, in time taken."""
    with open_client(home) as client:
        name = project_name(client, project)
        chosen = _newest(client, name, service) if rollout == _NEWEST else {"id": rollout}
        if service is not None and chosen.get("service") is None:
            raise InvalidInput(
                "Either a rollout is named, or the service whose newest one is meant.",
                mend=f"Leave --service out, or ask for “{_NEWEST}” in place of the id.",
            )
        found = client.get(f"{base(name)}/rollouts/{chosen['id']}/differences")
    if as_json:
        show(found, as_json, lambda _: None)
        return
    if rollout == _NEWEST:
        typer.echo(f"{chosen['id']} of {chosen['service']}: {chosen['challenger']} against {chosen['champion']}")
    columns = {
        "slice": lambda each: f"{each['input']} = {each['value']}" if each["input"] else "all rows",
        "rows": lambda each: each["rows"],
        "score moved": lambda each: f"{each['moved']:+.4f}",
        "apart": lambda each: f"{each['apart']:.4f}",
        "other side of ½": lambda each: f"{each['changed']:.1%}",
        "labelled": lambda each: each["labelled"],
        "Brier difference": lambda each: _difference(each),
        "": lambda each: "worse" if each["worse"] else "",
    }
    rows = [found["whole"], *found["slices"]] if found["whole"] else []
    listing(rows, as_json, columns, empty=_NONE_BY_BOTH)
    if found["psi"] is not None:
        typer.echo(f"Spread of scores: PSI {found['psi']:.4f}, Kolmogorov-Smirnov {found['kolmogorov_smirnov']:.4f}")
    for arm, times in found["times"].items():
        if "n" in times:
            told = f"p50 {times['p50']:.1f} ms, p99 {times['p99']:.1f} ms, {times['n']:,} answers"
            typer.echo(f"Time of the {arm}: {told}")
        if "model_n" in times:
            told = f"p50 {times['model_p50']:.2f} ms, p99 {times['model_p99']:.2f} ms, {times['model_n']:,} rows"
            typer.echo(f"Time of the {arm}'s features and model: {told}")


def _difference(each: Any) -> str:
    if each["brier"] is None:
        return "–"
    limits = "" if each["lower"] is None else f" ({each['lower']:+.4f} to {each['upper']:+.4f})"
    return f"{each['brier']:+.4f}{limits}"


def dora(
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="How far back.")] = 90,
    service: Annotated[str | None, typer.Option("--service", "-s", help="Service (default: all).")] = None,
    environment: Annotated[str, typer.Option("--environment", "-e", help="Environment.")] = "production",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Measure how changes reach production: lead time, frequency, failures, recovery, rework, by kind of change."""
    query = {"days": days, "environment": environment, **({} if service is None else {"service": service})}
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/dora", **query)
    if as_json:
        show(found, as_json, lambda _: None)
        return
    columns = {
        "change of": lambda each: each["kind"],
        "deployments": lambda each: each["deployments"],
        "a week": lambda each: f"{each['per_week']:.2f}",
        "lead time": lambda each: _hours(each["lead_hours"]),
        "failed": lambda each: _rate(each["failed"], each["attempts"], each["fail_rate"]),
        "recovery": lambda each: _hours(each["recovery_hours"]),
        "rework": lambda each: _rate(each["rework"], each["deployments"], each["rework_rate"]),
    }
    items = [each for each in found["items"] if each["attempts"]]
    listing(items, as_json, columns, empty=f"Nothing reached {environment} in the last {days} days.")


def _hours(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 24:.1f} days" if value >= 48 else f"{value:.1f} h" if value >= 1 else f"{value * 60:.0f} min"


def _rate(count: int, of: int, rate: Any) -> str:
    if of == 0:
        return "–"
    return f"{count} of {of} ({rate['lower']:.0%} to {rate['upper']:.0%})"


def _first(*values: Any) -> float:
    return next(float(each) for each in values if each is not None)


def _simulated(
    canary: "Canary", scenario: "Scenario", effects: list[float] | None, runs: int, seed: int, workers: int
) -> list[Any]:
    from dataclasses import replace

    from holdtrue import delivery

    unit = canary.margin or canary.worth
    better = [-2 * unit] if canary.metric == "feedback" else []
    wanted = effects or [0.0, 2 * unit, 5 * unit, *better]
    if canary.strategy == "shadow":
        # What a shadow shows ends it either way; a blue-green plan with the same settings says which way it was.
        canary = replace(canary, strategy="blue_green")
    scenarios = [replace(scenario, effect=each) for each in wanted]
    for each in scenarios:
        # One that cannot be played is refused before minutes go into the others.
        delivery.check_scenario(each)
    return [delivery.simulate(canary, each, runs, seed, workers=workers).to_json() for each in scenarios]


def _plan(
    service: str | None, file: Path | None, home: Path | None, project: str | None, history: str | None
) -> tuple["ServiceSpec", Any]:
    """Return the service's plan from the project file or the server, and recorded losses if they are asked for."""
    from holdtrue.core.codec import load
    from holdtrue.delivery import ServiceSpec
    from holdtrue.project import load_project

    chosen = project_file_here(file)
    if chosen is not None:
        declared = load_project(chosen)
        spec = _one(declared.spec().services, service)
        if history is None:
            return spec, None
        with open_client(home) as client:
            return spec, _recorded(client, project or declared.name, spec.name, history)
    with open_client(home) as client:
        name = project_name(client, project)
        listed = [load(ServiceSpec, each["spec"]) for each in client.get(f"{base(name)}/services")["items"]]
        spec = _one(tuple(listed), service)
        return spec, None if history is None else _recorded(client, name, spec.name, history)


def _newest(client: Any, project: str, service: str | None) -> Any:
    """Return the newest rollout of a service, or of all."""
    found = client.get(f"{base(project)}/rollouts", **({} if service is None else {"service": service}))["items"]
    if not found:
        raise NotFound(
            "There is no rollout." if service is None else f"There is no rollout of “{service}”.",
            mend="`holdtrue rollouts` lists them; one begins when a release is promoted to a service that has one.",
        )
    return found[0]


def _recorded(client: Any, project: str, service: str, history: str) -> Any:
    query = {} if history == _NEWEST else {"rollout": history}
    return client.get(f"{base(project)}/services/{service}/losses", **query)


def _one(services: tuple["ServiceSpec", ...], name: str | None) -> "ServiceSpec":
    found = [each for each in services if name in (None, each.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.name for each in services) or "none"
    if not found:
        raise NotFound(
            "There is no service." if name is None else f"There is no service “{name}”.",
            why=f"Declared services: {names}.",
            mend="Declare one in the project file: project.service(…)" if not services else "Name one of them.",
        )
    raise ConfigurationError(
        "Several services are declared, and none was named.", why=f"Services: {names}.", mend="Name one of them."
    )


def _print(answer: Any) -> None:
    steps = ", ".join(f"{each:g}" for each in answer["steps"])
    typer.echo(
        f"{answer['service']}: steps {steps} %, margin {answer['margin']:g} ({answer['metric']}), "
        f"{answer['per_day']:,.0f} requests a day, at most {answer['requests']:,} requests"
    )
    if answer["history"]:
        typer.echo(
            f"Played on {answer['history']['rows']:,} recorded rows of {answer['history']['rollout']}, "
            "day by day, with their mean moved to the effect."
        )
    for each in answer["simulations"]:
        typer.echo("")
        effect = each["effect"]
        typer.echo("An equal release" if effect == 0 else f"A release that is {abs(effect):g} {_word(effect)}")
        for line in _lines(each):
            typer.echo(f"  {line}")


def _word(effect: float) -> str:
    return "worse" if effect > 0 else "better"


def _lines(each: Any) -> list[str]:
    endings, shares = each["endings"], each["shares"]
    found = [
        f"{each['runs']} rollouts: {endings['promoted']} promoted, {endings['rolled_back']} rolled back, "
        f"{endings['stopped']} stopped, {endings['undecided']} undecided"
    ]
    name, words = ("missed", "missed regressions") if "missed" in shares else ("false_rollback", "false rollbacks")
    rate = shares[name]
    found.append(f"{words}: {rate['value']:.1%} (between {rate['lower']:.1%} and {rate['upper']:.1%})")
    if each["early"] is not None:
        found.append(f"found before the last step: {each['early']:.0%} of those rolled back")
    if each["days"] is not None:
        days, requests = each["days"], each["requests"]
        found.append(
            f"time to decide: {days['middle']:.1f} days ({days['low']:.1f} to {days['high']:.1f}), "
            f"{requests['middle']:,.0f} requests ({requests['low']:,.0f} to {requests['high']:,.0f})"
        )
    answered, users = each["answered"], each["users"]
    found.append(
        f"met the release: {users['middle']:,.0f} users ({users['low']:,.0f} to {users['high']:,.0f}), "
        f"{answered['middle']:,.0f} requests"
    )
    return found
