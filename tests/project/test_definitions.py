"""What a user writes, and what is said when it cannot be meant so."""

from typing import Any

import pytest

import holdtrue as ht
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError
from holdtrue.features import Computed
from holdtrue.project import ProjectSpec
from holdtrue.project.checks import check_band, fallbacks, places


def test_a_spec_survives_its_json(toy: ht.Project) -> None:
    """What apply sends is what the server reads."""
    spec = toy.spec()
    assert load(ProjectSpec, dump(spec)) == spec
    assert [each.name for each in spec.models] == ["happens"]
    assert spec.models[0].features == ("amount", "kind")


def test_an_unknown_name_in_a_spec_is_named(toy: ht.Project) -> None:
    """A misspelt key is refused, with the spelling that was probably meant."""
    data = dump(toy.spec())
    data["ownr"] = data.pop("owner")
    with pytest.raises(ConfigurationError) as caught:
        load(ProjectSpec, data)
    assert "ownr" in caught.value.what
    assert "owner" in caught.value.mend


def test_a_view_needs_its_source(toy: ht.Project) -> None:
    """A view of a source that nobody declared is refused where the model is declared."""
    view = ht.Latest(name="weather", source="readings", entity="kind", time="at", columns=("t",), ttl="6h")
    declare = toy.model(dataset=toy.datasets["rows"], label="l", outcome="happened", time="asked_at", features=[view])

    def other(train: ht.Training, params: object) -> None:
        return None

    with pytest.raises(ConfigurationError, match="readings"):
        declare(other)


def test_a_name_is_declared_once(toy: ht.Project) -> None:
    """The second definition of a name is a mistake, not a replacement."""
    declare = toy.dataset(key="id", time="asked_at", contract=toy.datasets["rows"].spec.contract)

    def rows(window: str) -> None:
        return None

    with pytest.raises(ConfigurationError, match="declared twice"):
        declare(rows)


def test_a_service_takes_columns_of_its_dataset(toy: ht.Project) -> None:
    """An input that no row has could never be checked or trained on."""
    with pytest.raises(ConfigurationError, match="colour"):
        toy.service(
            toy.models["happens"], key="id", entity="id", inputs={"colour": "BYTES"}, rollout=ht.Canary(), name="other"
        )


@pytest.mark.parametrize("risk", ["", "none", "HIGH"])
def test_a_class_of_risk_is_one_of_three(risk: str) -> None:
    """An unknown class of risk would be taken for no risk later."""
    with pytest.raises(ConfigurationError, match="risk"):
        ht.Project("toy", owner="me", risk=risk)


def test_one_environment_alone_is_no_list_of_those_without_a_rollout() -> None:
    assert places(["dev", "staging"]) == ("dev", "staging")
    with pytest.raises(ConfigurationError, match="one name"):
        places("staging")


@pytest.mark.parametrize("band", [(0.6, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_a_service_abstains_within_a_band_of_probabilities(band: tuple[float, float]) -> None:
    check_band(None)
    check_band((0.4, 0.4))
    with pytest.raises(ConfigurationError, match="abstain"):
        check_band(band)


def test_a_feature_function_takes_columns_of_the_dataset(toy: ht.Project) -> None:
    made = Computed("f", ("altitude",), "def f(altitude):\n    return altitude")
    (dataset,) = toy.datasets.values()
    with pytest.raises(ConfigurationError, match="altitude"):
        toy.model(dataset=dataset, label="l", outcome="true", time=dataset.spec.time, features=[made])(fit_nothing)


def fit_nothing(train: ht.Training, params: object) -> None:
    """Fit nothing."""


@pytest.mark.parametrize(
    ("given", "backup", "constant"),
    [
        (None, None, None),
        (0.2, None, 0.2),
        (0, None, 0.0),
        ("previous", "previous", None),
        (("previous", 0.2), "previous", 0.2),
        (["simple", 1], "simple", 1.0),
    ],
)
def test_a_fallback_is_a_release_a_service_a_constant_or_one_and_then_the_other(
    given: Any, backup: str | None, constant: float | None
) -> None:
    assert fallbacks(given) == (backup, constant)


@pytest.mark.parametrize("given", [("a", "b"), (0.1, 0.2), float("nan"), ("a", float("inf"))])
def test_a_fallback_that_says_two_things_at_once_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        fallbacks(given)


@pytest.mark.parametrize("confidence", [0.3, 1.0, -1.0])
def test_a_confidence_is_a_share_worth_having(toy: ht.Project, confidence: float) -> None:
    with pytest.raises(ConfigurationError, match="confidence"):
        toy.evaluation(toy.models["happens"], confidence=confidence)
