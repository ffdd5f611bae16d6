"""Commands that decide: releases, gate, approve, promote, roll back, stop."""

import json
from typing import Annotated, Any

import typer

from holdtrue.cli.context import AsJson, Home, ProjectName, base, listing, open_client, project_name, show
from holdtrue.server.client import Client

_DIFFERENCES = 12
_LETTERS = 120

Release = Annotated[str, typer.Argument(help="Release id, rel_…")]
Environment = Annotated[str, typer.Option("--environment", "-e", help="Environment.")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(releases)
    app.command()(gate)
    app.command()(approve)
    app.command()(promote)
    app.command()(rollback)
    app.command()(stop)
    app.command()(resume)
    app.command()(decisions)
    app.command()(rollouts)
    app.command()(diff)


def releases(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List releases, newest first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/releases")["items"]
    columns = {
        "release": lambda each: each["id"],
        "service": lambda each: each["service"],
        "made": lambda each: each["created_at"],
        "by": lambda each: each["created_by"],
        "model": lambda each: each["manifest"]["versions"].get("model"),
    }
    listing(found, as_json, columns, empty="No release yet. Train one: holdtrue run")


def gate(
    release: Release,
    environment: Environment = "production",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Apply an environment's policy to a release, and show the reason per rule."""
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/releases/{release}/gate"
        decided = client.post(path, {"environment": environment})
    show(decided, as_json, print_decision)


def approve(
    release: Release,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why this release may go there.")] = "",
    environment: Environment = "production",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Approve a release; nobody can approve what they made or asked for."""
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/releases/{release}/approve"
        given = client.post(path, {"environment": environment, "reason": reason})
    show(given, as_json, _print_approved)


def promote(
    service: Annotated[str, typer.Argument(help="Service.")],
    release: Release,
    environment: Environment = "production",
    stale: Annotated[str, typer.Option("--stale", help="Why it may go although its features are not ready.")] = "",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Send an allowed release on its way: the first goes live, later ones through a rollout."""
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/services/{service}/promote"
        done = client.post(path, {"release": release, "environment": environment, "stale": stale})
    show(done, as_json, lambda value: _print_promoted(release, value))


def rollback(
    service: Annotated[str, typer.Argument(help="Service.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")] = "",
    drill: Annotated[bool, typer.Option("--drill", help="Only try whether one could, and how long it takes.")] = False,
    environment: Environment = "production",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Stop the rollout that runs, or else go back to the release before."""
    with open_client(home) as client:
        if drill:
            path = f"{base(project_name(client, project))}/services/{service}/drill"
            tried = client.post(path, {"environment": environment})
            show(tried, as_json, _print_drill)
            raise typer.Exit(0 if tried["ready"] else 1)
        path = f"{base(project_name(client, project))}/services/{service}/rollback"
        done = client.post(path, {"reason": reason, "environment": environment})
    show(done, as_json, lambda value: typer.echo(told_rollback(service, value)))


def stop(
    service: Annotated[str, typer.Argument(help="Service, of a model or an application.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, in one line; whoever is refused is told.")],
    answer: Annotated[
        str | None,
        typer.Option("--answer", help="What is answered meanwhile: a number, or an application's words."),
    ] = None,
    environment: Environment = "production",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Switch a service off at once: no model is asked any more, its safe default answers until `resume`."""
    body = {"reason": reason, "environment": environment, "answer": answer}
    with open_client(home) as client:
        done = client.post(f"{base(project_name(client, project))}/services/{service}/stop", body)
        _take_effect(client)
    show(done, as_json, lambda _: typer.echo(f"{service} is switched off in {environment}: {reason}"))


def resume(
    service: Annotated[str, typer.Argument(help="Service.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why it may answer again.")] = "",
    environment: Environment = "production",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Let a service that was switched off answer again, with what is deployed."""
    body = {"reason": reason, "environment": environment}
    with open_client(home) as client:
        done = client.post(f"{base(project_name(client, project))}/services/{service}/resume", body)
        _take_effect(client)
    show(done, as_json, lambda value: typer.echo(f"{service} answers again with {value['release']}."))


def _take_effect(client: Client) -> None:
    """Tell data planes that run on without a control plane; a control plane that runs does so by itself."""
    if client.inner:
        client.post("/api/operations/run-due")


def decisions(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List decisions, newest first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/decisions")["items"]
    columns = {
        "decision": lambda each: each["id"],
        "release": lambda each: each["release"],
        "environment": lambda each: each["environment"],
        "outcome": lambda each: each["outcome"],
        "failed rules": lambda each: ", ".join(f["rule"] for f in each["findings"] if not f["passed"]) or None,
        "made": lambda each: each["created_at"],
    }
    listing(found, as_json, columns, empty="No decision yet.")


def rollouts(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List rollouts, newest first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/rollouts")["items"]
    columns = {
        "rollout": lambda each: each["id"],
        "service": lambda each: each["service"],
        "environment": lambda each: each["environment"],
        "challenger": lambda each: each["challenger"],
        "strategy": lambda each: each["strategy"],
        "state": lambda each: each["state"],
        "started": lambda each: each["started_at"],
        "ended": lambda each: each["ended_at"],
        "reason": lambda each: each["reason"],
    }
    listing(found, as_json, columns, empty="No rollout yet.")


def diff(
    before: Release,
    after: Annotated[str, typer.Argument(help="The other release.")],
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Show which assets changed between two releases, and how."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/releases/{before}/diff/{after}")
    show(found, as_json, lambda value: _print_diff(value["items"]))


def print_decision(decision: Any) -> None:
    """Print a decision with the reason per rule."""
    typer.echo(f"{decision['release']} → {decision['environment']}: {decision['outcome']}")
    for finding in decision["findings"]:
        typer.echo(f"  {'✓' if finding['passed'] else '✗'} {finding['rule']}: {finding['why']}")
        if not finding["passed"] and finding["mend"]:
            typer.echo(f"      to mend it: {finding['mend']}")


def _print_drill(found: Any) -> None:
    where = f"{found['service']} in {found['environment']}"
    if found["ready"]:
        typer.echo(f"{where} could go back to {found['release']}: it was ready after {found['seconds']:.3f} s.")
    else:
        typer.echo(f"{where} could NOT go back to {found['release']}: {found['why']}")


def _print_promoted(release: str, done: Any) -> None:
    typer.echo(f"{release} is on its way: holdtrue status")
    for note in done["notes"]:
        typer.echo(note)
    if done.get("estimate"):
        typer.echo(told_estimate(done["estimate"]))


def told_rollback(service: str, done: Any) -> str:
    """Say what a rollback did: ended a rollout, or brought the release before back."""
    release, ended = done["deployment"]["release"], done["rollout"]
    if ended is not None:
        return f"The rollout of {ended['challenger']} is ended; {release} goes on answering for {service}."
    return f"{service} goes back to {release}: holdtrue status says when it is live."


def told_estimate(found: Any) -> str:
    """Return in one sentence how long a rollout takes."""
    if found["rows"] is None:
        return f"How long an equal release takes cannot be said: {found['why']}"
    days = "" if found["days"] is None else f", {found['days']:.1f} days at this traffic"
    return f"An equal release takes about {found['rows']:,} rows{days}: {found['why']}"


def _print_approved(decision: Any) -> None:
    typer.echo(f"Your approval of {decision['release']} for {decision['environment']} is recorded.")
    given, needed = len(decision["approvals"]), decision["approvals_needed"]
    if decision["outcome"] == "waiting_approval":
        typer.echo(f"It is not allowed yet: {given} of {needed} approvals are given, each by another person.")
    else:
        typer.echo(f"It is {decision['outcome']}: {given} of {needed} approvals are given.")


def _print_diff(changes: list[Any]) -> None:
    for change in changes:
        if change["kind"] == "same":
            continue
        typer.echo(f"{change['kind']:8} {change['role']:10} {change['before'] or '–'} → {change['after'] or '–'}")
        detail = change["detail"] or {}
        print_differences(detail.get("differences", []), " " * 11, truncated=bool(detail.get("truncated")))


def print_differences(found: list[Any], pad: str, *, truncated: bool = False) -> None:
    """Print what differs by path, the first dozen."""
    for each in found[:_DIFFERENCES]:
        sides = (_short(each[side]) for side in ("before", "after"))
        typer.echo(f"{pad}{each['path']}: {' → '.join(sides)}")
    if len(found) > _DIFFERENCES or truncated:
        typer.echo(f"{pad}and more: --json shows them")


def _short(value: Any) -> str:
    text = "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"
