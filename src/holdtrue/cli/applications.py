"""Commands that try an application out, before anything is released: eval, index."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.context import (
    AsJson,
    File,
    Home,
    ProjectName,
    base,
    harmless,
    lines,
    open_client,
    project_file,
    project_name,
    show,
    wide_console,
)
from holdtrue.cli.run import NAMED, check_beside, print_left_out, report_steps
from holdtrue.core.errors import Conflict, NotFound

if TYPE_CHECKING:
    from holdtrue.project import Workshop
    from holdtrue.server.client import Client

_READ = 200


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command("eval")(evaluate)
    app.command()(index)


def evaluate(
    name: Annotated[
        str | None, typer.Argument(help="Application (default: the only one), or a release: what was found for it.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often each question is asked.")] = 1,
    file: File = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Put an application's test set to its files as they are, and compare it with what answers now.

    Nothing is released. What was asked before is not asked again. With a release, show what its evaluation found.
    """
    if name is not None and name.startswith("rel_"):
        with open_client(home) as client:
            found = _evidence(client, project_name(client, project), name)
    else:
        from holdtrue.server.asking import completer

        with _workshop(file, home, as_json) as (workshop, client):
            chosen = name or _only(workshop)
            with completer(home, client) as complete:
                found = workshop.evaluate(chosen, complete, repeats=repeats)
    show(found, as_json, _print_evaluation)


def index(
    name: Annotated[str | None, typer.Argument(help="Application (default: the only one).")] = None,
    queries: Annotated[
        list[str] | None, typer.Option("--search", "-s", help="Show what is found for this text; again for more.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many passages to show for each.")] = None,
    file: File = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Build an application's index, show what it holds, what it left out, and how it differs from the live one."""
    with _workshop(file, home, as_json) as (workshop, _):
        found = workshop.index(name or _only(workshop), queries or [], k)
    show(found, as_json, _print_index)


@contextmanager
def _workshop(file: Path | None, home: Path | None, as_json: bool) -> "Generator[tuple[Workshop, Client]]":
    """Open a workshop of the project file beside its data folder."""
    from holdtrue.project import Workshop, load_project
    from holdtrue.server.settings import load_settings

    project = load_project(project_file(file))
    settings = load_settings(home)
    with open_client(home) as client:
        check_beside(client, settings)
        if project.name not in client.get("/api/projects")["items"]:
            raise NotFound(
                f"The project “{project.name}” is not known here yet.",
                why="Models are asked, and answers are kept, in its name.",
                mend=f"Apply it first: holdtrue apply --file {project_file(file)}",
            )
        yield Workshop(project, settings.home, client, on_step=report_steps(as_json)), client


def _only(workshop: "Workshop") -> str:
    names = list(workshop.project.applications)
    if len(names) != 1:
        raise Conflict(
            f"The project has {len(names)} applications, and none was named.",
            why=f"They are: {', '.join(names) or 'none'}.",
            mend="Name one." if names else "Declare one in the project file: project.application(…)",
        )
    return names[0]


def _evidence(client: "Client", project: str, release: str) -> dict[str, Any]:
    """Return the newest evidence of a release that is about its answers, by kind."""
    client.get(f"{base(project)}/releases/{release}")
    items = client.get(f"{base(project)}/evidence", subject=release)["items"]
    found: dict[str, Any] = {}
    for each in sorted(items, key=lambda each: str(each["created_at"])):
        if each["kind"] in ("answers", "comparison", "retrieval"):
            found[each["kind"]] = each["content"]
    if "answers" not in found:
        raise NotFound(
            f"There is no evaluation of answers about {release}.",
            why="It is no release of an application, or its application has no test set.",
            mend=f"See what there is: holdtrue releases {release}",
        )
    # A release is named by its own evidence only from outside: within, it had no name yet.
    found["answers"] = {**found["answers"], "release": release}
    return found


def _print_evaluation(found: Mapping[str, Any]) -> None:
    from holdtrue.cli.evaluations import render_eval

    wide_console().print(render_eval(found["answers"], found.get("comparison")))
    if "retrieval" in found:
        recall = found["retrieval"]["recall"]
        typer.echo(
            f"\nRetrieval: {recall['value']:.0%} of the sources are found "
            f"({recall['lower']:.0%} to {recall['upper']:.0%})."
        )


def _print_index(found: Mapping[str, Any]) -> None:
    summary = found["summary"]
    typer.echo(f"{found['version']}: {summary['documents']} documents, {summary['chunks']} passages")
    typer.echo(
        f"  {summary['made']} made, {summary['from_cache']} from the cache, "
        f"{summary['from_previous']} taken over from the version before; {summary['bytes'] / 1e6:.1f} MB"
    )
    print_left_out(summary)
    if found["against"] is not None:
        _print_difference(found["against"])
    for each in found["found"]:
        typer.echo(f"\n{harmless(each['query'])}")
        if not each["passages"]:
            typer.echo("  nothing is found")
        for place, hit in enumerate(each["passages"], 1):
            text = " ".join(hit["text"].split())
            lines([f"  {place}. {hit['id']} ({hit['score']:.4f}): {text[:_READ]}{'…' if len(text) > _READ else ''}"])


def _print_difference(against: Mapping[str, Any]) -> None:
    if against["same"]:
        typer.echo("  The same as what answers now.")
        return
    documents = against["documents"]
    typer.echo("  Against what answers now:")
    for word in ("added", "removed", "changed"):
        _print_named(word, documents[word])
    if documents["made_anew"]:
        typer.echo(f"    {documents['made_anew']} cut or embedded anew")
    lines(f"    {each['path']}: {each['before']} → {each['after']}" for each in against["settings"])


def _print_named(word: str, named: Mapping[str, Any]) -> None:
    if named["count"]:
        first: Sequence[str] = named["first"][:NAMED]
        more = "" if named["count"] <= len(first) else ", …"
        lines([f"    {named['count']} {word}: {', '.join(first)}{more}"])
