"""`holdtrue rollout simulate` as a person calls it."""

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import holdtrue
from tests.delivery.worlds import open_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project file and no data folder: nothing must be applied before it is tried out."""
    made = tmp_path_factory.mktemp("plan")
    assert holdtrue("init", "--name", "toy", cwd=made).returncode == 0
    return made


def test_a_plan_is_played_for_an_equal_and_two_worse_releases(folder: Path) -> None:
    done = holdtrue("rollout", "simulate", "--runs", "5", "--requests", "8000", "--workers", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "happens: steps 5, 25, 50 %, margin 0.01 (brier)" in done.stdout
    assert "An equal release\n  5 rollouts: " in done.stdout
    assert "A release that is 0.05 worse" in done.stdout
    assert "missed regressions: " in done.stdout
    assert "time to decide: " in done.stdout


def test_scripts_read_json_and_the_seed_repeats_it(folder: Path) -> None:
    arguments = ("rollout", "simulate", "happens", "--effect", "0.3", "--runs", "4", "--requests", "900", "--json")
    first = holdtrue(*arguments, "--seed", "7", cwd=folder)
    found = json.loads(first.stdout)
    assert found["service"] == "happens"
    assert found["simulations"][0]["endings"]["rolled_back"] == 4
    assert found["simulations"][0]["shares"]["missed"]["value"] == 0.0
    assert json.loads(holdtrue(*arguments, "--seed", "7", cwd=folder).stdout) == found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("other",), "There is no service “other”"),
        (("--base", "0.99"), "cannot be played with --base"),
        (("--per-day", "-3"), "cannot be played with --per-day"),
        (("--per-day", "0"), "cannot be played with --per-day 0"),
        (("--label-delay", "200000"), "from 0 to 100,000"),
    ],
)
def test_what_cannot_be_played_is_refused_with_a_reason(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = holdtrue("rollout", "simulate", *arguments, cwd=folder)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_recorded_losses_are_asked_of_the_server_and_their_absence_is_said(folder: Path) -> None:
    (folder / ".holdtrue").mkdir(mode=0o700)
    assert holdtrue("apply", cwd=folder).returncode == 0
    counted = holdtrue("dora", "--days", "30", cwd=folder)
    assert counted.stdout == "Nothing reached production in the last 30 days.\n"
    assert len(json.loads(holdtrue("dora", "--json", cwd=folder).stdout)["items"]) == 7
    for arguments, said in (
        ((), "There is no rollout."),
        (("newest", "--service", "happens"), "There is no rollout of “happens”."),
        (("rol_01m8bdqz0p3ym5e2y0gxpmr5ex", "--service", "happens"), "Leave --service out"),
    ):
        refused = holdtrue("rollout", "report", *arguments, cwd=folder)
        assert refused.returncode != 0
        assert said in refused.stderr
    done = holdtrue("rollout", "simulate", "--history", "newest", cwd=folder)
    assert done.returncode != 0
    assert "There is no rollout of “happens” with rows that both releases scored" in done.stderr


def test_a_report_without_an_id_is_about_the_newest_rollout(tmp_path: Path) -> None:
    world = open_world(tmp_path / "home")
    world.declare()
    running = world.rolling()
    world.stores.close()
    for arguments in ((), ("newest",), ("newest", "--service", "delay")):
        done = holdtrue("rollout", "report", *arguments, "--home", str(tmp_path / "home"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = f"{running.id} of delay: {running.challenger} against {running.champion}\n"
        assert told in done.stdout
    named = holdtrue("rollout", "report", running.id, "--home", str(tmp_path / "home"), cwd=tmp_path)
    assert named.returncode == 0
    # The same report, but for the line that says which rollout it is about.
    assert done.stdout.splitlines() == [told.rstrip(), *named.stdout.splitlines()]
