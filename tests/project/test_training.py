"""Training on real steps: what is cached, what is the same, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

import holdtrue as ht
from holdtrue import data
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput
from holdtrue.delivery.bundles import bundle_of
from holdtrue.pipelines import Pipeline
from holdtrue.project.training import Request, train
from holdtrue.serving import load_model
from holdtrue.serving.contributions import read_background
from holdtrue.storage import ActionCache, BlobStore
from tests.project.conftest import make_project, month
from tests.serving import scorers, scorers_helper


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A pipeline with empty stores."""
    return Pipeline(BlobStore(tmp_path / "blobs"), ActionCache(tmp_path / "actions"), SystemClock())


def _request(project: ht.Project, pipeline: Pipeline, windows: tuple[str, ...] = ("2024-01", "2024-02")) -> Request:
    spec = project.datasets["rows"].spec
    parts = {window: data.ingest(pipeline.blobs, spec, window, month(window)) for window in windows}
    fragments = {window: {"digest": part.digest, "rows": part.accepted} for window, part in parts.items()}
    return Request(
        model=project.models["happens"],
        windows=windows,
        fragments={"rows": fragments},
        dataset_versions={"rows": "ds_0123456789abcdef"},
        champion=None,
        author="usr_ada",
    )


def _evidence(submission: dict[str, Any], kind: str) -> Any:
    return next(each["content"] for each in submission["evidence"] if each["kind"] == kind)


def test_the_evidence_is_what_the_data_say(toy: ht.Project, pipeline: Pipeline) -> None:
    """The area is near what the data-generating process allows, on rows held out."""
    submission = train(toy, pipeline, _request(toy, pipeline))
    area = _evidence(submission, "metric")["roc_auc"]
    held = month("2024-02")["amount"].to_numpy()[-7 * 40 - 1 :]
    truth = month("2024-02")["happened"].to_numpy(zero_copy_only=False)[-7 * 40 - 1 :]
    pairs = held[truth][:, None] - held[~truth][None, :]
    assert area["n"] == len(held)
    assert area["value"] == pytest.approx(float(np.mean(pairs > 0)), abs=0.01)
    assert area["lower"] < area["value"] < area["upper"]
    assert _evidence(submission, "comparison")["against"] == "baseline"


def test_the_same_inputs_give_the_same_release_and_run_nothing(toy: ht.Project, pipeline: Pipeline) -> None:
    """A second run finds every step in the cache and pins the same versions."""
    first = train(toy, pipeline, _request(toy, pipeline))
    pipeline.done.clear()
    second = train(make_project(), pipeline, _request(toy, pipeline))
    assert second == first
    assert [each.name for each in pipeline.done if not each.cached] == []
    assert len(pipeline.done) >= 4


def test_changed_parameters_train_again_but_keep_the_features(pipeline: Pipeline) -> None:
    """Only what depends on the change is run."""
    train(make_project(), pipeline, _request(make_project(), pipeline))
    pipeline.done.clear()
    other = make_project(params={"C": 0.01})
    train(other, pipeline, _request(other, pipeline))
    assert [each.name for each in pipeline.done if not each.cached] == ["train", "evaluate", "usefulness"]


def test_the_champion_is_judged_on_the_same_rows(toy: ht.Project, pipeline: Pipeline) -> None:
    """Comparing a model with itself gives a difference of zero, and no confidence that it is better."""
    from holdtrue.features import FeatureSet
    from holdtrue.project.training import Champion

    request = _request(toy, pipeline)
    first = train(toy, pipeline, request)
    contents = {each["kind"]: each["content"] for each in first["versions"]}
    champion = Champion(
        "rel_0123456789abcdef", contents["model"]["digest"], FeatureSet.from_json(contents["feature_view"])
    )
    again = train(toy, pipeline, dataclasses.replace(request, champion=champion))
    paired = _evidence(again, "comparison")["champion"]
    assert paired["difference"] == pytest.approx(0.0, abs=1e-12)
    assert paired["p_better"] < 0.95


def test_the_released_model_is_the_one_that_was_judged(toy: ht.Project, pipeline: Pipeline) -> None:
    """The pinned digest is that of a compiled model which loads and scores."""
    submission = train(toy, pipeline, _request(toy, pipeline))
    content = next(each["content"] for each in submission["versions"] if each["kind"] == "model")
    model = load_model(pipeline.blobs.get(content["digest"]), content["digest"])
    score = model.score(np.array([[-3.0, 0.0], [3.0, 0.0]], np.float32))
    assert score[0] < 0.1
    assert score[1] > 0.9
    contents = {"model": content, "features": None}
    assert bundle_of("rel_a", "toy", "big", submission["release"]["config"], contents).event


def test_several_models_are_released_as_one_with_the_parity_of_each(pipeline: Pipeline) -> None:
    """What a training function returns may be an ensemble; the whole is judged, and pinned by one digest."""

    def happens(training: ht.Training, params: Any) -> ht.Ensemble:
        linear = LogisticRegression().fit(training.X, training.y)
        trees = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(training.X, training.y)
        return ht.Ensemble({"linear": linear, "trees": trees}, weights={"linear": 3.0, "trees": 1.0})

    project = make_project()
    project.models["happens"] = dataclasses.replace(project.models["happens"], fit=happens)
    submission = train(project, pipeline, _request(project, pipeline))
    parity = _evidence(submission, "parity")
    assert parity["max_difference"] < 1e-5
    assert [*parity["parts"]] == ["linear", "trees"]
    content = next(each["content"] for each in submission["versions"] if each["kind"] == "model")
    assert content["format"] == "graph"
    model = load_model(pipeline.blobs.get(content["digest"]), content["digest"], "graph")
    assert model.score(np.array([[3.0, 0.0]], np.float32))[0] > 0.9


def test_a_class_in_python_is_trained_judged_and_released(pipeline: Pipeline) -> None:
    def happens(training: ht.Training, params: Any) -> ht.PythonModel:
        return ht.PythonModel(scorers.Logistic, modules=[scorers_helper], arguments={"scale": 1.5}, seconds=5.0)

    project = make_project()
    project.models["happens"] = dataclasses.replace(project.models["happens"], fit=happens)
    submission = train(project, pipeline, _request(project, pipeline))
    assert _evidence(submission, "parity")["runtime"].startswith("isolated Python")
    assert _evidence(submission, "metric")["roc_auc"]["value"] > 0.8
    content = next(each["content"] for each in submission["versions"] if each["kind"] == "model")
    assert (content["format"], content["training"]["estimator"]) == ("python", "PythonModel")


def test_a_release_keeps_what_its_answers_are_explained_with(toy: ht.Project, pipeline: Pipeline) -> None:
    submission = train(toy, pipeline, _request(toy, pipeline))
    model = next(each for each in submission["versions"] if each["kind"] == "model")
    digest = model["content"]["background"]
    assert model["blobs"] == [model["content"]["digest"], digest]
    kept = read_background(pipeline.blobs.get(digest), digest, 2)
    assert kept.shape == (64, 2)


def test_prediction_sets_are_made_of_earlier_rows_and_measured_on_later_ones(pipeline: Pipeline) -> None:
    toy = make_project()
    submission = train(toy, pipeline, _request(toy, pipeline))
    found, sets = _evidence(submission, "coverage"), submission["release"]["config"]["sets"]
    assert found["confidence"] == sets["confidence"] == 0.9
    assert found["n"] + found["made_of"] == _evidence(submission, "metric")["n"]
    assert found["lower"] <= found["value"] <= found["upper"]
    # 140 rows of both outcomes: nine in ten, and what 140 rows leave open.
    assert 0.8 < found["value"] <= 1.0
    assert found["single"] + found["both"] + found["none"] == pytest.approx(1.0)
    toy.evaluation(toy.models["happens"], holdout_days=7, confidence=0)
    without = train(toy, pipeline, _request(toy, pipeline))
    assert "sets" not in without["release"]["config"]
    assert "coverage" not in {each["kind"] for each in without["evidence"]}


def test_one_class_cannot_be_trained_on(pipeline: Pipeline) -> None:
    """All outcomes equal: said before the estimator fails in its own words."""
    project = make_project(outcome="amount > 1000")
    with pytest.raises(InvalidInput, match="outcomes are the same"):
        train(project, pipeline, _request(project, pipeline))


def test_no_accepted_data(toy: ht.Project, pipeline: Pipeline) -> None:
    """The mend is the command that takes data in."""
    with pytest.raises(InvalidInput) as caught:
        train(toy, pipeline, _request(toy, pipeline, ()))
    assert "--ingest" in caught.value.mend


def test_a_missing_label_column_is_named(pipeline: Pipeline) -> None:
    """An outcome over a column that no row has."""
    project = make_project(outcome="hapened")
    with pytest.raises(InvalidInput, match="hapened"):
        train(project, pipeline, _request(project, pipeline))


def test_the_estimator_is_fitted_before_the_held_out_days(pipeline: Pipeline) -> None:
    """No row of the last week reaches the training function."""
    seen: list[Any] = []
    project = make_project()

    def happens(training: ht.Training, params: Any) -> LogisticRegression:
        seen.append(max(training.rows["asked_at"].to_pylist()))
        return LogisticRegression().fit(training.X, training.y)

    project.models["happens"] = dataclasses.replace(project.models["happens"], fit=happens)
    train(project, pipeline, _request(project, pipeline))
    last = max(month("2024-02")["asked_at"].to_pylist())
    assert (last - seen[0]).days >= 7
