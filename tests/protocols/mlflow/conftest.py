"""A real server process, and the real `mlflow` client set up for a project of the test's own."""

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from holdtrue.server.home import read_token
from holdtrue.server.ports import free_ports
from tests.clusters import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the client library warn of its own affairs; everywhere else a warning is an error."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@dataclass(frozen=True, slots=True)
class Server:
    """A served control plane."""

    url: str
    home: Path
    owner: str

    def token(self, project: str, *roles: str, **more: object) -> str:
        """Make a token of one project."""
        answer = httpx.post(
            f"{self.url}/api/tokens",
            json={"roles": roles or ["developer"], "project": project, **more},
            headers={"authorization": f"Bearer {self.owner}"},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def rest(self, token: str) -> httpx.Client:
        """Return a plain HTTP client, for requests that no MLflow client would send."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=30)


def start(home: Path, **environ: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a control plane and return its process and address once it is ready."""
    port = free_ports("127.0.0.1")
    read, write = os.pipe()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "holdtrue.server.control",
            "--home",
            str(home),
            "--port",
            str(port),
            "--ready-fd",
            str(write),
        ],
        pass_fds=(write,),
        env={**kept, **environ},
    )
    os.close(write)
    with os.fdopen(read) as ready:
        assert ready.readline() == "ready\n"
    return process, f"http://127.0.0.1:{port}"


@contextmanager
def served(home: Path, **environ: str) -> Generator[Server]:
    """Serve one data folder."""
    process, url = start(home, **environ)
    owner = read_token(home)
    assert owner is not None
    yield Server(url, home, owner)
    process.terminate()
    assert process.wait(60) == 0


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve one data folder for all tests of this session; the ledger is a file in it."""
    with served(tmp_path_factory.mktemp("tracking") / "home") as made:
        yield made


@pytest.fixture(scope="session")
def postgresql_server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve one data folder for all tests of this session; the ledger is a database."""
    with served(tmp_path_factory.mktemp("tracking") / "home", HOLDTRUE_DATABASE=cluster.database()) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Server:
    """Return the server on each database; both stay up, since tests come in any order."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """Name a project that only this test uses."""
    return f"p{abs(hash(request.node.nodeid)) % 10**12}"


@pytest.fixture
def token(server: Server, project: str) -> str:
    """Make a developer's token of the test's project."""
    return server.token(project)


@pytest.fixture
def rest(server: Server, token: str) -> Iterator[httpx.Client]:
    """Give a plain HTTP client of the test's project."""
    with server.rest(token) as client:
        yield client


@pytest.fixture
def mlflow_of(server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set the real client up as its users do: an address and a token, nothing else."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "1")
    mlflow.set_tracking_uri(server.url)
    mlflow.set_registry_uri(server.url)
    mlflow.set_experiment(experiment_id="0")
    yield server.url
    while mlflow.active_run():
        mlflow.end_run()
