"""Models of classes and of a number: declared, trained, judged, released and scored; what cannot be is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

import holdtrue as ht
from holdtrue import data
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.delivery.bundles import bundle_of
from holdtrue.features import FeatureSet
from holdtrue.pipelines import Pipeline
from holdtrue.project.kinds import outcomes
from holdtrue.project.scoring import Scoring, score_dataset
from holdtrue.project.training import Champion, Request, train
from holdtrue.serving import Bundle, load_model
from holdtrue.stats.conformal import ClassSets, Ranges
from holdtrue.storage import ActionCache, BlobStore
from tests.project.conftest import CONTRACT, month

CLASSES = ("low", "middle", "high")
THREE = "CASE WHEN amount < -0.5 THEN 'low' WHEN amount < 0.5 THEN 'middle' ELSE 'high' END"


def project(fit: Any = None, rollout: Any = None, **model: Any) -> ht.Project:
    """Return a project whose model answers with one of three classes, or as `model` says."""
    made = ht.Project("toy", owner="me")

    @made.dataset(
        key="id",
        time="asked_at",
        contract=CONTRACT,
    )
    def rows(window: str) -> pa.Table:
        return month(window)

    def grade(training: ht.Training, params: Any) -> Any:
        return LogisticRegression().fit(training.X, training.y)

    settings: dict[str, Any] = {"outcome": THREE, "classes": CLASSES, **model}
    features = [ht.numeric("amount"), ht.category("kind")]
    fit = fit or grade
    fit.__name__ = "grade"
    model_ = made.model(dataset=rows, label="grade", time="asked_at", features=features, **settings)(fit)
    made.evaluation(model_, slices=["kind"], holdout_days=14)
    made.gate("production", require={})
    inputs = {"id": "BYTES", "asked_at": "INT64", "amount": "FP64", "kind": "BYTES"}
    made.service(model_, key="id", entity="id", inputs=inputs, rollout=rollout or ht.Canary())
    return made


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A pipeline with empty stores."""
    return Pipeline(BlobStore(tmp_path / "blobs"), ActionCache(tmp_path / "actions"), SystemClock())


def asked(made: ht.Project, pipeline: Pipeline, champion: Champion | None = None) -> Request:
    spec = made.datasets["rows"].spec
    parts = {window: data.ingest(pipeline.blobs, spec, window, month(window)) for window in ("2024-01", "2024-02")}
    fragments = {window: {"digest": part.digest, "rows": part.accepted} for window, part in parts.items()}
    versions = {"rows": "ds_0123456789abcdef"}
    return Request(made.models["grade"], tuple(parts), {"rows": fragments}, versions, champion, "usr_ada")


def evidence(submission: dict[str, Any], kind: str) -> Any:
    return next(each["content"] for each in submission["evidence"] if each["kind"] == kind)


def model_of(submission: dict[str, Any]) -> Any:
    return next(each["content"] for each in submission["versions"] if each["kind"] == "model")


def bundle(submission: dict[str, Any]) -> Bundle:
    """Return what a data plane gets of a submission."""
    roles = {"model": "model", "feature_view": "features", "contract": "contract"}
    contents = {roles[each["kind"]]: each["content"] for each in submission["versions"]}
    return bundle_of("rel_a", "toy", "grade", submission["release"]["config"], contents)


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def test_a_model_of_classes_is_judged_released_and_scored(pipeline: Pipeline, tmp_path: Path) -> None:
    made = project()
    submission = train(made, pipeline, asked(made, pipeline))
    metric = evidence(submission, "metric")
    assert metric["accuracy"]["value"] > 0.9
    assert metric["error"]["value"] == pytest.approx(1.0 - metric["accuracy"]["value"])
    assert [each["class"] for each in metric["classes"]] == list(CLASSES)
    assert evidence(submission, "baseline")["brier"]["value"] > metric["brier"]["value"]
    assert {each["value"] for each in evidence(submission, "slices")} == {"a", "b"}
    paired = evidence(submission, "comparison")["champion"]
    assert paired["metric"] == "brier"
    assert paired["p_better"] > 0.999
    assert evidence(submission, "usefulness")["features"]["amount"]["lower"] > 0.05
    assert "kind_code" not in evidence(submission, "data")["leakage"]["features"]
    assert evidence(submission, "parity")["changed_decisions"] == 0.0
    coverage, config = evidence(submission, "coverage"), submission["release"]["config"]
    assert coverage["lower"] < 0.93 < coverage["upper"] or coverage["value"] > 0.85
    assert len(config["class_sets"]["at_least"]) == 3
    content = model_of(submission)
    assert content["classes"] == list(CLASSES)
    _score(made, pipeline, content, tmp_path)
    served = bundle(submission)
    assert not served.event
    assert (served.classes, served.class_sets) == (CLASSES, ClassSets(**_tuples(config["class_sets"])))
    # A challenger is compared by the same loss on the same rows: with itself there is no difference.
    features = next(each["content"] for each in submission["versions"] if each["kind"] == "feature_view")
    champion = Champion("rel_0123456789abcdef", content["digest"], FeatureSet.from_json(features))
    again = train(made, pipeline, asked(made, pipeline, champion))
    assert evidence(again, "comparison")["champion"]["difference"] == pytest.approx(0.0, abs=1e-12)


def _score(made: ht.Project, pipeline: Pipeline, content: Any, folder: Path) -> None:
    """Score the data set with the release, and compare it with what the model says."""
    request = asked(made, pipeline)
    features = FeatureSet.fit((), made.models["grade"].expressions, month("2024-01"), ())
    wanted = Scoring(
        "rel_a", content["digest"], content["format"], features, None, "rows", "ds_0", "id", "asked_at",
        request.fragments, CLASSES,
    )  # fmt: skip
    done = score_dataset(made, pipeline, wanted, folder / "out.parquet")
    table = pq.read_table(folder / "out.parquet")
    assert (done.bad, table.num_rows) == (0, done.rows)
    chances = np.column_stack([table[f"p_{name}"].to_numpy() for name in CLASSES])
    assert chances.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert table["class"].to_pylist() == [CLASSES[place] for place in chances.argmax(axis=1)]
    assert table["score"].to_numpy() == pytest.approx(chances.max(axis=1))


def test_a_model_of_a_number_is_judged_and_says_how_far_off_it_may_be(pipeline: Pipeline) -> None:
    def line(training: ht.Training, params: Any) -> Any:
        noisy = training.y + np.random.default_rng(0).normal(size=len(training.y))
        return LinearRegression().fit(training.X[:, :2], noisy)

    made = project(line, ht.Canary(scale=5.0), outcome="3 * amount + random() - 0.5", classes=(), number=True)
    submission = train(made, pipeline, asked(made, pipeline))
    metric = evidence(submission, "metric")
    assert metric["mae"]["value"] == pytest.approx(0.25, abs=0.1)
    assert metric["explained"] > 0.95
    assert evidence(submission, "comparison")["champion"]["metric"] == "mae"
    assert evidence(submission, "parity")["max_difference"] < 1e-4
    assert evidence(submission, "usefulness")["features"]["amount"]["lower"] > 1.0
    ranges = Ranges(**submission["release"]["config"]["ranges"])
    assert all(0.3 < half < 0.8 for half in ranges.halves)
    assert evidence(submission, "coverage")["value"] == pytest.approx(0.9, abs=0.08)
    content = model_of(submission)
    assert content["number"] is True
    assert not bundle(submission).event
    assert bundle(submission).ranges == Ranges(**_tuples(submission["release"]["config"]["ranges"]))
    model = load_model(pipeline.blobs.get(content["digest"]), content["digest"], content["format"])
    assert model.score(np.array([[1.0, 0.0]], np.float32))[0] == pytest.approx(3.0, abs=0.3)


def test_what_was_fitted_must_be_what_is_declared(pipeline: Pipeline) -> None:
    def two(training: ht.Training, params: Any) -> Any:
        return lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1).fit(training.X, training.y > 0)

    made = project(two)
    with pytest.raises(InvalidInput, match="does not answer as it is declared"):
        train(made, pipeline, asked(made, pipeline))
    made = project(outcome="CASE WHEN amount < 0 THEN 'low' ELSE 'middle' END")
    with pytest.raises(InvalidInput, match="no training row is of the class high"):
        train(made, pipeline, asked(made, pipeline))
    made = project(outcome="'other'")
    with pytest.raises(InvalidInput, match="are not each a class"):
        train(made, pipeline, asked(made, pipeline))


def test_outcomes_are_names_or_numbers_of_classes() -> None:
    model = project().models["grade"]
    assert outcomes(model, pa.chunked_array([["high", "low"]])).tolist() == [2, 0]
    assert outcomes(model, pa.chunked_array([[1, 2]])).tolist() == [1, 2]
    with pytest.raises(InvalidInput, match="not each a class"):
        outcomes(model, pa.chunked_array([[1, 3]]))
    number = dataclasses.replace(model, classes=(), number=True)
    with pytest.raises(InvalidInput, match="not each a number"):
        outcomes(number, pa.chunked_array([[1.0, float("inf")]]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": ("a", "b")}, "has 3 to"),
        ({"classes": ("a", "b", "a")}, "has 3 to"),
        ({"number": True}, "one or the other"),
        ({"rollout": ht.Canary(drift_margin=0.1)}, "drift_margin is given"),
        ({"rollout": ht.Canary(estimate_margin=0.1)}, "estimate_margin is given"),
        ({"rollout": ht.Canary(groups=("kind",), group_measure="positive")}, "decisions that are yes"),
        ({"classes": (), "number": True}, "no scale is given"),
        ({"classes": (), "number": True, "rollout": ht.Canary(scale=1.0, groups=("kind",))}, "groups are named"),
        ({"classes": (), "outcome": "happened", "rollout": ht.Canary(scale=1.0)}, "scale is given"),
    ],
)
def test_what_cannot_be_judged_is_refused_when_it_is_declared(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        project(**settings)
    assert said in str(refused.value)


def test_a_service_of_classes_has_their_loss_monitor_and_constant() -> None:
    made = project()
    assert made.services["grade"].spec.rollout.loss == "wrong"
    made.monitor("grade")
    assert made.monitors[0].metric == "error"
    with pytest.raises(ConfigurationError, match="cannot be watched by"):
        made.monitor("grade", metric="roc_auc")
    with pytest.raises(ConfigurationError, match="cannot have the metric"):
        made.evaluation(made.models["grade"], metric="roc_auc")
    model = dataclasses.replace(made.models["grade"], name="other")
    inputs = {"id": "BYTES", "asked_at": "INT64", "amount": "FP64", "kind": "BYTES"}
    with pytest.raises(ConfigurationError, match="cannot fall back"):
        made.service(model, key="id", entity="id", inputs=inputs, rollout=ht.Canary(), fallback=0.5)
