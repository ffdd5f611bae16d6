"""Real models, and a data folder to serve them from."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from holdtrue.serving import compile_model
from holdtrue.storage import BlobStore, FileClock, make_folder
from tests.serving.plane_home import FEATURES, OTHER, ROOT, START, TOKEN, Home


@pytest.fixture(scope="session")
def models() -> Mapping[str, bytes]:
    """Compile three small models over the six features: two that differ, and one of the wrong width."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(7)
    matrix = random.normal(size=(400, 6)).astype(np.float32)
    label = (matrix[:, 0] + random.normal(size=400) > 0).astype(int)
    names = list(FEATURES.names)
    champion = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(matrix, label)
    challenger = HistGradientBoostingClassifier(max_iter=9, max_depth=2, random_state=1).fit(matrix, label)
    narrow = LogisticRegression().fit(matrix[:, :2], label)
    return {
        "champion": compile_model(champion, names, matrix).onnx,
        "challenger": compile_model(challenger, names, matrix).onnx,
        "narrow": compile_model(narrow, names[:2], matrix[:, :2]).onnx,
    }


@pytest.fixture
def home(tmp_path: Path, models: Mapping[str, bytes]) -> Iterator[Home]:
    """Make an empty data folder with a clock and three tokens."""
    path = tmp_path / "home"
    for name in ("blobs", "journal", "online", "routing/acks"):
        make_folder(path / name)
    made = Home(path, models, BlobStore(path / "blobs"), FileClock(path / "clock", START))
    made.grant({TOKEN: {}, OTHER: {"project": "another"}, ROOT: {"project": None}})
    yield made
    for process in made.processes:
        if process.popen.poll() is None:
            process.kill()
    made.clock.close()
