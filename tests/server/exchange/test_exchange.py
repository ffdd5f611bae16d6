"""Bring MLflow's folders and databases over, send them back, and compare both ends through MLflow's own client."""

# The client loads its parts lazily and hides them from type checkers.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalIterable=false

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from holdtrue.cli.main import main
from holdtrue.core.errors import ConfigurationError, InvalidInput, MissingExtra
from holdtrue.server.client import Client
from holdtrue.server.exchange import Report, bring, folderout, send
from holdtrue.server.exchange.rest import MlflowServer
from holdtrue.server.exchange.store import DatabaseSource
from holdtrue.storage.stores import prepare_home
from tests.clusters import Cluster
from tests.protocols.mlflow.conftest import Server, postgresql_server, server, sqlite_server

__all__ = ["postgresql_server", "server", "sqlite_server"]

# The client library warns of its own affairs.
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[3]
COUNTS = {
    "experiments": 3, "runs": 3, "points": 1203, "datasets": 1, "artifacts": 3, "artifact bytes": 18,
    "logged models": 1, "traces": 1, "spans": 2, "assessments": 2, "registered models": 3, "model versions": 4,
    "aliases": 3,
}  # fmt: skip
CASES = {"evaluation datasets": 2, "records": 31}
WAITS = {"what": "alias late flights@production", "why": "it waits for its approval here"}
SETTINGS = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false"}


def seeded(folder: Path, uri: str) -> None:
    """Fill a store by MLflow's client, in a process of its own."""
    command = [sys.executable, "-m", "tests.server.exchange.seeding", uri]
    environ = {**os.environ, **SETTINGS, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that MLflow's client wrote."""
    place = tmp_path_factory.mktemp("folder")
    seeded(place, str(place / "mlruns"))
    return place / "mlruns"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a database that MLflow's client wrote."""
    place = tmp_path_factory.mktemp("database")
    seeded(place, f"sqlite:///{place}/mlflow.db")
    return f"sqlite:///{place}/mlflow.db"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> str:
    """Give a database of PostgreSQL that MLflow's client wrote."""
    place, address = tmp_path_factory.mktemp("postgresql"), cluster.database()
    seeded(place, address.replace("postgresql://", "postgresql+psycopg://"))
    return address


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Open an empty data folder."""
    prepare_home(tmp_path / "home", create=True)
    with Client.open(tmp_path / "home") as opened:
        yield opened


def same(report: Report, new: int = 4, *, cases: bool = False) -> None:
    """Hold a report to what was seeded; folders of MLflow keep no evaluation datasets."""
    assert (report.differences, report.left_out) == ([], [WAITS])
    assert report.counts == {**COUNTS, "new model versions": new, **(CASES if cases else {})}


@pytest.mark.parametrize("kind", ["folder", "database", pytest.param("postgresql", marks=pytest.mark.long)])
def test_everything_comes_over_once(kind: str, client: Client, request: pytest.FixtureRequest) -> None:
    source = str(request.getfixturevalue(kind))
    same(bring(client, "flights", source), cases=kind != "folder")
    same(bring(client, "flights", source), new=0, cases=kind != "folder")
    base = "/api/projects/flights"
    (run,) = client.get(f"{base}/runs", experiment="delays", filter="run_name = 'one'")["items"]
    assert run["params"] == {"depth": "3", "deep/key": "x: y", "word": "näh"}
    assert run["tags"]["note/long"] == "several\nlines"
    assert run["tags"]["mlflow.note.content"] == "a line\nwith: colon, # and 'quotes'"
    assert (run["metrics"]["auc"], run["metrics"]["odd"]) == (0.9, 1.7976931348623157e308)
    assert [each["name"] for each in run["datasets"]] == ["zeros"]
    assert run["models"] == [f"m-{run['models'][0].removeprefix('m-')}"]
    assert [each["name"] for each in client.get(f"{base}/runs", view="deleted")["items"]] == ["gone"]
    champion = client.get(f"{base}/model-version", name="late flights@champion")
    assert champion["number"] == 3
    (scanned,) = client.get(f"{base}/evidence", subject=champion["version"])["items"]
    assert (scanned["kind"], scanned["content"]["verdict"], scanned["content"]["files"]) == ("scan", "unknown", 1)
    assert client.get(f"{base}/model-version", name="greet@live")["number"] == 1
    assert client.get(f"{base}/model-version", name="a copy/1")["version"] == champion["version"]
    (trace,) = client.get(f"{base}/traces")["items"]
    assert (trace["span_count"], [each["name"] for each in trace["feedback"]]) == (2, ["helpful"])


def test_without_pyyaml_a_folder_is_not_read_and_the_command_that_mends_it_is_said(
    folder: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtra) as refused:
        bring(client, "flights", str(folder))
    assert refused.value.mend == "pip install 'holdtrue[yaml]'"


def test_an_import_that_was_killed_goes_on(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home, create=True)
    program = (
        "import os, sys\n"
        "from holdtrue.server.client import Client\n"
        "from holdtrue.server.exchange import bring\n"
        "left = int(sys.argv[3])\n"
        "def tell(name, report):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left == 0:\n"
        "        os.kill(os.getpid(), 9)\n"
        "with Client.open(sys.argv[1]) as client:\n"
        "    bring(client, 'flights', sys.argv[2], tell=tell)\n"
    )
    for steps in (3, 6):
        command = [sys.executable, "-c", program, str(home), str(folder), str(steps)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with Client.open(home) as client:
        report = bring(client, "flights", str(folder))
        assert report.differences == []
        assert {name: report.counts[name] for name in COUNTS} == COUNTS
        spans = client.get("/api/projects/flights/traces")["items"][0]["span_count"]
        assert spans == 2


def test_what_has_no_place_here_is_named_and_the_rest_comes(database: str, client: Client, tmp_path: Path) -> None:
    """MLflow takes names with a line's end, and forgets logged models for good while versions of them stay."""
    copy = tmp_path / "mlflow.db"
    shutil.copy(database.removeprefix("sqlite:///"), copy)
    with closing(sqlite3.connect(copy)) as changed, changed:
        changed.execute("UPDATE experiments SET name = 'ol\nd' WHERE name = 'old'")
        changed.execute(
            "UPDATE model_versions SET source = 'models:/m-gone' WHERE name = 'late flights' AND version = 1"
        )
        (place,) = changed.execute("SELECT artifact_uri FROM runs WHERE name = 'one'").fetchone()
        moved = shutil.copytree(place.removeprefix("file://"), tmp_path / "artifacts")
        changed.execute("UPDATE runs SET artifact_uri = ? WHERE name = 'one'", [str(moved)])
    (moved / "a\\b").write_text("x")
    report = bring(client, "flights", str(copy))
    assert [(each["what"].rpartition(", ")[2], each["why"]) for each in report.differences] == [
        ("artifact a\\b", "Invalid path."),
        ("experiment ol\nd", "The name holds control signs."),
    ]
    assert {"what": "model late flights/1", "why": "its files (models:/m-gone) did not come"} in report.left_out
    assert (report.counts["runs"], report.counts["artifacts"], report.counts["new model versions"]) == (2, 3, 3)


def test_what_differs_afterwards_is_named(folder: Path, client: Client) -> None:
    bring(client, "flights", str(folder))
    (run,) = client.get("/api/projects/flights/runs", filter="run_name = 'one'")["items"]
    client.post(f"/api/projects/flights/runs/{run['id']}/log", {"metrics": {"many": 1.0}, "step": 99_999})
    again = bring(client, "flights", str(folder))
    assert [each["what"] for each in again.differences] == [f"run {run['id']}"]
    assert "'points': 1203" in again.differences[0]["why"]
    assert "'points': 1204" in again.differences[0]["why"]


def test_a_run_that_was_going_on_is_brought_to_its_end(folder: Path, client: Client, tmp_path: Path) -> None:
    copied = tmp_path / "mlruns"
    shutil.copytree(folder, copied)
    (meta,) = [each for each in copied.glob("*/*/meta.yaml") if "run_name: one" in each.read_text()]
    ended = meta.read_text()
    lines = [line for line in ended.splitlines() if not line.startswith("end_time")]
    meta.write_text("\n".join(lines).replace("status: 3", "status: 1"))
    assert bring(client, "flights", str(copied)).differences == []
    path = "/api/projects/flights/runs"
    (run,) = client.get(path, filter="run_name = 'one'")["items"]
    assert (run["status"], run["ended_ms"]) == ("RUNNING", None)
    meta.write_text(ended)
    assert bring(client, "flights", str(copied)).differences == []
    (run,) = client.get(path, filter="run_name = 'one'")["items"]
    assert run["status"] == "FINISHED"
    assert run["ended_ms"] is not None


def test_the_command_tells_it_and_fails_for_a_difference(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    prepare_home(home, create=True)
    command = ["import", "mlflow", str(folder), "--home", str(home), "--project", "p"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"counts": {**COUNTS, "new model versions": 4}, "differences": [], "left_out": [WAITS]}
    with Client.open(home) as client:
        (run,) = client.get("/api/projects/p/runs", filter="run_name = 'one'")["items"]
        client.post(f"/api/projects/p/runs/{run['id']}/log", {"tags": {"more": "x"}})
    assert main(command) == 1
    assert f"differs: run {run['id']}" in capsys.readouterr().out
    assert main(["export", "mlflow", str(tmp_path / "out"), "--home", str(home), "--project", "p"]) == 0
    assert "differences: 0" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["folder", pytest.param("database", marks=pytest.mark.long)])
def test_what_was_sent_back_is_what_came(
    kind: str, client: Client, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    source = str(request.getfixturevalue(kind))
    bring(client, "flights", source)
    for _ in range(2):  # again, it writes the same
        report = send(client, "flights", str(tmp_path / "sent"))
        assert report.differences == []
        assert len(report.left_out) == (0 if kind == "folder" else 2)
        assert all("holds no evaluation datasets" in each["why"] for each in report.left_out)
    before, after = dump(source, tmp_path / "a"), dump(str(tmp_path / "sent"), tmp_path / "b")
    # The one thing that waits here for an approval.
    before["model", "late flights"]["aliases"].pop("production")
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert after[key] == value


def dump(uri: str, place: Path) -> dict[tuple[str, ...], Any]:
    """Return what MLflow's client says of a store."""
    client, found = MlflowClient(tracking_uri=uri, registry_uri=uri), dict[tuple[str, ...], Any]()
    for experiment in client.search_experiments(view_type=3):
        own = experiment.experiment_id
        found["experiment", experiment.name] = (experiment.lifecycle_stage, dict(experiment.tags))
        for run in client.search_runs([own], run_view_type=3):
            own_run = client.get_run(run.info.run_id)
            found["run", run.info.run_id] = _run(client, own_run, place / run.info.run_id)
        for trace in client.search_traces([own]) if experiment.lifecycle_stage == "active" else ():
            found["trace", trace.info.trace_id] = _trace(trace)
    model = client.get_registered_model("late flights")
    versions = client.search_model_versions("name='late flights'")
    found["model", "late flights"] = {
        "said": (model.description, model.tags),
        "aliases": {alias: int(number) for alias, number in model.aliases.items()},
        "versions": sorted((int(each.version), each.run_id, str(each.tags)) for each in versions),
    }
    prompt = client.get_prompt_version_by_alias("greet", "live")
    found["prompt", "greet"] = (prompt.version, prompt.template, prompt.tags, prompt.commit_message)
    return found


def _run(client: MlflowClient, run: Any, place: Path) -> dict[str, Any]:
    files: dict[str, str] = {}
    if run.info.lifecycle_stage == "active" and client.list_artifacts(run.info.run_id):
        place.mkdir(parents=True)
        client.download_artifacts(run.info.run_id, "", str(place))
        files = {
            each.relative_to(place).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
            for each in place.rglob("*")
            if each.is_file()
        }
    info = run.info
    return {
        "info": (info.run_name, info.status, info.start_time, info.end_time, info.lifecycle_stage, info.user_id),
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            key: sorted({(each.step, each.timestamp, _value(each.value)) for each in _history(client, run, key)})
            for key in run.data.metrics
        },
        "datasets": [
            (each.dataset.name, each.dataset.digest, each.dataset.schema) for each in run.inputs.dataset_inputs
        ],
        "models": [each.model_id for each in (*run.inputs.model_inputs, *run.outputs.model_outputs)],
        "files": files,
    }


def _history(client: MlflowClient, run: Any, key: str) -> Any:
    return client.get_metric_history(run.info.run_id, key)


def _value(value: float) -> str:
    """Return a value as text; folders of MLflow keep an infinity, its databases the greatest double."""
    return repr(max(-1.7976931348623157e308, min(1.7976931348623157e308, value))) if value == value else "nan"


def _trace(trace: Any) -> dict[str, Any]:
    info = trace.info
    here = ("mlflow.artifactLocation", "mlflow.trace.spansLocation", "mlflow.trace.infoFinalized")
    return {
        "info": (info.state, info.request_time, info.execution_duration, info.request_preview, info.response_preview),
        "tags": {key: value for key, value in info.tags.items() if key not in here},
        "metadata": {key: value for key, value in info.trace_metadata.items() if key not in here},
        "spans": [
            (span.name, span.parent_id, span.start_time_ns // 1000, span.inputs, span.outputs, span.attributes)
            for span in trace.data.spans
        ],
        "assessments": sorted(
            (each.name, repr(each.value), each.rationale or "", each.valid is not False) for each in info.assessments
        ),
    }


def test_a_running_server_takes_everything_once(client: Client, database: str, server: Server) -> None:
    """The server speaks MLflow's protocol: one of ours, which finds by itself what an export sent before."""
    bring(client, "flights", database)
    token = server.token("sent")
    address = server.url.replace("http://", f"http://{token}:x@")
    for _ in range(2):
        report = send(client, "flights", address)
        assert (report.differences, report.left_out) == ([], [])
        assert (report.counts["points"], report.counts["model versions"], report.counts["spans"]) == (1203, 4, 2)
        assert {name: report.counts[name] for name in CASES} == CASES
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as asked:
        named = asked.get("/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "delays"}).json()
        body = {"experiment_ids": [named["experiment"]["experiment_id"]], "run_view_type": "ALL"}
        runs = asked.post("/api/2.0/mlflow/runs/search", json=body).json()["runs"]
        assert sorted(each["info"]["run_name"] for each in runs) == ["gone", "one"]


def test_records_come_over_as_they_were_and_what_was_changed_here_is_told(client: Client, database: str) -> None:
    bring(client, "flights", database)
    with closing(MlflowServer(client.speaking("flights"))) as server:
        there = DatabaseSource(database)
        wanted = {row.name: (row.body, list(there.cases(row))) for row in there.case_sets()}
        there.close()
        assert {row.name: (row.body, list(server.cases(row))) for row in server.case_sets()} == wanted
        own = wanted["questions"][0]["id"]
        place = f"/api/3.0/mlflow/datasets/{own}/records"
        changed = [{"inputs": {"question": "which 3?", "k": 3}, "outputs": "other"}]
        server.ask("POST", place, records=json.dumps(changed))
        (told,) = bring(client, "flights", database).differences
        assert (told["what"][:38], told["why"]) == ("evaluation dataset questions, record d", "it was changed here")
        gone = [wanted["questions"][1][0]["id"]]
        assert server.send("DELETE", place, json={"dataset_record_ids": gone}).json() == {"deleted_count": 1}
    # What went is brought again, as what broke off would be.
    assert len(bring(client, "flights", database).differences) == 1


def test_credentials_in_records_are_taken_out_and_it_is_said(client: Client) -> None:
    place = "/api/projects/flights/imported-evaluation-datasets"
    client.post(place, {"id": "d-1", "name": "leaky"})
    secret = "AKIA" + "Q" * 16
    records = [
        {"id": f"dr-{number}", "inputs": {"said": said}} for number, said in enumerate(("hello", f"use {secret}"))
    ]
    found = client.post(f"{place}/d-1/records", {"records": records})
    assert found["cleaned"] == ["dr-1"]
    with closing(MlflowServer(client.speaking("flights"))) as server:
        (row,) = server.case_sets()
        assert [secret in each["inputs"]["said"] for each in server.cases(row)] == [False, False]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("empty", "is not a folder of MLflow"),
        ("nowhere", "There is no database"),
        ("text.txt", "cannot be read"),
        ("other.db", "is not a database of MLflow"),
        ("ftp://host/x", "cannot be read"),
    ],
)
def test_what_is_no_mlflow_is_refused(source: str, why: str, client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello " * 1000)
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE a (b)')"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "other.db")], check=True)
    with pytest.raises(ConfigurationError, match=why):
        bring(client, "flights", source if "://" in source else str(tmp_path / source))


def test_an_export_takes_no_folder_that_holds_something_else(client: Client, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds something else"):
        send(client, "flights", str(tmp_path))
    with pytest.raises(ConfigurationError, match="migrate-filestore"):
        send(client, "flights", "sqlite:///mlflow.db")
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_what_a_folder_can_hold_is_sent_and_what_it_cannot_is_named(client: Client, tmp_path: Path) -> None:
    base = "/api/projects/flights"
    whole = client.post(f"{base}/runs", {"experiment": "long"})["id"]
    client.post(f"{base}/runs/{whole}/log", {"params": {"k" * 250: "1"}})
    wide = client.post(f"{base}/runs", {"experiment": "long"})["id"]
    client.post(f"{base}/runs/{wide}/log", {"params": {"ü" * 200: "1"}})
    points = {"points": [("t", 1.0, (1 << 63) - 1, 0)]}
    client.post(f"{base}/imported-runs/{whole}/points", points)
    client.post(f"{base}/imported-models", {"name": "50% off"})
    report = send(client, "flights", str(tmp_path / "out"))
    assert report.differences == []
    assert [each["what"] for each in report.left_out] == [f"run {wide}", "model 50% off"]
    assert "longer than a file's name may be" in report.left_out[0]["why"]


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", ".", "a/.", "a\0b"])
def test_no_name_leads_out_of_a_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        folderout.inside(tmp_path, name)
