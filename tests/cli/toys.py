"""A small project on made-up data, as a person has it in a folder."""

from pathlib import Path

from tests.cli.test_commands import holdtrue

TEXT = (Path(__file__).parent / "toy_project.py.txt").read_text(encoding="utf-8")


def toy_folder(folder: Path, text: str = TEXT) -> Path:
    """Write the project file into a folder with an empty data folder beside it."""
    (folder / ".holdtrue").mkdir(mode=0o700)
    (folder / "project.py").write_text(text, encoding="utf-8")
    return folder


def edited(folder: Path, *changes: tuple[str, str]) -> None:
    """Change the project file; what is to be changed must be there."""
    text = TEXT
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "project.py").write_text(text, encoding="utf-8")


def succeed(*arguments: str, cwd: Path, **environ: str) -> str:
    """Run a command that has to work, and return what it printed."""
    done = holdtrue(*arguments, cwd=cwd, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
