"""`holdtrue run` says with its exit status what became of a release, and refuses what it cannot do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from holdtrue.server.client import Client
from holdtrue.server.ports import free_ports
from tests.cli.test_commands import holdtrue
from tests.cli.toys import edited, succeed, toy_folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with a project and an empty data folder."""
    return toy_folder(tmp_path)


@pytest.fixture
def served(toy: Path) -> Iterator[tuple[Path, str]]:
    """The folder with `holdtrue up` running in it as a person starts it, without naming the project file."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    port = str(free_ports("127.0.0.1"))
    process = subprocess.Popen(
        [sys.executable, "-m", "holdtrue", "up", "--port", port],
        cwd=toy,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    url = next((line.split()[1] for line in process.stdout if line.startswith("ready ")), "")
    assert url, process.stderr.read()
    yield toy, url
    process.terminate()
    process.wait(60)
    process.stdout.close()
    process.stderr.close()


def test_a_refusal_and_a_blocked_delivery_have_exit_codes_of_their_own(toy: Path) -> None:
    """A script learns without reading what became of the run; the difference between two releases is shown."""
    first = holdtrue("run", "-w", "2024-01", "-w", "2030-01", cwd=toy)
    assert first.returncode == 4, first.stderr
    assert "blocked and quarantined" in first.stdout
    assert "allowed" in first.stdout
    assert holdtrue("run", "--ingest", "--window", "2030-01", cwd=toy).returncode == 4
    edited(toy, (">= 0.6", ">= 0.99"), ("holdout_days=7", "holdout_days=8"))
    refused = holdtrue("run", cwd=toy)
    assert refused.returncode == 3, refused.stderr
    assert "refused" in refused.stdout
    edited(toy, ("approvals=0", "approvals=1"), ('label="happens"', 'label="will_happen"'))
    assert "waiting_approval" in succeed("run", cwd=toy)
    made = [each["id"] for each in json.loads(succeed("releases", "--json", cwd=toy))]
    assert "output: happens → will_happen" in succeed("diff", made[-1], made[0], cwd=toy)


def test_without_a_gate_a_run_says_that_nothing_is_decided(toy: Path) -> None:
    """No gate is no permission, and no reason to fail either."""
    edited(toy, ('project.gate("production"', 'project.gate("staging"'))
    assert "no gate is declared for production" in succeed("run", "-w", "2024-01", cwd=toy)


def test_taking_in_needs_a_window_and_knows_its_datasets(toy: Path) -> None:
    """A command that does nothing does not end well; a dataset is not taken for a model."""
    done = holdtrue("run", "--ingest", cwd=toy)
    assert done.returncode == 2
    assert "holdtrue run --ingest --window YYYY-MM" in done.stderr
    done = holdtrue("run", "--ingest", "rwos", "--window", "2024-01", cwd=toy)
    assert done.returncode == 1
    assert "Its datasets: rows" in done.stderr
    assert "600 rows" in succeed("run", "--ingest", "rows", "--window", "2024-01", cwd=toy)


def test_up_uses_the_project_file_that_is_here_and_run_knows_its_server(
    served: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The worker runs jobs with that file; a run for a server elsewhere is refused before it begins."""
    toy, url = served
    token = (toy / ".holdtrue" / "keys" / "local-token").read_text().strip()
    made = json.loads(succeed("run", "-w", "2024-01", "--json", cwd=toy, HOLDTRUE_URL=url))
    assert made["decision"]["outcome"] == "allowed"
    with Client.at(url, token) as client:
        job = client.post(
            "/api/projects/toy/jobs", {"kind": "ingest", "payload": {"dataset": "rows", "window": "2024-02"}}
        )
        end = time.monotonic() + 60
        while (done := client.get(f"/api/projects/toy/jobs/{job['id']}"))["state"] not in ("done", "dead"):
            assert time.monotonic() < end
            time.sleep(0.05)
    assert done["state"] == "done", done
    assert done["result"]["rows"] == 600
    elsewhere = toy_folder(tmp_path_factory.mktemp("elsewhere"))
    done = holdtrue("run", "-w", "2024-01", cwd=elsewhere, HOLDTRUE_URL=url, HOLDTRUE_TOKEN=token)
    assert done.returncode == 1
    assert "works beside the data folder of its server" in done.stderr
    assert list((elsewhere / ".holdtrue").iterdir()) == []


def test_up_refuses_a_project_file_that_is_not_there(toy: Path) -> None:
    """A worker without its file would let every job die."""
    for named in ({"HOLDTRUE_FILE": "nowhere.py"}, {}):
        arguments = [] if named else ["--file", "nowhere.py"]
        done = holdtrue("up", "--port", "0", *arguments, cwd=toy, **named)
        assert done.returncode == 1
        assert "There is no project file at nowhere.py" in done.stderr


def test_a_dataset_is_scored_into_a_file_and_a_second_time_from_the_cache(toy: Path) -> None:
    """The release that answers in production scores, or the one that is named; versions are told apart."""
    made = json.loads(succeed("run", "-w", "2024-01", "-w", "2024-02", "--json", cwd=toy))["release"]
    nobody = holdtrue("score", "happens", "rows", "--out", "out.parquet", cwd=toy)
    assert nobody.returncode == 1
    assert "--release" in nobody.stderr
    succeed("promote", "happens", made, cwd=toy)
    first = json.loads(succeed("score", "happens", "rows", "--out", "out.parquet", "--json", cwd=toy))
    assert (first["rows"], first["bad"], first["cached"], first["release"]) == (1200, 0, 0, made)
    text = succeed("score", "happens", "rows@1", "--release", made, "--out", "one.parquet", cwd=toy)
    assert "600 rows of rows" in text
    assert "1 parts, 1 of them from before" in text
    table = pq.read_table(toy / "out.parquet")
    assert table.num_rows == 1200
    assert table["score"].null_count == 0
    for wrong in (["nobody", "rows"], ["happens", "nothing"], ["happens", "rows@77"]):
        done = holdtrue("score", *wrong, "--out", "x.parquet", cwd=toy)
        assert done.returncode == 1, wrong
        assert "There is no" in done.stderr
    assert not (toy / "x.parquet").exists()
