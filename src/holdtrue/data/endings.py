"""Which files hold rows, and how text files are read: known without loading what reads them."""

from typing import NamedTuple

ENDINGS = (".parquet", ".pq", ".csv", ".tsv", ".json", ".jsonl", ".ndjson")
"""Endings of files that hold rows."""


class Reading(NamedTuple):
    """Say how text files are read; without a delimiter, commas, and tabs in `.tsv`.

    `texts` names columns that are texts though most of their values look like numbers or moments; `missing` are values
    that mean that there is none, besides the usual ones.
    """

    delimiter: str | None = None
    encoding: str = "utf-8"
    texts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
