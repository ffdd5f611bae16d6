"""Commands on versions of datasets: list them, show one, compare two, write one out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from holdtrue.cli.context import (
    AsJson,
    Home,
    ProjectName,
    base,
    check_beside,
    lines,
    listing,
    open_client,
    project_name,
    show,
    text_of,
)
from holdtrue.cli.declaring import Group, argument, echo, option
from holdtrue.cli.labels import Label, split_label
from holdtrue.core.errors import ConfigurationError

group = Group("Versions of datasets: list, show, compare, write out.")

_MOST_COLUMNS = 30
_MOST_NAMES = 12


def data_ls(
    name: Annotated[str | None, argument(help="Dataset (default: list all datasets).")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """List datasets, or the versions of one with the windows that each brought."""
    with open_client(home) as client:
        root = f"{base(project_name(client, project))}/datasets"
        found = client.get(root if name is None else f"{root}/{split_label(name)[0]}/versions")["items"]
    if name is None:
        columns = {
            "dataset": lambda each: each["name"],
            "version": lambda each: each["version"],
            "number": lambda each: each["number"],
            "key": lambda each: each["key"],
            "windows": lambda each: len(each["fragments"]),
            "rows": lambda each: sum(part["rows"] for part in each["fragments"].values()),
        }
        listing(found, as_json, columns, empty="No dataset yet. Apply a project file: holdtrue apply")
        return
    columns = {
        "version": lambda each: each["label"] + (" (current)" if each["current"] else ""),
        "made": lambda each: each["created_at"],
        "windows": lambda each: each["windows"],
        "rows": lambda each: each["rows"],
        "bytes": lambda each: each["bytes"],
        "new bytes": lambda each: each["new_bytes"],
        "brought": lambda each: _brought(each),
    }
    listing(found, as_json, columns, empty=f"No version of {name} yet. Take a window in: holdtrue run --ingest")


def data_show(label: Label, home: Home = None, project: ProjectName = None, as_json: AsJson = False) -> None:
    """Show a version: schema, windows, profile, what its contract found, what is in quarantine."""
    name, version = split_label(label)
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/datasets/{name}/versions/{version}")
    show(found, as_json, lambda value: lines(_shown(value)))


def data_diff(
    before: Label,
    after: Annotated[str | None, argument(help="The other version (default: the present one).")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions: schema, rows by key, and columns with effect sizes."""
    name, old = split_label(before)
    other, new = split_label(after or name)
    if other != name:
        raise ConfigurationError(
            f"{before} and {after} are versions of two datasets.",
            why="Versions of one dataset are compared.",
            mend=f"Name another version of {name}: holdtrue data diff {before} {name}@NUMBER",
        )
    with open_client(home) as client:
        address = f"{base(project_name(client, project))}/datasets/{name}/diff"
        found = client.get(address, before=old, after=new)
    show(found, as_json, lambda value: lines(_compared(value)))


def data_export(
    label: Label,
    target: Annotated[Path, argument(help="File to write: its ending, .parquet or .csv, says what.")],
    windows: Annotated[list[str] | None, option("--window", "-w", help="Only this window; again for more.")] = None,
    split: Annotated[str | None, option("--split", help="Only one part of this split of the version.")] = None,
    part: Annotated[str | None, option("--part", help="Which part of the split.")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a version to one Parquet or CSV file."""
    from holdtrue.cli.exporting import export, split_of

    name, version = split_label(label)
    with open_client(home) as client:
        dataset = f"{base(project_name(client, project))}/datasets/{name}"
        chosen = split_of(client, dataset, split, part)
        found = export(client, f"{dataset}/versions/{version}", target, windows or [], chosen)
    show(found, as_json, lambda value: echo(_written(value)))


def data_add(
    name: Annotated[str, argument(help="Dataset that gets a new version.")],
    paths: Annotated[list[str] | None, argument(help="Files, folders or globs in quotes.")] = None,
    key: Annotated[str | None, option("--key", help="Column that names a row.")] = None,
    as_files: Annotated[bool, option("--files", help="Keep the files as they are, whatever they hold.")] = False,
    delimiter: Annotated[str | None, option("--delimiter", help="What separates values in CSV files.")] = None,
    encoding: Annotated[str, option("--encoding", help="How text files are written.")] = "utf-8",
    texts: Annotated[
        list[str] | None, option("--text", help="Column of CSV files that is text; again for more.")
    ] = None,
    missing: Annotated[
        list[str] | None, option("--missing", help="Value in CSV files that means none; again for more.")
    ] = None,
    query: Annotated[str | None, option("--query", help="Query that gives the rows: to DuckDB, or to --sql.")] = None,
    sql: Annotated[str | None, option("--sql", help="Address of a SQL database, or env:VARIABLE.")] = None,
    window: Annotated[
        str | None, option("--window", "-w", help="Window that the query's rows are; others stay.")
    ] = None,
    home: Home = None,
    project: Annotated[
        str | None,
        option("--project", "-p", help="Project (default: HOLDTRUE_PROJECT, the only one, or default)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version of a dataset from files or a query, with no project file; only changed files are read again."""
    from holdtrue.data.ahead import Ahead

    # Files are looked at while all that follows is loaded, and the server is asked.
    with Ahead(paths or ()) as ahead, open_client(home) as client:
        from holdtrue.cli.adding import Wanted, add
        from holdtrue.core.ids import check_name
        from holdtrue.data.endings import Reading
        from holdtrue.server.settings import load_settings

        chosen = project_name(client, project, first="default")
        settings = load_settings(home)
        check_beside(client, settings, "data add")
        address = f"{base(chosen)}/datasets/{check_name(name, 'dataset name')}/versions"
        how = Reading(_sign(delimiter), encoding, tuple(texts or ()), tuple(missing or ()))
        wanted = Wanted(name, tuple(paths or ()), key, as_files, how, query, sql, window)
        found = add(client, settings.home, address, wanted, ahead)
    show(found, as_json, lambda value: lines(_added(value)))


def data_gc(
    grace_hours: Annotated[float, option("--grace-hours", help="Leave what was stored since.")] = 24.0,
    dry_run: Annotated[bool, option("--dry-run", help="Only say what nothing refers to.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Remove stored bytes that no version, run, quarantine or cached step refers to, and merge small packs."""
    with open_client(home) as client:
        found = client.post("/api/blobs/collect", {"grace_hours": grace_hours, "dry": dry_run})
    show(found, as_json, lambda value: lines(_collected(value, dry=dry_run)))


def _collected(found: Any, *, dry: bool) -> list[str]:
    told = [
        f"Nothing refers to {found['unreferenced']:,} of {found['blobs']:,} blobs "
        f"({found['unreferenced_bytes']:,} of {found['bytes']:,} bytes); {found['removed']:,} were removed."
    ]
    if found["small_packs"]:
        what = "would be written together" if dry else "were written together"
        told.append(
            f"{found['small_packs']:,} of {found['packs']:,} packs of small files {what}, as {found['merged_into']:,}."
        )
    if found["useless_notes"]:
        what = "would be removed" if dry else "were removed"
        told.append(f"{found['useless_notes']:,} of {found['notes']:,} notes about files that were read {what}.")
    return told


def _written(found: Any) -> str:
    what = f"{found['rows']:,} rows" if found["rows"] else f"{len(found['windows']):,} files"
    return f"Wrote {what} of {found['label']} to {found['file']}."


def _sign(delimiter: str | None) -> str | None:
    if delimiter is None or delimiter == r"\t":
        return None if delimiter is None else "\t"
    if len(delimiter) == 1 and delimiter.isascii():
        return delimiter
    raise ConfigurationError(
        f"{delimiter[:20]!r} cannot separate values.",
        why="A delimiter is one character.",
        mend="Write it in quotes: --delimiter ';'",
    )


def _added(found: Any) -> Iterator[str]:
    read = f"{found['files']:,} files, {found['read']:,} of them read"
    yield f"{found['label']}  {found['version']}: {read}" + (f", {found['rows']:,} rows" if found["rows"] else "")


def _brought(version: Any) -> str | None:
    if version["tree"]:
        return None
    said = [f"{change} {_names(version[change])}" for change in ("added", "changed", "removed") if version[change]]
    return "; ".join(said) or None


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _shown(found: Any) -> Iterator[str]:
    from holdtrue.data.tags import told

    yield f"{found['label']}  {found['version']}, made {text_of(found['created_at'])} by {found['created_by']}"
    if found["tree"]:
        yield f"files     {len(found['files']):,}, {found['bytes']:,} bytes, tree {found['tree']}"
        for each in found["files"][:_MOST_COLUMNS]:
            yield f"  {each['file']}  {each['bytes']:,} bytes"
        if len(found["files"]) > _MOST_COLUMNS:
            yield f"  and {len(found['files']) - _MOST_COLUMNS:,} more: see --json"
        return
    yield f"rows      {found['rows']:,} in {len(found['windows'])} windows, {found['bytes']:,} bytes"
    yield f"key       {found['key'] or '–'}" + (f", dated by {found['time']}" if found["time"] else "")
    yield "windows"
    for each in found["windows"]:
        yield f"  {each['window']}  {each['rows']:,} rows, {each['bytes']:,} bytes"
    yield "columns"
    tags = {each["column"]: each["tags"] for each in found["schema"] if each["tags"]}
    for column in found["profile"][:_MOST_COLUMNS]:
        said = f" [{told(tags[column['name']])}]" if column["name"] in tags else ""
        yield f"  {_profiled(column)}{said}"
    if len(found["profile"]) > _MOST_COLUMNS:
        yield f"  and {len(found['profile']) - _MOST_COLUMNS} more: see --json"
    yield from (f"{each['severity']}  {each['window']}: {each['what']} {each['mend']}" for each in found["findings"])
    for held in found["quarantines"]:
        yield f"quarantine {held['id']}: {held['window']}, {held['rows']:,} rows kept out"


def _profiled(column: Any) -> str:
    head = f"{column['name']}  {column['kind']}"
    missing = f", {column['missing'] / column['rows']:.1%} missing" if column["missing"] else ""
    odd = f", {column['infinite']:,} not finite" if column.get("infinite") else ""
    if "dimensions" in column:
        return (
            f"{head}{missing}{odd}, {column['dimensions']:,} dimensions; norm {text_of(column['low'])} … "
            f"{text_of(column['high'])}, mean {text_of(column['mean'])}; {text_of(column['distance'])} from their mean"
        )
    if "distinct" not in column:
        return head + missing
    # An estimate within 1.6 % is not written to the last digit.
    distinct = f", {'' if column['distinct'] < 100 else '~'}{column['distinct']:,} distinct"
    if column["kind"] == "text":
        often = ", ".join(f"{each['value']!r} {each['count']:,}" for each in column["frequent"][:3])
        tokens = column.get("tokens") or {"high": 0}
        words = f", {tokens['low']}–{tokens['high']} tokens" if (tokens["high"] or 0) > 1 else ""
        return f"{head}{missing}{distinct}, {column['low']}–{column['high']} characters{words}" + (
            f"; often {often}" if often else ""
        )
    spread = column["quantiles"]
    shown = f", {text_of(column['low'])} … {text_of(column['high'])}"
    return f"{head}{missing}{odd}{distinct}{shown}; median {text_of(spread['p50'])}" + (
        f", mean {text_of(column['mean'])}" if column["kind"] != "time" else ""
    )


def _compared(found: Any) -> Iterator[str]:
    yield f"{found['before']['label']} → {found['after']['label']}"
    windows = found["windows"]
    said = [f"{change} {_names(windows[change])}" for change in ("added", "removed", "changed") if windows[change]]
    what = "windows   " if found["rows"] else "files     "
    yield f"{what}{'; '.join(said) or 'all the same'}; {len(windows['same'])} the same"
    if not found["rows"]:
        return
    for each in found["schema"]:
        yield f"schema    {each['column']}: {each['change']} ({each['before'] or '–'} → {each['after'] or '–'})"
    if not found["schema"]:
        yield "schema    the same"
    yield from _rows(found["rows"], found["key"])
    moved = [each for each in found["columns"] if each["distance"] or any(each["missing"]) or each["centers"]]
    if moved:
        yield "columns   distance: 0 equal, 1 disjoint; d: difference of means in standard deviations"
    for each in moved[:_MOST_COLUMNS]:
        parts = [f"distance {each['distance']:.3f}" if each["distance"] is not None else ""]
        if each["standardised"] is not None and each["kind"][0] != "text":
            parts.append(f"d {each['standardised']:+.3f}")
            parts.append(f"mean {text_of(each['mean'][0])} → {text_of(each['mean'][1])}")
        if each["centers"] is not None:
            parts.append(f"mean moved {each['centers']:.3f} of their distance from it")
        if any(each["missing"]):
            parts.append(f"missing {each['missing'][0] or 0:.1%} → {each['missing'][1] or 0:.1%}")
        yield f"  {each['column']}: {', '.join(part for part in parts if part)}"
    yield f"read      {', '.join(found['read']) or 'no window'}"


def _rows(rows: Any, key: str | None) -> Iterator[str]:
    by = f" by {key}" if key else ", without a key"
    yield f"rows      {rows['before']:,} → {rows['after']:,}{by}"
    for change in ("added", "removed"):
        if rows[change]["rows"]:
            examples = ", ".join(rows[change]["examples"])
            yield f"  {change} {rows[change]['rows']:,}" + (f", such as {examples}" if examples else "")
    changed = rows["changed"]
    if changed["rows"]:
        columns = ", ".join(f"{name} {count:,}" for name, count in changed["columns"].items())
        yield f"  changed {changed['rows']:,}: {columns}"
    for each in changed["examples"]:
        pairs = "; ".join(f"{name} {text_of(a)} → {text_of(b)}" for name, (a, b) in each["columns"].items())
        yield f"    {each['key']}: {pairs}"
    if rows["doubled_keys"]:
        yield f"  {rows['doubled_keys']:,} rows have a key that another row has; they are told apart by their order"


group.command("ls")(data_ls)
group.command("show")(data_show)
group.command("diff")(data_diff)
group.command("export")(data_export)
group.command("add")(data_add)
group.command("gc")(data_gc)
group.later("infer", "holdtrue.cli.contracts", "data_infer")
group.later("contract", "holdtrue.cli.contracts", "data_contract")
group.later("used", "holdtrue.cli.privacy", "data_used")
group.later("erase", "holdtrue.cli.privacy", "data_erase")
group.later("erasures", "holdtrue.cli.privacy", "data_erasures")
group.later("split", "holdtrue.cli.splits", "data_split")
group.later("splits", "holdtrue.cli.splits", "data_splits")
group.later("quarantine", "holdtrue.cli.quarantine", "data_quarantine")
group.later("mend", "holdtrue.cli.quarantine", "data_mend")
group.later("discard", "holdtrue.cli.quarantine", "data_discard")
