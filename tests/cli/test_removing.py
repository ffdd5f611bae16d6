"""What is taken out of the project file is no longer in force, or is refused with the reason."""

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import holdtrue
from tests.cli.toys import TEXT, edited, succeed, toy_folder

RETRAIN = ("project.retrain(happens)\n", "")
MONITOR = ("project.monitor(happens)\n", "")
SERVICE = (TEXT[TEXT.index("project.service(") : TEXT.index("project.monitor(")], "")
GATE = (TEXT[TEXT.index("project.gate(") : TEXT.index("project.service(")], "")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder in which the project was applied."""
    folder = toy_folder(tmp_path)
    succeed("apply", cwd=folder)
    return folder


def _actions(folder: Path) -> list[str]:
    return [each["action"] for each in json.loads(succeed("activity", "--json", cwd=folder))]


def test_what_is_taken_out_is_gone_and_on_record(toy: Path) -> None:
    """Retrain, gate and service are no longer in force; the log says who ended them, and apply has no more to do."""
    edited(toy, RETRAIN, MONITOR, SERVICE, GATE)
    shown = succeed("apply", cwd=toy)
    for name in ("retrain happens", "service happens", "policy production"):
        assert f"remove  {name}" in shown
    assert json.loads(succeed("status", "--json", cwd=toy))["services"] == []
    assert {"retrain.removed", "service.removed", "policy.unbound", "monitor.removed"} <= set(_actions(toy))
    assert "Nothing to change" in succeed("apply", cwd=toy)
    edited(toy)
    assert "add     service happens" in succeed("apply", cwd=toy)
    assert json.loads(succeed("status", "--json", cwd=toy))["services"][0]["name"] == "happens"


def test_a_dataset_that_is_taken_out_takes_no_more_in(toy: Path) -> None:
    """Its declaration goes, and a quarantine of it waits for nobody any longer."""
    holdtrue("run", "--ingest", "--window", "2030-01", cwd=toy)
    assert json.loads(succeed("quarantines", "--json", cwd=toy))[0]["state"] == "open"
    (toy / "project.py").write_text('import holdtrue as ht\nproject = ht.Project("toy", owner="me")\n')
    assert "remove  dataset rows" in succeed("apply", cwd=toy)
    assert json.loads(succeed("datasets", "--json", cwd=toy)) == []
    assert json.loads(succeed("quarantines", "--json", cwd=toy))[0]["state"] == "discarded"
    assert {"dataset.removed", "quarantine.discarded"} <= set(_actions(toy))


def test_a_service_that_is_deployed_stays(toy: Path) -> None:
    """Taking it out would end its answers without a decision: plan and apply both say so, and nothing changes."""
    made = json.loads(succeed("run", "-w", "2024-01", "--json", cwd=toy))
    succeed("promote", "happens", made["release"], cwd=toy)
    edited(toy, RETRAIN, MONITOR, SERVICE)
    for verb in ("plan", "apply"):
        done = holdtrue(verb, cwd=toy)
        assert done.returncode == 1
        assert "cannot be removed: it is deployed" in done.stderr
    assert "retrain.removed" not in _actions(toy)
    edited(toy, GATE)
    succeed("apply", cwd=toy)
    again = holdtrue("gate", made["release"], cwd=toy)
    assert again.returncode == 1
    assert "production" in again.stderr


def test_a_part_that_names_what_is_not_declared_is_refused(toy: Path) -> None:
    """A monitor of nothing would watch nothing, silently."""
    edited(toy, ("project.monitor(happens)", 'project.monitor("hapens")'))
    done = holdtrue("apply", cwd=toy)
    assert done.returncode == 2
    assert "“hapens”, which is not declared" in done.stderr
    assert "Declared services: happens" in done.stderr
