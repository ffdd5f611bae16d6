"""The commands as a person uses them: in a process of their own, with exit codes and mends."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from holdtrue.cli.main import GROUPS, command_line
from tests import forked

ROOT = Path(__file__).parents[2]


def holdtrue(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one command with an empty home and no settings of this machine."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    return forked.run(arguments, cwd, {**clean, "HOME": str(cwd), **environ})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project file that was applied to a data folder, with no server running."""
    folder = tmp_path_factory.mktemp("made")
    (folder / ".holdtrue").mkdir(mode=0o700)
    assert holdtrue("init", "--name", "toy", cwd=folder).returncode == 0
    done = holdtrue("apply", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "add" in done.stdout
    return folder


def test_init_does_not_overwrite(made: Path) -> None:
    """What a person wrote stays."""
    before = (made / "project.py").read_text()
    done = holdtrue("init", cwd=made)
    assert done.returncode == 1
    assert "there already" in done.stderr
    assert (made / "project.py").read_text() == before


def test_applying_again_says_so(made: Path) -> None:
    """A second apply finds nothing to do; plan agrees."""
    assert "Nothing to change" in holdtrue("apply", cwd=made).stdout
    planned = json.loads(holdtrue("plan", "--json", cwd=made).stdout)
    assert planned == {"changes": [], "contracts": [], "drift": []}


def test_a_plan_tells_field_by_field_what_changes(made: Path) -> None:
    other = made / "other.py"
    text = (made / "project.py").read_text()
    other.write_text(text.replace("margin=0.01)", "margin=0.02),\n    abstain=(0.4, 0.6)"))
    done = holdtrue("plan", "--file", "other.py", cwd=made)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "  change  service happens",
        "            abstain: – → [0.4, 0.6]",
        "            rollout.margin: 0.01 → 0.02",
    ]


@pytest.mark.parametrize(
    "listing",
    ["releases", "decisions", "rollouts", "incidents", "datasets", "quarantines", "jobs", "activity", "token list"],
)
def test_every_listing_speaks_json(made: Path, listing: str) -> None:
    """Scripts read a list from each."""
    done = holdtrue(*listing.split(), "--json", cwd=made)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


def test_status_names_the_service(made: Path) -> None:
    """A service without a release is there, and said to have none."""
    done = holdtrue("status", "--json", cwd=made)
    assert done.returncode == 0, done.stderr
    assert "happens" in done.stdout


def test_a_name_with_a_typo_is_answered_with_the_right_one(made: Path, tmp_path: Path) -> None:
    """The unknown name in a project file is named, with its line."""
    text = (made / "project.py").read_text().replace("ht.numeric(", "ht.numerik(")
    (tmp_path / "project.py").write_text(text)
    (tmp_path / ".holdtrue").mkdir(mode=0o700)
    done = holdtrue("apply", cwd=tmp_path)
    assert done.returncode == 2
    assert "numerik" in done.stderr
    assert "Line" in done.stderr


def test_an_unknown_setting_ends_every_command(made: Path) -> None:
    """A misspelt variable is never ignored."""
    done = holdtrue("status", cwd=made, HOLDTRUE_PROT="7700")
    assert done.returncode == 2
    assert "HOLDTRUE_PROT" in done.stderr


def test_no_data_folder(tmp_path: Path) -> None:
    """The mend is the command that makes one."""
    done = holdtrue("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "holdtrue up" in done.stderr


def test_an_unknown_prediction(made: Path) -> None:
    """Not found is said plainly, without a traceback."""
    done = holdtrue("why", "prd_nothing", cwd=made)
    assert done.returncode == 1
    assert "prd_nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_event_log_is_whole_and_says_so(made: Path) -> None:
    """The verifier runs with no server."""
    done = holdtrue("audit", "verify", cwd=made)
    assert done.returncode == 0, done.stdout + done.stderr


def test_doctor_finds_a_folder_that_others_can_read(made: Path) -> None:
    """The finding has the command that mends it, and the exit status tells scripts."""
    assert holdtrue("doctor", cwd=made).returncode == 0
    (made / ".holdtrue").chmod(0o755)
    try:
        done = holdtrue("doctor", cwd=made)
    finally:
        (made / ".holdtrue").chmod(0o700)
    assert done.returncode == 1
    assert "chmod" in done.stdout


def test_a_window_that_was_never_delivered(made: Path) -> None:
    """The data set's own error is passed on, with what to look at."""
    done = holdtrue("run", "--window", "2031-01", "--ingest", cwd=made)
    assert done.returncode == 1
    assert "2031-01" in done.stderr


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_a_group_loaded_by_itself_is_as_it_is_among_all(group: str) -> None:
    def known(line: Any) -> list[str]:
        root: Any = typer.main.get_command(line)
        return list(root.commands[group].commands)

    assert known(command_line(group)) == known(command_line()) != []
