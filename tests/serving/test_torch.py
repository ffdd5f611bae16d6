"""PyTorch models: weights without pickles, programs as exported, each in a process of its own."""

# PyTorch is there for the long tests only.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.project.modelfile import read_model
from holdtrue.serving import Ensemble, TorchModel, load_model, pack_model
from holdtrue.serving.package import unpack
from holdtrue.serving.runtime import ModelRefused

pytestmark = pytest.mark.long
RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(64, 3)).astype(np.float32)
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def network() -> Any:
    """A network of random weights."""
    import torch

    from tests.serving.networks import Net

    torch.manual_seed(0)
    return Net()


def test_a_module_is_released_as_its_source_and_weights(network: Any) -> None:
    packed = pack_model(network, NAMES, X)
    assert packed.format == "torch"
    assert packed.parity["max_difference"] < 1e-6
    assert packed.parity["runtime"].startswith("isolated PyTorch 2.13.0")
    files = unpack(packed.data).files
    assert sorted(files) == ["tests/serving/networks.py", "weights.safetensors"]
    model = load_model(packed.data, bytes_hash(packed.data), "torch")
    assert (model.features, model.aside) == (3, True)
    expected = TorchModel(network).predict_proba(X)[:, 1]
    assert model.score(X) == pytest.approx(expected, abs=1e-6)


def test_a_module_with_other_weights_than_it_has_is_refused(network: Any) -> None:
    with pytest.raises(ModelRefused) as refused:
        pack_model(TorchModel(network, {"width": 4}), NAMES, X)
    assert "size mismatch" in refused.value.why


def exported(network: Any) -> Any:
    import torch

    rows = torch.export.Dim("rows", min=1, max=10_000)
    return torch.export.export(network, (torch.from_numpy(X[:5]),), dynamic_shapes={"matrix": {0: rows}})


def test_an_exported_program_is_served_as_it_is_and_as_a_file(network: Any, tmp_path: Path) -> None:
    import torch

    program = exported(network)
    packed = pack_model(program, NAMES, X)
    expected = TorchModel(network).predict_proba(X)[:, 1]
    assert load_model(packed.data, bytes_hash(packed.data), "torch").score(X) == pytest.approx(expected, abs=1e-6)
    out = io.BytesIO()
    torch.export.save(program, out)
    (tmp_path / "model.pt2").write_bytes(out.getvalue())
    served = read_model(tmp_path / "model.pt2")
    assert (served.format, served.names) == ("torch", ("x0", "x1", "x2"))
    assert served.model.score(X[:1]) == pytest.approx(expected[:1], abs=1e-6)


def test_a_file_of_torch_save_is_a_pickle_and_refused(network: Any, tmp_path: Path) -> None:
    import torch

    torch.save(network, tmp_path / "model.pt2")
    with pytest.raises(ModelRefused, match="not served"):
        read_model(tmp_path / "model.pt2")


def test_a_network_may_be_part_of_an_ensemble(network: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    linear = LogisticRegression().fit(X, X[:, 0] > 0)
    whole = Ensemble({"net": TorchModel(network), "linear": linear})
    model_data = pack_model(whole, NAMES, X).data
    model = load_model(model_data, bytes_hash(model_data), "graph")
    assert model.score(X) == pytest.approx(whole.predict_proba(X)[:, 1], abs=1e-5)


def test_a_network_or_program_gives_the_probability_of_each_class(tmp_path: Path) -> None:
    import torch

    from tests.serving.networks import Sorts

    network = Sorts()
    declared = TorchModel(network, classes=("red", "green", "blue"))
    packed = pack_model(declared, NAMES, X)
    assert packed.parity["changed_decisions"] == 0.0
    model = load_model(packed.data, bytes_hash(packed.data), "torch")
    expected = declared.predict_proba(X)
    assert model.classes == ("red", "green", "blue")
    assert model.score(X) == pytest.approx(expected, abs=1e-6)
    program = exported(network)
    named = TorchModel(program, classes=("red", "green", "blue")).packed(NAMES)
    assert load_model(named, bytes_hash(named), "torch").classes == ("red", "green", "blue")
    out = io.BytesIO()
    torch.export.save(program, out)
    (tmp_path / "model.pt2").write_bytes(out.getvalue())
    served = read_model(tmp_path / "model.pt2").model
    assert served.classes == ("0", "1", "2")
    assert served.score(X) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ModelRefused) as refused:
        pack_model(TorchModel(Sorts(raw=True), {"raw": True}, classes=("red", "green", "blue")), NAMES, X)
    assert "no probabilities" in refused.value.why
