"""The gate: who gets through, to what, and what is said to those who do not."""

import concurrent.futures
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from holdtrue.core.access import Role
from holdtrue.core.clock import SimulatedClock
from tests.server.conftest import PORT, URL, Door, Opener, notes

NOTES = "/api/projects/flights/notes"


def test_without_a_token_everything_but_the_public_list_is_401(door: Door) -> None:
    anybody = door.client()
    before = door.digest()
    for path in (
        NOTES,
        "/",
        "/nothing",
        "/api/tokens",
        "/openapi.json",
        "/health",
        "/health/live/x",
        "/static",
    ):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            assert anybody.request(method, path).status_code == 401, (method, path)
    assert anybody.get("/health/live").json() == {"status": "live"}
    assert anybody.get("/health/ready").json() == {"status": "ready"}
    assert door.digest() == before


def test_a_token_reaches_what_its_role_grants_and_nothing_more(door: Door) -> None:
    viewer = door.client(door.token(Role.VIEWER))
    assert viewer.get(NOTES).status_code == 200
    refused = viewer.post(NOTES, json={"text": "x"})
    assert refused.status_code == 403
    assert refused.json()["error"]["facts"] == {"permission": "versions.write"}
    assert viewer.post("/api/tokens", json={"roles": ["viewer"]}).status_code == 403
    developer = door.client(door.token(Role.DEVELOPER))
    assert developer.post(NOTES, json={"text": "x"}).status_code == 200
    assert viewer.get(NOTES).json()["items"] == [{"text": "x", "stars": 0}]


def test_unknown_addresses_are_404_and_unknown_methods_405_with_a_token(door: Door) -> None:
    owner = door.owner()
    assert owner.get("/api/projects/flights/nope").status_code == 404
    assert owner.get(NOTES + "/").status_code == 400
    answer = owner.put(NOTES, json={})
    assert answer.status_code == 405
    assert answer.json()["error"]["why"] == "It takes GET, POST."
    assert owner.request("OPTIONS", NOTES).status_code == 405


def test_a_fixed_word_wins_over_a_parameter(door: Door) -> None:
    assert door.owner().get(NOTES + "/newest").json() == {"newest": True}
    assert door.owner().get(NOTES + "/other").status_code == 404


def test_another_projects_token_gets_the_404_of_a_missing_project(door: Door) -> None:
    stranger = door.client(door.token(Role.DEVELOPER, project="elsewhere"))
    before = door.digest()
    answers = [
        stranger.get(NOTES),
        stranger.get("/api/projects/missing/notes"),
        stranger.post(NOTES, json={"text": "x"}),
        stranger.delete(NOTES + "/1"),
        stranger.get("/projects/flights"),
        stranger.get("/api/whoami?project=flights"),
        stranger.get("/api/there/is/nothing"),
    ]
    errors = []
    for answer in answers:
        error = answer.json()["error"]
        del error["request_id"]
        errors.append((answer.status_code, error))
    assert errors == [errors[0]] * len(answers)
    assert errors[0][0] == 404
    assert door.digest() == before


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ([], 400),
        ([f"127.0.0.1:{PORT}", f"127.0.0.1:{PORT}"], 400),
        ([f"127.0.0.1:{PORT}", "evil.example"], 400),
        (["127.0.0.1:7700/x"], 400),
        (["user@127.0.0.1:7700"], 400),
        (["127.0.0.1 :7700"], 400),
        ([""], 400),
        (["evil.example"], 421),
        (["127.0.0.1"], 421),
        ([f"127.0.0.1:{PORT + 1}"], 421),
        ([f"127.0.0.1.evil.example:{PORT}"], 421),
        ([f"localhost:{PORT}"], 200),
        ([f"LOCALHOST:{PORT}"], 200),
        ([f"[::1]:{PORT}"], 200),
    ],
)
def test_the_host_must_be_named_once_and_be_ours(door: Door, hosts: list[str], status: int) -> None:
    request = httpx.Request("GET", f"{URL}/health/live")
    fields = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
    request.headers = httpx.Headers(fields + [(b"host", host.encode()) for host in hosts])
    assert door.client().send(request).status_code == status


def test_forwarded_headers_change_nothing(door: Door) -> None:
    forged = door.client(**{"x-forwarded-host": "evil.example", "x-forwarded-for": "1.2.3.4", "forwarded": "x"})
    assert forged.get("/health/live").status_code == 200
    link = door.client(door.owner_token, **{"x-forwarded-host": "evil.example"}).post("/api/sign-in-codes")
    assert link.json()["url"].startswith(URL + "/login?code=")


def test_tokens_end_when_they_expire_or_are_revoked_at_once(door: Door) -> None:
    token = door.token(Role.VIEWER, hours=2)
    viewer = door.client(token)
    assert viewer.get("/api/whoami").status_code == 200
    door.clock.advance(2 * 3600 - 1)
    assert viewer.get("/api/whoami").status_code == 200
    door.clock.advance(1)
    assert viewer.get("/api/whoami").status_code == 401
    second = door.token(Role.VIEWER)
    viewer = door.client(second)
    token_id = viewer.get("/api/whoami").json()["token"]
    assert door.owner().delete(f"/api/tokens/{token_id}").json() == {"revoked": [token_id]}
    assert viewer.get("/api/whoami").status_code == 401
    assert token_id not in (door.home / "routing" / "access.json").read_text()


def test_tokens_that_begin_alike_are_different_identities(door: Door) -> None:
    token = door.token(Role.VIEWER)
    assert door.client(token).get("/api/whoami").status_code == 200
    for cut in (40, 50, len(token) - 1):
        forged = token[:cut] + "0" * (len(token) - cut)
        assert door.client(forged).get("/api/whoami").status_code == 401
    for header in (token, f"Basic {token}", "Bearer", "Bearer ", f"Bearer {token} x", f"Token {token}"):
        assert door.client(authorization=header).get("/api/whoami").status_code == 401


def test_a_request_with_two_credentials_has_none(door: Door) -> None:
    request = httpx.Request("GET", f"{URL}/api/whoami")
    good = f"Bearer {door.owner_token}".encode()
    request.headers = httpx.Headers([*request.headers.raw, (b"authorization", good), (b"authorization", b"Bearer x")])
    assert door.client().send(request).status_code == 401


def test_a_repeated_key_answers_the_same_and_happens_once(door: Door) -> None:
    owner = door.owner()

    def send(text: str) -> httpx.Response:
        return owner.post(NOTES, json={"text": text}, headers={"idempotency-key": "key-1"})

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, ["once"] * 50))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert owner.get(NOTES).json()["items"] == [{"text": "once", "stars": 0}]
    other = send("other")
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_mismatch"
    assert owner.post(NOTES, json={}, headers={"idempotency-key": "a b"}).status_code == 400
    assert owner.post(NOTES, json={}, headers={"idempotency-key": "k" * 201}).status_code == 400


def test_a_key_holds_after_a_restart(opener: Opener, door: Door) -> None:
    headers = {"idempotency-key": "key-1"}
    first = door.owner().post(NOTES, json={"text": "x"}, headers=headers)
    door.built.close()
    again = opener(list(notes(door.home)), home=door.home)
    second = again.owner().post(NOTES, json={"text": "x"}, headers=headers)
    assert second.json() == first.json()
    assert len(again.owner().get(NOTES).json()["items"]) == 1


def test_a_repeated_token_request_never_shows_the_secret_again(door: Door) -> None:
    headers = {"idempotency-key": "token-1"}
    wish = {"roles": ["viewer"], "project": "flights"}
    first = door.owner().post("/api/tokens", json=wish, headers=headers).json()
    second = door.owner().post("/api/tokens", json=wish, headers=headers).json()
    assert second.pop("token") is None
    secret = first.pop("token")
    assert first == second
    for path in door.home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""])
def test_bodies_that_a_form_could_send_are_refused(door: Door, kind: str) -> None:
    before = door.digest()
    answer = door.owner().post(NOTES, content=b'{"text":"x"}', headers={"content-type": kind})
    assert answer.status_code == 415
    assert door.digest() == before


def test_bodies_over_the_limits_are_refused(door: Door) -> None:
    owner = door.owner()
    limit = door.built.app.settings.body_limit
    json = {"content-type": "application/json"}
    assert owner.post(NOTES, content=b'{"text":"' + b"x" * limit + b'"}', headers=json).status_code == 413
    assert owner.post(NOTES, content=b"[" * 65 + b"]" * 65, headers=json).status_code == 400
    assert owner.post(NOTES, content=b"[" * 100_000, headers=json).status_code == 400
    assert owner.post(NOTES, content=b"{", headers=json).status_code == 400
    assert owner.post(NOTES, content=b"\x1f\x8b", headers={**json, "content-encoding": "gzip"}).status_code == 415
    lying = {**json, "content-length": str(limit + 1)}
    assert owner.post(NOTES, content=b"{}", headers=lying).status_code == 413
    assert owner.post(NOTES, content=b"{}", headers={**json, "content-length": "-1"}).status_code == 400
    big = owner.get("/api/whoami", headers={"x-big": "x" * 20_000})
    assert big.status_code == 431
    assert owner.get("/api/whoami?" + "a=b&" * 3000).status_code == 431
    text = b'{"text":"' + b"[" * 500 + b'"}'
    assert owner.post(NOTES, content=text, headers=json).status_code == 200


def test_unknown_and_wrong_fields_are_named(door: Door) -> None:
    answer = door.owner().post(NOTES, json={"text": "x", "stras": 1})
    assert answer.status_code == 400
    assert "stras" in answer.json()["error"]["what"]
    assert answer.json()["error"]["mend"] == "Did you mean “stars”?"
    assert door.owner().post(NOTES, json={"text": 1}).status_code == 400
    assert door.owner().post(NOTES, json=[]).status_code == 400
    assert door.owner().delete(NOTES + "/1", headers={"content-type": "application/json"}).status_code == 200
    assert door.owner().request("DELETE", NOTES + "/1", json={"x": 1}).status_code == 400


@pytest.mark.parametrize("query", ["a=1&a=2", "a=%0a", "a=%00", "a=%ff", "project=flights&project=flights"])
def test_queries_have_one_meaning(door: Door, query: str) -> None:
    assert door.owner().get(f"{NOTES}?{query}").status_code == 400


@pytest.mark.parametrize("how", ["odd", "corrupt", "sql", "stack"])
def test_errors_hold_a_code_and_a_request_id_and_nothing_internal(door: Door, how: str) -> None:
    answer = door.owner().post(f"/api/projects/flights/fail/{how}")
    error = answer.json()["error"]
    assert set(error) == {"code", "what", "why", "mend", "facts", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["code"] == {"odd": "odd", "corrupt": "corrupt"}.get(how, "internal")
    assert answer.status_code == (409 if how == "odd" else 500)
    for internal in (str(door.home), "SELECT", "secret", "Traceback", "sqlite", "RuntimeError"):
        assert internal not in answer.text


def test_every_answer_has_the_security_headers(door: Door) -> None:
    for answer in (
        door.client().get("/health/live"),
        door.client().get(NOTES),
        door.owner().get("/projects/flights"),
        door.owner().post("/api/projects/flights/fail/stack"),
        door.client(host="evil.example").get("/"),
    ):
        policy = answer.headers["content-security-policy"]
        for part in (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_head_request_has_a_gets_status_and_no_body(door: Door) -> None:
    answer = door.owner().head(NOTES)
    assert answer.status_code == 200
    assert answer.content == b""


def test_reading_changes_nothing(door: Door) -> None:
    owner = door.owner()
    owner.post(NOTES, json={"text": "x"})
    before = door.digest()
    for path in (NOTES, "/api/whoami", "/api/tokens", "/openapi.json", "/projects/flights", "/health/ready"):
        for method in ("GET", "HEAD", "OPTIONS"):
            owner.request(method, path)
    assert door.digest() == before


class TestBrowser:
    def test_a_link_signs_in_once_and_soon(self, door: Door) -> None:
        link = door.owner().post("/api/sign-in-codes").json()["url"]
        before = door.digest()
        browser = door.client()
        answer = browser.get(link)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"holdtrue_session_{PORT}=")
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert door.digest() == before
        assert browser.get("/projects/flights").status_code == 200
        assert door.client().get(link).status_code == 401
        late = door.owner().post("/api/sign-in-codes").json()["url"]
        door.clock.advance(601)
        assert door.client().get(late).status_code == 401
        assert door.client().get("/login").status_code == 400

    def test_failed_sign_ins_are_limited(self, door: Door) -> None:
        statuses = [door.client().get(f"/login?code={number}").status_code for number in range(40)]
        assert statuses[:30] == [401] * 30
        assert set(statuses[30:]) == {429}

    def test_changes_need_this_origin_and_the_pages_token(self, door: Door) -> None:
        browser, csrf = door.signed_in()
        before = door.digest()
        good = {"x-csrf-token": csrf}
        refused = (
            {},
            {"x-csrf-token": "0" * 64},
            {**good, "sec-fetch-site": "cross-site"},
            {**good, "sec-fetch-site": "same-site"},
            {**good, "sec-fetch-site": "none"},
            {**good, "origin": "https://evil.example"},
            {**good, "origin": "null"},
        )
        for headers in refused:
            assert browser.post(NOTES, json={"text": "x"}, headers=headers).status_code == 403, headers
        del browser.headers["sec-fetch-site"]
        assert browser.post(NOTES, json={"text": "x"}, headers=good).status_code == 403
        assert door.digest() == before
        assert browser.post(NOTES, json={"text": "x"}, headers={**good, "origin": URL}).status_code == 200
        browser.headers["sec-fetch-site"] = "same-origin"
        assert browser.post(NOTES, json={"text": "x"}, headers=good).status_code == 200

    def test_a_session_ends_after_an_idle_hour_and_after_eight(self, door: Door) -> None:
        browser, _ = door.signed_in()
        for _ in range(7):
            door.clock.advance(3600)
            assert browser.get("/api/whoami").status_code == 200
        door.clock.advance(3600)
        assert browser.get("/api/whoami").status_code == 401
        idle, _ = door.signed_in()
        door.clock.advance(3601)
        assert idle.get("/api/whoami").status_code == 401

    def test_signing_out_ends_every_session(self, door: Door) -> None:
        first, csrf = door.signed_in()
        second, _ = door.signed_in()
        cookie = dict(first.cookies)
        assert first.post("/logout", headers={"x-csrf-token": csrf}).json() == {"signed_out": True}
        assert second.get("/api/whoami").status_code == 401
        replay = door.client()
        replay.cookies.update(cookie)
        assert replay.get("/api/whoami").status_code == 401

    def test_a_session_ends_with_its_token(self, door: Door) -> None:
        token = door.token(Role.VIEWER)
        client = door.client(token)
        browser = door.client()
        browser.get(client.post("/api/sign-in-codes").json()["url"])
        assert browser.get("/api/whoami").json()["roles"] == ["viewer"]
        door.owner().delete(f"/api/tokens/{client.get('/api/whoami').json()['token']}")
        assert browser.get("/api/whoami").status_code == 401

    def test_a_refused_navigation_is_a_page(self, door: Door) -> None:
        browser = door.client(accept="text/html,*/*")
        answer = browser.get("/projects/flights")
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith("text/html")
        assert browser.get("/api/whoami").headers["content-type"] == "application/json"


class TestTokens:
    def test_a_programs_token_is_short_and_renewed_by_itself(self, door: Door) -> None:
        service = door.client(door.token(Role.SERVICE, name="app"))
        assert service.get("/api/whoami").json()["kind"] == "service"
        for _ in range(3):
            door.clock.advance(23 * 3600)
            assert service.post("/api/tokens/renew").status_code == 200
        door.clock.advance(24 * 3600)
        assert service.post("/api/tokens/renew").status_code == 401
        assert door.owner().post("/api/tokens/renew").status_code == 403

    def test_what_may_not_be_asked_for(self, door: Door) -> None:
        owner = door.owner()
        for wish in (
            {"roles": []},
            {"roles": ["root"]},
            {"roles": ["service", "viewer"]},
            {"roles": ["viewer"], "hours": 91 * 24},
            {"roles": ["service"], "hours": 25},
            {"roles": ["viewer"], "hours": 0},
            {"roles": ["viewer"], "project": "../etc"},
            {"roles": ["viewer"], "name": "a\r\nb"},
        ):
            assert owner.post("/api/tokens", json=wish).status_code == 400, wish

    def test_an_administrator_of_one_project_stays_in_it(self, door: Door) -> None:
        admin = door.client(door.token(Role.ADMIN, project="a"))
        foreign = door.client(door.token(Role.VIEWER, project="b")).get("/api/whoami").json()["token"]
        for project in ("b", None):
            assert admin.post("/api/tokens", json={"roles": ["viewer"], "project": project}).status_code == 403
        assert {item["project"] for item in admin.get("/api/tokens").json()["items"]} == {"a"}
        missing = admin.delete("/api/tokens/000000000000").json()["error"]
        hidden = admin.delete(f"/api/tokens/{foreign}").json()["error"]
        assert missing["code"] == hidden["code"] == "not_found"
        assert hidden["what"].replace(foreign, "000000000000") == missing["what"]
        made = admin.post("/api/tokens", json={"roles": ["viewer"], "project": "a"})
        assert made.status_code == 200

    def test_revoking_a_token_revokes_what_it_made(self, door: Door) -> None:
        admin = door.client(door.token(Role.ADMIN, project="a"))
        below = door.client(admin.post("/api/tokens", json={"roles": ["viewer"], "project": "a"}).json()["token"])
        assert below.get("/api/whoami").status_code == 200
        door.owner().delete(f"/api/tokens/{admin.get('/api/whoami').json()['token']}")
        assert below.get("/api/whoami").status_code == 401

    def test_a_program_answers_to_its_maker(self, door: Door) -> None:
        maker = door.owner().get("/api/whoami").json()["id"]
        token = door.token(Role.SERVICE, name="trainer")
        door.client(token).get("/api/whoami")
        listed = [item for item in door.owner().get("/api/tokens").json()["items"] if item["name"] == "trainer"]
        assert listed[0]["created_by"] == maker
        actor = door.built.app.identities.of_token(token).actor
        assert actor.owner == maker
        admin = door.client(door.token(Role.ADMIN, project="a"))
        stolen = admin.post("/api/tokens", json={"roles": ["service"], "project": "a", "name": "trainer"})
        assert stolen.status_code == 403

    def test_the_owners_token_is_renewed_before_it_ends(self, door: Door, opener: Opener) -> None:
        first = door.owner_token
        door.built.close()
        again = opener([], home=door.home)
        assert again.owner_token == first
        assert isinstance(again.clock, SimulatedClock)
        again.clock.advance(timedelta(days=61).total_seconds())
        from holdtrue.server.build import keep_credentials

        keep_credentials(again.built.app)
        assert again.owner_token != first
        assert again.owner().get("/api/whoami").status_code == 200
        assert again.client(first).get("/api/whoami").status_code == 200
        assert (door.home / "keys" / "local-token").stat().st_mode & 0o777 == 0o600


def test_an_ended_request_frees_its_place(opener: Opener, tmp_path: Path) -> None:
    import threading

    from holdtrue.core.access import Permission
    from holdtrue.door import Call, Routes

    gate = threading.Event()
    routes = Routes("slow")

    @routes.get("/api/slow", Permission.STATUS_READ, summary="Wait.")
    def slow(call: Call) -> dict[str, bool]:
        return {"waited": gate.wait(20)}

    door = opener(list(routes), threads=2, queue=2, request_seconds=0.2)
    owner = door.owner()
    assert owner.get("/api/whoami").status_code == 200
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: owner.get("/api/slow"), range(8)))
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert "too much to do" in "".join(answer.text for answer in answers)
    assert "took longer" in "".join(answer.text for answer in answers)
    gate.set()
    # A place is free when its work has ended, which the answer does not wait for.
    later = [owner.get("/api/slow").status_code for _ in range(100)]
    assert later[-1] == 200
