"""Who may do what: the table of every route and every kind of caller, as it is checked in.

`python -m tests.server.matrix` writes it anew; the difference is reviewed like any other change.
"""

import json
import tempfile
from pathlib import Path

from holdtrue.core.access import Role, allowed
from holdtrue.door import Route
from holdtrue.server.settings import load_settings

FILE = Path(__file__).with_name("matrix.json")
STRANGERS = ("anonymous", "revoked", "expired")
PASS = "pass"  # the gate lets through; the handler may still say that there is no such thing


def expected(route: Route, caller: str) -> int | str:
    """Return what a caller gets at a route's gate: a status, or “pass”."""
    if route.permission == "public":
        return PASS
    if caller in STRANGERS:
        return 401
    if caller == "other project":
        return 404 if "{project}" in route.path else PASS
    return PASS if allowed([Role(caller)], route.permission) else 403


def table(routes: tuple[Route, ...]) -> dict[str, dict[str, int | str]]:
    """Return the whole table, by “METHOD path”."""
    callers = (*STRANGERS, "other project", *(role.value for role in Role))
    return {
        f"{route.method} {route.path}": {
            "permission": str(route.permission),
            **{caller: expected(route, caller) for caller in callers},
        }
        for route in sorted(routes, key=lambda each: (each.path, each.method))
    }


def read() -> dict[str, dict[str, int | str]]:
    """Return the table as it is checked in."""
    return json.loads(FILE.read_text())


def main() -> None:
    """Write the table of the routes as they are declared now."""
    from holdtrue.server.build import open_app

    with tempfile.TemporaryDirectory() as folder:
        built = open_app(load_settings(Path(folder) / "home", environ={}))
        routes = built.gate.table.routes
        built.close()
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table(routes).items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
