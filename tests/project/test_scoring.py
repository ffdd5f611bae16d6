"""Batch scoring against the slow way: row by row, as a request would be answered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

import holdtrue as ht
from holdtrue import data
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput
from holdtrue.features import FeatureSet
from holdtrue.features.vector import plain
from holdtrue.pipelines import Pipeline
from holdtrue.project.scoring import Scoring, score_dataset
from holdtrue.serving import compile_model, load_model
from holdtrue.storage import ActionCache, BlobStore
from tests.project.conftest import month

WINDOWS = ("2024-01", "2024-02")


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A pipeline with empty stores."""
    return Pipeline(BlobStore(tmp_path / "blobs"), ActionCache(tmp_path / "actions"), SystemClock())


def asked(project: ht.Project, pipeline: Pipeline, **changes: Any) -> Scoring:
    """Take both months in, compile a model over the project's features, and ask for its scores."""
    spec, model = project.datasets["rows"].spec, project.models["happens"]
    parts = {window: data.ingest(pipeline.blobs, spec, window, month(window)) for window in WINDOWS}
    features = FeatureSet.fit(model.views, model.expressions, month("2024-01"))
    matrix = features.assemble_table(month("2024-01"))
    label = month("2024-01")["happened"].to_numpy(zero_copy_only=False).astype(int)
    compiled = compile_model(LogisticRegression().fit(matrix, label), features.names, matrix)
    scoring = Scoring(
        release="rel_a",
        model=pipeline.blobs.put(compiled.onnx),
        format="onnx",
        features=features,
        contract=spec.contract,
        dataset="rows",
        version="ds_a",
        key="id",
        time="asked_at",
        fragments={"rows": {window: {"digest": part.digest} for window, part in parts.items()}},
    )
    return replace(scoring, **changes)


def test_every_row_has_the_score_that_a_request_would_get(toy: ht.Project, pipeline: Pipeline, tmp_path: Path) -> None:
    wanted = asked(toy, pipeline)
    found = score_dataset(toy, pipeline, wanted, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    rows = pa.concat_tables([month(window) for window in WINDOWS])
    assert (found.rows, found.bad, found.parts, found.cached) == (rows.num_rows, 0, 2, 0)
    by_key = dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    model = load_model(pipeline.blobs.get(wanted.model), wanted.model)
    columns = {name: plain(rows[name]) for name in wanted.features.inputs}
    for place in range(0, rows.num_rows, 7):
        row = {name: [values[place]] for name, values in columns.items()}
        expected = float(model.score(wanted.features.assemble(row, {}))[0])
        assert by_key[rows["id"][place].as_py()] == expected
    assert table.schema.names == ["id", "asked_at", "score", "release", "window", "error"]
    assert table["error"].null_count == table.num_rows
    said = orjson.loads((table.schema.metadata or {})[b"holdtrue"])
    assert said == {"release": "rel_a", "model": wanted.model, "dataset": "rows", "dataset_version": "ds_a"}


def test_a_run_that_was_killed_goes_on_where_it_was(toy: ht.Project, pipeline: Pipeline, tmp_path: Path) -> None:
    wanted, out = asked(toy, pipeline), tmp_path / "out.parquet"
    out.write_bytes(b"before")

    def stop(step: str) -> None:
        if step == "score 2024-02":
            raise KeyboardInterrupt

    killed = Pipeline(pipeline.blobs, pipeline.actions, pipeline.clock, on_start=stop)
    with pytest.raises(KeyboardInterrupt):
        score_dataset(toy, killed, wanted, out)
    assert out.read_bytes() == b"before"
    assert score_dataset(toy, pipeline, wanted, out).cached == 1
    again = score_dataset(toy, pipeline, wanted, tmp_path / "again.parquet")
    assert again.cached == 2
    assert (tmp_path / "again.parquet").read_bytes() == out.read_bytes()
    assert sorted(path.name for path in tmp_path.glob(".*")) == []
    other = score_dataset(toy, pipeline, replace(wanted, release="rel_b"), out)
    assert other.cached == 0
    assert set(pq.read_table(out)["release"].to_pylist()) == {"rel_b"}


def test_rows_that_cannot_be_scored_are_named_with_the_reason(
    toy: ht.Project, pipeline: Pipeline, tmp_path: Path
) -> None:
    narrow = ht.Contract(columns=(ht.column("amount", "float64", le=1.5), ht.column("kind", "string", isin=["a", "b"])))
    wanted = asked(toy, pipeline, contract=narrow)
    found = score_dataset(toy, pipeline, wanted, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    rows = pa.concat_tables([month(window) for window in WINDOWS])
    amounts = dict(zip(rows["id"].to_pylist(), rows["amount"].to_pylist(), strict=True))
    bad = {key for key, amount in amounts.items() if amount > 1.5}
    assert found.bad == len(bad) > 20
    assert len(found.named) == 20
    assert found.named[0][0] in bad
    assert "amount" in found.named[0][1]
    for row in table.select(["id", "score", "error"]).to_pylist():
        assert (row["score"] is None) == (row["error"] is not None) == (row["id"] in bad)


def test_a_model_that_gives_no_number_spoils_its_own_rows_only(
    toy: ht.Project, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdtrue.project import scoring
    from holdtrue.serving.runtime import ModelFailed

    wanted = asked(toy, pipeline)

    def broken(data: bytes, digest: str, format: str) -> Any:
        model = load_model(data, digest, format)

        def score(matrix: Any) -> Any:
            if (matrix[:, 0] > 2.0).any():
                raise ModelFailed("The model did not answer.")
            return np.where(matrix[:, 0] < -2.0, np.nan, model.score(matrix))

        return replace(model, score=score)

    monkeypatch.setattr(scoring, "load_model", broken)
    found = score_dataset(toy, pipeline, wanted, tmp_path / "out.parquet")
    rows = pa.concat_tables([month(window) for window in WINDOWS])
    bad = np.abs(rows["amount"].to_numpy().astype(np.float32)) > 2.0
    assert found.bad == int(bad.sum()) > 0
    assert {text for _, text in found.named} == {"The model gave no finite score."}


def test_a_folder_that_is_not_there_and_a_name_that_is_taken_are_refused(
    toy: ht.Project, pipeline: Pipeline, tmp_path: Path
) -> None:
    wanted = asked(toy, pipeline)
    with pytest.raises(InvalidInput, match="no folder"):
        score_dataset(toy, pipeline, wanted, tmp_path / "nowhere" / "out.parquet")
    with pytest.raises(InvalidInput, match="is a folder"):
        score_dataset(toy, pipeline, wanted, tmp_path)
    with pytest.raises(InvalidInput, match="name of a column"):
        score_dataset(toy, pipeline, replace(wanted, key="score"), tmp_path / "out.parquet")
