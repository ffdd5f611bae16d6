"""Commands about runs and the database they are kept in."""

import contextlib
from collections.abc import Callable, Generator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

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
)
from holdtrue.core.errors import NotFound

database = typer.Typer(help="The ledger's database: check, back up, restore, compact, upgrade.", no_args_is_help=True)
imports = typer.Typer(help="Bring in what other systems keep.", no_args_is_help=True)
exports = typer.Typer(help="Send to other systems what a project keeps.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(runs)
    app.command()(experiments)
    app.command()(compare)
    app.command()(release)
    app.command()(retain)
    database.command()(check)
    database.command()(backup)
    database.command()(restore)
    database.command()(vacuum)
    database.command()(upgrade)
    database.command()(convert)
    app.add_typer(database, name="db")
    imports.command("mlflow")(import_mlflow)
    app.add_typer(imports, name="import")
    exports.command("mlflow")(export_mlflow)
    app.add_typer(exports, name="export")


def runs(
    experiment: Annotated[str | None, typer.Option("--experiment", "-e", help="Only of this experiment.")] = None,
    where: Annotated[str, typer.Option("--filter", help="For example: metrics.auc > 0.7 AND params.kind = 'gbm'")] = "",
    order: Annotated[str | None, typer.Option("--order", help="For example: metrics.auc DESC")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 30,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/runs"
        found = client.get(path, experiment=experiment, filter=where or None, order=order, limit=limit)["items"]
    columns = {
        "run": lambda each: each["id"],
        "name": lambda each: each["name"],
        "status": lambda each: each["status"],
        "metrics": lambda each: _pairs(each["metrics"]),
        "params": lambda each: _pairs(each["params"]),
    }
    listing(found, as_json, columns, empty="No run yet. Log one: with holdtrue.run() as run: run.log(loss=0.3)")


def _pairs(values: dict[str, Any]) -> str:
    shown = [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()]
    return " ".join(shown[:6]) + (" …" if len(shown) > 6 else "")


def experiments(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List experiments, the newest first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/experiments", limit=1000)["items"]
    columns = {
        "experiment": lambda each: each["id"],
        "name": lambda each: each["name"],
        "state": lambda each: each["lifecycle"],
        "artifacts": lambda each: each["artifact_location"],
    }
    listing(found, as_json, columns, empty="No experiment yet.")


def compare(
    run: Annotated[list[str], typer.Argument(help="Ids of two or more runs.")],
    metric: Annotated[str, typer.Option("--metric", "-m", help="What to compare them by.")],
    lowest: Annotated[bool, typer.Option("--lowest", help="The lowest value is the best, as of a loss.")] = False,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: those that differ only in their seed are repetitions of one setting."""
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/run-comparison"
        found = client.get(path, runs=",".join(run), metric=metric, best="lowest" if lowest else None)
    show(found, as_json, lambda value: lines(_compared(value)))


def _compared(found: Any) -> list[str]:
    told: list[str] = []
    against = {each["setting"]: each for each in found["contrasts"]}
    for place, each in enumerate(found["settings"]):
        interval = each["interval"]
        spread = "one seed, no interval" if interval is None else f"95 % from {interval[0]:.4g} to {interval[1]:.4g}"
        told.append(f"{_pairs(each['params']) or '(no parameters)'}: {found['metric']} {each['mean']:.4g} ({spread})")
        count = len(each["runs"])
        told.append(
            f"    {count} {'run' if count == 1 else 'runs'}, seeds: {', '.join(seed or '–' for seed in each['seeds'])}"
        )
        if place in against:
            other = against[place]
            p = "" if other["p"] is None else f", p = {other['p']:.3g}"
            side = "above" if other["difference"] < 0 else "below"
            told.append(f"    {abs(other['difference']):.4g} {side} the first: {other['verdict']}{p}")
    told += [f"{each}: has no such metric" for each in found["left_out"]]
    return told


def release(
    model: Annotated[str, typer.Argument(help="Registered version: NAME/3, NAME@alias or NAME/latest.")],
    service: Annotated[str | None, typer.Option("--service", help="Service (default: the model's name).")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Make a release that pins a registered model version, so that it can be approved for production."""
    with open_client(home) as client:
        root = base(project_name(client, project))
        found = client.get(f"{root}/model-version", name=model)
        if not found["version"]:
            raise NotFound(f"{model} has no content to release.", mend="Prompts are released with their service.")
        commit = ""
        if found["run"]:
            commit = client.get(f"{root}/runs/{found['run']}")["tags"].get("mlflow.source.git.commit", "")
        named = service or "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in found["name"])
        body = {
            "service": named,
            "commit": commit,
            "versions": {"model": found["version"]},
            "run": found["run"] or None,
        }
        made = client.post(f"{root}/releases", body)
    show(made, as_json, lambda value: lines([f"release {value['id']} pins {found['name']}/{found['number']}"]))


def retain(
    days: Annotated[int, typer.Option("--days", min=0, help="How long ago they were deleted, at least.")] = 30,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Remove deleted runs for good, in batches, and uploads that nobody finished within a day."""
    runs, points, uploads = 0, 0, 0
    with open_client(home) as client:
        path = f"{base(project_name(client, project))}/run-retention"
        while True:
            done = client.post(path, {"days": days})
            runs, points, uploads = runs + done["runs"], points + done["points"], uploads + done["uploads"]
            if not done["more"]:
                break
    removed = {"runs": runs, "points": points, "uploads": uploads}
    told = "removed {runs} runs and {points} points, {uploads} unfinished uploads"
    show(removed, as_json, lambda value: lines([told.format(**value)]))


def check(home: Home = None, as_json: AsJson = False) -> None:
    """Check the database: pages, schema, event log, and every artifact's bytes. Changes nothing."""
    from holdtrue.server import maintenance

    found = maintenance.check(home)
    show(found, as_json, lambda value: lines([f"{name}: {word}" for name, word in value.items()]))
    told = ("schema", "bytes", "database", "transport")
    if any(word != "ok" for name, word in found.items() if name not in told):
        raise typer.Exit(1)


def backup(
    target: Annotated[Path | None, typer.Argument(help="File to write (default: backups/ in the data folder).")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy the database while it is in use; the copy is verified."""
    from holdtrue.server import maintenance

    made = maintenance.backup(home, target)
    show({"file": str(made)}, as_json, lambda value: lines([f"backed up to {value['file']}"]))


def restore(
    source: Annotated[Path, typer.Argument(help="A backup made by `holdtrue db backup` or before an upgrade.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the database's place, with the server stopped; what was there is kept beside it."""
    from holdtrue.server import maintenance

    kept = maintenance.restore(home, source)
    show({"kept": str(kept)}, as_json, lambda value: lines([f"restored; what was there is {value['kept']}"]))


def vacuum(home: Home = None, as_json: AsJson = False) -> None:
    """Give the room of removed rows back to the disk, with the server stopped."""
    from holdtrue.server import maintenance

    before, after = maintenance.vacuum(home)
    sizes = {"before": before, "after": after}
    show(sizes, as_json, lambda value: lines([f"{value['before']} bytes before, {value['after']} after"]))


def upgrade(home: Home = None, as_json: AsJson = False) -> None:
    """Bring the database to this version's schema, after a check and a backup, with the server stopped."""
    from holdtrue.server import maintenance

    done = maintenance.upgrade(home)
    show(done, as_json, lambda value: lines([f"schema {value['from']} → {value['to']}; backup: {value['backup']}"]))


class Kind(StrEnum):
    """Name a kind of database."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


def convert(
    into: Annotated[Kind, typer.Argument(help="What the ledger is carried into.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Carry the ledger from the file into the database that the setting names, or back, with the server stopped."""
    from holdtrue.server import maintenance

    console = Console(stderr=True)
    with console.status("Reading …") as status:

        def tell(table: str, rows: int) -> None:
            status.update(f"{table}: {rows} rows")

        done = maintenance.convert(home, into_file=into is Kind.SQLITE, tell=tell)
    told = [f"{done['rows']} rows in {len(done['tables'])} tables, counts and hashes alike; the event log verifies"]
    told += [f"the file that was there is {done['kept']}"] if done["kept"] else []
    if into is Kind.SQLITE:
        told.append("Take the setting “database” away (HOLDTRUE_DATABASE), then start again; the database stays.")
    else:
        told.append("Start again with the setting “database” as it is; the file stays and is written no more.")
    show(done, as_json, lambda _: lines(told))


def import_mlflow(
    source: Annotated[str, typer.Argument(help="A server's address, a folder (mlruns), a database.")],
    artifacts: Annotated[
        Path | None, typer.Option("--artifacts", help="Folder in which an artifact server kept the files.")
    ] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Bring over runs, histories, artifacts, models and traces of an MLflow; begun again, it goes on where it was."""
    from holdtrue.server.exchange import bring

    with open_client(home) as client, telling() as tell:
        report = bring(client, project_name(client, project), source, artifacts=artifacts, tell=tell)
    show(report.json(), as_json, lambda value: lines(reported(value)))
    if report.differences:
        raise typer.Exit(1)


def export_mlflow(
    target: Annotated[str, typer.Argument(help="An empty folder to write (mlruns), or a running MLflow server.")],
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Send all runs, histories, artifacts, models and traces of a project to MLflow, then compare both sides."""
    from holdtrue.server.exchange import send

    with open_client(home) as client, telling() as tell:
        report = send(client, project_name(client, project), target, tell=tell)
    show(report.json(), as_json, lambda value: lines(reported(value)))
    if report.differences:
        raise typer.Exit(1)


@contextlib.contextmanager
def telling() -> Generator[Callable[[str, Any], None]]:
    """Show on the terminal what is being exchanged, one line that changes."""
    console = Console(stderr=True)
    with console.status("Reading …") as status:

        def tell(name: str, report: Any) -> None:
            counts = ", ".join(f"{count} {what}" for what, count in report.counts.items() if what in _SHOWN)
            status.update(f"{escape(name)}  ({counts})")

        yield tell


_SHOWN = frozenset({"experiments", "runs", "points", "artifacts", "traces"})
_MOST_NAMED = 50


def reported(value: Any) -> list[str]:
    """Return the lines that tell what was exchanged, what the two sides differ in, and what was left out."""
    told = [f"{name}: {count}" for name, count in value["counts"].items()]
    told.append(f"differences: {len(value['differences'])}")
    for name in ("differences", "left_out"):
        for each in value[name][:_MOST_NAMED]:
            told.append(f"  {'differs' if name == 'differences' else 'left out'}: {each['what']}: {each['why']}")
        if len(value[name]) > _MOST_NAMED:
            told.append(f"  … {len(value[name]) - _MOST_NAMED} more: --json")
    return told
