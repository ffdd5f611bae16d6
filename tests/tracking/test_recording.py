"""The SDK with no server, comparisons, retention, care for the database, and an import: all through real doors."""

import math
import os
from pathlib import Path

import httpx
import pytest
from scipy import stats

import holdtrue
from holdtrue.cli.main import main
from holdtrue.core.errors import Conflict, InvalidInput, Locked
from holdtrue.server import maintenance
from holdtrue.server.client import Client
from holdtrue.server.exchange import bring
from holdtrue.server.recording import joules
from holdtrue.storage.stores import prepare_home
from holdtrue.tracking import Run, RunInfo, RunStatus
from holdtrue.tracking.comparing import compare
from holdtrue.tracking.model import Metric, Pair
from tests.protocols.mlflow.conftest import Server, postgresql_server, server, sqlite_server

__all__ = ["postgresql_server", "server", "sqlite_server"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a data folder that no server has."""
    for name in [each for each in os.environ if each.startswith("HOLDTRUE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDTRUE_PROJECT", "flights")
    return tmp_path / "home"


def test_a_run_is_recorded_with_no_server(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.onnx").write_bytes(b"weights")
    with holdtrue.run("first", experiment="delays", home=home) as run:
        run.param(depth=3, seed=7)
        run.log(loss=0.5, kind="tree", step=1)
        run.log({"loss": math.nan, "val/auc": 0.75}, step=2)
        run.tag(team="dispatch")
        assert run.log_model(tmp_path / "model") == f"runs:/{run.id}/model"
    with pytest.raises(ZeroDivisionError), holdtrue.run("second", experiment="delays", home=home):
        raise ZeroDivisionError
    with Client.open(home) as client:
        found = client.get(f"/api/projects/flights/runs/{run.id}")
        assert found["status"] == "FINISHED"
        assert found["params"] == {"depth": "3", "seed": "7", "kind": "tree"}
        assert found["metrics"]["val/auc"] == 0.75
        assert found["metrics"]["loss"] is None
        assert found["metrics"]["cost/seconds"] >= 0
        assert found["metrics"]["cost/peak_memory_mib"] > 1
        assert found["tags"]["team"] == "dispatch"
        listed = client.get("/api/projects/flights/runs", experiment="delays", order="metrics.`val/auc` DESC")["items"]
        assert [each["status"] for each in listed] == ["FINISHED", "FAILED"]
    assert main(["runs", "--home", str(home), "--filter", "metrics.`val/auc` > 0.5"]) == 0
    assert "first" in capsys.readouterr().out
    assert main(["experiments", "--home", str(home)]) == 0
    assert "delays" in capsys.readouterr().out


def test_a_run_that_ended_takes_nothing_and_a_second_one_at_once_is_told_what_to_do(home: Path) -> None:
    with holdtrue.run("outer", home=home) as outer:
        with pytest.raises(Locked) as refused, holdtrue.run("inner", home=home):
            pass
        outer.log(loss=1.0)
        outer.end("KILLED")
        outer.end()
    assert "kill" not in str(refused.value)
    assert "holdtrue up" in refused.value.mend
    for late in (
        lambda: outer.log(loss=2.0),
        lambda: outer.param(a=1),
        lambda: outer.tag(a="b"),
        lambda: outer.artifact(__file__),
    ):
        with pytest.raises(Conflict, match="has ended here"):
            late()
    with Client.open(home) as client:
        (kept,) = client.get("/api/projects/flights/runs")["items"]
    assert (kept["status"], kept["metrics"]["loss"]) == ("KILLED", 1.0)


def test_energy_is_read_where_the_machine_counts_it(tmp_path: Path) -> None:
    assert joules(tmp_path) is None
    for name, value in (("intel-rapl:0", "2500000"), ("intel-rapl:1", "500000"), ("intel-rapl:0:0", "9")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(value)
    assert joules(tmp_path) == 3.0


def made(number: int, value: float, **params: str) -> Run:
    info = RunInfo(f"run{number}", number, 1, "r", "", RunStatus.FINISHED, 0, None, "", "active")
    return Run(info, (Metric("auc", 0, 0, value, 0),), tuple(Pair(*each) for each in params.items()))


def test_a_comparison_treats_seeds_as_repetitions() -> None:
    values = {"gbm": [0.81, 0.83, 0.82, 0.84], "linear": [0.70, 0.72, 0.69, 0.73], "once": [0.75]}
    runs = [
        made(10 * place + seed, value, kind=kind, seed=str(seed))
        for place, (kind, own) in enumerate(values.items())
        for seed, value in enumerate(own)
    ]
    found = compare(runs, "auc")
    assert [each.params for each in found.settings] == [{"kind": kind} for kind in ("gbm", "once", "linear")]
    first = found.settings[0]
    expected = stats.t.interval(0.95, 3, loc=first.mean, scale=stats.sem(values["gbm"]))
    assert first.interval == pytest.approx(expected)
    assert first.seeds == ("0", "1", "2", "3")
    once, linear = found.contrasts
    assert (once.p, once.interval) == (None, None)
    assert "one seed only" in once.verdict
    assert linear.p == pytest.approx(stats.ttest_ind(values["gbm"], values["linear"], equal_var=False)[1])
    assert linear.verdict == "different"
    assert compare([*runs, made(99, 1.0)], "other").left_out == tuple(run.info.id for run in [*runs, made(99, 1.0)])


def test_deleted_runs_go_for_good_in_batches(home: Path) -> None:
    with holdtrue.run("kept", home=home) as kept:
        kept.log(loss=1.0)
    with holdtrue.run("gone", home=home) as gone:
        for step in range(5):
            gone.log(loss=float(step), step=step)
    with Client.open(home) as client:
        base = "/api/projects/flights"
        client.post(f"{base}/imported-runs/{gone.id}/deleted")
        assert client.post(f"{base}/run-retention", {"days": 30})["runs"] == 0
        done = client.post(f"{base}/run-retention", {"days": 0})
        assert (done["runs"], done["more"]) == (1, False)
        assert done["points"] >= 5
        assert [each["id"] for each in client.get(f"{base}/runs", view="all")["items"]] == [kept.id]
        with pytest.raises(InvalidInput):
            client.post(f"{base}/run-retention", {"days": -1})


def test_a_backup_brings_back_what_was_there(home: Path, tmp_path: Path) -> None:
    with holdtrue.run("before", home=home):
        pass
    assert {
        name: word for name, word in maintenance.check(home).items() if name in ("pages", "event log", "blobs")
    } == {
        "pages": "ok",
        "event log": "ok",
        "blobs": "ok",
    }
    copy = maintenance.backup(home, tmp_path / "copy.db")
    with holdtrue.run("after", home=home):
        pass
    kept = maintenance.restore(home, copy)
    assert kept.is_file()
    with Client.open(home) as client:
        assert [each["name"] for each in client.get("/api/projects/flights/runs")["items"]] == ["before"]
        with pytest.raises(Locked):
            maintenance.restore(home, kept)
        with pytest.raises(Locked):
            maintenance.vacuum(home)
    before, after = maintenance.vacuum(home)
    assert 0 < after <= before
    assert maintenance.upgrade(home)["from"] == maintenance.upgrade(home)["to"]


def test_what_an_mlflow_server_keeps_is_brought_over_and_counted(home: Path, server: Server) -> None:
    """The source speaks MLflow's protocol: another server of ours, without a token in the way, behind its user info."""
    token = server.token("source")
    api = "/api/2.0/mlflow"
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as source:
        run = source.post(f"{api}/runs/create", json={"experiment_id": "0", "run_name": "old"}).json()["run"]["info"][
            "run_id"
        ]
        points = [{"key": "m", "value": step / 3, "timestamp": step, "step": step} for step in range(999)]
        batch = {"run_id": run, "metrics": points, "params": [{"key": "a", "value": "1"}]}
        assert source.post(f"{api}/runs/log-batch", json=batch).status_code == 200
        source.put(f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/m/model.onnx", content=b"weights")
        source.post(f"{api}/registered-models/create", json={"name": "late"})
        origin = f"mlflow-artifacts:/0/{run}/artifacts/m"
        source.post(
            f"{api}/model-versions/create",
            json={"name": "late", "source": origin, "run_id": run},
        )
        source.post(f"{api}/registered-models/alias", json={"name": "late", "alias": "champion", "version": "1"})
    address = server.url.replace("http://", f"http://{token}:x@")
    prepare_home(home, create=True)
    with Client.open(home) as client:
        for versions in (1, 0):
            done = bring(client, "flights", address)
            assert (done.differences, done.left_out) == ([], [])
            assert done.counts == {
                "experiments": 1, "runs": 1, "points": 999, "datasets": 0, "artifacts": 1, "artifact bytes": 7,
                "registered models": 1, "model versions": 1, "new model versions": versions, "aliases": 1,
            }  # fmt: skip
        found = client.get(f"/api/projects/flights/runs/{run}")
        assert (found["name"], found["params"], found["metrics"]) == ("old", {"a": "1"}, {"m": 998 / 3})
        assert client.get("/api/projects/flights/model-version", name="late@champion")["number"] == 1
