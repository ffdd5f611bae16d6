"""Score a dataset with a release: part by part, each cached, so that a run that was killed goes on where it was.

A row gets the score that the service would have given it then: the same compiled model, the same features as they
were known at the row's time, the same request contract. Rows that cannot be scored are named with the reason.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdtrue.core.errors import ConfigurationError, HoldtrueError, InvalidInput
from holdtrue.data.contract import Contract
from holdtrue.data.online import compile_request
from holdtrue.features import FeatureSet, point_in_time
from holdtrue.features.vector import plain
from holdtrue.pipelines import Pipeline
from holdtrue.project.definitions import Project
from holdtrue.project.sources import connect, windows_around
from holdtrue.project.training import Fragments, read_part, selected
from holdtrue.serving import load_model

_BATCH: Final = 8192
_NAMED: Final = 20
_OWN: Final = ("score", "release", "window", "error", "class")


@dataclass(frozen=True, slots=True)
class Scoring:
    """Say what to score: a release's model and features, and the parts of a dataset version.

    `key` and `time` name columns of the dataset that the output keeps; `fragments` has the parts of every dataset
    that features are computed from. `classes` are those that the model tells apart: the output then has the `class`,
    as `score` its probability, and that of each class.
    """

    release: str
    model: str
    format: str
    features: FeatureSet
    contract: Contract | None
    dataset: str
    version: str
    key: str
    time: str
    fragments: Mapping[str, Fragments]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """Hold what was scored: rows, those without a score, the first of them by key with the reason, and parts."""

    rows: int
    bad: int
    named: tuple[tuple[str, str], ...]
    parts: int
    cached: int


def score_dataset(project: Project, pipeline: Pipeline, asked: Scoring, out: Path) -> Scores:
    """Score every part of the dataset, then write them all to the Parquet file `out`, whole or not at all."""
    if not out.parent.is_dir():
        raise InvalidInput(f"There is no folder {out.parent}.", mend="Make it, or name another file with --out.")
    if out.is_dir():
        raise InvalidInput(f"{out} is a folder.", mend=f"Name a file with --out, such as {out / 'scores.parquet'}.")
    if {asked.key, asked.time}.intersection(_OWN):
        raise InvalidInput(
            "The dataset's key or time has the name of a column of the output.",
            why=f"The output has the columns {', '.join(_OWN)} of its own.",
            mend="Rename that column of the dataset.",
        )
    _check_sources(project, asked)
    windows = sorted(asked.fragments[asked.dataset])
    before = len(pipeline.done)
    for window in windows:
        _part(project, pipeline, asked, window)
    steps = pipeline.done[before:]
    return _write(pipeline, asked, out, [step.digest for step in steps], sum(step.cached for step in steps))


def _check_sources(project: Project, asked: Scoring) -> None:
    missing = sorted({view.source for view in asked.features.views} - project.sources.keys())
    if missing:
        raise ConfigurationError(
            f"The project file declares no source “{missing[0]}”.",
            why=f"The release {asked.release} looks up features that are computed from it.",
            mend="Score with the project file of the release's commit.",
        )


def _part(project: Project, pipeline: Pipeline, asked: Scoring, window: str) -> None:
    """Score one window, or find that it was scored before."""
    sources = sorted({view.source for view in asked.features.views})
    names = {project.sources[each].dataset.spec.name for each in sources}
    around = {
        name: [
            asked.fragments[name][each]["digest"]
            for each in windows_around(window, asked.features.views)
            if each in asked.fragments[name]
        ]
        for name in sorted(names)
    }
    rows = asked.fragments[asked.dataset][window]["digest"]

    def work() -> bytes:
        table = read_part(pipeline, rows)
        connection = connect()
        tables = {each: selected(connection, pipeline, project, each, around) for each in sources}
        if tables:
            table = point_in_time(table, asked.features.views, tables, time=asked.time)
        out = io.BytesIO()
        pq.write_table(_scored(pipeline, asked, window, table), out, compression="zstd")
        return out.getvalue()

    inputs = {
        "rows": rows,
        "around": around,
        "model": asked.model,
        "release": asked.release,
        "features": asked.features.to_json(),
        "keep": [asked.key, asked.time],
    }
    code = [project.sources[each].select for each in sources]
    pipeline.step(f"score {window}", inputs, work, code=code)


def _scored(pipeline: Pipeline, asked: Scoring, window: str, table: pa.Table) -> pa.Table:
    """Return key, time, score, release, window and error of each row, in the order of the part."""
    model = load_model(pipeline.blobs.get(asked.model), asked.model, asked.format)
    width = len(model.classes)
    errors: list[str | None] = _broken(asked.contract, table)
    scores = np.full((table.num_rows, max(width, 1)), np.nan)
    for start in range(0, table.num_rows, _BATCH):
        batch = table.slice(start, _BATCH)
        matrix = asked.features.assemble_table(batch)
        scores[start : start + _BATCH] = _each(model.score, matrix, max(width, 1))
    for row in np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist():
        errors[row] = errors[row] or "The model gave no finite score."
    bad = np.array([error is not None for error in errors], np.bool_)
    return pa.table(
        {
            asked.key: table[asked.key],
            asked.time: table[asked.time],
            "score": pa.array(scores.max(axis=1), pa.float64(), mask=bad),
            "release": pa.array([asked.release] * table.num_rows, pa.string()),
            "window": pa.array([window] * table.num_rows, pa.string()),
            "error": pa.array(errors, pa.string()),
            **(_classes(asked.classes or model.classes, scores, bad) if width else {}),
        }
    )


def _classes(classes: Sequence[str], chances: np.ndarray, bad: np.ndarray) -> dict[str, pa.Array]:
    """Return the class that each row is said to be of, and the probability of each class; null for bad rows."""
    said = np.where(bad, 0, np.nan_to_num(chances, nan=-1.0).argmax(axis=1))
    names = np.array(classes, dtype=object)[said]
    return {
        "class": pa.array(names, pa.string(), mask=bad),
        **{f"p_{name}": pa.array(chances[:, place], pa.float64(), mask=bad) for place, name in enumerate(classes)},
    }


def _each(score: Any, matrix: Any, width: int) -> Any:
    """Return the scores of a matrix [n, width]; rows that the model fails on get NaN, found by halves."""
    try:
        return score(matrix).reshape(-1, width)
    except HoldtrueError:
        half = len(matrix) // 2
        if not half:
            return np.full((len(matrix), width), np.nan)
        return np.concatenate([_each(score, matrix[:half], width), _each(score, matrix[half:], width)])


def _broken(contract: Contract | None, table: pa.Table) -> list[str | None]:
    """Return, for each row, what rule of the release's request contract it breaks, None for none."""
    errors: list[str | None] = [None] * table.num_rows
    known = () if contract is None else tuple(each for each in contract.columns if each.name in table.column_names)
    if not known:
        return errors
    check = compile_request(Contract(known))
    columns = {each.name: plain(table[each.name]) for each in known}

    def look(start: int, end: int) -> None:
        part = {name: values[start:end] for name, values in columns.items()}
        found = [each.what for each in check(part) if each.severity != "warn"]
        if not found:
            return
        if end - start == 1:
            errors[start] = found[0]
            return
        middle = (start + end) // 2
        look(start, middle)
        look(middle, end)

    for start in range(0, table.num_rows, _BATCH):
        look(start, min(start + _BATCH, table.num_rows))
    return errors


def _write(pipeline: Pipeline, asked: Scoring, out: Path, digests: Sequence[str], cached: int) -> Scores:
    """Put the parts into one file, one row group each, under its name only when it is whole."""
    said = {
        "release": asked.release,
        "model": asked.model,
        "dataset": asked.dataset,
        "dataset_version": asked.version,
    }
    rows, bad, named = 0, 0, list[tuple[str, str]]()
    with NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
        temporary = Path(file.name)
    try:
        writer: pq.ParquetWriter | None = None
        for part in _tables(pipeline, digests):
            if writer is None:
                schema = part.schema.with_metadata({"holdtrue": orjson.dumps(said).decode()})
                writer = pq.ParquetWriter(temporary, schema, compression="zstd")
            writer.write_table(part.cast(writer.schema))
            rows += part.num_rows
            wrong = part.filter(pc.field("error").is_valid())
            bad += wrong.num_rows
            found = zip(wrong[asked.key].to_pylist(), wrong["error"].to_pylist(), strict=True)
            named += [(str(key), str(error)) for key, error in found][: _NAMED - len(named)]
        assert writer is not None, "a dataset version has at least one part"
        writer.close()
        _sync(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(out.parent)
    return Scores(rows, bad, tuple(named), len(digests), cached)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tables(pipeline: Pipeline, digests: Sequence[str]) -> Iterator[pa.Table]:
    for digest in digests:
        yield pq.read_table(io.BytesIO(pipeline.blobs.get(digest)))
