"""Several models that answer as one: every part as released, all or nothing."""

from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import ConfigurationError
from holdtrue.serving import Ensemble, Model, Processed, PythonModel, Stack, holds_code, load_model, pack_model
from holdtrue.serving.package import BadPackage, Package, pack, unpack
from holdtrue.serving.runtime import ModelFailed
from tests.serving import scorers, scorers_helper

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(300, 2)).astype(np.float32)
Y = (X[:, 0] - X[:, 1] ** 2 + RANDOM.normal(size=300) > -0.5).astype(int)
NAMES = ["a", "b"]


@pytest.fixture(scope="module")
def members() -> dict[str, Any]:
    """Three fitted models that are served in three forms."""
    return {
        "trees": HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, Y),
        "boosted": lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1, n_jobs=1).fit(X, Y),
        "near": KNeighborsClassifier(7).fit(X, Y),
    }


def loaded(data: bytes) -> Model:
    return load_model(data, bytes_hash(data), "graph")


@pytest.mark.parametrize(
    "options",
    [{}, {"weights": {"trees": 2.0, "boosted": 1.0, "near": 0.0}}, {"how": "vote"}, {"how": "vote", "at": 0.7}],
)
def test_an_ensemble_answers_as_its_members_do_together(members: dict[str, Any], options: dict[str, Any]) -> None:
    whole = Ensemble(members, **options)
    packed = pack_model(whole, NAMES, X)
    assert packed.format == "graph"
    assert packed.parity["max_difference"] < 1e-5
    formats = {name: part["format"] for name, part in packed.parity["parts"].items()}
    assert formats["trees"] == "onnx"
    assert formats["boosted"] == "lightgbm"
    model = loaded(packed.data)
    assert (model.features, model.names, model.aside) == (2, tuple(NAMES), False)
    assert model.score(X) == pytest.approx(whole.predict_proba(X)[:, 1], abs=1e-5)
    assert model.score(X[:1])[0] == model.score(X[:9])[0]
    assert not holds_code(packed.data, "graph")


@pytest.mark.parametrize("features", [False, True])
def test_a_stack_answers_as_its_last_model_does_on_the_scores_of_the_others(
    members: dict[str, Any], features: bool
) -> None:
    final = LogisticRegression()
    whole = Stack(members, final, features=features)
    final.fit(whole.columns(X), Y)
    model = loaded(pack_model(whole, NAMES, X).data)
    assert model.score(X) == pytest.approx(whole.predict_proba(X)[:, 1], abs=1e-5)


def test_what_comes_before_and_after_is_part_of_the_release() -> None:
    before = PythonModel(scorers.Wider, modules=[scorers_helper], columns=3, seconds=5.0)
    after = PythonModel(scorers.Rounded, modules=[scorers_helper], seconds=5.0)
    wide = before.predict(X).astype(np.float32)
    inner = LogisticRegression().fit(wide, Y)
    whole = Processed(inner, before, after)
    packed = pack_model(whole, NAMES, X)
    model = loaded(packed.data)
    assert (model.aside, model.memory, holds_code(packed.data, "graph")) == (True, 2 * 512 << 20, True)
    assert model.score(X) == pytest.approx(np.round(inner.predict_proba(wide)[:, 1], 1), abs=1e-6)
    assert [*packed.parity["parts"]] == ["before", "model", "after"]
    only = loaded(pack_model(Processed(inner, before), NAMES, X).data)
    assert only.score(X) == pytest.approx(inner.predict_proba(wide)[:, 1], abs=1e-6)
    with pytest.raises(ConfigurationError, match="columns"):
        Processed(inner, PythonModel(scorers.Wider))


def test_an_ensemble_that_makes_no_sense_is_refused_when_it_is_declared(members: dict[str, Any]) -> None:
    wrong: list[dict[str, Any]] = [
        {"how": "median"},
        {"weights": {"other": 1.0}},
        {"weights": {"trees": -1.0, "near": 2.0}},
        {"weights": {"trees": 0.0}},
        {"weights": {}},
        {"how": "vote", "weights": {"trees": 1.0}},
    ]
    for options in wrong:
        with pytest.raises(ConfigurationError, match="as it is declared"):
            Ensemble(members, **options)
    for none in (lambda: Ensemble({}), lambda: Stack({}, None), lambda: Stack({"final": None}, None)):
        with pytest.raises(ConfigurationError):
            none()


def test_if_a_part_fails_the_whole_fails() -> None:
    code = PythonModel(scorers.Scorer, modules=[scorers_helper], seconds=5.0)
    data = code.packed(NAMES)
    nodes = [
        {"name": "one", "model": "one", "format": "python", "reads": ["features"]},
        {"name": "both", "mean": ["one", "one"]},
    ]
    model = loaded(pack(Package("graph", {"features": NAMES, "nodes": nodes}, {"one": data})))
    assert model.score(np.array([[0.0, 3.0]], np.float32)).tolist() == [3.0]
    with pytest.raises(ModelFailed):
        model.score(np.array([[1.0, 3.0]], np.float32))


def node(**changes: Any) -> dict[str, Any]:
    return {"name": "one", "model": "trees", "format": "onnx", "reads": ["features"], **changes}


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [{"name": "one"}],
        [node(), node()],
        [node(name="features")],
        [node(name="feature:a")],
        [node(reads=[])],
        [node(reads=["two"]), node(name="two")],
        [node(reads=["one"])],
        [node(reads=["feature:z"])],
        [node(reads=["feature:a"])],
        [node(reads=["features", "feature:a"])],
        [node(model="other")],
        [node(format="graph")],
        [node(format="pickle")],
        [node(mean=["one"])],
        [node(), {"name": "m", "mean": ["one"], "weights": [1.0, 2.0]}],
        [node(), {"name": "m", "mean": ["one"], "weights": [-1.0]}],
        [node(), {"name": "m", "mean": ["one"], "weights": [0.0]}],
        [node(), {"name": "m", "mean": ["features"]}],
        [node(), {"name": "m", "vote": ["one"], "at": "half"}],
        [node(), {"name": "m", "vote": "one"}],
        ["one"],
        [node(), {"mean": ["one"]}],
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(members: dict[str, Any], nodes: list[Any]) -> None:
    part = pack_model(members["trees"], NAMES, X).data
    with pytest.raises(BadPackage):
        loaded(pack(Package("graph", {"features": NAMES, "nodes": nodes}, {"trees": part})))


def test_a_node_may_read_single_features(members: dict[str, Any]) -> None:
    part = pack_model(members["trees"], NAMES, X).data
    turned = [node(reads=["feature:b", "feature:a"])]
    model = loaded(pack(Package("graph", {"features": NAMES, "nodes": turned}, {"trees": part})))
    assert model.score(X) == pytest.approx(members["trees"].predict_proba(X[:, ::-1])[:, 1], abs=1e-5)


def test_a_part_whose_bytes_are_broken_is_refused(members: dict[str, Any]) -> None:
    whole = unpack(pack_model(Ensemble(members), NAMES, X).data)
    broken = pack(Package("graph", whole.about, {**whole.files, "trees": whole.files["trees"][:-9]}))
    with pytest.raises(Exception, match="not served"):
        loaded(broken)


@pytest.fixture(scope="module")
def sorts() -> dict[str, Any]:
    """Two fitted models of three classes."""
    kinds = Y + (X[:, 1] > 0.8)
    return {
        "trees": HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, kinds),
        "boosted": lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1, n_jobs=1).fit(X, kinds),
    }


@pytest.mark.parametrize("options", [{}, {"weights": {"trees": 3.0, "boosted": 1.0}}, {"how": "vote"}])
def test_models_of_several_classes_answer_together(sorts: dict[str, Any], options: dict[str, Any]) -> None:
    whole = Ensemble(sorts, **options)
    packed = pack_model(whole, NAMES, X)
    assert packed.parity["changed_decisions"] == 0.0
    model = loaded(packed.data)
    assert model.classes == ("0", "1", "2")
    assert model.score(X) == pytest.approx(whole.predict_proba(X), abs=1e-5)
    if options:
        return
    expected = (sorts["trees"].predict_proba(X) + sorts["boosted"].predict_proba(X)) / 2
    assert model.score(X) == pytest.approx(expected, abs=1e-5)


def test_a_stack_and_steps_around_it_read_the_probability_of_each_class(sorts: dict[str, Any]) -> None:
    stack = Stack(sorts, final=LogisticRegression(), features=True)
    stack.final.fit(stack.columns(X), sorts["trees"].predict(X))
    assert stack.columns(X).shape == (len(X), 8)
    model = loaded(pack_model(stack, NAMES, X).data)
    assert model.classes == ("0", "1", "2")
    assert model.score(X) == pytest.approx(stack.predict_proba(X), abs=1e-5)
    after = PythonModel(scorers.Sharper, modules=[scorers_helper], seconds=5.0, classes=("no", "maybe", "yes"))
    whole = Processed(sorts["trees"], after=after)
    sharper = loaded(pack_model(whole, NAMES, X).data)
    given = sorts["trees"].predict_proba(X) ** 2
    assert sharper.classes == ("no", "maybe", "yes")
    assert sharper.score(X) == pytest.approx(given / given.sum(axis=1, keepdims=True), abs=1e-5)


def test_models_that_tell_other_classes_apart_do_not_answer_together(sorts: dict[str, Any]) -> None:
    parts = {name: pack_model(each, NAMES, X) for name, each in sorts.items()}
    parts["chance"] = pack_model(LogisticRegression().fit(X, Y), NAMES, X)
    nodes = [
        {"name": name, "model": name, "format": each.format, "reads": ["features"]} for name, each in parts.items()
    ]
    nodes.append({"name": "answer", "mean": ["trees", "chance"]})
    data = pack(
        Package("graph", {"features": NAMES, "nodes": nodes}, {name: each.data for name, each in parts.items()})
    )
    with pytest.raises(BadPackage) as bad:
        loaded(data)
    assert "do not tell the same classes apart" in bad.value.why


@pytest.mark.parametrize("how", ["mean", "vote"])
def test_a_row_that_one_of_several_models_of_classes_cannot_answer_has_no_answer(how: str) -> None:
    kinds = Y + (X[:, 1] > 0.8)
    members = {
        "trees": HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, kinds),
        "linear": LogisticRegression().fit(X, kinds),
    }
    model = loaded(pack_model(Ensemble(members, how=how), NAMES, X).data)
    rows = X[:3].copy()
    rows[1, 0] = np.nan
    found = model.score(rows)
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, True]
