"""Hold the documentation to the code: what is not documented fails the build."""

import re
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


def test_every_link_between_pages_leads_somewhere() -> None:
    """Prevent a page, or a heading, that was moved and is still pointed at."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    headings = {page: {_anchor(line) for line in page.read_text().splitlines() if line[:1] == "#"} for page in pages}
    lost: list[str] = []
    for page in pages:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", page.read_text()):
            to = (page.parent / target).resolve() if target else page
            if not to.exists() or (anchor and anchor not in headings.get(to, set())):
                lost.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert lost == []


def _anchor(heading: str) -> str:
    """Return the name by which a heading is pointed at: its words in small letters, with dashes between them."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


def test_what_is_kept_is_text_and_lies_here() -> None:
    """Prevent a link to another place, or a database that some run left, from being kept."""
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    links = [line.split("\t")[1] for line in listed.splitlines() if line.startswith("120000")]
    names = [line.split("\t")[1] for line in listed.splitlines()]
    strange = [name for name in names if Path(name).suffix in (".db", ".sqlite", ".log", ".mdb", ".pyc", ".parquet")]
    assert (links, strange) == ([], [])


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
