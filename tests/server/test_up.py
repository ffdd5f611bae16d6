"""The real processes: started, answering, falling over and coming back, stopping, and refusing to start."""

import hashlib
import http.client
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from holdtrue.core.errors import Conflict, NotFound, Unauthenticated
from holdtrue.server.client import Client
from holdtrue.server.home import read_address
from holdtrue.server.ports import free_ports
from holdtrue.serving.watch import POLL_SECONDS
from holdtrue.storage import FileClock
from tests.delivery.worlds import SERVICE, open_world
from tests.server.certificates import self_signed

SECONDS = 60.0


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
    return {**kept, **more}


@dataclass
class Running:
    """A started `up`: its lines, its address, and how to end it."""

    process: subprocess.Popen[str]
    home: Path
    lines: list[str] = field(default_factory=list[str])
    url: str = ""

    def read_until_ready(self) -> None:
        """Read lines until the one that begins with `ready `."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("ready "):
                self.url = line.split()[1]
                return
        raise AssertionError(f"not ready: {self.lines} {self.errors()}")

    @property
    def port(self) -> int:
        """Return the port of pages and API."""
        return int(self.url.rsplit(":", 1)[1])

    def errors(self) -> str:
        """Return what was written to the error stream; waits for the end of the process."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def children(self) -> dict[str, int]:
        """Return the ids of the child processes by module."""
        found: dict[str, int] = {}
        for pid in _children(self.process.pid):
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except FileNotFoundError:
                continue  # it has ended since
            if b"-m" in arguments:
                found[arguments[arguments.index(b"-m") + 1].decode().rpartition(".")[2]] = pid
        return found

    def stop(self) -> int:
        """Ask to stop and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()]


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `up`; whatever is left is killed at the end of the test."""
    started: list[Running] = []

    def begin(*arguments: str, home: Path | None = None, wait: bool = True, **environ: str) -> Running:
        folder = home or tmp_path / "home"
        process = subprocess.Popen(
            [sys.executable, "-m", "holdtrue.server.up", "--home", str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**environ),
        )
        running = Running(process, folder)
        started.append(running)
        if wait:
            running.read_until_ready()
        return running

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(SECONDS)
        for stream in (running.process.stdout, running.process.stderr):
            assert stream is not None
            stream.close()


def until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Look again and again until something outside of this process is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_all_three_processes_start_answer_and_stop(start: Start) -> None:
    running = start("--port", "0")
    assert running.lines[-1] == f"ready {running.url}"
    assert set(running.children()) == {"control", "dataplane", "worker"}
    for port in (running.port, running.port + 1):
        for path in ("/health/live", "/health/ready"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
    assert httpx.get(f"{running.url}/api/whoami").status_code == 401
    link = next(line.split()[1] for line in running.lines if line.startswith("sign-in "))
    with httpx.Client() as browser:
        assert browser.get(link).status_code == 303
        assert browser.get(f"{running.url}/api/whoami").json()["name"] == "owner"
        assert browser.get(link).status_code == 401
    with Client.open(running.home) as client:
        assert client.url == running.url
        assert client.get("/api/whoami")["roles"] == ["admin", "developer", "operator"]
    pids = list(running.children().values())
    assert running.stop() == 0
    assert running.errors() == ""
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert read_address(running.home) is None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", running.port))


def test_the_opentelemetry_sdk_sends_spans_that_are_found_and_shown(start: Start) -> None:
    running = start("--port", "0")
    with Client.open(running.home) as client:
        token = client.post("/api/tokens", {"roles": ["service"], "project": "support"})["token"]
        data, headers = f"http://127.0.0.1:{running.port + 1}", {"authorization": f"Bearer {token}"}
        until(lambda: httpx.post(f"{data}/v1/traces", json={}, headers=headers).status_code == 200)
        provider = TracerProvider(resource=Resource.create({"service.name": "agent", "service.version": "1.4.2"}))
        exporter = OTLPSpanExporter(f"{data}/v1/traces", headers=headers, compression=Compression.Gzip)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("app")
        ids: list[str] = []
        for number in range(20):
            with tracer.start_as_current_span("answer") as root, tracer.start_as_current_span("chat small") as chat:
                chat.set_attribute("gen_ai.request.model", "small")
                chat.set_attribute("input.value", f"Where is order number{number}?")
            ids.append(f"{root.get_span_context().trace_id:032x}")
        assert provider.force_flush()
        provider.shutdown()
        said = {"trace_id": ids[3], "name": "helpful", "value": False}
        assert httpx.post(f"{data}/feedback", json=said, headers=headers).json() == {"accepted": 1}

        found = client.get(f"/api/traces/{ids[3]}")
        assert [span["name"] for span in found["spans"]] == ["answer", "chat small"]
        assert found["spans"][1]["messages"]["input"][0]["text"] == "Where is order number3?"
        assert found["feedback"][0]["value"] is False
        path = "/api/projects/support/traces"
        assert {each["trace_id"] for each in client.get(path)["items"]} == set(ids)
        assert [each["trace_id"] for each in client.get(path, text="number7")["items"]] == [ids[7]]
        assert [each["trace_id"] for each in client.get(path, feedback="helpful")["items"]] == [ids[3]]
        assert client.get("/api/projects")["items"] == ["support"]
    assert running.stop() == 0
    assert running.errors() == ""


def test_everything_in_the_folder_is_its_owners_alone(start: Start) -> None:
    running = start("--port", "0")
    with Client.open(running.home) as client:
        client.post("/api/tokens", {"roles": ["viewer"], "project": "flights"})
    for path in (running.home, *running.home.rglob("*")):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
    assert running.stop() == 0


def test_what_falls_over_comes_back_and_the_data_plane_stays(start: Start) -> None:
    running = start("--port", "0")
    before = running.children()
    os.kill(before["control"], signal.SIGKILL)
    assert httpx.get(f"http://127.0.0.1:{running.port + 1}/health/ready").status_code == 200

    def answers() -> bool:
        try:
            return httpx.get(f"{running.url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    until(answers)
    after = running.children()
    assert after["control"] != before["control"]
    assert after["dataplane"] == before["dataplane"]
    os.kill(before["worker"], signal.SIGKILL)
    until(lambda: running.children().get("worker", before["worker"]) != before["worker"])
    assert running.stop() == 0
    assert "control plane ended (status -9)" in running.errors()


def test_children_do_not_outlive_a_killed_parent(start: Start) -> None:
    running = start("--port", "0")
    pids = list(running.children().values())
    pids += [below for pid in pids for below in _children(pid)]
    running.process.kill()
    running.process.wait(SECONDS)

    def gone() -> bool:
        # A process whose parent is gone stays in the table as a zombie where nobody collects it.
        states = [Path(f"/proc/{pid}/stat") for pid in pids if Path(f"/proc/{pid}").exists()]
        return all(path.read_text().rpartition(")")[2].split()[0] == "Z" for path in states)

    until(gone)


def test_a_release_that_cannot_be_loaded_is_told_and_does_not_keep_the_server_from_starting(
    start: Start, tmp_path: Path
) -> None:
    world = open_world(tmp_path / "home")
    world.declare(service=replace(SERVICE, fallback=None))
    release = world.allowed("one", fallback=None)
    world.promote(release)
    world.reconcile()
    world.stores.close()
    running = start("--port", "0")
    answer = httpx.get(f"http://127.0.0.1:{running.port + 1}/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
    assert httpx.get(f"{running.url}/health/ready").status_code == 200
    assert running.stop() == 0
    told = running.errors()
    assert "Not every service can be answered." in told
    assert f"  {release}: This ONNX file is not served." in told
    assert "`holdtrue plan`" in told


def test_a_port_in_use_is_named(start: Start, tmp_path: Path) -> None:
    port = free_ports("127.0.0.1")
    for taken in (port, port + 1):
        with socket.socket() as other:
            other.bind(("127.0.0.1", taken))
            other.listen()
            refused = start("--port", str(port), wait=False)
            assert refused.process.wait(SECONDS) == 3
            message = refused.errors()
            assert f"Port {taken} on 127.0.0.1 is in use" in message
            assert "--port N" in message
            assert "Traceback" not in message


def test_a_second_server_on_the_same_folder_refuses(start: Start) -> None:
    first = start("--port", "0")
    second = start("--port", "0", home=first.home, wait=False)
    assert second.process.wait(SECONDS) != 0
    message = second.errors()
    assert f"is in use by process {first.children()['control']}" in message
    assert "Traceback" not in message
    assert httpx.get(f"{first.url}/health/ready").status_code == 200
    assert first.stop() == 0


@pytest.mark.parametrize("command", ["up", "control", "dataplane", "worker"])
def test_unknown_settings_stop_every_process(tmp_path: Path, command: str) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    def run(**environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"holdtrue.server.{command}", "--home", str(home)],
            capture_output=True,
            text=True,
            env=environment(**environ),
            timeout=SECONDS,
            check=False,
        )

    by_variable = run(HOLDTRUE_AUTH="off")
    assert by_variable.returncode == 2
    assert "HOLDTRUE_AUTH" in by_variable.stderr
    (home / "config.toml").write_text("prot = 7700\n")
    by_file = run()
    assert by_file.returncode == 2
    assert "prot" in by_file.stderr
    assert "Traceback" not in by_variable.stderr + by_file.stderr
    (home / "config.toml").write_text('bind = "0.0.0.0"\n')
    wide = run()
    assert wide.returncode == 2
    assert "without TLS is refused" in wide.stderr


def test_a_folder_that_others_can_open_is_refused(start: Start, tmp_path: Path) -> None:
    first = start("--port", "0")
    assert first.stop() == 0
    for path, mode in ((first.home, 0o750), (first.home / "keys" / "local-token", 0o604)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        refused = start("--port", "0", home=first.home, wait=False)
        assert refused.process.wait(SECONDS) == 2
        message = refused.errors()
        assert f"chmod -R go-rwx {first.home}" in message
        path.chmod(before)
    again = start("--port", "0", home=first.home)
    assert again.stop() == 0


def raw(port: int, text: str) -> tuple[int, str]:
    """Send bytes as they are and return status and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
        except http.client.BadStatusLine:
            return 400, ""
        return answer.status, answer.read().decode()


def test_requests_no_library_sends_are_refused_on_the_wire(start: Start) -> None:
    running = start("--port", "0")
    port = running.port
    token = (running.home / "keys" / "local-token").read_text().strip()
    host = f"Host: 127.0.0.1:{port}\r\n"
    auth = f"Authorization: Bearer {token}\r\n"
    end = "Connection: close\r\n\r\n"
    cases = {
        f"GET /api/whoami HTTP/1.1\r\n{host}{auth}{end}": (200,),
        f"GET /api/whoami HTTP/1.1\r\n{auth}{end}": (400,),
        f"GET /api/whoami HTTP/1.1\r\n{host}{host}{auth}{end}": (400,),
        f"GET /api/whoami HTTP/1.1\r\n{host}Host: evil.example\r\n{auth}{end}": (400,),
        f"GET /api/whoami HTTP/1.1\r\nHost: evil.example\r\n{auth}{end}": (421,),
        f"GET http://evil.example/api/whoami HTTP/1.1\r\n{host}{end}": (400, 401, 404),
        f"GET http://evil.example/api/whoami HTTP/1.1\r\nHost: evil.example\r\n{auth}{end}": (400, 421),
        f"GET //api/whoami HTTP/1.1\r\n{host}{auth}{end}": (400, 404),
        f"GET /api/%77hoami HTTP/1.1\r\n{host}{auth}{end}": (400,),
        f"GET /api/../api/whoami HTTP/1.1\r\n{host}{auth}{end}": (400,),
        f"GET /api/whoami;x=y HTTP/1.1\r\n{host}{auth}{end}": (400,),
        f"GET /API/whoami HTTP/1.1\r\n{host}{auth}{end}": (404,),
        f"OPTIONS * HTTP/1.1\r\n{host}{auth}{end}": (400, 404),
        f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n{host}{auth}{end}": (400, 404, 405),
        f"POST /api/tokens HTTP/1.1\r\n{host}{auth}Content-Length: 99999999\r\n{end}": (400, 413, 415),
        f"GET /api/whoami HTTP/1.1\r\n{host}{auth}X-Big: {'x' * 20_000}\r\n{end}": (431,),
        f"GET /api/whoami HTTP/1.1\r\n{host}{auth}Upgrade: websocket\r\n{end}": (200, 400, 403, 426),
    }
    for request, statuses in cases.items():
        status, body = raw(port, request)
        assert status in statuses, (request[:80], status)
        assert "Traceback" not in body
        assert str(running.home) not in body
    assert running.stop() == 0


def test_a_change_of_tokens_reaches_the_data_plane_at_its_next_look(start: Start) -> None:
    """Within a second, that is; a machine with other work may be slower, so what is checked is what it rests on.

    The change is published before it is answered, and a data plane looks several times a second (that it does so
    whatever else it does: tests/serving/test_watch.py).
    """
    assert POLL_SECONDS <= 0.25
    running = start("--port", "0")
    plane = f"http://127.0.0.1:{running.port + 1}/v2"
    with Client.open(running.home) as client:
        made = client.post("/api/tokens", {"roles": ["service"], "project": "flights"})
        headers = {"authorization": f"Bearer {made['token']}"}

        def status() -> int:
            return httpx.get(plane, headers=headers).status_code

        access = running.home / "routing" / "access.json"
        digest = hashlib.sha256(made["token"].encode()).hexdigest()
        assert digest in access.read_text()
        until(lambda: status() != 401)
        reviewer = client.post("/api/tokens", {"roles": ["reviewer"], "project": "flights"})["token"]

        def refused() -> httpx.Response:
            return httpx.get(plane, headers={"authorization": f"Bearer {reviewer}"})

        until(lambda: refused().status_code == 403)
        assert "It lacks the permission predict" in refused().text
        client.delete(f"/api/tokens/{made['id']}")
        assert digest not in access.read_text()
        with pytest.raises(Unauthenticated), Client.at(running.url, made["token"]) as revoked:
            revoked.get("/api/whoami")
        until(lambda: status() == 401)
    assert running.stop() == 0


def test_simulated_time_moves_nothing_but_the_stores(start: Start, tmp_path: Path) -> None:
    clock = FileClock(tmp_path / "clock", datetime(2013, 1, 1, tzinfo=UTC))
    running = start("--port", "0", "--clock", str(tmp_path / "clock"))
    with Client.open(running.home) as client:
        made = client.post("/api/tokens", {"roles": ["operator"], "project": "flights"})
        clock.set(datetime(2014, 1, 1, tzinfo=UTC))
        with Client.at(running.url, made["token"]) as operator:
            report = operator.post("/api/operations/run-due")
        assert report["now"].startswith("2014-01-01")
    assert running.stop() == 0


def test_without_a_server_the_client_opens_the_folder_itself(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(NotFound):
        Client.open(home)
    assert start("--port", "0", home=home).stop() == 0
    with Client.open(home) as inside:
        made = inside.post("/api/tokens", {"roles": ["viewer"], "project": "flights"})
        with pytest.raises(NotFound):
            inside.get("/api/nothing")
        refused = start("--port", "0", home=home, wait=False)
        assert refused.process.wait(SECONDS) != 0
        assert f"is in use by process {os.getpid()}" in refused.errors()
    running = start("--port", "0", home=home)
    with Client.open(home, token=made["token"]) as outside:
        assert outside.url == running.url
        assert outside.get("/api/whoami")["roles"] == ["viewer"]
    assert running.stop() == 0


def test_with_a_certificate_everything_is_https(start: Start, tmp_path: Path) -> None:
    self_signed(tmp_path, "localhost")
    files = {"HOLDTRUE_TLS_CERTIFICATE": "cert.pem", "HOLDTRUE_TLS_KEY": "key.pem"}
    environ = {name: str(tmp_path / file) for name, file in files.items()}
    running = start("--port", "0", HOLDTRUE_PUBLIC_URL="https://localhost", **environ)
    assert running.url.startswith("https://127.0.0.1:")
    link = next(line.split()[1] for line in running.lines if line.startswith("sign-in "))
    assert link.startswith("https://localhost/login?code=")
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    with httpx.Client(verify=trust) as client:
        for port in (running.port, running.port + 1):
            assert client.get(f"https://localhost:{port}/health/ready").status_code == 200
        answer = client.get(link.replace("localhost/", f"localhost:{running.port}/"))
    assert answer.status_code == 303
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-holdtrue_session_")
    assert "; Secure" in cookie
    with pytest.raises(httpx.TransportError):
        httpx.get(running.url.replace("https", "http"))
    assert running.stop() == 0


def test_listening_everywhere_with_tls_becomes_ready_and_still_knows_its_names(start: Start, tmp_path: Path) -> None:
    self_signed(tmp_path, "localhost")
    files = {"HOLDTRUE_TLS_CERTIFICATE": "cert.pem", "HOLDTRUE_TLS_KEY": "key.pem"}
    environ = {name: str(tmp_path / file) for name, file in files.items()}
    running = start("--port", "0", HOLDTRUE_BIND="0.0.0.0", **environ)  # noqa: S104  # what is tested
    assert running.url.startswith("https://127.0.0.1:")
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    trust.check_hostname = False
    with httpx.Client(verify=trust) as client:
        for port in (running.port, running.port + 1):
            address = f"https://127.0.0.1:{port}/health/ready"
            assert client.get(address).status_code == 200
            assert client.get(address, headers={"host": f"elsewhere.example:{port}"}).status_code == 421
    assert running.stop() == 0


def test_fifty_requests_with_one_key_over_sockets_are_one(start: Start) -> None:
    running = start("--port", "0")
    answers: list[str] = []

    def send() -> None:
        with Client.open(running.home) as client:
            wish = {"roles": ["viewer"], "project": "flights"}
            answers.append(client.post("/api/tokens", wish, key="one")["id"])

    threads = [threading.Thread(target=send) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 50
    assert len(set(answers)) == 1
    with Client.open(running.home) as client:
        made = [token for token in client.get("/api/tokens")["items"] if token["project"] == "flights"]
        assert len(made) == 1
        with pytest.raises(Exception, match="idempotency key") as refused:
            client.post("/api/tokens", {"roles": ["viewer"], "project": "other"}, key="one")
        assert refused.value.__class__.__name__ in ("IdempotencyMismatch", Conflict.__name__)
    assert running.stop() == 0
