"""The route table: what is not declared rightly does not build."""

from collections.abc import Callable
from typing import Any

import pytest

from holdtrue.core.access import Permission
from holdtrue.door import Call, Routes
from holdtrue.server.table import RouteTable, UndeclaredRoute

READ = Permission.STATUS_READ


def nothing(call: Call) -> Any:
    """Handle a route."""
    return {}


def table(*declared: tuple[Any, str, Any]) -> RouteTable:
    """Build a table of these methods, paths and permissions."""
    routes = Routes("room")
    for method, path, permission in declared:
        routes.add(method, path, permission, summary="Do.")(nothing)
    return RouteTable(routes)


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ([("GET", "/a", None)], "no permission"),
        ([("GET", "/a", "status.write")], "no permission"),
        ([("OPTIONS", "/a", READ)], "OPTIONS"),
        ([("GET", "/a/{id}", "public")], "not one exact address"),
        ([("GET", "/a", READ), ("GET", "/a", "public")], "declared twice"),
        ([("GET", "/a/{id}", READ), ("POST", "/a/{name}", READ)], "match the same addresses"),
        ([("GET", f"/a{number}", "public") for number in range(9)], "9 routes are public"),
        ([("GET", "/a/", READ)], "not a path"),
        ([("GET", "/a//b", READ)], "not a path"),
        ([("GET", "/a/{path:path}", READ)], "not a path"),
        ([("GET", "a", READ)], "not a path"),
    ],
)
def test_a_route_that_breaks_a_rule_fails_the_build(declared: list[Any], why: str) -> None:
    with pytest.raises(UndeclaredRoute, match=why):
        table(*declared)


def test_a_route_without_a_summary_fails_the_build() -> None:
    routes = Routes("room")
    declare: Callable[[Any], Any] = routes.get("/a", READ, summary="")
    declare(nothing)
    with pytest.raises(UndeclaredRoute, match="no summary"):
        RouteTable(routes)


def test_fixed_words_come_before_parameters_at_every_place() -> None:
    found = table(("GET", "/{a}/{b}", READ), ("GET", "/{a}/x", READ), ("GET", "/y/{b}", READ), ("GET", "/y/x", READ))

    def path(asked: str) -> str:
        match = found.match(asked)
        assert match is not None
        return match.routes["GET"].path

    assert [path(each) for each in ("/y/x", "/y/z", "/z/x", "/z/z")] == [
        "/y/x",
        "/y/{b}",
        "/{a}/x",
        "/{a}/{b}",
    ]
    assert found.match("/y") is None
    assert found.match("/y/x/z") is None
    assert found.match("/Y/x").parameters == {"a": "Y"}  # type: ignore[union-attr]


def test_public_is_an_exact_method_and_path() -> None:
    found = table(("GET", "/health", "public"), ("POST", "/health", READ), ("GET", "/health/{id}", READ))
    assert found.is_public("GET", "/health")
    assert found.is_public("HEAD", "/health")
    for method, path in (
        ("POST", "/health"),
        ("GET", "/health/live"),
        ("GET", "/Health"),
        ("OPTIONS", "/health"),
    ):
        assert not found.is_public(method, path)
