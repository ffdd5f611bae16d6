"""Commands that run processes, and tokens for those who call them: up, token, demo."""

from pathlib import Path
from typing import Annotated

import typer

from holdtrue.cli.context import AsJson, File, Home, listing, open_client, project_file_here, show
from holdtrue.server.client import Client

tokens = typer.Typer(help="Tokens for people and programs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(up)
    app.command()(serve)
    app.command()(demo)
    tokens.command("create")(token_create)
    tokens.command("list")(token_list)
    tokens.command("revoke")(token_revoke)
    app.add_typer(tokens, name="token")


def up(
    home: Home = None,
    port: Annotated[int | None, typer.Option("--port", help="First port (default: HOLDTRUE_PORT, or 7700).")] = None,
    file: File = None,
    clock: Annotated[
        Path | None, typer.Option("--clock", help="File of a simulated clock, as a replay leaves it.")
    ] = None,
) -> None:
    """Start the control plane, the data plane and a worker, and stay until told to stop."""
    from holdtrue.server.up import Wish
    from holdtrue.server.up import up as start

    raise typer.Exit(start(Wish(home, port, project_file_here(file), clock)))


def serve(
    path: Annotated[Path, typer.Argument(help="Model file, or a folder as MLflow writes it.")],
    name: Annotated[str, typer.Option("--name", help="Name of the service, and of its project.")],
    home: Home = None,
    port: Annotated[int | None, typer.Option("--port", help="First port (default: HOLDTRUE_PORT, or 7700).")] = None,
) -> None:
    """Serve one model file (ONNX, LightGBM, XGBoost, skops, PyTorch, a package) in dev, with no project file."""
    from holdtrue.project import read_model, serve_file
    from holdtrue.server.settings import load_settings
    from holdtrue.server.up import Wish
    from holdtrue.server.up import up as start
    from holdtrue.storage import BlobStore, make_folder

    settings = load_settings(home, port=port)
    served = read_model(path, code=settings.model_code == "isolated")
    make_folder(settings.home)
    with Client.open(settings.home) as client:
        release = serve_file(client, BlobStore(settings.home / "blobs"), name, served)
        running = not client.inner
        if not running:
            # So that the data plane finds what to serve when it starts, and all is ready at once.
            client.post("/api/operations/run-due")
    typer.echo(f"{name}  {release}, {served.format}, {len(served.names)} inputs: {settings.data_url}/predict/{name}")
    if running:
        typer.echo("The server of this data folder runs already, and takes the release over.")
        return
    raise typer.Exit(start(Wish(settings.home, port, service=name)))


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the demo keeps everything.")] = Path(".demo"),
    months: Annotated[int, typer.Option("--months", min=3, max=12, help="Replay up to this month.")] = 12,
    with_assistant: Annotated[
        bool, typer.Option("--assistant/--no-assistant", help="Tell the story of the assistant, too.")
    ] = True,
) -> None:
    """Watch a year of a real model in production, replayed against real processes."""
    from holdtrue.cli.demo.story import run_demo

    raise typer.Exit(run_demo(folder, months, with_assistant=with_assistant))


def token_create(
    role: Annotated[list[str], typer.Option("--role", help="Role; again for more.")],
    project: Annotated[str | None, typer.Option("--project", "-p", help="Project (default: every one).")] = None,
    name: Annotated[str, typer.Option("--name", help="Who will use it.")] = "",
    hours: Annotated[
        int | None, typer.Option("--hours", min=1, help="How long it lives (default: the longest).")
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="The only environment it may ask (default: any).")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests a second on the data plane at most.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a token; its text is shown once."""
    with open_client(home) as client:
        body = {"name": name, "roles": role, "project": project, "hours": hours}
        body |= {"environment": environment, "rate": rate}
        made = client.post("/api/tokens", body)
    show(made, as_json, lambda value: typer.echo(value["token"]))


def token_list(home: Home = None, as_json: AsJson = False) -> None:
    """List tokens, without their secrets."""
    with open_client(home) as client:
        found = client.get("/api/tokens")["items"]
    columns = {
        "token": lambda each: each["id"],
        "name": lambda each: each["name"],
        "roles": lambda each: ", ".join(each["roles"]),
        "project": lambda each: each["project"],
        "environment": lambda each: each["environment"],
        "a second": lambda each: each["rate"] and f"{each['rate']:g}",
        "expires": lambda each: each["expires_at"],
        "revoked": lambda each: each["revoked_at"],
    }
    listing(found, as_json, columns, empty="No token.")


def token_revoke(id: Annotated[str, typer.Argument(help="Token id.")], home: Home = None) -> None:
    """End a token, and all that were made with it."""
    with open_client(home) as client:
        client.delete(f"/api/tokens/{id}")
    typer.echo(f"Revoked {id}.")
