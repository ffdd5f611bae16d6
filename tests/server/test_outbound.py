"""Outbound calls: only to https, on listed ports, at addresses that were checked."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from holdtrue.core.errors import Forbidden, InvalidInput, Unavailable
from holdtrue.server.outbound import OutboundPolicy, Resolve, check_target, send
from tests.server.certificates import self_signed

PUBLIC = "93.184.215.14"
POLICY = OutboundPolicy()


def to(*addresses: str) -> Resolve:
    """Resolve every name to these addresses."""
    return lambda host, port: list(addresses)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:pass@example.com/",
        "https://user@example.com/",
        "https://example.com/#x",
        "https:///x",
        "https://example.com\\@inside/",
        "https://exa mple.com/",
        "https://example.com:99999/",
        "//example.com",
        "https://example.com/\r\nHost: x",
    ],
)
def test_only_plain_https_addresses_are_called(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_target(url, POLICY, to(PUBLIC))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104  # a text to refuse
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b:1::7f00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::7f00:1",
    ],
)
def test_private_addresses_are_refused_even_among_public_ones(address: str) -> None:
    with pytest.raises(Forbidden):
        check_target("https://example.com/", POLICY, to(address))
    with pytest.raises(Forbidden):
        check_target("https://example.com/", POLICY, to(PUBLIC, address))
    allowed = OutboundPolicy(private_hosts=("example.com",))
    assert check_target("https://example.com/", allowed, to(address)).address == address


def test_ports_are_listed() -> None:
    with pytest.raises(Forbidden, match="8443"):
        check_target("https://example.com:8443/", POLICY, to(PUBLIC))
    target = check_target("https://example.com:8443/a?b=c", OutboundPolicy(ports=(443, 8443)), to(PUBLIC))
    assert (target.address, target.port, target.path) == (PUBLIC, 8443, "/a?b=c")


@dataclass
class Inside:
    """A real https server on this machine, and what it was asked."""

    port: int
    certificate: Path
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """Serve https as `hook.example` on a free port."""
    folder = tmp_path_factory.mktemp("tls")
    self_signed(folder, "hook.example")
    found = Inside(0, folder / "cert.pem")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.asked.append((self.headers["host"], self.path))
            self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/redirect":
                self.send_response(302)
                self.send_header("location", "https://169.254.169.254/")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            if self.path == "/long":
                try:
                    for _ in range(64):
                        self.wfile.write(b"x" * 65_536)
                except OSError:
                    return

        def log_message(self, format: str, *args: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def trusting(inside: Inside) -> ssl.SSLContext:
    """Trust the server's own certificate."""
    return ssl.create_default_context(cafile=inside.certificate)


def test_a_call_goes_to_the_checked_address_and_follows_nothing(inside: Inside) -> None:
    policy = OutboundPolicy(ports=(inside.port,), private_hosts=("hook.example",))
    url = f"https://hook.example:{inside.port}"
    trust = trusting(inside)
    sent = send("POST", url + "/in", policy=policy, body=b"{}", resolver=to("127.0.0.1"), trust=trust)
    assert sent.status == 200
    assert inside.asked[-1] == (f"hook.example:{inside.port}", "/in")
    redirected = send("POST", url + "/redirect", policy=policy, resolver=to("127.0.0.1"), trust=trust)
    assert redirected.status == 302
    with pytest.raises(Unavailable, match="one mebibyte"):
        send("POST", url + "/long", policy=policy, resolver=to("127.0.0.1"), trust=trust)


def test_a_name_that_is_resolved_again_changes_nothing(inside: Inside) -> None:
    answers = iter([["127.0.0.1"], ["10.9.9.9"]])
    policy = OutboundPolicy(ports=(inside.port,), private_hosts=("hook.example",))
    sent = send(
        "POST",
        f"https://hook.example:{inside.port}/once",
        policy=policy,
        resolver=lambda host, port: next(answers),
        trust=trusting(inside),
    )
    assert sent.status == 200
    assert next(answers) == ["10.9.9.9"]


def test_another_hosts_certificate_is_refused(inside: Inside) -> None:
    policy = OutboundPolicy(ports=(inside.port,), private_hosts=("other.example",))
    with pytest.raises(Unavailable):
        send(
            "POST",
            f"https://other.example:{inside.port}/",
            policy=policy,
            resolver=to("127.0.0.1"),
            trust=trusting(inside),
        )
