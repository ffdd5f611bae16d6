"""The SDK's recorder: `with holdtrue.run("name") as run: run.log(loss=0.3)`; with no server it writes the local folder.

Beside what the user logs it keeps what a run cost: seconds, processor seconds, cores, peak memory, and joules where
the machine counts them (Linux powercap; the counters are the machine's, so they hold what else ran on it too).
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from holdtrue.core.errors import ConfigurationError, Conflict, Locked
from holdtrue.server.client import Client
from holdtrue.server.settings import load_settings
from holdtrue.storage.stores import prepare_home

_POWERCAP = Path("/sys/class/powercap")


class Recorder:
    """Record one run; it ends with the block, as failed if the block raised."""

    def __init__(self, client: Client, project: str, run: Mapping[str, Any]) -> None:
        self._client = client
        self._base = f"/api/projects/{project}/runs/{run['id']}"
        self.id: str = run["id"]
        self._began = (time.monotonic(), time.process_time(), joules())
        self._ended = False

    def log(self, values: Mapping[str, Any] | None = None, *, step: int = 0, **more: Any) -> None:
        """Log numbers as metrics at `step`, and everything else as parameters."""
        metrics: dict[str, Any] = {}
        params: dict[str, str] = {}
        for key, value in {**(values or {}), **more}.items():
            number = getattr(value, "item", None)
            plain = number() if callable(number) else value
            if isinstance(plain, int | float) and not isinstance(plain, bool):
                metrics[key] = plain if plain == plain and abs(plain) != float("inf") else _word(plain)
            else:
                params[key] = str(plain)
        self._log({"metrics": metrics, "params": params, "step": step})

    def param(self, **params: Any) -> None:
        """Set parameters, whatever their type; a parameter is set once."""
        self._log({"params": {key: str(value) for key, value in params.items()}})

    def tag(self, **tags: str) -> None:
        """Set tags."""
        self._log({"tags": tags})

    def artifact(self, file: Path | str, name: str = "") -> str:
        """Store a file with the run and return the digest of its bytes."""
        path = Path(file)
        self._need_going()
        with path.open("rb") as stream:
            return self._client.upload(f"{self._base}/artifact", stream, path=name or path.name)["digest"]

    def log_model(self, file: Path | str, name: str = "model") -> str:
        """Store a model's file or folder under `name` and return the address a registry takes: runs:/ID/name.

        Only plain formats belong here (ONNX, skops, LightGBM text, …): the server never loads a pickle.
        """
        path = Path(file)
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        if not files:
            raise ConfigurationError(f"There is no model at {path}.", mend="Give a file, or a folder with files.")
        for each in files:
            inner = each.name if each == path else each.relative_to(path).as_posix()
            self.artifact(each, f"{name}/{inner}")
        return f"runs:/{self.id}/{name}"

    def end(self, status: str = "FINISHED") -> None:
        """Log what the run cost and end it; a run that has ended stays as it is."""
        if self._ended:
            return
        self._ended = True
        try:
            self._close(status)
        finally:
            self._client.close()

    def _close(self, status: str) -> None:
        wall, processor, energy = self._began
        cost: dict[str, float] = {
            "cost/seconds": time.monotonic() - wall,
            "cost/cpu_seconds": time.process_time() - processor,
            "cost/cores": float(len(os.sched_getaffinity(0))),
            "cost/peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        now = joules()
        if energy is not None and now is not None and now >= energy:
            cost["cost/joules"] = now - energy
        self._client.post(f"{self._base}/log", {"metrics": cost})
        self._client.post(f"{self._base}/end", {"status": status})

    def _log(self, body: Mapping[str, Any]) -> None:
        self._need_going()
        self._client.post(f"{self._base}/log", body)

    def _need_going(self) -> None:
        if self._ended:
            raise Conflict(
                f"The run {self.id} has ended here.", mend="Log inside its `with` block, or begin another run."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")


def run(name: str = "", *, experiment: str = "Default", project: str = "", home: Path | str | None = None) -> Recorder:
    """Begin a run, on the server that HOLDTRUE_URL names, else on the one of the data folder, else in the folder.

    The project is the one given, else HOLDTRUE_PROJECT, else “default”. Script and code commit are noted.
    """
    if home is not None or not os.environ.get("HOLDTRUE_URL"):
        prepare_home(load_settings(home).home, create=True)
    try:
        client = Client.open(home)
    except Locked as error:
        raise Locked(
            error.what,
            why="Without a server one run at a time is recorded into a folder, nested ones neither.",
            mend="Start a server for it (`holdtrue up`); any number of runs then record at once.",
            facts=error.facts,
        ) from error
    try:
        chosen = project or os.environ.get("HOLDTRUE_PROJECT", "") or "default"
        tags = {"mlflow.source.name": sys.argv[0] or "interactive"}
        commit = code_commit(Path.cwd())
        if commit:
            tags["mlflow.source.git.commit"] = commit
        body = {"experiment": experiment, "name": name, "tags": tags}
        return Recorder(client, chosen, client.post(f"/api/projects/{chosen}/runs", body))
    except BaseException:
        client.close()
        raise


def code_commit(folder: Path) -> str:
    """Return the commit of the code in `folder`, with “-dirty” if it was changed since; "" outside of git."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603  # fixed words, no shell
                ["git", "-C", str(folder), *words],  # noqa: S607  # whichever git the user has
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    if not commit:
        return ""
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit


def joules(root: Path = _POWERCAP) -> float | None:
    """Return the energy that the processor packages have counted, in joules; None where the machine does not tell."""
    total, seen = 0, False
    for file in sorted(root.glob("intel-rapl:[0-9]*/energy_uj")):
        if file.parent.name.count(":") > 1:
            continue
        try:
            total += int(file.read_text())
            seen = True
        except (OSError, ValueError):
            continue
    return total / 1e6 if seen else None


def _word(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
