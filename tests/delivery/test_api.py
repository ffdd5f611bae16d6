"""The routes of governance and delivery through the real gate: who may, what comes back, what is refused."""

import httpx
import pytest

from holdtrue.core.access import Role
from tests.delivery.worlds import RETRAIN, World
from tests.server.conftest import Door, opener, whole

FIXTURES = (opener, whole)
BASE = "/api/projects/flights"


class Crew:
    """Hold a client for each role, over one application."""

    def __init__(self, door: Door) -> None:
        self.world = World(door.built.app.stores, door.clock)
        self.developer = door.client(door.token(Role.DEVELOPER, name="ada"))
        self.reviewer = door.client(door.token(Role.REVIEWER, name="ben"))
        self.operator = door.client(door.token(Role.OPERATOR, name="ops"))
        self.viewer = door.client(door.token(Role.VIEWER, name="eve"))

    def submit(self, name: str) -> str:
        answer = self.developer.post(f"{BASE}/submissions", json=self.world.submission(name))
        assert answer.status_code == 200, answer.text
        return answer.json()["release"]

    def approve(self, release: str, client: httpx.Client | None = None) -> httpx.Response:
        body = {"environment": "production", "reason": "looked"}
        return (client or self.reviewer).post(f"{BASE}/releases/{release}/approve", json=body)

    def promote(self, release: str, client: httpx.Client | None = None) -> httpx.Response:
        return (client or self.operator).post(f"{BASE}/services/delay/promote", json={"release": release})


@pytest.fixture
def crew(whole: Door) -> Crew:  # pytest finds the fixture by this name
    made = Crew(whole)
    made.world.declare(retrain=RETRAIN)
    return made


def test_a_release_goes_from_submission_to_rollback_over_http(crew: Crew) -> None:
    one, two = crew.submit("one"), crew.submit("two")
    refused = crew.promote(one)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gate_refused")
    for release in (one, two):
        assert crew.approve(release).json()["outcome"] == "allowed"
    assert crew.promote(one).json()["deployment"]["release"] == one
    started = crew.promote(two).json()["rollout"]
    assert (started["champion"], started["challenger"], started["state"]) == (one, two, "running")
    shown = crew.viewer.get(f"{BASE}/rollouts/{started['id']}").json()
    assert [each["action"] for each in shown["history"]] == ["started"]
    ended = crew.operator.post(f"{BASE}/services/delay/rollback", json={"reason": "smells"}).json()
    assert ended["rollout"]["state"] == "rolled_back"
    service = crew.viewer.get(f"{BASE}/services/delay").json()
    assert [each["release"] for each in service["changes"]] == [one]
    assert crew.viewer.get(f"{BASE}/status").json()["services"][0]["rollout"]["state"] == "rolled_back"
    decisions = crew.viewer.get(f"{BASE}/decisions", params={"release": one}).json()["items"]
    assert [each["outcome"] for each in decisions] == ["allowed", "waiting_approval"]
    assert crew.viewer.get(f"{BASE}/decisions/{decisions[0]['id']}").json() == decisions[0]
    evidence = crew.viewer.get(f"{BASE}/evidence", params={"subject": one}).json()["items"]
    assert crew.viewer.get(f"{BASE}/evidence/{evidence[0]['id']}").json() == evidence[0]
    assert [each["name"] for each in crew.viewer.get(f"{BASE}/releases/{one}/approvals").json()["items"]] == ["ben"]
    assert crew.viewer.get(f"{BASE}/policies").json()["items"][0]["environment"] == "production"


def test_each_act_needs_its_role(crew: Crew) -> None:
    release = crew.submit("one")
    for client in (crew.developer, crew.operator, crew.viewer):
        assert crew.approve(release, client).status_code == 403
    crew.approve(release)
    for client in (crew.developer, crew.reviewer, crew.viewer):
        assert crew.promote(release, client).status_code == 403
    for client in (crew.reviewer, crew.operator, crew.viewer):
        assert client.post(f"{BASE}/submissions", json=crew.world.submission("two")).status_code == 403
    assert crew.world.changes() == []


def test_a_submission_with_unknown_bytes_or_fields_is_refused(crew: Crew) -> None:
    body = crew.world.submission("one")
    body["versions"][0]["blobs"] = ["0" * 64]
    answer = crew.developer.post(f"{BASE}/submissions", json=body)
    assert answer.status_code == 400
    assert "0" * 64 in answer.json()["error"]["facts"]["missing"]
    odd = crew.developer.post(f"{BASE}/submissions", json={**crew.world.submission("one"), "evidense": []})
    assert odd.status_code == 400
    assert "evidense" in odd.json()["error"]["what"]


def test_a_retrain_can_be_asked_for_and_the_refusal_tells_why(crew: Crew) -> None:
    first = crew.developer.post(f"{BASE}/triggers", json={"model": "delay", "reason": "new airline"})
    assert first.json()["state"] == "queued"
    second = crew.developer.post(f"{BASE}/triggers", json={"model": "delay", "reason": "again"})
    assert (second.json()["state"], "under way" in second.json()["why"]) == ("refused", True)
    listed = crew.viewer.get(f"{BASE}/triggers").json()["items"]
    assert sorted(each["state"] for each in listed) == ["queued", "refused"]
    unknown = crew.developer.post(f"{BASE}/triggers", json={"model": "nothing"})
    assert unknown.status_code == 404


def test_the_same_promotion_sent_twice_has_one_effect(crew: Crew) -> None:
    release = crew.submit("one")
    crew.approve(release)
    headers = {"idempotency-key": "promote-1"}
    body = {"release": release}
    answers = [
        crew.operator.post(f"{BASE}/services/delay/promote", json=body, headers=headers).json() for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len(crew.world.changes()) == 1


@pytest.mark.parametrize(
    "path",
    [
        "services/nothing",
        "rollouts/rol_nothing",
        "decisions/dec_nothing",
        "evidence/evd_nothing",
        "why/prd_nothing",
        "releases/rel_0000000000000000/approvals",
    ],
)
def test_what_does_not_exist_is_not_found(crew: Crew, path: str) -> None:
    assert crew.viewer.get(f"{BASE}/{path}").status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=abc", "limit=501"])
def test_a_limit_has_its_range(crew: Crew, query: str) -> None:
    assert crew.viewer.get(f"{BASE}/decisions?{query}").status_code == 400
