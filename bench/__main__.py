"""Run the benchmarks and print one table: `python -m bench [TOPIC]`."""

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import bench

RESULTS = Path(__file__).parent / "results.json"


def main(topic: str | None) -> int:
    """Run every module of this package that has a `run`, and write `results.json`."""
    rows: list[dict[str, Any]] = []
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name.startswith("_") or (topic and topic not in module.name):
            continue
        loaded = importlib.import_module(f"bench.{module.name}")
        if hasattr(loaded, "run"):
            rows += loaded.run()
    if not rows:
        print(f"No benchmark is called “{topic}”.", file=sys.stderr)
        return 1
    table = Table(box=None, header_style="bold")
    for name in ("topic", "work", "unit", "ours", "peer", "theirs", "ratio", "goal", "met"):
        table.add_column(name, justify="right" if name in ("ours", "theirs", "ratio") else "left")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in [str(column.header) for column in table.columns]))
    Console(width=160).print(table)
    if topic is None:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
