"""Run the benchmarks and print one table: `python -m bench [TOPIC]`."""

import importlib
import json
import os
import pkgutil
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import bench

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_HEAD = """# Benchmarks

Written by `make bench`, each topic as measured in its last run, on {cores} cores, {system}, Python {python}. Ours and
theirs are measured in turn in the same run; a ratio above 1 means ours is better. Absolute figures depend on the
machine, and on what else ran on it.

Not comparable: the bare handlers do no authentication, no contract check, no features and write no record; the plain
SQLite floor writes no event log. They show what the machine could do at most.
"""
_NAMES = ("topic", "work", "unit", "ours", "peer", "peer_version", "theirs", "ratio", "goal", "met")


def main(topic: str | None) -> int:
    """Run every module of this package that has a `run`, print its rows, and keep them in `results.json`."""
    rows: list[dict[str, Any]] = []
    kept: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name.startswith("_") or (topic and topic not in module.name):
            continue
        loaded = importlib.import_module(f"bench.{module.name}")
        if hasattr(loaded, "run"):
            found = loaded.run()
            rows += found
            notes = " ".join(getattr(loaded, "NOTES", "").split())
            kept[module.name] = {"measured": f"{datetime.now(UTC):%Y-%m-%d}", "rows": found, "notes": notes}
            # What ran is kept, whatever becomes of the topics after it.
            RESULTS.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")
            PAGE.write_text(_page(kept), encoding="utf-8")
    if not rows:
        print(f"No benchmark is called “{topic}”.", file=sys.stderr)
        return 1
    table = Table(box=None, header_style="bold")
    for name in _NAMES:
        if name != "peer_version":
            table.add_column(name, justify="right" if name in ("ours", "theirs", "ratio") else "left")
    for row in rows:
        table.add_row(*(_text(row.get(str(column.header))) for column in table.columns))
    Console(width=160).print(table)
    return 0


def _page(kept: Mapping[str, Any]) -> str:
    """Return the results as a page of documentation."""
    parts = [_HEAD.format(cores=os.cpu_count(), system=platform.system(), python=platform.python_version())]
    for topic, found in sorted(kept.items()):
        names = [name for name in _NAMES if name != "topic"]
        lines = ["| " + " | ".join(names) + " |", "|" + "--|" * len(names)]
        lines += ["| " + " | ".join(_text(row.get(name)) for name in names) + " |" for row in found["rows"]]
        head = f"## {topic.replace('_', ' ')}\n\nMeasured {found['measured']}. {found.get('notes', '')}".rstrip()
        parts.append(f"{head}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
