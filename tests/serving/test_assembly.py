"""A feature function in a release: computed at request time from its text, and refused where that is no arithmetic."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdtrue.features import Computed, FeatureSet, numeric, on_demand
from holdtrue.serving import Bundle, ModelFile
from holdtrue.serving.assembly import FeaturesRefused, compile_assembly
from tests.serving.plane_home import INPUTS


def doubled(distance: Any) -> Any:
    """Twice the distance, 0 where there is none."""
    return np.where(np.isnan(distance), 0, distance * 2)


def _bundle(features: FeatureSet) -> Bundle:
    return Bundle(
        release="rel_1",
        project="flights",
        service="delay",
        inputs=INPUTS,
        contract=None,
        features=features.to_json(),
        model=ModelFile("onnx", "0" * 64),
        output="late",
        prediction_time="scheduled",
    )


def test_a_release_carries_the_text_that_its_features_are_computed_by() -> None:
    bundle = _bundle(FeatureSet((), (numeric("distance"),), {}, (on_demand(doubled),)))
    assembly = compile_assembly(bundle, 2)
    assert assembly.names == ("distance", "doubled")
    matrix = assembly.make({"distance": [700.0, None]}, [0, 0], lambda *_: {})
    np.testing.assert_array_equal(matrix, [[700, 1400], [np.nan, 0]])
    plain = Computed("doubled", ("distance",), "def doubled(distance):\n    return distance")
    longer = _bundle(FeatureSet((), (numeric("distance"),), {}, (plain,)))
    assert compile_assembly(longer, 2).digest != assembly.digest


def test_a_text_that_does_more_is_not_served() -> None:
    bundle = _bundle(FeatureSet((), (), {}, (on_demand(doubled),)))
    evil = {**bundle.features["functions"][0], "source": "def doubled(distance):\n    return open('/etc/passwd')"}
    with pytest.raises(FeaturesRefused) as caught:
        compile_assembly(replace(bundle, features={**bundle.features, "functions": [evil]}), 1)
    assert "open" in caught.value.why


def test_a_function_of_what_the_service_does_not_take_is_not_served() -> None:
    made = Computed("f", ("altitude",), "def f(altitude):\n    return altitude")
    with pytest.raises(FeaturesRefused) as caught:
        compile_assembly(_bundle(FeatureSet((), (), {}, (made,))), 1)
    assert "altitude" in caught.value.why
