"""Hold what importing costs and what the package may bring along."""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from holdtrue.server.table import AREAS

ROOT = Path(__file__).parents[2]


HEAVY = frozenset(
    {"numpy", "scipy", "pyarrow", "duckdb", "sqlalchemy", "fastapi", "starlette", "pydantic", "sklearn", "plotly"}
    | {"httpx", "alembic", "jinja2", "anyio", "uvloop"}
)


def _loaded(script: str, *arguments: str) -> set[str]:
    """Return the modules that a script has loaded in a process of its own."""
    whole = f"import sys\n{script}\nprint('loaded', *sorted(sys.modules))"
    command = [sys.executable, "-c", whole, *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return set(said.splitlines()[-1].split()[1:])


def _roots(loaded: set[str]) -> set[str]:
    return {name.split(".")[0] for name in loaded}


def test_importing_the_package_loads_no_heavy_library() -> None:
    """Prevent the 12-second import: one eager line in one room was enough elsewhere."""
    assert _roots(_loaded("import holdtrue")) & HEAVY == set()


def test_help_loads_no_heavy_library() -> None:
    """Prevent a help that begins the program: it is asked for most by those who wait least."""
    script = "from holdtrue.cli import main\nmain(['--help'])"
    assert _roots(_loaded(script)) & HEAVY == set()


def test_a_command_beside_a_server_loads_no_heavy_library() -> None:
    """Prevent that asking a server costs what being one does: the command only sends and prints."""
    script = """
import os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

class Empty(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"items": [], "next": null}')

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"name": "things", "version": "ds_1", "number": 1, "label": "things@1"}')

server = HTTPServer(("127.0.0.1", 0), Empty)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HOLDTRUE_URL": f"http://127.0.0.1:{server.server_port}", "HOLDTRUE_TOKEN": "t"}

from holdtrue.cli.adding import Wanted, add
from holdtrue.cli.main import main
from holdtrue.data.ahead import Ahead
from holdtrue.data.endings import Reading
from holdtrue.server.client import Client

assert main(["data", "ls", "--project", "p"]) == 0
home = Path(sys.argv[1])
with Client.open() as client:
    wanted = Wanted("things", (sys.argv[2],), None, True, Reading())
    ahead = Ahead(wanted.paths)
    assert add(client, home, "/api/projects/p/datasets/things/versions", wanted, ahead)["files"] == 1
"""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "files").mkdir()
        (Path(folder) / "files" / "a.txt").write_text("a")
        loaded = _roots(_loaded(script, f"{folder}/home", f"{folder}/files"))
    assert loaded & (HEAVY | {"typer", "rich"}) == set()


def test_a_command_without_a_server_loads_only_the_room_it_asks() -> None:
    """Prevent that listing datasets loads what trains models: each room's imports were once paid by every command."""
    script = """
import os
os.environ["HOLDTRUE_HOME"] = sys.argv[1]
os.mkdir(sys.argv[1], 0o700)
from holdtrue.cli.main import main
assert main(["data", "ls", "--project", "p"]) == 0
"""
    with tempfile.TemporaryDirectory() as folder:
        loaded = _loaded(script, f"{folder}/home")
    assert _roots(loaded) & {"numpy", "pyarrow", "duckdb", "httpx", "scipy", "jinja2", "rich", "typer"} == set()
    assert {f"holdtrue.{name}" for name in AREAS} & loaded == {"holdtrue.data.api"}


def test_the_core_has_at_most_twenty_direct_dependencies() -> None:
    """Prevent an install that drags in half the index: what is optional is an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 20


def test_lock_files_have_hashes_and_name_no_index() -> None:
    """Prevent an unlocked build, and a lock that works from one network only."""
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        assert "--index-url" not in text
        assert "://" not in text
        pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#", "-"))]
        assert pins
        assert all("==" in line for line in pins)
        assert text.count("--hash=sha256:") >= len(pins)
