"""Evaluation datasets of the real client: created, filled, searched, tagged, linked, emptied, removed."""

# The client loads its parts lazily and hides them from type checkers.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportPrivateUsage=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import importlib
import json
from typing import Any

import httpx
import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _get_store

from tests.protocols.mlflow.conftest import Server

BASE = "/api/3.0/mlflow/datasets"


def case(question: str, answer: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a record as users write it."""
    expected = {} if answer is None else {"expectations": {"answer": answer}}
    return {"inputs": {"question": question, "k": 3}, **expected, **more}


@pytest.mark.usefixtures("mlflow_of")
def test_the_documented_way_of_datasets_works_unchanged() -> None:
    datasets: Any = importlib.import_module("mlflow.genai.datasets")
    own = mlflow.create_experiment("asked")
    made = datasets.create_dataset(name="questions", experiment_id=own, tags={"stage": "first", "mlflow.user": "ann"})
    assert (made.name, made.tags["stage"], made.created_by) == ("questions", "first", "ann")
    assert made.schema is None
    made.merge_records([case("how?", "so"), case("why?")])
    again = datasets.get_dataset(dataset_id=made.dataset_id)
    assert again.digest != made.digest
    assert json.loads(again.schema)["inputs"] == {"question": "string", "k": "integer"}
    assert json.loads(again.profile) == {"num_records": 2}
    again.merge_records([case("how?", "thus", outputs="spoken"), case("who?", "nobody", tags={"hard": "yes"})])
    table = again.to_df()
    assert [each["question"] for each in table["inputs"]] == ["how?", "why?", "who?"]
    assert table["expectations"][0] == {"answer": "thus"}
    assert table["outputs"][0] == "spoken"
    assert table["tags"][2]["hard"] == "yes"
    assert list(table["source_type"]) == ["HUMAN", "CODE", "HUMAN"]
    assert again.delete_records([table["dataset_record_id"][1], "dr-none"]) == 1
    assert len(again.to_df()) == 2
    assert [each.name for each in datasets.search_datasets(experiment_ids=[own])] == ["questions"]
    datasets.delete_dataset(dataset_id=made.dataset_id)
    with pytest.raises(MlflowException, match="not found") as refused:
        datasets.get_dataset(dataset_id=made.dataset_id)
    assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.usefixtures("mlflow_of")
def test_datasets_are_searched_tagged_and_linked() -> None:
    store: Any = _get_store()
    one, two = mlflow.create_experiment("one"), mlflow.create_experiment("two")
    sets = {name: store.create_dataset(name, {"team": name[0]}, [one]) for name in ("alpha", "beta", "gamma")}
    found = store.search_datasets(filter_string="name LIKE '%a' AND tags.team != 'g'", order_by=["name DESC"])
    assert [each.name for each in found] == ["beta", "alpha"]
    first = store.search_datasets([one], max_results=2, order_by=["name"])
    rest = store.search_datasets([one], max_results=2, order_by=["name"], page_token=first.token)
    assert [[each.name for each in page] for page in (first, rest)] == [["alpha", "beta"], ["gamma"]]
    assert rest.token in (None, "")
    own = sets["alpha"].dataset_id
    store.set_dataset_tags(own, {"team": "b", "round": 2, "left": None})
    store.delete_dataset_tag(own, "round")
    assert store.get_dataset(own).tags == {"team": "b"}
    assert store.add_dataset_to_experiments(own, [two, one]).experiment_ids == [one, two]
    assert store.remove_dataset_from_experiments(own, [one]).experiment_ids == [two]
    assert store.get_dataset_experiment_ids(own) == [two]
    assert [each.name for each in store.search_datasets([two])] == ["alpha"]
    store.delete_dataset(own)
    assert store.search_datasets([two]) == []
    for missing in (lambda: store.delete_dataset(own), lambda: store.delete_dataset_tag(own, "team")):
        with pytest.raises(MlflowException, match="not found"):
            missing()
    with pytest.raises(MlflowException, match="No Experiment") as refused:
        store.create_dataset("lost", None, ["4711"])
    assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.usefixtures("mlflow_of")
def test_records_come_page_by_page_in_the_order_in_which_they_came() -> None:
    store: Any = _get_store()
    own = store.create_dataset("many").dataset_id
    sent = [case(f"question {place}", source={"source_type": "trace", "source_data": {"trace_id": f"tr-{place}"}})
            for place in range(25)]  # fmt: skip
    assert store.upsert_dataset_records(own, sent) == {"inserted": 25, "updated": 0}
    # The same request again, with one inside twice: nothing is doubled.
    assert store.upsert_dataset_records(own, [*sent, {"inputs": {"k": 3, "question": "question 0"}}])["updated"] == 26
    seen: list[Any] = []
    token = None
    while True:
        page, token = store._load_dataset_records(own, max_results=10, page_token=token)
        seen += page
        if token is None:
            break
    assert [each.inputs["question"] for each in seen] == [f"question {place}" for place in range(25)]
    assert [each.source_id for each in seen[:2]] == ["tr-0", "tr-1"]
    assert len(store._load_dataset_records(own)[0]) == 25


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ("[", "not JSON"),
        ('[{"inputs": {"x": NaN}}]', "not JSON"),
        ('{"inputs": {}}', "list of objects"),
        ("[5]", "list of objects"),
        ('[{"outputs": 5}]', "records[0].inputs"),
        ('[{"inputs": {}}, {"inputs": []}]', "records[1].inputs"),
        ('[{"inputs": {}, "tags": "x"}]', "records[0].tags"),
        ('[{"inputs": {}, "source": {"source_type": "RUMOUR"}}]', "source type"),
        ('[{"inputs": {}, "source": {"source_type": "CODE", "source_data": 5}}]', "source_data"),
        ('[{"inputs": ' + '{"a":' * 300 + "1" + "}" * 300 + "}]", "too deep"),
        ('[{"inputs": ' + '{"a":' * 3000 + "1" + "}" * 3000 + "}]", "not JSON"),
        ('[{"inputs": {"a": "' + "x" * 1_000_000 + '"}}]', "maximum length"),
        (json.dumps([{"inputs": {"a": place}} for place in range(10_001)]), "at most"),
        ("", "Missing value"),
    ],
)
def test_records_that_cannot_be_are_refused_and_leave_nothing(rest: httpx.Client, records: str, why: str) -> None:
    own = rest.post(f"{BASE}/create", json={"name": "wrong"}).json()["dataset"]["dataset_id"]
    answer = rest.post(f"{BASE}/{own}/records", json={"records": records})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert why in answer.json()["message"]
    assert rest.get(f"{BASE}/{own}/records").json() == {"records": "[]"}


@pytest.mark.parametrize(
    ("path", "wish", "code", "status"),
    [
        ("create", {}, "INVALID_PARAMETER_VALUE", 400),
        ("create", {"name": " "}, "INVALID_PARAMETER_VALUE", 400),
        ("create", {"name": "a\r\nb"}, "INVALID_PARAMETER_VALUE", 400),
        ("create", {"name": "x" * 256}, "INVALID_PARAMETER_VALUE", 400),
        ("create", {"name": "a", "tags": "[1]"}, "INVALID_PARAMETER_VALUE", 400),
        ("create", {"name": "a", "tags": '{"../x": "1"}'}, "INVALID_PARAMETER_VALUE", 400),
        ("create", {"name": "a", "experiment_ids": ["x"]}, "INVALID_PARAMETER_VALUE", 400),
        ("search", {"filter_string": "name LIKE"}, "INVALID_PARAMETER_VALUE", 400),
        ("search", {"filter_string": "metrics.x > 1"}, "INVALID_PARAMETER_VALUE", 400),
        ("search", {"order_by": ["tags.x"]}, "INVALID_PARAMETER_VALUE", 400),
        ("search", {"max_results": 0}, "INVALID_PARAMETER_VALUE", 400),
        ("search", {"page_token": "W10"}, "INVALID_PARAMETER_VALUE", 400),
        ("d-none/records", {"records": "[]"}, "RESOURCE_DOES_NOT_EXIST", 404),
        ("d-none/add-experiments", {"experiment_ids": ["0"]}, "RESOURCE_DOES_NOT_EXIST", 404),
    ],
)
def test_wrong_requests_get_the_protocols_own_codes(
    rest: httpx.Client, path: str, wish: dict[str, Any], code: str, status: int
) -> None:
    answer = rest.post(f"{BASE}/{path}", json=wish)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert rest.post(f"{BASE}/search", json={}).json() == {"datasets": []}


def test_datasets_of_another_project_are_not_seen(server: Server, rest: httpx.Client) -> None:
    own = rest.post(f"{BASE}/create", json={"name": "mine"}).json()["dataset"]["dataset_id"]
    rest.post(f"{BASE}/{own}/records", json={"records": json.dumps([case("how?")])})
    with server.rest(server.token("elsewhere")) as other:
        assert other.post(f"{BASE}/search", json={}).json() == {"datasets": []}
        assert other.get(f"{BASE}/{own}/records").status_code == 404
        assert other.patch(f"{BASE}/{own}/tags", json={"tags": "{}"}).status_code == 404
        assert other.delete(f"{BASE}/{own}").status_code == 404
    assert len(json.loads(rest.get(f"{BASE}/{own}/records").json()["records"])) == 1
    with server.rest(server.token("reading", "viewer")) as reader:
        assert reader.post(f"{BASE}/create", json={"name": "no"}).status_code == 403
