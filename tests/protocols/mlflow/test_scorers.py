"""Scorers that the real client registers: versions of a text, kept and given back."""

# The client loads its parts lazily and hides them from type checkers.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportPrivateUsage=false

import json
from typing import Any

import httpx
import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _get_store

from tests.protocols.mlflow.conftest import Server

BASE = "/api/3.0/mlflow/scorers"


def scorer(text: str) -> str:
    """Return what a client sends of a scorer."""
    return json.dumps({"name": "polite", "call_source": text, "builtin_scorer_class": None})


@pytest.mark.usefixtures("mlflow_of")
def test_versions_are_registered_listed_and_deleted() -> None:
    store: Any = _get_store()
    own = mlflow.create_experiment("judged")
    first = store.register_scorer(own, "polite", scorer("return 1"))
    second = store.register_scorer(own, "polite", scorer("return 2"))
    store.register_scorer(own, "brief", scorer("return len(outputs)"))
    assert (first.scorer_version, second.scorer_version, first.scorer_id) == (1, 2, second.scorer_id)
    assert [(each.scorer_name, each.scorer_version) for each in store.list_scorers(own)] == [
        ("brief", 1),
        ("polite", 2),
    ]
    assert store.list_scorers("0") == []
    assert [each.scorer_version for each in store.list_scorer_versions(own, "polite")] == [1, 2]
    assert store.get_scorer(own, "polite")._serialized_scorer == scorer("return 2")
    assert store.get_scorer(own, "polite", 1)._serialized_scorer == scorer("return 1")
    store.delete_scorer(own, "polite", 2)
    assert store.get_scorer(own, "polite").scorer_version == 1
    store.delete_scorer(own, "polite")
    for missing in (lambda: store.get_scorer(own, "polite"), lambda: store.delete_scorer(own, "brief", 9)):
        with pytest.raises(MlflowException, match="not found for experiment") as refused:
            missing()
        assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize(
    ("wish", "code", "status"),
    [
        ({"experiment_id": "0", "name": " ", "serialized_scorer": "{}"}, "INVALID_PARAMETER_VALUE", 400),
        ({"experiment_id": "0", "name": "x" * 251, "serialized_scorer": "{}"}, "INVALID_PARAMETER_VALUE", 400),
        ({"experiment_id": "0", "name": "a\r\nb", "serialized_scorer": "{}"}, "INVALID_PARAMETER_VALUE", 400),
        ({"experiment_id": "0", "name": "a"}, "INVALID_PARAMETER_VALUE", 400),
        ({"experiment_id": "0", "name": "a", "serialized_scorer": "x" * 500_001}, "INVALID_PARAMETER_VALUE", 400),
        ({"experiment_id": "77", "name": "a", "serialized_scorer": "{}"}, "RESOURCE_DOES_NOT_EXIST", 404),
    ],
)
def test_scorers_that_cannot_be_are_refused(rest: httpx.Client, wish: dict[str, Any], code: str, status: int) -> None:
    answer = rest.post(f"{BASE}/register", json=wish)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert rest.get(f"{BASE}/list", params={"experiment_id": "0"}).json() == {"scorers": []}


def test_scorers_of_another_project_are_not_seen(server: Server, rest: httpx.Client) -> None:
    wish = {"experiment_id": "0", "name": "mine", "serialized_scorer": "{}"}
    assert rest.post(f"{BASE}/register", json=wish).status_code == 200
    with server.rest(server.token("elsewhere")) as other:
        assert other.get(f"{BASE}/list", params={"experiment_id": "0"}).json() == {"scorers": []}
        missing = other.request("DELETE", f"{BASE}/delete", json={"experiment_id": "0", "name": "mine"})
    assert missing.status_code == 404
    assert rest.get(f"{BASE}/get", params={"experiment_id": "0", "name": "mine"}).status_code == 200
