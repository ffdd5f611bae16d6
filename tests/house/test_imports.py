"""Hold what importing costs and what the package may bring along."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_importing_the_package_loads_no_heavy_library() -> None:
    """Prevent the 12-second import: one eager line in one room was enough elsewhere."""
    script = "import sys, holdtrue; print('\\n'.join(sorted(m.split('.')[0] for m in sys.modules)))"
    loaded = set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )
    heavy = {
        "numpy",
        "scipy",
        "pyarrow",
        "duckdb",
        "sqlalchemy",
        "fastapi",
        "pydantic",
        "sklearn",
        "plotly",
        "httpx",
    }
    assert loaded & heavy == set()


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
