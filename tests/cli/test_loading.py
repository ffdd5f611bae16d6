"""`holdtrue run` puts a release under load where a gate asks for it, and `holdtrue load-test` does so by hand."""

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import holdtrue
from tests.cli.toys import edited, succeed, toy_folder

GATE = 'require={"good enough": "metric.roc_auc.lower >= 0.6"}'
SHORT = ("--seconds", "0.05", "--rounds", "2", "--starts", "2")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with a project whose gate asks how a release performs."""
    made = toy_folder(tmp_path)
    edited(
        made,
        (GATE, 'require={"no slower": "performance.regressions == 0"}'),
        ("holdout_days=7", "holdout_days=7, load=ht.LoadTest(seconds=0.05, rounds=2, starts=2)"),
    )
    return made


def test_a_gate_reads_how_a_release_performs_and_the_command_measures_it_again(toy: Path) -> None:
    made = json.loads(succeed("run", "happens", "--window", "2030-02", "--window", "2030-03", "--json", cwd=toy))
    assert made["decision"]["outcome"] == "allowed"
    (finding,) = made["decision"]["findings"]
    assert finding["rule"] == "no slower"
    release = made["release"]
    succeed("promote", "happens", release, cwd=toy)
    # Twenty percent noise and more lies between two rounds so short: with this margin nothing is a regression.
    again = succeed("load-test", release, *SHORT, "--margin", "9", "--record", "--against", release, cwd=toy)
    assert "times worse" in again
    assert f"No measure is surely more than 10 times that of {release}." in again
    alone = json.loads(succeed("load-test", release, *SHORT, "--json", cwd=toy))
    assert (alone["n"], alone["failed"], "against" in alone) == (2, 0, False)


def test_what_cannot_be_put_under_load_is_refused_with_a_reason(toy: Path) -> None:
    for arguments, said in (
        (("rel_0123456789abcdef",), "rel_0123456789abcdef"),
        (("rel_0123456789abcdef", "--rounds", "1"), "A load test cannot have rounds 1"),
    ):
        done = holdtrue("load-test", *arguments, cwd=toy)
        assert done.returncode != 0
        assert said in done.stderr
        assert "Traceback" not in done.stderr
