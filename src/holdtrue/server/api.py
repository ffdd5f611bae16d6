"""This room's own routes: health, signing in and out, tokens, the audit, due work, the description of the
API.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput, Unavailable
from holdtrue.door import Call, Reply, Routes
from holdtrue.server import store
from holdtrue.server.access import publish_access
from holdtrue.server.asgi import App, AppCall, cookie_name
from holdtrue.server.model import SESSION_HOURS, Identity, NewToken
from holdtrue.server.openapi import describe_api
from holdtrue.server.rules import csrf_token
from holdtrue.server.service import fresh_secret, issue, renew, revoke, sign_out, token_kind
from holdtrue.server.table import Table
from holdtrue.storage.ledger import Transaction, WriteContext


def server_routes(app: App, table: Callable[[], Table]) -> Routes:
    """Declare the routes of this room over `app`; `table` gives the finished table, for its description."""
    routes = Routes("server")
    _health(routes, app)
    _sessions(routes, app)
    _projects(routes)
    _tokens(routes, app)
    _operations(routes, app)

    @routes.get("/openapi.json", Permission.STATUS_READ, summary="Describe every route (OpenAPI 3.1).")
    def openapi(call: Call) -> dict[str, Any]:
        return describe_api(table().routes)

    return routes


def _health(routes: Routes, app: App) -> None:
    @routes.get("/health/live", "public", summary="Tell whether the process runs.")
    def live(call: Call) -> dict[str, str]:
        return {"status": "live"}

    @routes.get("/health/ready", "public", summary="Tell whether requests can be served and written.")
    def ready(call: Call) -> dict[str, str]:
        failure = app.stores.ledger.failure
        if failure is not None:
            raise Unavailable("The ledger takes no more writes.", mend="Read the server's log, then restart it.")
        return {"status": "ready"}


def _sessions(routes: Routes, app: App) -> None:
    name = cookie_name(app.settings)
    # SameSite=Strict works with the printed link: a terminal is no site, and the code is redeemed by the link
    # itself.
    flags = f"Path=/; HttpOnly; SameSite=Strict; Max-Age={SESSION_HOURS * 3600}" + (
        "; Secure" if app.settings.secure else ""
    )

    @routes.page("/login", "public", summary="Sign a browser in with a one-time code.")
    def login(call: Call) -> Reply:
        code = call.query.get("code", "")
        if not code:
            raise InvalidInput("A sign-in link carries a code.", mend="Use the whole link that `holdtrue up` prints.")
        cookie = app.sign_ins.redeem(code)
        return Reply(status=303, headers=(("location", "/"), ("set-cookie", f"{name}={cookie}; {flags}")))

    @routes.post("/api/sign-in-codes", Permission.STATUS_READ, summary="Make a one-time sign-in link.")
    def sign_in_code(call: Call) -> dict[str, Any]:
        code = app.sign_ins.make_code(call.actor, _identity(call).token)
        return {"url": f"{app.settings.origin}/login?code={code}", "code": code}

    @routes.post("/logout", Permission.STATUS_READ, summary="End every session of this token.")
    def logout(call: Call) -> Reply:
        identity = _identity(call)
        now = app.clock.now()
        app.stores.ledger.write(
            WriteContext(actor=call.actor, project=call.actor.project or "", request_id=call.request_id),
            lambda tx: sign_out(tx, identity, now),
        )
        app.identities.forget()
        ended = f"{name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"
        return Reply(body=b'{"signed_out":true}', media_type="application/json", headers=(("set-cookie", ended),))

    @routes.get("/api/whoami", Permission.STATUS_READ, summary="Tell whose token or session this is.")
    def whoami(call: Call) -> dict[str, Any]:
        identity = _identity(call)
        cookie = call.cookie if isinstance(call, AppCall) else None
        return {
            "id": call.actor.id,
            "name": call.actor.name,
            "kind": call.actor.kind,
            "roles": sorted(role.value for role in call.actor.roles),
            "project": call.actor.project,
            "token": identity.token,
            "expires_at": identity.expires_at,
            "csrf": None if cookie is None else csrf_token(cookie),
        }


def _projects(routes: Routes) -> None:
    @routes.get("/api/projects", Permission.STATUS_READ, summary="List the projects this token may see.")
    def list_projects(call: Call) -> dict[str, Any]:
        # An application that only sends spans has a project, too.
        found = sorted({*call.read(store.projects), *call.stores.journal.projects("span")})
        seen = [name for name in found if call.actor.project in (None, name)]
        return {"items": seen, "next": None}


def _tokens(routes: Routes, app: App) -> None:
    @routes.get("/api/tokens", Permission.TOKENS_WRITE, summary="List tokens, without their secrets.")
    def list_tokens(call: Call) -> dict[str, Any]:
        found = call.read(lambda connection: store.list_tokens(connection, call.project or None))
        return {"items": [token.to_json() for token in found], "next": None}

    @routes.post("/api/tokens", Permission.TOKENS_WRITE, summary="Make a token; its text is shown once.")
    def create_token(call: Call, body: NewToken) -> dict[str, Any]:
        secret = fresh_secret(token_kind(body))
        now = app.clock.now()
        parent = _identity(call).token

        def work(tx: Transaction) -> dict[str, Any]:
            token = issue(tx, body, secret, now=now, creator=call.actor, parent=parent)
            # Moments as text: the answer may be kept with its idempotency key, the secret never.
            return {
                key: value.isoformat() if isinstance(value, datetime) else value
                for key, value in token.to_json().items()
            }

        made = call.write(work)
        _changed(app)
        return {**made, "token": secret.text if made["id"] == secret.id else None}

    @routes.delete("/api/tokens/{token_id}", Permission.TOKENS_WRITE, summary="Revoke a token and those made with it.")
    def revoke_token(call: Call) -> dict[str, Any]:
        now = app.clock.now()
        ended = call.write(lambda tx: revoke(tx, call.path["token_id"], now=now, within=call.actor.project))
        _changed(app)
        return {"revoked": ended}

    @routes.post("/api/tokens/renew", Permission.STATUS_READ, summary="Let this program's token live another day.")
    def renew_token(call: Call) -> dict[str, Any]:
        token_id = _identity(call).token
        now = app.clock.now()
        renewed = call.write(lambda tx: renew(tx, token_id, now=now).expires_at.isoformat())
        _changed(app)
        return {"id": token_id, "expires_at": renewed}


def _operations(routes: Routes, app: App) -> None:
    @routes.post("/api/operations/run-due", Permission.OPERATIONS_RUN, summary="Do all work that is due now.")
    def run_all_due(call: Call) -> dict[str, Any]:
        return app.due.run(call.project or None)

    @routes.get("/api/audit/verify", Permission.AUDIT_READ, summary="Check the whole event log and its signatures.")
    def verify_audit(call: Call) -> dict[str, Any]:
        from holdtrue.storage.ledger.verify import verify

        home = app.stores.home
        anchors = app.settings.anchor_file or None
        where = app.settings.database or home / "ledger.db"
        key = (home / "keys" / "ledger.pub").read_text("ascii")
        found = verify(where, key, anchors=anchors, now=microseconds(app.stores.clock.now()))
        return {"ok": found.ok, "exit_code": found.exit_code, **asdict(found)}


def _identity(call: Call) -> Identity:
    assert isinstance(call, AppCall)
    assert call.identity is not None
    return call.identity


def _changed(app: App) -> None:
    """Let a change of tokens take effect everywhere: here at once, in data planes within their next look."""
    app.identities.forget()
    publish_access(app.stores, app.clock)
