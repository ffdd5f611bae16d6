"""Commands that only look: status, why, listings, audit, doctor."""

from collections.abc import Collection
from typing import Annotated, Any

import typer

from holdtrue.cli.context import (
    AsJson,
    Home,
    ProjectName,
    base,
    lines,
    listing,
    open_client,
    project_name,
    show,
    text_of,
)
from holdtrue.cli.why import explained

audit = typer.Typer(help="The tamper-evident event log.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(status)
    app.command()(why)
    app.command()(datasets)
    app.command()(quarantines)
    app.command()(incidents)
    app.command()(jobs)
    app.command()(activity)
    app.command()(doctor)
    audit.command("verify")(audit_verify)
    app.add_typer(audit, name="audit")


def status(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """Show what answers in production, what is rolling out, and what is wrong."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/status")
    show(found, as_json, _print_status)


def why(
    prediction: Annotated[str, typer.Argument(help="Prediction id, from an answer or the journal.")],
    contributions: Annotated[
        bool, typer.Option("--contributions", help="Say what each feature contributed to the score.")
    ] = False,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Explain one prediction: row, features, model, release, decision, evidence, data."""
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/why/{prediction}"
        found = client.get(path, contributions="true" if contributions else None)
    show(found, as_json, lambda value: lines(explained(value)))


def datasets(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List datasets with their newest version."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/datasets")["items"]
    columns = {
        "dataset": lambda each: each["name"],
        "version": lambda each: each["version"],
        "number": lambda each: each["number"],
        "windows": lambda each: len(each["fragments"]),
        "rows": lambda each: sum(part["rows"] for part in each["fragments"].values()),
    }
    listing(found, as_json, columns, empty="No dataset is declared. Apply a project file: holdtrue apply")


def quarantines(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List deliveries that a contract kept out."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/quarantines")["items"]
    columns = {
        "quarantine": lambda each: each["id"],
        "dataset": lambda each: each["dataset"],
        "window": lambda each: each["window"],
        "state": lambda each: each["state"],
        "rows": lambda each: each["rows"],
        "why": lambda each: "; ".join(finding["what"] for finding in each["findings"]),
    }
    listing(found, as_json, columns, empty="Nothing is in quarantine.")


def incidents(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List incidents, newest first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/incidents")["items"]
    columns = {
        "incident": lambda each: each["id"],
        "service": lambda each: each["service"],
        "state": lambda each: each["state"],
        "opened": lambda each: each["opened_at"],
        "title": lambda each: each["title"],
    }
    listing(found, as_json, columns, empty="No incident.")


def jobs(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List jobs, newest first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/jobs")["items"]
    columns = {
        "job": lambda each: each["id"],
        "kind": lambda each: each["kind"],
        "state": lambda each: each["state"],
        "asked": lambda each: each["created_at"],
        "reason": lambda each: each["reason"] or None,
    }
    listing(found, as_json, columns, empty="No job yet.")


def activity(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="How many.")] = 30,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """List what happened, newest first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/events", limit=limit, newest="true")["items"]
    columns = {
        "no.": lambda each: each["seq"],
        "time": lambda each: each["time"],
        "actor": lambda each: each["actor_name"],
        "action": lambda each: each["action"],
        "object": lambda each: each["object"],
    }
    listing(found, as_json, columns, empty="Nothing happened yet.")


def audit_verify(home: Home = None, as_json: AsJson = False) -> None:
    """Check the whole event log against its hashes and signed checkpoints."""
    with open_client(home) as client:
        found = client.get("/api/audit/verify")
    show(found, as_json, _print_audit)
    if found.get("exit_code", 0):
        raise typer.Exit(int(found["exit_code"]))


def doctor(
    home: Home = None,
    repair: Annotated[bool, typer.Option("--repair", help="Set damaged parts of the journal aside first.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Read all that is deployed, also files over 64 MiB.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine and data folder, and print the effective settings and safety posture."""
    from holdtrue.cli.doctor import examine, mend

    repaired = mend(home) if repair else []
    examined = examine(home, whole=whole)
    findings = [*repaired, *examined]
    marks = {"ok": "✓", "warn": "!", "bad": "✗"}
    columns = {
        "": lambda each: marks[each["state"]],
        "check": lambda each: each["check"],
        "found": lambda each: each["what"],
        "to mend it": lambda each: each["mend"] or "",
    }
    if not as_json:
        # Sentences with long names of files, which the narrow cells of a table would break up.
        lines(f"{marks[each['state']]} {' '.join((each['what'] + '.', each['mend'])).strip()}" for each in repaired)
    listing(findings if as_json else examined, as_json, columns, empty="Nothing was checked.")
    if any(each["state"] == "bad" for each in findings):
        raise typer.Exit(1)


def print_tree(value: Any, indent: int = 0, limit: int = 24) -> None:
    """Print nested JSON as an indented outline."""
    pad = "  " * indent
    if isinstance(value, dict):
        for name, inner in list(value.items())[:limit]:
            if isinstance(inner, dict | list) and inner:
                typer.echo(f"{pad}{name}:")
                print_tree(inner, indent + 1, limit)
            else:
                typer.echo(f"{pad}{name}: {text_of(inner) if inner not in ([], {}) else '–'}")
    elif isinstance(value, list):
        for inner in value[:limit]:
            if isinstance(inner, dict | list):
                typer.echo(f"{pad}-")
                print_tree(inner, indent + 1, limit)
            else:
                typer.echo(f"{pad}- {text_of(inner)}")
    else:
        typer.echo(f"{pad}{text_of(value)}")


def _print_status(found: Any) -> None:
    for service in found["services"]:
        typer.echo(f"{service['name']} (model {service['model']})")
        stops = {each["environment"]: each for each in service["stops"]}
        for each in service["deployments"]:
            since = text_of(each["updated_at"])
            typer.echo(f"  {each['environment']}: {each['release']}, {each['state']} since {since}")
            if each["environment"] in stops:
                typer.echo(f"    {_told_stop(stops[each['environment']], service['name'])}")
            if each["failed"]:
                typer.echo(f"    {each['why']}")
        if not service["deployments"]:
            typer.echo("  no release answers yet: holdtrue run, then holdtrue promote")
        for rollout in service["rollouts"]:
            here = [each for each in service["deployments"] if each["environment"] == rollout["environment"]]
            typer.echo(f"  {told_rollout(rollout, [each['release'] for each in here])}")
            verdict = rollout["verdict"] if rollout["state"] == "running" else None
            if verdict:
                typer.echo(f"    {str(verdict['verdict']).replace('_', ' ')}: {verdict['why']}")
        if service["drill"]:
            typer.echo(f"  {told_drill(service['drill'])}")
    if found["gateway"]["stopped"]:
        typer.echo(f"the gateway is SWITCHED OFF: {found['gateway']['stopped']} (holdtrue provider start --all)")
    for name, reason in found["gateway"]["providers"].items():
        typer.echo(f"the provider {name} is SWITCHED OFF: {reason} (holdtrue provider start {name})")
    for each in found["incidents"]:
        typer.echo(f"incident {each['id']}, {each['state']}: {each['title']}")
    for each in found["waiting_approval"]:
        typer.echo(f"{each['release']} waits for an approval: holdtrue approve {each['release']} --reason …")
    for each in found["quarantines"]:
        typer.echo(f"quarantine {each['id']}: {each['dataset']} {each['window']}, {each['rows']:,} rows")


def told_rollout(rollout: Any, deployed: Collection[str]) -> str:
    """Say how a rollout stands, and whether what it promoted is `deployed` no more where it was."""
    where = "" if rollout["environment"] == "production" else f" in {rollout['environment']}"
    share = f", {rollout['percent']:g} %" if rollout["state"] == "running" else ""
    gone = rollout["state"] == "promoted" and rollout["challenger"] not in deployed
    since = " Since then another release has taken its place." if gone else ""
    state = rollout["state"].replace("_", " ")
    told = f"rollout of {rollout['challenger']}{where}: {state}{share}. {rollout['reason'] or ''}{since}"
    return told.rstrip()


def told_drill(found: Any) -> str:
    """Say what the last drill of a service showed."""
    when = f"last drill {text_of(found['time'])}"
    if found["ready"]:
        return (
            f"{when}: {found['environment']} could go back to {found['release']}, ready after {found['seconds']:.3f} s"
        )
    return f"{when}: {found['environment']} could NOT go back to {found['release']}: {found['why']}"


def _told_stop(found: Any, service: str) -> str:
    where = "" if found["environment"] == "production" else f" --environment {found['environment']}"
    since = text_of(found["since"])
    return f"SWITCHED OFF since {since} by {found['actor_name']}: {found['reason']} (holdtrue resume {service}{where})"


def _print_audit(found: Any) -> None:
    typer.echo(
        found.get("message") or ("The event log is whole." if found.get("ok") else "The event log is not whole.")
    )
    for name, value in found.items():
        if name not in ("message", "exit_code"):
            typer.echo(f"  {name}: {text_of(value)}")
