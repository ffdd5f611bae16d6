"""Commands about prompts: list them, show one, tell two apart."""

import json
from typing import Annotated, Any

import typer

from holdtrue.cli.context import AsJson, Home, ProjectName, base, lines, listing, open_client, project_name, show

prompts = typer.Typer(help="Prompts and their versions.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(help="Prompt as NAME@ALIAS, NAME@NUMBER, or NAME (the newest).")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    prompts.command("list")(list_prompts)
    prompts.command("show")(show_prompt)
    prompts.command("diff")(diff_prompts)
    app.add_typer(prompts, name="prompts")


def list_prompts(home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """List prompts, the newest version of each first."""
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/prompts")["items"]
    columns = {
        "prompt": lambda each: f"{each['name']}@{each['number']}",
        "version": lambda each: each["version"],
        "aliases": lambda each: ", ".join(each["aliases"]) or None,
        "made": lambda each: each["created_at"],
        "by": lambda each: each["created_by"],
    }
    listing(found, as_json, columns, empty="No prompt is declared. Apply a project file: holdtrue apply")


def show_prompt(reference: Reference, home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """Show a prompt: messages, variables, parameters."""
    with open_client(home) as client:
        found = client.get(_path(base(project_name(client, project)), reference))
    show(found, as_json, lambda value: lines(_told(value)))


def diff_prompts(
    before: Reference,
    after: Annotated[str, typer.Argument(help="The other version: an alias, a number, or “newest”.")] = "newest",
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Tell what differs between two versions of a prompt."""
    with open_client(home) as client:
        found = client.get(f"{_path(base(project_name(client, project)), before)}/diff/{after}")
    show(found, as_json, lambda value: lines(_differences(value)))


def _path(base_path: str, reference: str) -> str:
    name, _, which = reference.partition("@")
    return f"{base_path}/prompts/{name}/{which or 'newest'}"


def _told(value: Any) -> list[str]:
    content = value["content"]
    told = [f"{value['name']}@{value['number']} ({value['version']})"]
    if value["aliases"]:
        told.append(f"  aliases: {', '.join(value['aliases'])}")
    if content.get("model"):
        told.append(f"  model: {content['model']}")
    for name, each in content["variables"].items():
        needed = "" if each["default"] is None and each["required"] else " (may be left out)"
        told.append(f"  {{{{{name}}}}}: {each['type']}, from {each['source']}{needed}")
    told += [f"  {name}: {json.dumps(each)}" for name, each in sorted(content["parameters"].items())]
    for message in content["messages"]:
        told += ["", f"[{message['role']}]", message["content"].rstrip("\n")]
    return told


def _differences(value: Any) -> list[str]:
    if not value["items"]:
        return [f"{value['before']} and {value['after']} say the same."]
    told = [f"{value['before']} → {value['after']}"]
    for each in value["items"]:
        told.append(f"  {each['kind']:8} {each['path']}")
        if each["before"] is not None:
            told += [f"    - {line}" for line in _text(each["before"])]
        if each["after"] is not None:
            told += [f"    + {line}" for line in _text(each["after"])]
    return [*told, "  … more differences are left out"] if value["truncated"] else told


def _text(value: Any) -> list[str]:
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).splitlines() or [""]
