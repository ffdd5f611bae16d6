"""Project files that cannot be loaded say where and why."""

from pathlib import Path

import pytest

from holdtrue.core.errors import ConfigurationError, NotFound
from holdtrue.project import load_project


def _written(folder: Path, text: str) -> Path:
    path = folder / f"file_{abs(hash(text))}.py"
    path.write_text(text)
    return path


def test_a_file_with_one_project_is_loaded(tmp_path: Path) -> None:
    """The project in it is returned whatever its variable is called."""
    path = _written(tmp_path, "import holdtrue as ht\nmine = ht.Project('toy', owner='me')\n")
    assert load_project(path).name == "toy"


def test_no_file(tmp_path: Path) -> None:
    """The mend names the command that writes one."""
    with pytest.raises(NotFound) as caught:
        load_project(tmp_path / "project.py")
    assert "holdtrue init" in caught.value.mend


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import holdtrue as ht\n\nht.Projekt('x', owner='me')\n", "Line 3."),
        ("x = (\n", "Line 1."),
        ("1 / 0\n", "Line 1."),
    ],
)
def test_a_broken_file_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    """No traceback is needed to find the place."""
    with pytest.raises(ConfigurationError) as caught:
        load_project(_written(tmp_path, text))
    assert caught.value.why == said


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_defines_exactly_one_project(tmp_path: Path, count: int) -> None:
    """None or two projects are refused."""
    lines = [f"p{place} = ht.Project('p{place}', owner='me')" for place in range(count)]
    with pytest.raises(ConfigurationError, match=f"{count} projects"):
        load_project(_written(tmp_path, "\n".join(["import holdtrue as ht", *lines])))
