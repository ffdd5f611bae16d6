"""Hold the documentation to the code: what is not documented fails the build."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TEXTS = (".py", ".md", ".toml", ".txt", ".html", ".sh", "")


def test_the_reference_is_up_to_date() -> None:
    """Prevent a command, route, event or error code that nobody can look up."""
    script = ROOT / "scripts" / "reference.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\nMake it anew: python scripts/reference.py"


def test_each_decision_says_where_it_is_enforced() -> None:
    """Prevent a decision that is only a wish."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert pages
    assert [page.name for page in pages if "*Enforced in*" not in page.read_text()] == []


def test_the_readme_has_exactly_two_set_up_commands() -> None:
    """Prevent a third step that a newcomer has to know."""
    readme = (ROOT / "README.md").read_text()
    block = readme.split("```sh")[1].split("```")[0]
    assert [line.split("#")[0].strip() for line in block.strip().splitlines()] == ["make demo", "make test"]


def test_nothing_names_a_folder_of_a_machine() -> None:
    """Prevent a path or host of the place where this was written."""
    words = ("/work/", "/root/", "pypi.org", "files.pythonhosted")
    found: list[str] = []
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        path = ROOT / name
        if (
            path.suffix in (".py", ".md", ".toml", ".txt", ".html", ".sh", "")
            and path.is_file()
            and path != Path(__file__)
        ):
            text = path.read_text(encoding="utf-8", errors="ignore")
            found += [f"{name}: {word}" for word in words if word in text]
    assert found == []
