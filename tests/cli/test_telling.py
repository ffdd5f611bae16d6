"""What commands say is so, and what they name as the mend works."""

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import holdtrue
from tests.cli.toys import edited, succeed, toy_folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with a project and an empty data folder."""
    return toy_folder(tmp_path)


def test_an_approval_says_how_many_are_given(toy: Path) -> None:
    """One of two approvals is not yet an allowance; the log names people."""
    edited(toy, ("approvals=0", "approvals=2"))
    release = json.loads(succeed("run", "-w", "2024-01", "--json", cwd=toy))["release"]
    tokens = {
        name: succeed("token", "create", "--role", "reviewer", "--name", name, cwd=toy).strip()
        for name in ("grace", "rosa")
    }
    first = succeed("approve", release, cwd=toy, HOLDTRUE_TOKEN=tokens["grace"])
    assert "not allowed yet: 1 of 2 approvals" in first
    assert "It is allowed: 2 of 2 approvals" in succeed("approve", release, cwd=toy, HOLDTRUE_TOKEN=tokens["rosa"])
    shown = succeed("activity", cwd=toy)
    assert "grace" in shown
    assert "usr_" not in shown


def test_missing_evidence_of_a_foreign_kind_names_where_it_is_recorded(toy: Path) -> None:
    """Training again would not record a cost."""
    edited(toy, ('"metric.roc_auc.lower >= 0.6"', '"cost.total < 10.0"'))
    done = holdtrue("run", "-w", "2024-01", cwd=toy)
    assert done.returncode == 3
    assert "POST /api/projects/{project}/evidence with the kind “cost”" in done.stdout


def test_what_is_not_found_names_a_listing_that_exists(toy: Path) -> None:
    """A listing of predictions does not exist, and is not named."""
    succeed("apply", cwd=toy)
    assert "`holdtrue releases` lists" in holdtrue("gate", "rel_nothing", cwd=toy).stderr
    assert "parameters.prediction_ids" in holdtrue("why", "prd_nothing", cwd=toy).stderr


def test_an_input_that_requests_do_not_carry_yet_is_refused_with_a_mend(toy: Path) -> None:
    """Making the same release again would be refused again."""
    first = json.loads(succeed("run", "-w", "2024-01", "--json", cwd=toy))["release"]
    succeed("promote", "happens", first, cwd=toy)
    edited(toy, ('"amount": "FP64"}', '"amount": "FP64", "happened": "BOOL"}'))
    second = json.loads(succeed("run", "--json", cwd=toy))["release"]
    done = holdtrue("promote", "happens", second, cwd=toy)
    assert done.returncode == 1
    assert "keep the inputs of the service as they are" in done.stderr
