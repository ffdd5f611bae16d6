"""Train a model from accepted data: features as of then, fit, compile, evaluate, compare, submit.

Each step is cached by content: its code, its parameters and the hashes of what it reads. A killed run
goes on where it was, and equal inputs give an equal release id.
"""

import importlib.metadata
import io
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdtrue.core.canonical import content_hash
from holdtrue.core.clock import from_microseconds
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import version_id
from holdtrue.features import FeatureSet, point_in_time
from holdtrue.pipelines import Pipeline
from holdtrue.project import kinds
from holdtrue.project.definitions import EvaluationPlan, Model, Project, Serving, Training
from holdtrue.project.flowing import columns_of
from holdtrue.project.kinds import Sure
from holdtrue.project.rows import Rows
from holdtrue.project.soundness import soundness
from holdtrue.project.sources import connect, selected_rows, windows_around
from holdtrue.project.usefulness import MOST_ROWS, usefulness
from holdtrue.serving import load_model, pack_model
from holdtrue.serving.contributions import background_of

Fragments = Mapping[str, Mapping[str, Any]]
OUTCOME = "__outcome"
_PARITY_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Champion:
    """Name the release that answers now: its compiled model's digest and its feature set."""

    release: str
    model: str
    features: FeatureSet
    format: str = "onnx"


@dataclass(frozen=True, slots=True)
class Request:
    """Say what to train: on which windows of which accepted data, against which champion."""

    model: Model
    windows: tuple[str, ...]
    fragments: Mapping[str, Fragments]
    dataset_versions: Mapping[str, str]
    champion: Champion | None
    author: str


def train(project: Project, pipeline: Pipeline, request: Request) -> dict[str, Any]:
    """Run all steps and return the submission: versions, release manifest and evidence."""
    model = request.model
    if not request.windows:
        raise _nothing_yet(model)
    table = _history(project, pipeline, request, model.views)
    plan = project.evaluations.get(model.name) or EvaluationPlan(model.name, metric=model.metrics[0])
    last = from_microseconds(int(_moments(table, model.time).max()))
    cutoff = pa.scalar(last - timedelta(days=plan.holdout_days), table[model.time].type)
    train_table = table.filter(pc.field(model.time) < cutoff)
    held_table = table.filter(pc.field(model.time) >= cutoff)
    if train_table.num_rows == 0:
        raise _nothing_left(model, plan, (last - from_microseconds(int(_moments(table, model.time).min()))).days + 1)
    features = FeatureSet.fit(model.views, model.expressions, train_table, model.functions)
    held = rows_of(model, features, held_table)
    outcome = [model.outcome, list(model.classes), model.number]
    doubts = pipeline.step(
        "soundness",
        {"data": _digests(request), "features": features.to_json(), "holdout": plan.holdout_days, "outcome": outcome},
        lambda: orjson.dumps(soundness(model, features, rows_of(model, features, train_table), held)),
    )
    fitted = pipeline.step(
        "train",
        {
            "data": _digests(request),
            "features": features.to_json(),
            "params": dict(model.params),
            "outcome": outcome,
            **({"quantise": True} if model.quantise else {}),
        },
        lambda: _fit(pipeline, model, features, train_table),
        code=model.fit,
    )
    artifact: dict[str, Any] = {"format": "onnx", **orjson.loads(fitted)}
    loaded = load_model(pipeline.blobs.get(artifact["digest"]), artifact["digest"], artifact["format"])
    kinds.check_answers(model, loaded)
    score = loaded.score(held.X)
    evidence = pipeline.step(
        "evaluate",
        {
            "model": artifact["digest"],
            "data": _digests(request),
            "outcome": outcome,
            "plan": [plan.metric, list(plan.slices), plan.holdout_days, plan.baseline],
            "champion": request.champion.model if request.champion else None,
        },
        lambda: orjson.dumps(_judge(project, pipeline, request, plan, held, score, cutoff, artifact["base_rate"])),
    )
    used = {"data": _digests(request), "holdout": plan.holdout_days, "outcome": outcome, "rows": MOST_ROWS}
    worth = pipeline.step(
        "usefulness",
        {"model": artifact["digest"], **used},
        lambda: orjson.dumps(usefulness(features, held, loaded.score, loss=kinds.loss_of(model))),
    )
    others = {"data": doubts, "usefulness": worth}
    found = [*orjson.loads(evidence), *({"kind": kind, "content": orjson.loads(each)} for kind, each in others.items())]
    sure = kinds.sure_of(model, plan, held, score)
    if sure is not None:
        found.append({"kind": "coverage", "content": sure.coverage})
    return _submission(project, request, features, artifact, found, sure)


def _nothing_yet(model: Model) -> InvalidInput:
    return InvalidInput(
        f"There is no accepted data to train “{model.name}” on.",
        why=f"No window of {model.dataset.spec.name} has passed its contract yet.",
        mend=f"Take data in first: holdtrue run --ingest {model.dataset.spec.name} --window YYYY-MM",
    )


def _nothing_left(model: Model, plan: EvaluationPlan, days: int) -> InvalidInput:
    return InvalidInput(
        f"Nothing is left to train “{model.name}” on: its data span {days} days.",
        why=f"The last {plan.holdout_days} days are held out for its evaluation.",
        mend="Take more windows in, or hold out fewer days: project.evaluation(…, holdout_days=…).",
    )


def rows_of(model: Model, features: FeatureSet, table: pa.Table) -> Rows:
    """Return the rows of `table` that have an outcome, as arrays."""
    known = table.filter(pc.field(OUTCOME).is_valid())
    times = _moments(known, model.time)
    outcome = kinds.outcomes(model, known[OUTCOME])
    return Rows(features.assemble_table(known), outcome, times, known)


def featured(project: Project, pipeline: Pipeline, request: Request, window: str, views: Sequence[Any]) -> pa.Table:
    """Return the rows of one window with the features of `views` as they were known at each row's time."""
    model = request.model
    sources = {view.source for view in views}
    datasets = {model.dataset.spec.name} | {project.sources[each].dataset.spec.name for each in sources}
    around = {
        name: [
            request.fragments[name][each]["digest"]
            for each in windows_around(window, views)
            if each in request.fragments[name]
        ]
        for name in sorted(datasets)
    }

    def work() -> bytes:
        connection = connect()
        queries = read_part(pipeline, request.fragments[model.dataset.spec.name][window]["digest"])
        tables = {each: selected(connection, pipeline, project, each, around) for each in sorted(sources)}
        joined = point_in_time(queries, views, tables, time=model.time)
        return _parquet(_with_outcome(connection, model, joined))

    inputs = {
        "around": around,
        "rows": request.fragments[model.dataset.spec.name][window]["digest"],
        "views": [dump(view) for view in views],
        "outcome": model.outcome,
    }
    code = [project.sources[each].select for each in sorted(sources)]
    return pq.read_table(io.BytesIO(pipeline.step(f"features {window}", inputs, work, code=code)))


def _with_outcome(connection: duckdb.DuckDBPyConnection, model: Model, table: pa.Table) -> pa.Table:
    """Return the rows with the outcome beside them, in the order of time and key."""
    try:
        rows = connection.from_arrow(table).project(f"*, ({model.outcome}) AS {OUTCOME}")
    except duckdb.Error as error:
        raise InvalidInput(
            f"The outcome “{model.outcome}” of “{model.name}” cannot be computed.",
            why=f"{str(error).splitlines()[0]} The columns are: {', '.join(table.column_names)}.",
            mend="Correct the expression, or deliver the column that it needs.",
        ) from None
    return rows.order(f"{model.time}, {model.dataset.spec.key}").to_arrow_table()


def _moments(table: pa.Table, name: str) -> np.ndarray:
    """Return a column of moments as int64 microseconds [n]."""
    return table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()


def _history(project: Project, pipeline: Pipeline, request: Request, views: Sequence[Any]) -> pa.Table:
    parts = [featured(project, pipeline, request, window, views) for window in request.windows]
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks()


def selected(
    connection: duckdb.DuckDBPyConnection,
    pipeline: Pipeline,
    project: Project,
    name: str,
    around: Mapping[str, Sequence[str]],
) -> pa.Table:
    """Return the rows of a source as its own function selects them from the parts of its dataset."""
    source = project.sources[name]
    return selected_rows(
        connection, source, [read_part(pipeline, digest) for digest in around[source.dataset.spec.name]]
    )


def read_part(pipeline: Pipeline, digest: str) -> pa.Table:
    """Return one part of a dataset version."""
    return pq.read_table(pipeline.blobs.path(digest))


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _digests(request: Request) -> dict[str, Any]:
    wanted = {each for window in request.windows for each in windows_around(window, request.model.views)}
    return {
        name: {each: fragments[each]["digest"] for each in sorted(wanted) if each in fragments}
        for name, fragments in request.fragments.items()
    }


def _fit_rows(model: Model, features: FeatureSet, table: pa.Table) -> Training:
    rows = rows_of(model, features, table)
    kinds.check_trainable(model, rows.y)
    return Training(rows.X, rows.y, tuple(features.names), rows.table)


def _fit(pipeline: Pipeline, model: Model, features: FeatureSet, table: pa.Table) -> bytes:
    training = _fit_rows(model, features, table)
    estimator = model.fit(training, model.params)
    sample = training.X[:: max(1, len(training.X) // _PARITY_ROWS)]
    packed = pack_model(estimator, features.names, sample, quantise=model.quantise, number=model.number)
    return orjson.dumps(
        {
            "digest": pipeline.blobs.put(packed.data),
            "format": packed.format,
            "parity": dict(packed.parity),
            "background": pipeline.blobs.put(background_of(training.X)),
            "rows": len(training.y),
            "base_rate": kinds.base_of(model, training.y),
            "library": f"{type(estimator).__module__.split('.')[0]}",
            "estimator": type(estimator).__name__,
        }
    )


def _judge(
    project: Project,
    pipeline: Pipeline,
    request: Request,
    plan: EvaluationPlan,
    held: Rows,
    score: np.ndarray,
    cutoff: Any,
    base: float | list[float],
) -> list[dict[str, Any]]:
    if request.champion is None:
        return kinds.judge(request.model, plan, held, score, base, None, "baseline")
    reference = _champion_score(project, pipeline, request, held, cutoff)
    return kinds.judge(request.model, plan, held, score, base, reference, request.champion.release)


def _champion_score(project: Project, pipeline: Pipeline, request: Request, held: Rows, cutoff: Any) -> np.ndarray:
    champion = request.champion
    assert champion is not None
    views = champion.features.views
    parts = [featured(project, pipeline, request, window, views) for window in request.windows[-2:]]
    table = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    rows = rows_of(request.model, champion.features, table.filter(pc.field(request.model.time) >= cutoff))
    if not np.array_equal(rows.y, held.y):
        raise InvalidInput(
            "Champion and challenger cannot be compared: they were given different rows.",
            why=f"{len(rows.y)} rows for the champion, {len(held.y)} for the challenger.",
            mend="Hold out at most one month, so that both see the same windows.",
        )
    return load_model(pipeline.blobs.get(champion.model), champion.model, champion.format).score(rows.X)


def _submission(
    project: Project,
    request: Request,
    features: FeatureSet,
    artifact: Mapping[str, Any],
    evidence: list[dict[str, Any]],
    sure: Sure | None,
) -> dict[str, Any]:
    model = request.model
    serving = project.serving(model.name)
    if serving is None:
        raise InvalidInput(
            f"No service answers with “{model.name}”.",
            why="A release is made for a service.",
            mend=f"Declare one: project.service({model.name}, …)",
        )
    dataset = request.dataset_versions[model.dataset.spec.name]
    # Rows of a view come from another dataset than the model's own, maybe.
    read = tuple(sorted(set(request.dataset_versions.values())))
    views = version_id("feature_view", features.to_json())
    background = artifact.get("background")
    contents = {
        "features": ("feature_view", f"{model.name}-features", features.to_json(), (), read),
        "contract": ("contract", f"{model.name}-request", dump(serving.contract), (), ()),
        "model": (
            "model",
            model.name,
            _model(project, request, features, artifact),
            (artifact["digest"],) if background is None else (artifact["digest"], background),
            (*read, views),
        ),
    }
    versions = [
        {"kind": kind, "name": name, "content": content, "blobs": list(blobs), "derived_from": list(origin)}
        for kind, name, content, blobs, origin in contents.values()
    ]
    pinned = {role: version_id(kind, content) for role, (kind, _, content, _, _) in contents.items()}
    return {
        "release": {
            "service": serving.spec.name,
            "commit": code_commit(Path.cwd()),
            "environment_lock": environment_lock(),
            "versions": {**pinned, "dataset": dataset},
            "config": {**_config(model, serving), **({} if sure is None else {sure.setting: sure.content})},
        },
        "versions": versions,
        "evidence": [*evidence, {"kind": "parity", "content": artifact["parity"]}],
        "author": request.author,
    }


def _model(project: Project, request: Request, features: FeatureSet, artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content that names a model: its file, and what it was made of."""
    model = request.model
    return {
        "format": artifact["format"],
        "digest": artifact["digest"],
        "features": list(features.names),
        "output": model.label,
        "params": dict(model.params),
        **({"purpose": model.purpose} if model.purpose else {}),
        **({"classes": list(model.classes)} if model.classes else {}),
        **({"number": True} if model.number else {}),
        "columns": columns_of(project, model),
        "training": {
            "windows": list(request.windows),
            "rows": artifact["rows"],
            "base_rate": artifact["base_rate"],
            "estimator": artifact["estimator"],
            "data": _digests(request),
            "versions": dict(request.dataset_versions),
        },
        # A fit that was cached by an earlier version of Holdtrue kept none.
        **({"background": artifact["background"]} if artifact.get("background") is not None else {}),
    }


def _config(model: Model, serving: Serving) -> dict[str, Any]:
    return {
        "inputs": [{"name": name, "datatype": datatype} for name, datatype in serving.inputs],
        "key": serving.spec.key,
        "entity": serving.spec.entity,
        "prediction_time": serving.spec.prediction_time,
        "output": model.label,
        "fallback": serving.spec.fallback,
        **({} if serving.spec.abstain is None else {"abstain": list(serving.spec.abstain)}),
    }


def environment_lock() -> str:
    """Return a hash over the name and version of every installed distribution."""
    installed = sorted({f"{each.name.lower()}=={each.version}" for each in importlib.metadata.distributions()})
    return content_hash(installed)[:16]


def code_commit(folder: Path) -> str:
    """Return the Git commit of `folder`, or an empty text outside a repository."""
    try:
        found = subprocess.run(  # a fixed command, no text of anybody's in it
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
