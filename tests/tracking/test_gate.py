"""Production is entered through the gate, whatever MLflow calls it; and a registered version's bytes are judged."""

import io
import os
import pickle
import zipfile
from typing import Any

import httpx
import pytest

from holdtrue import governance
from holdtrue.core.access import Role
from holdtrue.core.actor import SYSTEM
from holdtrue.governance import Policy, Rule
from holdtrue.storage.ledger import WriteContext
from tests.server.conftest import Door, opener, whole

__all__ = ["opener", "whole"]

API = "/api/2.0/mlflow"


def register(client: httpx.Client, files: dict[str, bytes], name: str = "late") -> dict[str, Any]:
    """Log files to a run and register them as the next version of `name`."""
    run = client.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
    for path, data in files.items():
        place = f"/api/2.0/mlflow-artifacts/artifacts/0/{run['run_id']}/artifacts/model/{path}"
        assert client.put(place, content=data).status_code == 200
    client.post(f"{API}/registered-models/create", json={"name": name})
    made = client.post(
        f"{API}/model-versions/create",
        json={"name": name, "source": f"runs:/{run['run_id']}/model", "run_id": run["run_id"]},
    )
    assert made.status_code == 200, made.text
    return made.json()["model_version"]


def scan_of(door: Door, version: str) -> dict[str, Any]:
    """Return the scan that is evidence about the catalog version behind a registered one."""
    events = door.built.app.stores.ledger.events("flights", action="model_version.created", limit=100)
    (event,) = [each for each in events if each.object == f"model:late/{version}"]
    assert isinstance(event.payload, dict)
    answer = door.owner().get(f"/api/projects/flights/evidence?subject={event.payload['version']}").json()
    (found,) = [each for each in answer["items"] if each["kind"] == "scan"]
    return found["content"]


def move(client: httpx.Client, version: str, alias: str = "production") -> httpx.Response:
    return client.post(f"{API}/registered-models/alias", json={"name": "late", "alias": alias, "version": version})


def test_the_alias_production_waits_for_an_approved_release(whole: Door) -> None:
    developer = whole.client(whole.token(Role.DEVELOPER))
    version = register(developer, {"model.onnx": b"weights", "LICENSE": b"Apache"})["version"]
    assert move(developer, version, "candidate").status_code == 200

    refusal = move(developer, version)
    assert (refusal.status_code, refusal.json()["error_code"]) == (403, "PERMISSION_DENIED")
    assert "no release pins it" in refusal.json()["message"]
    assert "To mend it: " in refusal.json()["message"]
    catalog_id = refusal.json()["message"].split("pins model ")[1].split()[0]

    release = developer.post(
        "/api/projects/flights/releases", json={"service": "late", "versions": {"model": catalog_id}}
    ).json()["id"]
    assert "No policy is declared" in move(developer, version).json()["message"]

    rules = (Rule("scan", "scan.verdict == 'clean'"),)
    context = WriteContext(SYSTEM, "flights")
    ledger = whole.built.app.stores.ledger
    ledger.write(context, lambda tx: governance.declare(tx, [Policy("production", rules, approvals=1)]))
    waiting = move(developer, version).json()
    assert waiting["error_code"] == "PERMISSION_DENIED"
    assert f"holdtrue approve {release}" in waiting["message"]

    reviewer = whole.client(whole.token(Role.REVIEWER, name="someone-else"))
    approved = reviewer.post(
        f"/api/projects/flights/releases/{release}/approve", json={"environment": "production", "reason": "good"}
    )
    assert approved.status_code == 200, approved.text
    assert move(developer, version).status_code == 200
    staged = {"name": "late", "version": version, "stage": "Production", "archive_existing_versions": True}
    assert developer.post(f"{API}/model-versions/transition-stage", json=staged).status_code == 200
    found = developer.get(f"{API}/registered-models/alias", params={"name": "late", "alias": "production"}).json()
    assert found["model_version"]["current_stage"] == "Production"


def test_another_version_does_not_enter_on_the_first_ones_approval(whole: Door) -> None:
    developer = whole.client(whole.token(Role.DEVELOPER))
    for data in (b"one", b"two"):
        register(developer, {"model.onnx": data})
    for name in ("production", "Production", "PRODUCTION"):
        assert move(developer, "2", name).status_code == 403
    staged = {"name": "late", "version": "2", "stage": "production"}
    assert developer.post(f"{API}/model-versions/transition-stage", json=staged).status_code == 403
    assert (
        developer.get(f"{API}/registered-models/get", params={"name": "late"}).json()["registered_model"]["aliases"]
        == []
    )


class Evil:
    """Pickle to a call of the shell."""

    def __reduce__(self) -> Any:
        return os.getcwd, ()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("files", "verdict"),
    [
        ({"model.onnx": b"x", "LICENSE": b"MIT"}, "clean"),
        ({"data.pkl": pickle.dumps({"a": [1, 2.5, "x"]})}, "clean"),
        ({"model.pkl": pickle.dumps(Evil())}, "unsafe"),
        ({"model.pkl": pickle.dumps(1) + pickle.dumps(Evil())}, "unsafe"),
        ({"model.onnx": b"x", "deep/down/w.bin": pickle.dumps(Evil(), protocol=0)}, "unsafe"),
        ({"no_suffix": pickle.dumps(Evil())}, "unsafe"),
        ({"weights.pt": zipped({"archive/data.pkl": pickle.dumps(Evil())})}, "unsafe"),
        ({"loader.py": b"import os"}, "code"),
        ({"model.joblib": b"not a pickle at all"}, "unknown"),
        ({"weights.pt": b"PK\x03\x04 broken"}, "unknown"),
        ({}, "empty"),
    ],
)
def test_registering_scans_without_loading(whole: Door, files: dict[str, bytes], verdict: str) -> None:
    developer = whole.client(whole.token(Role.DEVELOPER))
    made = register(developer, files)
    scan = scan_of(whole, made["version"])
    assert scan["verdict"] == verdict, scan
    assert (scan["files"], scan["bytes"]) == (len(files), sum(map(len, files.values())))
    assert bool(scan["licence"]) == ("LICENSE" in files)
    assert bool(made["status_message"]) == (verdict != "clean")


def test_a_model_that_scikit_learn_pickled_is_code_and_nothing_worse(whole: Door) -> None:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(n_estimators=2).fit([[0.0], [1.0]], [0, 1])
    developer = whole.client(whole.token(Role.DEVELOPER))
    scan = scan_of(whole, register(developer, {"model.pkl": pickle.dumps(model)})["version"])
    assert scan["verdict"] == "code", scan["findings"]
