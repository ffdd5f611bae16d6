"""Where rows come from besides a function of the user's own: files, other databases, queries of DuckDB."""

from holdtrue.data.sources.files import read_files
from holdtrue.data.sources.queries import read_query
from holdtrue.data.sources.store import read_sql

__all__ = ["read_files", "read_query", "read_sql"]
