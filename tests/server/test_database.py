"""`holdtrue up` with its ledger in PostgreSQL: what people see, what processes are told, and a server that restarts."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from holdtrue.core.errors import ConfigurationError
from holdtrue.server.home import read_token
from holdtrue.server.settings import load_settings
from holdtrue.storage import FolderLock
from holdtrue.storage.stores import prepare_home
from tests import forked
from tests.clusters import PASSWORD, Cluster, running
from tests.server.test_up import Running, Start, environment, start, until

__all__ = ["start"]

ESCAPED = "p%20w%2Fd%3A1%40x"


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """Run a PostgreSQL that these tests may stop."""
    with running() as cluster:
        yield cluster


def command(*words: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    return forked.run((*words, "--home", str(home)), Path.cwd(), environment(**environ))


def without_secret(text: str) -> str:
    """Return a text in which no form of the password stands."""
    assert PASSWORD not in text
    assert ESCAPED not in text
    return text


def owner(server: Running) -> httpx.Client:
    return httpx.Client(
        base_url=server.url, headers={"authorization": f"Bearer {read_token(server.home) or ''}"}, timeout=30
    )


def test_up_keeps_its_state_in_the_database_and_the_password_to_itself(
    start: Start, own: Cluster, tmp_path: Path
) -> None:
    url = own.database()
    server = start("--port", "0", HOLDTRUE_DATABASE=url)
    assert not (server.home / "ledger.db").exists()
    for name, pid in server.children().items():
        told = Path(f"/proc/{pid}/environ").read_bytes().decode()
        assert (ESCAPED in told) == (name == "control")
        without_secret(Path(f"/proc/{pid}/cmdline").read_bytes().decode())
    with owner(server) as client:
        made = client.post("/api/tokens", json={"roles": ["viewer"], "project": "flights"})
        assert made.status_code == 200, made.text
        found = client.get("/api/audit/verify").json()
        assert (found["ok"], found["entries"] > 0) == (True, True)
    doctor = command("doctor", "--json", home=server.home, HOLDTRUE_DATABASE=url)
    findings = {each["check"]: each for each in json.loads(without_secret(doctor.stdout))}
    assert findings["setting database"]["what"] == f"postgresql://house@127.0.0.1:{own.port}{url[url.rindex('/') :]}"
    assert findings["database durability"]["state"] == "bad"
    checked = command("db", "check", "--json", home=server.home, HOLDTRUE_DATABASE=url)
    told = json.loads(without_secret(checked.stdout))
    assert (told["pages"], told["event log"], told["blobs"]) == ("ok", "ok", "ok")
    assert checked.returncode == 1, "fsync is off in the tests' cluster"
    path = f"{own.programs}:{os.environ['PATH']}"
    backed = command("db", "backup", "--json", home=server.home, HOLDTRUE_DATABASE=url, PATH=path)
    backup = Path(json.loads(backed.stdout)["file"])
    busy = command("db", "vacuum", home=server.home, HOLDTRUE_DATABASE=url)
    assert (busy.returncode, "Only one process" in busy.stderr) == (1, True), busy.stderr
    assert server.stop() == 0
    without_secret(server.errors() + "\n".join(server.lines))
    restored = command("db", "restore", str(backup), home=server.home, HOLDTRUE_DATABASE=url, PATH=path)
    assert restored.returncode == 0, restored.stderr
    verified = command("audit", "verify", home=server.home, HOLDTRUE_DATABASE=url)
    # Nothing is wrong; what came after the last checkpoint is not signed yet.
    assert verified.returncode in (0, 5), verified.stdout + verified.stderr
    without_secret(restored.stdout + restored.stderr + verified.stdout + verified.stderr)


def test_a_restart_of_postgresql_is_survived_without_one_of_ours(start: Start, own: Cluster) -> None:
    server = start("--port", "0", HOLDTRUE_DATABASE=own.database())
    children = server.children()
    wish = {"roles": ["viewer"], "project": "flights"}
    with owner(server) as client:
        own.stop(signal.SIGQUIT)
        refused = client.post("/api/tokens", json=wish)
        assert refused.status_code == 503
        without_secret(refused.text)
        own.start()
        until(lambda: client.post("/api/tokens", json=wish).status_code == 200)
        assert client.get("/api/audit/verify").json()["ok"]
    assert server.children() == children
    assert server.stop() == 0


def test_a_data_folder_moves_into_the_database_and_back(own: Cluster, tmp_path: Path) -> None:
    home, url = tmp_path / "home", own.database()
    prepare_home(home, create=True)
    made = command("token", "create", "--role", "viewer", "--project", "flights", "--json", home=home)
    assert made.returncode == 0, made.stderr
    unset = command("db", "convert", "postgresql", home=home)
    assert (unset.returncode, "names no PostgreSQL database" in unset.stderr) == (2, True), unset.stderr
    lock = FolderLock(home)
    busy = command("db", "convert", "postgresql", home=home, HOLDTRUE_DATABASE=url)
    lock.release()
    assert (busy.returncode, "Only one process" in busy.stderr) == (1, True), busy.stderr
    there = command("db", "convert", "postgresql", "--json", home=home, HOLDTRUE_DATABASE=url)
    assert there.returncode == 0, there.stderr
    told = json.loads(without_secret(there.stdout))
    assert told["kept"] is None
    assert told["tables"]["tokens"]["rows"] >= 1
    assert command("audit", "verify", home=home, HOLDTRUE_DATABASE=url).returncode in (0, 5)
    again = command("db", "convert", "postgresql", home=home, HOLDTRUE_DATABASE=url)
    assert (again.returncode, "not empty" in without_secret(again.stderr)) == (1, True), again.stderr
    back = command("db", "convert", "sqlite", "--json", home=home, HOLDTRUE_DATABASE=url)
    assert back.returncode == 0, back.stderr
    returned = json.loads(without_secret(back.stdout))
    assert returned["tables"] == told["tables"]
    assert Path(returned["kept"]).parent == home / "backups"
    listed = command("token", "list", "--json", home=home)
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)) == told["tables"]["tokens"]["rows"]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ("postgresql://house:s3cret@127.0.0.1:1/x", "cannot be reached"),
        ("mysql://house:s3cret@h/x", "not the address"),
        ("postgresql://house:s3cret@[::1/x", "not the address"),
    ],
)
def test_an_address_that_does_not_work_is_said_without_its_password(start: Start, wrong: str, what: str) -> None:
    server = start("--port", "0", wait=False, HOLDTRUE_DATABASE=wrong)
    status = server.process.wait(60)
    assert status != 0
    errors = server.errors()
    assert what in errors
    assert "s3cret" not in errors
    assert "To mend it" in errors


def test_settings_show_the_database_without_password_and_options(tmp_path: Path) -> None:
    url = "postgresql://ann:s3cret@[::1]:5433/x?sslpassword=s3cret&password=s3cret"
    settings = load_settings(tmp_path, environ={"HOLDTRUE_DATABASE": url})
    assert settings.database == url
    assert "s3cret" not in repr(settings)
    assert settings.shown()["database"] == "postgresql://ann@[::1]:5433/x"
    odd = load_settings(tmp_path, environ={"HOLDTRUE_DATABASE": "postgresql://ann:s3cret@h:port/x"})
    assert odd.shown()["database"] == "(cannot be read)"
    (tmp_path / "config.toml").write_text('database = ["s3cret"]\n')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path, environ={})
    assert "s3cret" not in str(caught.value)
