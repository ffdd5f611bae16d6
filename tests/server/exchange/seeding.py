"""Fill an MLflow store with one of everything, by MLflow's own client: `python -m tests.server.exchange.seeding URI`.

A process of its own, because the client keeps what it is set to in globals.
"""

# The client loads its parts lazily and hides them from type checkers; its results are optional throughout.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import importlib
import sys
from pathlib import Path

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric


def seed(uri: str) -> None:
    """Log runs, a model with files, a prompt and a trace; delete a run and an experiment."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient()
    experiment = mlflow.set_experiment("delays").experiment_id
    client.set_experiment_tag(experiment, "team", "desk")
    with mlflow.start_run(run_name="one", description="a line\nwith: colon, # and 'quotes'") as run:
        _log(run.info.run_id)
    client.delete_run(client.create_run(experiment, run_name="gone").info.run_id)
    old = client.create_experiment("old")
    client.create_run(old)
    client.delete_experiment(old)
    client.create_registered_model("late flights", tags={"k": "v"}, description="described")
    for number in (1, 2, 3):
        version = client.create_model_version("late flights", f"runs:/{run.info.run_id}/model", run.info.run_id)
        client.set_model_version_tag("late flights", version.version, "number", str(number))
    client.delete_model_version("late flights", "2")
    client.set_registered_model_alias("late flights", "champion", "3")
    client.copy_model_version("models:/late flights/3", "a copy")
    client.set_registered_model_alias("late flights", "production", "1")
    mlflow.genai.register_prompt("greet", "Hello {{name}}", commit_message="first", tags={"tone": "warm"})
    mlflow.genai.set_prompt_alias("greet", "live", 1)
    _trace()
    if "://" in uri:  # folders of MLflow keep none
        _cases(experiment)


def _cases(experiment: str) -> None:
    datasets = importlib.import_module("mlflow.genai.datasets")
    made = datasets.create_dataset(name="questions", experiment_id=experiment, tags={"stage": "first"})
    asked = [{"inputs": {"question": f"which {number}?", "k": number}} for number in range(30)]
    made.merge_records(
        [*asked, {"inputs": {"question": "näh?"}, "expectations": {"answer": "so"}, "tags": {"hard": "y"}}]
    )
    made.merge_records([{"inputs": {"question": "which 3?", "k": 3}, "outputs": {"answer": [1, None]}}])
    datasets.create_dataset(name="empty", experiment_id=experiment)


def _log(run: str) -> None:
    client = MlflowClient()
    mlflow.log_params({"depth": 3, "deep/key": "x: y", "word": "näh"})
    mlflow.set_tag("note/long", "several\nlines")
    client.log_batch(run, [Metric("many", step / 7, 1_000 + step, step) for step in range(1000)])
    client.log_batch(run, [Metric("many", step / 7, 1_000 + step, step) for step in range(1000, 1200)])
    client.log_batch(run, [Metric("odd", float("nan"), 1, 1), Metric("odd", float("inf"), 2, 2)])
    mlflow.log_text("hello", "deep/a b.txt")
    mlflow.log_text("weights", "model/weights.bin")
    mlflow.log_input(mlflow.data.from_numpy(np.zeros((4, 2)), name="zeros"), context="training")
    logged = mlflow.initialize_logged_model(name="clf", source_run_id=run, params={"C": "1"}, tags={"kind": "toy"})
    Path("card.md").write_text("a card")
    client.log_model_artifact(logged.model_id, "card.md")
    mlflow.log_metric("auc", 0.9, model_id=logged.model_id)
    mlflow.finalize_logged_model(logged.model_id, "READY")


def _trace() -> None:
    @mlflow.trace
    def answer(question: str) -> str:
        with mlflow.start_span("model", span_type="LLM") as span:
            span.set_inputs({"question": question})
            span.set_attribute("deep", {"list": [1, 2.5, None, True]})
            span.set_outputs("three")
        return "3"

    answer("one and two?")
    mlflow.flush_trace_async_logging()
    trace_id = mlflow.get_last_active_trace_id()
    mlflow.set_trace_tag(trace_id, "team", "desk")
    mlflow.log_feedback(trace_id=trace_id, name="helpful", value=True, rationale="Good.")
    mlflow.log_expectation(trace_id=trace_id, name="expected", value={"answer": 3})


if __name__ == "__main__":
    seed(sys.argv[1])
