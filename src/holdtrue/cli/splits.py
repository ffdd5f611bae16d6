"""Commands on splits of a version of a dataset: make one, list them."""

from collections.abc import Iterator
from typing import Annotated, Any

from holdtrue.cli.context import AsJson, Home, ProjectName, base, lines, listing, open_client, project_name, show
from holdtrue.cli.declaring import argument, option
from holdtrue.cli.labels import Label, split_label
from holdtrue.core.errors import ConfigurationError


def data_split(
    label: Label,
    name: Annotated[str, argument(help="Name of the split.")],
    by: Annotated[str, option("--by", help="random (by the key), time or group.")] = "random",
    parts: Annotated[
        list[str] | None, option("--part", help="A part and its share, such as test=0.2; again for each.")
    ] = None,
    column: Annotated[
        str | None, option("--column", help="By which rows are divided (default: the key, or the time).")
    ] = None,
    seed: Annotated[int, option("--seed", help="Another seed gives other parts.")] = 0,
    cuts: Annotated[
        list[str] | None, option("--cut", help="Moment at which the next part begins; again for more.")
    ] = None,
    apart: Annotated[
        list[str] | None, option("--apart", help="Column whose values may be in one part only; again for more.")
    ] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Divide a version's rows into parts, check what the parts share, and record it."""
    dataset, version = split_label(label)
    body = {
        "name": name,
        "by": by,
        "parts": _shares(parts or ["train=0.8", "test=0.2"]),
        "column": column,
        "seed": seed,
        "cuts": cuts or [],
        "apart": apart or [],
    }
    with open_client(home) as client:
        address = f"{base(project_name(client, project))}/datasets/{dataset}/versions/{version}/splits"
        found = client.post(address, body)
    show(found, as_json, lambda value: lines(_told(value)))


def data_splits(
    name: Annotated[str, argument(help="Dataset whose splits are listed.")],
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """List the splits of a dataset's versions."""
    with open_client(home) as client:
        address = f"{base(project_name(client, project))}/datasets/{split_label(name)[0]}/splits"
        found = client.get(address)["items"]
    columns = {
        "split": lambda each: each["label"],
        "of": lambda each: each["version"],
        "by": lambda each: f"{each['by']} ({each['column']})",
        "parts": lambda each: ", ".join(f"{part['part']} {part['rows']:,}" for part in each["parts"]),
        "equal rows in two parts": lambda each: each["overlap"]["rows"]["rows"],
    }
    listing(found, as_json, columns, empty=f"No split of {name} yet. Make one: holdtrue data split {name} NAME")


def _shares(parts: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in parts:
        part, _, share = text.partition("=")
        try:
            found[part] = float(share)
        except ValueError:
            raise ConfigurationError(
                f"{text[:60]!r} is no part of a split.",
                why="A part has a name and a share of the rows.",
                mend="Write it like --part train=0.8 --part test=0.2",
            ) from None
    return found


def _told(found: Any) -> Iterator[str]:
    yield f"{found['label']}  {found['split']} of {found['version']}, by {found['by']} ({found['column']})"
    begins = ["", *(f", from {cut}" for cut in found["cuts"])]
    for place, part in enumerate(found["parts"]):
        yield f"  {part['part']}  {part['rows']:,} rows{begins[place] if found['cuts'] else ''}"
    overlap = found["overlap"]
    for name, shared in overlap["columns"].items():
        such = f", such as {', '.join(shared['examples'])}" if shared["values"] else ""
        yield f"  {shared['values']:,} values of {name} are in two parts{such}"
    yield f"  {overlap['rows']['rows']:,} rows ({overlap['rows']['share']:.2%}) are in two parts but for their key"
