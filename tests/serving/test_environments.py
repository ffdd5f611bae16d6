"""Environments over real sockets: each is named by a header or a token, answers on its own, and is recorded apart."""

import httpx

from tests.serving.plane_home import PROJECT, SERVICE, TOKEN, Home, Process, flight, infer_body

STAGING = "ht_svc_staging_0000000000000000000000000000000000000000_000000"
PATH = f"/v2/models/{SERVICE}/infer"


def where(name: str) -> dict[str, str]:
    return {"x-holdtrue-environment": name}


def started(home: Home) -> Process:
    """Serve one release in production and another one in staging."""
    home.grant({TOKEN: {}, STAGING: {"environment": "staging"}})
    champion, challenger = home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger")
    home.publish(champion, challenger, apart={"staging": "rel_b"})
    plane = home.start()
    plane.until_acked()
    return plane


def release(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["parameters"]["releases"][0] if "parameters" in body else body["release"]


def test_a_header_names_the_environment_and_none_means_the_first(home: Home) -> None:
    client = started(home).client
    body = infer_body([flight(1)])
    assert release(client.post(PATH, json=body)) == "rel_a"
    assert release(client.post(PATH, json=body, headers=where("production"))) == "rel_a"
    assert release(client.post(PATH, json=body, headers=where("staging"))) == "rel_b"
    assert release(client.post("/predict", json=flight(2), headers=where("staging"))) == "rel_b"
    pinned = f"/v2/models/{SERVICE}/versions/rel_b/infer"
    assert client.post(pinned, json=body).status_code == 404
    assert release(client.post(pinned, json=body, headers=where("staging"))) == "rel_b"
    assert client.get(f"/v2/models/{SERVICE}", headers=where("staging")).json()["versions"] == ["rel_b"]
    document = client.get(f"/predict/{SERVICE}/openapi.json", headers=where("staging")).json()
    assert f"/predict/{SERVICE}" in document["paths"]
    for name in ("dev", "production2"):
        assert client.post(PATH, json=body, headers=where(name)).status_code == 404
    for name in ("", "../x", "a b", "staging@x"):
        assert client.post(PATH, json=body, headers=where(name)).status_code == 400, name
    listed = {each["name"] for each in client.post("/v2/repository/index").json()}
    assert listed == {SERVICE, f"{SERVICE}@staging"}


def test_a_token_for_one_environment_asks_nothing_of_another(home: Home) -> None:
    plane = started(home)
    with httpx.Client(base_url=plane.client.base_url, headers={"authorization": f"Bearer {STAGING}"}) as client:
        assert release(client.post("/predict", json=flight(1))) == "rel_b"
        assert release(client.post("/predict", json=flight(1), headers=where("staging"))) == "rel_b"
        refused = client.post("/predict", json=flight(1), headers=where("production"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        labels = {"service": SERVICE, "labels": [{"key": "flight-1", "value": 1}]}
        assert client.post("/labels", json=labels).status_code == 200
        assert client.post("/labels", json=labels, headers=where("production")).status_code == 403
    assert home.records("label") == []
    assert [each["key"] for each in home.records("label", f"{SERVICE}@staging")] == ["flight-1"]


def test_what_one_environment_answers_is_no_record_of_the_other(home: Home) -> None:
    plane = started(home)
    plane.client.post("/predict", json=flight(1))
    plane.client.post("/predict", json=flight(2), headers=where("staging"))
    assert [(each["key"], each["release"]) for each in home.records("prediction")] == [("flight-1", "rel_a")]
    (apart,) = home.records("prediction", f"{SERVICE}@staging")
    assert (apart["key"], apart["release"], apart["service"]) == ("flight-2", "rel_b", f"{SERVICE}@staging")
    plane.stop()
    from holdtrue.core.clock import SystemClock
    from holdtrue.storage import Journal

    journal = Journal(home.path / "journal", SystemClock())
    assert journal.seal() > 0
    found = journal.find("prediction", PROJECT, apart["id"])
    journal.close()
    assert found is not None
    assert found["service"] == f"{SERVICE}@staging"
