"""A real server over a seeded folder, and a real browser signed in to it."""

import os
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

from holdtrue.storage import FileClock
from tests.web.seeding import NOW, PROJECT, open_seeder, seed_year
from tests.web.tracing import seed_trace
from tests.web.training import seed_runs

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@dataclass(frozen=True)
class Site:
    """A running control plane: where it is, whose token opens it, and what was seeded."""

    url: str
    token: str
    home: Path
    ids: dict[str, str]

    def client(self) -> httpx.Client:
        """Return a client of the folder's owner."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.token}"})

    def sign_in_link(self) -> str:
        """Ask for a link that signs a browser in."""
        with self.client() as client:
            return client.post("/api/sign-in-codes").json()["url"]


class Watched:
    """A page of the browser that remembers everything it complained of and asked for."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{self.page.url}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))
        self.page.on("dialog", self._dismiss)
        self.page.on(
            "request",
            lambda request: None if request.url.startswith((origin, "data:")) else self.foreign.append(request.url),
        )

    def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextmanager
def serving(home: Path, ids: dict[str, str], clock: Path) -> Generator[Site]:
    """Serve `home` in a process of its own until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ready, told = os.pipe()
    command = [sys.executable, "-m", "holdtrue.server.control", "--home", str(home), "--port", str(port)]
    process = subprocess.Popen([*command, "--clock", str(clock), "--ready-fd", str(told)], pass_fds=[told])
    os.close(told)
    try:
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.readline() == b"ready\n"
        token = (home / "keys" / "local-token").read_text().strip()
        yield Site(f"http://127.0.0.1:{port}", token, home, ids)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def clock_at_now(folder: Path) -> Path:
    """Make a clock file that stands at the end of the seeded year."""
    path = folder / "clock"
    FileClock(path, NOW).close()
    return path


@pytest.fixture(scope="session")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve a project with a year behind it."""
    folder = tmp_path_factory.mktemp("year")
    seeder = open_seeder(folder / "home")
    runs = seed_runs(seeder.at(datetime(2013, 2, 1, tzinfo=UTC)))
    ids = {**runs, **seed_year(seeder)}
    ids["trace"] = seed_trace(seeder.at(NOW))
    seeder.at(NOW).write(lambda tx: tx.emit("project.applied", PROJECT, {"name": PROJECT}))
    seeder.stores.close()
    with serving(folder / "home", ids, clock_at_now(folder)) as site:
        yield site


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start Debian's chromium; while it runs, this thread has an event loop, in which other tests could start none."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        chromium.close()


def signed_in(browser: Browser, site: Site, *, width: int = 1280, scheme: str = "light") -> Watched:
    """Open a page of a browser that used a sign-in link."""
    chosen = "dark" if scheme == "dark" else "light"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=chosen)
    watched = Watched(context, site.url)
    answer = watched.page.goto(site.sign_in_link())
    assert answer is not None
    assert answer.ok
    return watched
