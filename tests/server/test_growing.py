"""An application of the rooms that are asked for: it answers as the whole one does, and loads no other room."""

import subprocess
import sys
from pathlib import Path

import pytest

from holdtrue.core.access import Permission
from holdtrue.door import Call, Route, Routes
from holdtrue.server.build import trace_room
from holdtrue.server.table import AREAS, GrowingTable, Match, Room, UndeclaredRoute, rooms
from tests.server.conftest import Door

_TRACES = "protocols.mlflow.traces"


def _address(route: Route) -> str:
    """Return an address that a route's path matches."""
    words = route.path.replace("{path:path}", "a/b").split("/")
    return "/".join("x" if word.startswith("{") else word for word in words)


def _said(match: Match | None) -> object:
    if match is None:
        return None
    return {method: (route.path, route.permission) for method, route in match.routes.items()}, dict(match.parameters)


def _growing(whole: Door) -> GrowingTable:
    app = whole.built.app
    own = [route for route in whole.built.gate.table.routes if route.room == "server"]
    return GrowingTable(own, [*rooms(), trace_room(app.stores, app.settings)])


def test_each_address_is_answered_as_by_the_whole_table(whole: Door) -> None:
    table = whole.built.gate.table
    for route in table.routes:
        growing, address = _growing(whole), _address(route)
        assert growing.dialect_at(address) == table.dialect_at(address), address
        assert _said(growing.match(address)) == _said(table.match(address)), address
        assert growing.is_public(route.method, address) == table.is_public(route.method, address)
        assert growing.loaded() != [*AREAS, _TRACES], address


def test_with_every_room_it_has_the_routes_of_the_whole_table(whole: Door) -> None:
    def named(routes: tuple[Route, ...]) -> list[tuple[str, str, str]]:
        return sorted((route.method, route.path, str(route.permission)) for route in routes)

    assert named(_growing(whole).routes) == named(whole.built.gate.table.routes)


def test_only_the_room_that_is_asked_for_is_loaded(whole: Door) -> None:
    growing = _growing(whole)
    assert growing.match("/api/projects") is not None
    assert growing.loaded() == []
    assert growing.match("/api/projects/p/datasets/d/versions") is not None
    assert growing.loaded() == ["data.api"]
    assert growing.match("/api/projects/p/services/s/promote") is not None
    assert growing.loaded() == ["data.api", "monitoring.api", "delivery.api"]


def test_an_address_of_no_area_is_asked_of_every_room(whole: Door) -> None:
    table = whole.built.gate.table
    for address in ("/nowhere", "/api/projects/p/nothing", "/version-of-what", "/v1/tracesx", "/ajax-api/4.0/x", ""):
        growing = _growing(whole)
        assert growing.dialect_at(address) == table.dialect_at(address)
        assert growing.match(address) is None
        assert table.match(address) is None
        assert growing.loaded() == [*AREAS, _TRACES]


def test_a_route_outside_its_areas_fails_the_build() -> None:
    routes = Routes("room")

    @routes.get("/a/{id}", Permission.STATUS_READ, summary="Do.")
    def nothing(call: Call) -> None: ...

    assert [route.path for route in Room("room", ("/a/{name}",), lambda: routes).routes()] == ["/a/{id}"]
    with pytest.raises(UndeclaredRoute, match="lies in no area of room"):
        Room("room", ("/b", "/a/x", "/a/x/y"), lambda: routes).routes()


def test_rows_left_to_be_settled_are_known_whatever_is_loaded(tmp_path: Path) -> None:
    # In a process of its own: here, other tests have loaded every room.
    script = """
import sys
from pathlib import Path
from holdtrue.server.build import open_app
from holdtrue.server.settings import load_settings
from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import metadata

def settled():
    return {name for name, table in metadata.tables.items() if "settle" in table.info}

open_app(load_settings(Path(sys.argv[1]), environ={}), growing=True).close()
few, tables = settled(), len(metadata.tables)
room_routes()
assert few == settled() != set(), (few, settled())
assert tables < len(metadata.tables)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "home")], check=True)
