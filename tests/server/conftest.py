"""An application over real stores, called through its real gate without a socket; and a room to try it on."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from holdtrue.core.access import Permission, Role
from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import Corrupt, HoldtrueError, NotFound
from holdtrue.door import Call, Route, Routes
from holdtrue.server.answers import plain_page
from holdtrue.server.build import Built, build
from holdtrue.server.home import read_token
from holdtrue.server.settings import load_settings
from holdtrue.server.table import room_routes
from holdtrue.server.transport import in_process
from holdtrue.storage import open_stores

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
PORT = 7700
URL = f"http://127.0.0.1:{PORT}"


@dataclass(frozen=True, slots=True)
class Note:
    """Ask for a note to be written down."""

    text: str
    stars: int = 0


class Odd(HoldtrueError):
    """An error of the room's own kind."""

    code = "odd"
    status = 409


def notes(home: Path) -> Routes:
    """Declare a small room: enough of every kind of route to try the gate on."""
    routes = Routes("notes")

    @routes.get("/api/projects/{project}/notes", Permission.VERSIONS_READ, summary="List notes.")
    def list_notes(call: Call) -> Any:
        events = call.stores.ledger.events(call.project, action="note.written")
        return {"items": [event.payload for event in events], "next": None, "query": dict(call.query)}

    @routes.post("/api/projects/{project}/notes", Permission.VERSIONS_WRITE, summary="Write a note.")
    def write_note(call: Call, body: Note) -> Any:
        def work(tx: Any) -> Any:
            return {"seq": tx.emit("note.written", "note:1", {"text": body.text, "stars": body.stars}).seq}

        return call.write(work)

    @routes.get("/api/projects/{project}/notes/{note}", Permission.VERSIONS_READ, summary="Read a note.")
    def read_note(call: Call) -> Any:
        raise NotFound.of("note", call.path["note"])

    @routes.get("/api/projects/{project}/notes/newest", Permission.VERSIONS_READ, summary="Read the newest.")
    def newest(call: Call) -> Any:
        return {"newest": True}

    @routes.delete("/api/projects/{project}/notes/{note}", Permission.VERSIONS_WRITE, summary="Remove one.")
    def remove(call: Call) -> Any:
        return call.write(lambda tx: {"seq": tx.emit("note.removed", f"note:{call.path['note']}").seq})

    @routes.post("/api/projects/{project}/fail/{how}", Permission.VERSIONS_WRITE, summary="Fail.")
    def fail(call: Call) -> Any:
        if call.path["how"] == "odd":
            raise Odd(f"The file {home}/ledger.db is odd.", facts={"file": [f"{home}/x"]})
        if call.path["how"] == "corrupt":
            raise Corrupt(f"{home}/blobs/ab is damaged.", facts={"path": f"{home}/blobs/ab"})
        if call.path["how"] == "sql":
            call.read(lambda connection: connection.execute(sa.text("SELECT secret FROM nowhere")))
        raise RuntimeError(f"secret stack of {home}")

    @routes.page("/projects/{project}", Permission.STATUS_READ, summary="A page.")
    def page(call: Call) -> str:
        return f"<!doctype html><title>{call.project}</title>"

    return routes


@dataclass
class Door:
    """An application, its clock, and clients for whoever calls it."""

    built: Built
    clock: SimulatedClock
    transport: httpx.BaseTransport
    home: Path
    _clients: list[httpx.Client] = field(default_factory=list[httpx.Client])

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        """Return a client that sends this token."""
        given = dict(headers) if token is None else {"authorization": f"Bearer {token}", **headers}
        client = httpx.Client(transport=self.transport, base_url=URL, headers=given)
        self._clients.append(client)
        return client

    @property
    def owner_token(self) -> str:
        """Return the token of the folder's owner."""
        token = read_token(self.home)
        assert token is not None
        return token

    def owner(self) -> httpx.Client:
        """Return a client of the folder's owner."""
        return self.client(self.owner_token)

    def token(self, *roles: Role, project: str | None = "flights", **more: Any) -> str:
        """Make a token over HTTP and return its text."""
        wish = {"roles": [role.value for role in roles], "project": project, **more}
        answer = self.owner().post("/api/tokens", json=wish)
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def signed_in(self) -> tuple[httpx.Client, str]:
        """Return a client with a browser's session of the owner, and its page token."""
        link = self.owner().post("/api/sign-in-codes").json()["url"]
        browser = self.client(accept="text/html", **{"sec-fetch-site": "same-origin"})
        assert browser.get(link).status_code == 303
        csrf = browser.get("/api/whoami").json()["csrf"]
        return browser, csrf

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            client.close()

    def digest(self) -> str:
        """Return a hash over every row of every table, and every blob and file of state."""
        found = hashlib.sha256()

        def rows(connection: sa.Connection) -> None:
            inspector = sa.inspect(connection)
            for name in sorted(inspector.get_table_names()):
                for row in connection.execute(sa.select(sa.text("*")).select_from(sa.table(name))):
                    found.update(repr((name, tuple(row))).encode())

        self.built.app.stores.ledger.read(rows)
        for folder in ("blobs", "actions", "journal", "keys", "routing"):
            for path in sorted((self.home / folder).rglob("*")):
                if path.is_file():
                    found.update(str(path.relative_to(self.home)).encode() + path.read_bytes())
        return found.hexdigest()


Opener = Callable[..., Door]


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    """Open applications over folders of this test; all are closed at its end."""
    doors: list[tuple[Door, Any]] = []

    def open_door(declared: list[Route] | None = None, home: Path | None = None, **settings: Any) -> Door:
        folder = home or tmp_path / "home"
        folder.mkdir(mode=0o700, exist_ok=True)
        chosen = replace(load_settings(folder, environ={}), **settings)
        every = room_routes() if declared is None else declared
        clock = SimulatedClock(START)
        stores = open_stores(folder, clock)
        built = build(stores, chosen, clock, every, plain_page)
        context = in_process(built.gate)
        door = Door(built, clock, context.__enter__(), folder)
        doors.append((door, context))
        return door

    yield open_door
    for door, context in doors:
        door.close()
        context.__exit__(None, None, None)
        door.built.close()


@pytest.fixture
def door(opener: Opener, tmp_path: Path) -> Door:
    """Open an application with the server's own routes and the small room's."""
    return opener(list(notes(tmp_path / "home")))


@pytest.fixture
def whole(opener: Opener) -> Door:
    """Open the application with every room's routes."""
    return opener()
