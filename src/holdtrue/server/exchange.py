"""Import from MLflow servers: bring what one keeps, then compare.

Everything is written so that writing it again changes nothing: an import that broke off is begun again and goes on.
"""

import hashlib
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import quote, urlsplit

from holdtrue.core.errors import ConfigurationError, NotFound, Unavailable
from holdtrue.server.client import Client

_API = "/api/2.0/mlflow"
_FILES = "/api/2.0/mlflow-artifacts/artifacts"
_PAGE = 1000


class MlflowServer:
    """Ask an MLflow server, by its REST protocol."""

    def __init__(self, address: str) -> None:
        import httpx

        if urlsplit(address).scheme not in ("http", "https"):
            raise ConfigurationError(
                f"{address[:200]} is not the address of an MLflow server.",
                why="Databases and folders of MLflow are read through MLflow itself, whose schemas change.",
                mend="Serve it first: mlflow server --backend-store-uri sqlite:///mlflow.db (or the folder), then give "
                "the address that prints.",
            )
        self._http = httpx.Client(base_url=address.rstrip("/"), timeout=300)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, method: str, path: str, /, **body: Any) -> Any:
        """Send one request and return the JSON of the answer."""
        import httpx

        try:
            if method == "GET":
                answer = self._http.get(_API + path, params=body)
            else:
                answer = self._http.request(method, _API + path, json=body)
        except httpx.TransportError as error:
            raise Unavailable(f"No MLflow server answers at {self._http.base_url}.", why=str(error)) from error
        if answer.status_code != 200:
            raise NotFound(f"MLflow refused {path}: {answer.text[:300]}", mend="Look at that server's log.")
        return answer.json()

    def pages(self, method: str, path: str, name: str, /, **body: Any) -> Iterator[Any]:
        """Yield every item of a listing."""
        token = ""
        while True:
            page = self.ask(method, path, **body, **({"page_token": token} if token else {}))
            yield from page.get(name, [])
            token = page.get("next_page_token", "")
            if not token:
                return

    def files(self, run: str, folder: str = "") -> Iterator[str]:
        """Yield the path of every artifact of a run."""
        for each in self.ask("GET", "/artifacts/list", run_id=run, path=folder).get("files", []):
            if each.get("is_dir"):
                yield from self.files(run, each["path"])
            else:
                yield each["path"]

    def fetch(self, place: str, into: Any) -> str:
        """Write an artifact's bytes to a file and return their SHA-256."""
        digest = hashlib.sha256()
        with self._http.stream("GET", f"{_FILES}/{quote(place)}") as answer:
            if answer.status_code != 200:
                raise NotFound(f"MLflow did not give the artifact {place}.")
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                into.write(chunk)
        return digest.hexdigest()


def bring(client: Client, project: str, address: str) -> dict[str, int]:
    """Bring experiments, runs, histories, artifacts, models and aliases of an MLflow server into a project.

    `differences` counts runs whose points, parameters or tags are not as many here as there.
    """
    server = MlflowServer(address)
    try:
        return _bring(client, server, f"/api/projects/{project}")
    finally:
        server.close()


def _bring(client: Client, server: MlflowServer, base: str) -> dict[str, int]:
    counts = {"experiments": 0, "runs": 0, "points": 0, "artifacts": 0, "model versions": 0, "differences": 0}
    for experiment in server.pages("POST", "/experiments/search", "experiments", max_results=_PAGE, view_type="ALL"):
        counts["experiments"] += 1
        wanted = [experiment["experiment_id"]]
        listing = {"experiment_ids": wanted, "max_results": _PAGE, "run_view_type": "ALL"}
        for run in server.pages("POST", "/runs/search", "runs", **listing):
            _bring_run(client, server, base, experiment["name"], run, counts)
    _bring_models(client, server, base, counts)
    return counts


def _bring_run(
    client: Client, server: MlflowServer, base: str, experiment: str, run: Any, counts: dict[str, int]
) -> None:
    info, data = run["info"], run.get("data", {})
    params = {each["key"]: each.get("value", "") for each in data.get("params", [])}
    tags = {each["key"]: each.get("value", "") for each in data.get("tags", [])}
    tags.setdefault("mlflow.runName", info.get("run_name", ""))
    body = {
        "id": info["run_id"],
        "experiment": experiment,
        "name": info.get("run_name", ""),
        "user": info.get("user_id", ""),
        "status": info["status"],
        "start_ms": int(info.get("start_time", 0)),
        "end_ms": int(info["end_time"]) if info.get("end_time") else None,
        "params": params,
        "tags": tags,
    }
    client.post(f"{base}/imported-runs", body)
    points = 0
    for metric in data.get("metrics", []):
        history = server.pages(
            "GET", "/metrics/get-history", "metrics", run_id=info["run_id"], metric_key=metric["key"]
        )
        distinct = {(each["key"], each["value"], int(each["timestamp"]), int(each.get("step", 0))) for each in history}
        ordered = sorted(distinct, key=lambda each: (each[3], each[2]))
        for start in range(0, len(ordered), _PAGE):
            part = ordered[start : start + _PAGE]
            client.post(f"{base}/imported-runs/{info['run_id']}/points", {"points": part})
        points += len(ordered)
    root = urlsplit(info.get("artifact_uri", "")).path.strip("/")
    for path in server.files(info["run_id"]):
        with TemporaryFile() as file:
            server.fetch(f"{root}/{path}", file)
            file.seek(0)
            client.upload(f"{base}/runs/{info['run_id']}/artifact", file, path=path)
        counts["artifacts"] += 1
    found = client.get(f"{base}/imported-runs/{info['run_id']}")
    same = (found["points"], found["params"], found["tags"]) == (points, len(params), len(tags))
    counts["runs"] += 1
    counts["points"] += points
    counts["differences"] += not same
    if info.get("lifecycle_stage") == "deleted":
        client.post(f"{base}/imported-runs/{info['run_id']}/deleted", {})


def _bring_models(client: Client, server: MlflowServer, base: str, counts: dict[str, int]) -> None:
    """Bring registered models whose versions come from runs; the alias production waits for its approval here."""
    for model in server.pages("GET", "/registered-models/search", "registered_models", max_results=100):
        query = {"filter": "name='" + model["name"].replace("'", "''") + "'", "max_results": _PAGE}
        versions = sorted(
            server.pages("GET", "/model-versions/search", "model_versions", **query),
            key=lambda each: int(each["version"]),
        )
        body = {
            "name": model["name"],
            "description": model.get("description", ""),
            "versions": [
                {
                    "number": int(each["version"]),
                    "run": each.get("run_id", ""),
                    "source": each.get("source", ""),
                    "description": each.get("description", ""),
                }
                for each in versions
            ],
            "aliases": {each["alias"]: int(each["version"]) for each in model.get("aliases", [])},
        }
        counts["model versions"] += client.post(f"{base}/imported-models", body)["versions"]
