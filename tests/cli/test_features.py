"""`holdtrue features`: a new view filled from history, looked up, and held against its freshness."""

import json
from pathlib import Path
from typing import Any

import pytest

from holdtrue.cli.usefulness import costs_of
from holdtrue.features import FeatureSet, Latest, OnlineStore, category, numeric, on_demand
from tests.cli.test_commands import holdtrue
from tests.cli.toys import edited, succeed, toy_folder

ACCEPTED = "features.accepted"
VIEW = Latest("last", "sales", "shop", "at", ("amount",), "9d")
CHANGES = (
    (
        '            ht.column("amount", "float64", le=100),\n',
        '            ht.column("amount", "float64", le=100),\n            ht.column("shop", "string"),\n',
    ),
    ('        "amount": amount,\n', '        "amount": amount,\n        "shop": ["a", "b"] * (n // 2),\n'),
    ('    if window == "2030-01":\n        del columns["amount"]\n', ""),
    (
        "@project.model(",
        """@project.source(of=rows)
def sales(given):
    return "SELECT id, shop, asked_at, amount, happened FROM rows WHERE amount IS NOT NULL"


past = ht.Trailing("past", "sales", "shop", "asked_at", "amount", ("mean", "count", "distinct"), "2d", "1h")
last = ht.Latest("last", "sales", "shop", "asked_at", ("amount",), "9d", freshness="6h")


@ht.on_demand
def large(amount):
    return amount > 1


@project.model(""",
    ),
    ('features=[ht.numeric("amount")]', 'features=[ht.numeric("amount"), large, past, last]'),
    ('"amount": "FP64"}', '"amount": "FP64", "shop": "BYTES"}'),
)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a service that answers in production, and no event yet."""
    folder = toy_folder(tmp_path_factory.mktemp("live"))
    edited(folder, *CHANGES)
    succeed("apply", cwd=folder)
    succeed("run", "--ingest", "--window", "2024-01", cwd=folder)
    succeed("run", "-w", "2024-01", cwd=folder)
    (release,) = json.loads(succeed("releases", "--json", cwd=folder))
    refused = holdtrue("promote", "happens", release["id"], cwd=folder)
    assert refused.returncode == 1
    assert "last has no rows; its newest may be 6 hours old." in refused.stderr
    assert "holdtrue features materialize" in refused.stderr
    done = succeed("promote", "happens", release["id"], "--stale", "events begin on Monday", cwd=folder)
    assert "The view past has no rows online." in done
    (told,) = [each for each in json.loads(succeed("activity", "--json", cwd=folder)) if each["action"] == ACCEPTED]
    assert (told["payload"]["views"], told["reason"]) == (["last"], "events begin on Monday")
    return folder


def test_a_view_is_filled_from_history_looked_up_and_held_against_its_freshness(live: Path) -> None:
    missing = holdtrue("features", "get", "happens", "shop=a", cwd=live)
    assert missing.returncode != 0
    assert "holdtrue features materialize" in missing.stderr
    past, last = json.loads(succeed("features", "materialize", "--since", "2024-01-01T00:00:00Z", "--json", cwd=live))
    assert (past["view"], past["new"], past["windows"], last["rows"]) == ("past", 600, ["2024-01"], 600)
    assert past["newest"] == "2024-01-25T23:00:00+00:00"
    at = "2024-01-26T01:30:00Z"
    found = json.loads(succeed("features", "get", "happens", "shop=b", "--at", at, "--json", cwd=live))
    values = {each["feature"]: each for each in found}
    assert values["past_count"]["value"] == values["past_distinct"]["value"] == 24.0
    assert values["last_amount"]["moment"] == "2024-01-25T23:00:00+00:00"
    assert values["last_amount"]["age_seconds"] == 9000.0
    assert {each["state"] for each in found} == {"known"}
    assert "h" in succeed("features", "get", "happens", "shop=b", "--at", at, cwd=live)
    later = succeed("features", "get", "happens", "shop=b", "--at", "2024-03-01T00:00:00Z", cwd=live)
    assert "older than 9d, last 2024-01-25T23:00:00+00:00" in later
    assert "no row in the window of 2d" in later
    assert "never seen by then" in succeed("features", "get", "happens", "shop=c", "--at", at, cwd=live)
    fresh = json.loads(succeed("features", "status", "--at", "2024-01-26T04:00:00Z", "--json", cwd=live))
    assert [(each["view"], each["state"], each["entities"]) for each in fresh] == [
        ("past", "open", 2),
        ("last", "fresh", 2),
    ]
    late = holdtrue("features", "status", "happens", "--at", "2024-01-26T06:00:00Z", cwd=live)
    assert (late.returncode, "missed" in late.stdout) == (1, True)
    again = json.loads(succeed("features", "materialize", "--view", "last", "--json", cwd=live))
    assert [(each["view"], each["new"]) for each in again] == [("last", 0)]
    for arguments, said in (
        (("get", "happens", "city=a"), "Name one of them: shop=VALUE."),
        (("get", "happens", "shop=a", "shop=b"), "“shop” is named twice"),
        (("get", "happens", "shop="), "is not entity=value"),
        (("get", "happens", "shop=a", "--at", "noon"), "is no moment"),
        (("get", "hapens", "shop=a"), "There is no service “hapens”"),
        (("usage", "hapens"), "There is no service “hapens”"),
        (("parity", "hapens"), "declares no service “hapens”"),
        (("parity", "happens"), "has not answered anything yet"),
    ):
        refused = holdtrue("features", *arguments, cwd=live)
        assert refused.returncode in (1, 2)
        assert said in refused.stderr
    unknown = holdtrue("features", "materialize", "--view", "lats", cwd=live)
    assert "lats" in unknown.stderr


def test_what_each_feature_is_worth_stands_beside_what_it_costs(live: Path) -> None:
    said = succeed("features", "usage", "happens", cwd=live)
    assert "below noise" in said
    succeed("features", "materialize", cwd=live)
    found = {each["feature"]: each for each in json.loads(succeed("features", "usage", "happens", "--json", cwd=live))}
    assert list(found)[:4] == ["amount", "large", "past", "past_mean"]
    assert found["amount"]["lower"] > 0.0
    assert found["past"]["bytes"] > 1000
    assert found["past"]["view"] == "all"
    assert found["last"]["entities"] == 2
    assert found["last"]["lower"] <= found["last"]["value"] <= found["last"]["upper"]
    assert "sales" in succeed("features", "usage", cwd=live)


def test_costs_are_measured_on_rows_that_were_answered(tmp_path: Path) -> None:
    features = FeatureSet((VIEW,), (numeric("amount"), category("shop")), {"shop": ("a", "b")}, (on_demand(large),))
    store = OnlineStore(tmp_path)
    store.ingest([VIEW], "sales", {"shop": ["a", "b"], "at": [5, 6], "amount": [1.0, 2.0]})
    rows = {"amount": [1.0, None], "shop": ["a", "new"]}
    costs = costs_of(features, store, rows, [7, 8])
    assert set(costs) == {"amount", "shop", "large", "last"}
    assert all(each["microseconds"] > 0 for each in costs.values())
    assert costs["last"]["entities"] == 2
    assert costs_of(features, None, rows, [7, 8]).keys() == {"amount", "shop", "large"}
    assert costs_of(features, store, {}, []).keys() == {"last"}
    store.close()


def large(amount: Any) -> Any:
    """Tell large amounts."""
    return amount > 1
