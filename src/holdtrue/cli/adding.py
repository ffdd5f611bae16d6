"""Files, or the rows of a query, into a version of a dataset."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdtrue.core.errors import ConfigurationError, NotFound
from holdtrue.data.adding import Added, Adding
from holdtrue.data.ahead import Ahead
from holdtrue.data.endings import ENDINGS, Reading
from holdtrue.server.client import Client
from holdtrue.storage import ActionCache, BlobStore


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say what is added: to which dataset, which files, with which key, kept as files or read as rows, and how.

    Instead of files, a `query` to DuckDB or to the database at `sql` gives the rows of one `window`.
    """

    name: str
    paths: tuple[str, ...]
    key: str | None
    as_files: bool
    how: Reading
    query: str | None = None
    sql: str | None = None
    window: str | None = None


def add(client: Client, home: Path, address: str, wanted: Wanted, ahead: Ahead) -> dict[str, Any]:
    """Store the files that were looked for `ahead` beside the data folder's server, and register their version."""
    adding = Adding(BlobStore(home / "blobs"), ActionCache(home / "actions"), wanted.name, wanted.how, wanted.key)
    if wanted.query is not None:
        return _add_query(client, adding, address, wanted, wanted.query)
    _check_plain(wanted)
    if wanted.as_files and ahead.root is not None:
        adding.prepare(ahead.root)
    folder = ahead.folder()
    as_rows = folder.tables and not wanted.as_files
    if wanted.key is not None and not as_rows:
        raise ConfigurationError(
            "Files that are kept as they are have no key.",
            why=f"Not every file ends with {', '.join(ENDINGS)}." if not wanted.as_files else "--files was given.",
            mend="Leave --key out, or name files of rows only.",
        )
    added = adding.tables(folder) if as_rows else adding.tree(folder)
    return _registered(client, address, added)


def _add_query(client: Client, adding: Adding, address: str, wanted: Wanted, query: str) -> dict[str, Any]:
    """Add the rows of a query as one window; other windows of the dataset stay if the window has a name."""
    if wanted.paths or wanted.as_files:
        raise ConfigurationError(
            "Rows come from files or from a query.", why="Both were given.", mend="Leave the files or --query out."
        )
    from holdtrue.data import read_query, read_sql

    table = read_query(query) if wanted.sql is None else read_sql(wanted.sql, query)
    others: dict[str, Any] = {}
    if wanted.window is not None:
        with contextlib.suppress(NotFound):
            others = dict(client.get(address.removesuffix("/versions"))["fragments"])
    return _registered(client, address, adding.rows(table, wanted.window or "rows", others))


def _registered(client: Client, address: str, added: Added) -> dict[str, Any]:
    made = client.post(address, added.content)
    rows = sum(part["rows"] for part in added.content.get("fragments", {}).values())
    return {**made, "files": added.files, "read": added.read, "rows": rows}


def _check_plain(wanted: Wanted) -> None:
    if wanted.sql is not None or wanted.window is not None:
        raise ConfigurationError(
            f"{'--sql' if wanted.sql is not None else '--window'} goes with a query.",
            why="Files have the names of their windows, and no database.",
            mend="Say which rows are wanted: --query 'SELECT …'",
        )
    if not wanted.paths:
        raise ConfigurationError("Nothing to add was named.", mend="Name files, a folder or a glob, or give --query.")
