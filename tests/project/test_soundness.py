"""Doubts about training rows: each is found where it was planted, and none where nothing is wrong."""

import numpy as np
import pyarrow as pa
import pytest

import holdtrue as ht
from holdtrue.features import FeatureSet
from holdtrue.governance import Rule
from holdtrue.governance.model import EVIDENCE_NAMES
from holdtrue.governance.rules import check_rule
from holdtrue.project.definitions import Model
from holdtrue.project.rows import Rows
from holdtrue.project.soundness import soundness

MOMENT = pa.timestamp("us", "UTC")
N = 2000
HOUR = 3_600_000_000


def _model(**model: object) -> Model:
    project = ht.Project("toy", owner="me")

    @project.dataset(
        key="id",
        time="asked_at",
        contract=ht.Contract(
            (
                ht.column("id", "string", unique=True),
                ht.column("asked_at", "timestamp"),
                ht.column("planned_at", "timestamp"),
                ht.column("ended_at", "timestamp", nullable=True),
                ht.column("amount", "float64"),
                ht.column("delay", "float64", nullable=True),
            )
        ),
    )
    def rows(window: str) -> pa.Table:
        raise NotImplementedError(window)

    @project.source(of=rows)
    def endings(given: object) -> object:
        return given

    features = model.pop("features", [ht.numeric("amount"), ht.hour_of_day("planned_at")])

    @project.model(dataset=rows, label="late", outcome="delay > 15", time="asked_at", features=features)  # type: ignore[arg-type]
    def late(train: ht.Training, params: object) -> object:
        raise NotImplementedError

    return late


def _rows(names: list[str], columns: dict[str, np.ndarray], seed: int, *, ended: int = 2) -> Rows:
    numbers = np.random.default_rng(seed)
    y = (numbers.random(N) < 0.3).astype(np.int64)
    made = {"amount": numbers.normal(size=N), "planned_at_hour_of_day": numbers.integers(0, 24, N).astype(float)}
    made |= {name: np.where(y == 1, values, numbers.normal(size=N)) for name, values in columns.items()}
    moments = np.arange(N) * HOUR
    table = pa.table(
        {
            "id": [f"{seed}-{place}" for place in range(N)],
            "asked_at": pa.array(moments, MOMENT),
            "planned_at": pa.array(moments + HOUR, MOMENT),
            "ended_at": pa.array(moments + ended * HOUR, MOMENT, mask=np.arange(N) % 10 == 0),
        }
    )
    X = np.column_stack([made[name] for name in names]).astype(np.float32)
    return Rows(X, y, moments, table)


PLAIN = ["amount", "planned_at_hour_of_day"]


def _features(model: Model) -> FeatureSet:
    return FeatureSet(model.views, model.expressions, {})


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    model = _model()
    found = soundness(model, _features(model), _rows(PLAIN, {}, 1), _rows(PLAIN, {}, 2))
    assert found["leakage"]["suspects"] == 0
    assert found["leakage"]["strongest_auc"] < 0.6
    assert found["overlap"] == {"keys": 0, "examples": [], "rows": 0, "share": 0.0}
    assert found["empty"]["features"] == found["constant"]["features"] == 0
    assert found["conflicts"]["rows"] == 0
    assert found["rows"] == {"train": N, "held_out": N}


def test_a_feature_that_knows_the_label_is_named() -> None:
    model = _model()
    leaking = _rows(PLAIN, {"amount": np.full(N, 9.0)}, 1)
    found = soundness(model, _features(model), leaking, _rows(PLAIN, {}, 2))
    assert found["leakage"]["features"] == ["amount"]
    assert found["leakage"]["suspects"] == 1
    assert found["leakage"]["strongest"] == "amount"


def test_a_moment_after_the_prediction_is_named_unless_it_is_planned() -> None:
    model = _model(features=[ht.hour_of_day("ended_at"), ht.hour_of_day("planned_at"), ht.numeric("amount")])
    names = ["amount", "planned_at_hour_of_day", "amount"]
    found = soundness(model, _features(model), _rows(names, {}, 1), _rows(names, {}, 2))
    assert found["leakage"]["late"] == ["ended_at is after asked_at in 1800 rows"]
    assert found["leakage"]["suspects"] == 1


@pytest.mark.parametrize(("ended", "suspects"), [(2, 0), (-1, 1)])
def test_a_view_that_would_see_the_rows_own_outcome_is_named(ended: int, suspects: int) -> None:
    view = ht.Trailing("past", source="endings", entity="id", time="ended_at", column="delay", aggregates=("mean",))
    model = _model(features=[ht.numeric("amount"), view])
    names = ["amount", "planned_at_hour_of_day"]
    found = soundness(model, _features(model), _rows(names, {}, 1, ended=ended), _rows(names, {}, 2))
    assert found["leakage"]["suspects"] == suspects
    if suspects:
        assert found["leakage"]["late"] == ["past knows the outcome of its own row in 1800 rows"]


def test_rows_on_both_sides_are_counted_by_key_and_by_content() -> None:
    model = _model()
    train = _rows(PLAIN, {}, 1)
    found = soundness(model, _features(model), train, train)
    assert found["overlap"]["keys"] == found["overlap"]["rows"] == N
    assert found["overlap"]["share"] == 1.0
    assert len(found["overlap"]["examples"]) == 3


def test_columns_without_values_or_with_one_are_named() -> None:
    model = _model()
    train = _rows(PLAIN, {}, 1)
    train.X[:, 0] = np.nan
    train.X[:, 1] = 7.0
    found = soundness(model, _features(model), train, _rows(PLAIN, {}, 2))
    assert found["empty"] == {"features": 1, "names": ["amount"]}
    assert found["constant"] == {"features": 1, "names": ["planned_at_hour_of_day"]}
    # Equal features with different labels: here those with 0 and with 1 alike.
    assert found["conflicts"]["rows"] == N


def test_wrong_labels_are_suspected_and_few_others() -> None:
    model = _model()
    numbers = np.random.default_rng(4)
    clean = _rows(PLAIN, {}, 1)
    clean.X[:, 0] = np.where(clean.y == 1, 2.2, -2.2) + numbers.normal(size=N)
    found = soundness(model, _features(model), clean, _rows(PLAIN, {}, 2))["label_noise"]
    # Of rows so well told by their features, those on the other side of the line by chance: 1.4 %.
    assert found["share"] < 0.02
    wrong = numbers.permutation(N)[:60]
    clean.y[wrong] = 1 - clean.y[wrong]
    noisy = soundness(model, _features(model), clean, _rows(PLAIN, {}, 2))["label_noise"]
    assert noisy["suspects"] >= 50
    assert noisy["suspects"] < 60 + 0.02 * N
    keys = {f"1-{row}" for row in wrong}
    assert sum(each["key"] in keys for each in noisy["examples"]) >= 8
    weak = _rows(PLAIN, {}, 5)
    assert soundness(model, _features(model), weak, _rows(PLAIN, {}, 2))["label_noise"]["suspects"] < 0.01 * N


def test_a_policy_can_ask_for_it() -> None:
    assert EVIDENCE_NAMES["data"] == ("data",)
    check_rule(Rule(name="sound", expression="data.leakage.suspects == 0 && data.overlap.keys == 0"))
