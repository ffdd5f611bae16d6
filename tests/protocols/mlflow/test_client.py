"""The real client, unchanged: what its quick starts do, against a real server process."""

# The client loads its parts lazily and hides them from type checkers; its results are optional throughout.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalOperand=false, reportOptionalSubscript=false, reportPossiblyUnboundVariable=false

import math
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LogisticRegression

from tests.protocols.mlflow.conftest import Server

pytestmark = pytest.mark.usefixtures("mlflow_of")


def fitted() -> tuple[LogisticRegression, np.ndarray]:
    """Return a small fitted model and its inputs."""
    inputs = np.random.default_rng(0).normal(size=(60, 3))
    return LogisticRegression().fit(inputs, inputs[:, 0] > 0), inputs


def test_a_run_comes_back_as_it_was_logged() -> None:
    mlflow.set_experiment("first steps")
    with mlflow.start_run(run_name="one") as run:
        mlflow.log_param("depth", 3)
        mlflow.log_params({"rate": 0.1, "kind": "tree"})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metrics({"loss": 0.25, "nan": math.nan, "endless": math.inf}, step=2)
        mlflow.set_tag("team", "dispatch")
    client = MlflowClient()
    found = client.get_run(run.info.run_id)
    assert found.data.params == {"depth": "3", "rate": "0.1", "kind": "tree"}
    assert found.data.metrics["loss"] == 0.25
    assert math.isnan(found.data.metrics["nan"])
    assert found.data.metrics["endless"] == 1.7976931348623157e308
    assert found.data.tags["team"] == "dispatch"
    assert (found.info.run_name, found.info.status) == ("one", "FINISHED")
    assert found.info.end_time >= found.info.start_time
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]


def test_the_newest_value_is_that_of_the_greatest_step_and_moment() -> None:
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    for step, timestamp, value in ((5, 10, 1.0), (3, 99, 2.0), (5, 9, 3.0), (5, 11, 4.0)):
        client.log_metric(run, "m", value, timestamp=timestamp, step=step)
    assert client.get_run(run).data.metrics == {"m": 4.0}
    assert len(client.get_metric_history(run, "m")) == 4


def test_a_repeated_batch_counts_once() -> None:
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    metrics = [Metric("m", step / 7, 1_000 + step, step) for step in range(1000)]
    for _ in range(2):
        client.log_batch(run, metrics, [], [])
        client.log_batch(run, [], [Param("a", "1")], [RunTag("b", "2")])
    assert len(client.get_metric_history(run, "m")) == 1000
    assert client.get_run(run).data.params == {"a": "1"}


def test_nested_runs_and_search_find_children_of_a_parent() -> None:
    mlflow.set_experiment("nested")
    with mlflow.start_run() as parent:
        for depth in range(3):
            with mlflow.start_run(nested=True):
                mlflow.log_param("depth", depth)
                mlflow.log_metric("score", depth / 10)
    found = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}' AND metrics.score > 0.05",
        order_by=["metrics.score DESC"],
    )
    assert list(found["params.depth"]) == ["2", "1"]
    assert len(mlflow.search_runs(run_view_type=ViewType.DELETED_ONLY)) == 0


def test_experiments_are_named_tagged_deleted_and_restored() -> None:
    client = MlflowClient()
    made = client.create_experiment("e", tags={"k": "v"})
    with pytest.raises(MlflowException) as taken:
        client.create_experiment("e")
    assert taken.value.error_code == "RESOURCE_ALREADY_EXISTS"
    run = client.create_run(made).info.run_id
    client.set_experiment_tag(made, "k2", "v2")
    client.rename_experiment(made, "renamed")
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    assert [each.name for each in client.search_experiments(view_type=ViewType.DELETED_ONLY)] == ["renamed"]
    client.restore_experiment(made)
    assert client.get_run(run).info.lifecycle_stage == "active"
    found = client.search_experiments(filter_string="tags.k2 = 'v2' AND name LIKE 'ren%'")
    assert [(each.name, each.tags) for each in found] == [("renamed", {"k": "v", "k2": "v2"})]
    assert {each.name for each in client.search_experiments()} == {"Default", "renamed"}


def test_deleted_runs_take_nothing_and_can_be_restored() -> None:
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.delete_run(run)
    with pytest.raises(MlflowException, match="must be in the 'active' state") as refused:
        client.log_metric(run, "m", 1.0)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    client.restore_run(run)
    client.log_metric(run, "m", 1.0)
    client.set_tag(run, "t", "x")
    client.delete_tag(run, "t")
    assert client.get_run(run).data.tags.keys() == {"mlflow.runName"}
    client.set_terminated(run, "KILLED")
    client.update_run(run, name="late")
    assert (client.get_run(run).info.status, client.get_run(run).info.run_name) == ("KILLED", "late")


def test_a_parameter_is_set_once() -> None:
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.log_param(run, "a", 1)
    client.log_param(run, "a", 1)
    with pytest.raises(MlflowException, match="Changing param values is not allowed") as refused:
        client.log_param(run, "a", 2)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException):
        client.log_batch(run, [Metric("m", 1.0, 1, 1)], [Param("b", "1"), Param("a", "9")], [])
    assert client.get_run(run).data.params == {"a": "1"}
    assert client.get_run(run).data.metrics == {}


def test_artifacts_go_through_the_proxy_and_come_back_the_same(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a b.txt").write_text("näh")
    (tmp_path / "in" / "deep" / "café +1 (b).bin").write_bytes(bytes(range(256)) * 5000)
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.log_artifacts(run, str(tmp_path / "in"), "out")
    client.log_text(run, "top", "top.txt")
    assert [(each.path, each.is_dir, each.file_size) for each in client.list_artifacts(run)] == [
        ("out", True, None),
        ("top.txt", False, 3),
    ]
    assert [each.path for each in client.list_artifacts(run, "out")] == ["out/a b.txt", "out/deep"]
    got = Path(client.download_artifacts(run, "out", str(tmp_path)))
    assert (got / "a b.txt").read_text() == "näh"
    assert (got / "deep" / "café +1 (b).bin").read_bytes() == bytes(range(256)) * 5000
    with pytest.raises(MlflowException, match=r"nowhere\.txt"):
        client.download_artifacts(run, "nowhere.txt", str(tmp_path))


def test_files_are_told_from_folders_whatever_their_names(tmp_path: Path) -> None:
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    for name in (" first", "C:x", "same/same"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    client.log_artifacts(run, str(tmp_path))
    assert client.list_artifacts(run, " first") == client.list_artifacts(run, "C:x") == []
    for name in (" first", "C:x", "same/same"):
        assert Path(client.download_artifacts(run, name)).read_text() == name


def test_a_folder_that_holds_one_file_of_its_own_name_is_listed(rest: httpx.Client) -> None:
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.log_text(run, "x", "same/same")
    listed = rest.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run, "path": "same"}).json()["files"]
    assert [each["path"] for each in listed] == ["same/same"]


def test_a_dataset_keeps_its_tags_when_it_is_noted_again() -> None:
    data = mlflow.data.from_numpy(np.arange(4), name="rows")
    with mlflow.start_run() as run:
        mlflow.log_input(data, context="train", tags={"owner": "ann"})
        mlflow.log_metric("loss", 0.5, dataset=data)
        mlflow.log_input(data, tags={"owner": "bob"})
    (noted,) = MlflowClient().get_run(run.info.run_id).inputs.dataset_inputs
    assert {each.key: each.value for each in noted.tags} == {"mlflow.data.context": "train", "owner": "bob"}


def test_logged_models_are_found_and_ordered_by_their_metrics() -> None:
    client = MlflowClient()
    own = mlflow.create_experiment("candidates")
    run = client.create_run(own).info.run_id
    values = {"low": 0.1, "high": 0.9, "odd": math.nan, "none": None, "on rows": 0.5}
    for name, value in values.items():
        model = client.create_logged_model(own, name)
        if value is not None:
            where: dict[str, Any] = {"dataset_name": "rows", "dataset_digest": "d1"} if name == "on rows" else {}
            client.log_metric(run, "auc", value, model_id=model.model_id, **where)

    def found(order: dict[str, Any] | None = None, **more: Any) -> list[str]:
        return [each.name for each in client.search_logged_models([own], order_by=[order] if order else None, **more)]

    assert found({"field_name": "metrics.auc"}) == ["low", "on rows", "high", "odd", "none"]
    assert found({"field_name": "metrics.auc", "ascending": False}) == ["high", "on rows", "low", "odd", "none"]
    assert found({"field_name": "metrics.auc", "dataset_name": "rows"})[0] == "on rows"
    assert sorted(found(filter_string="metrics.auc <= 0.1")) == ["low"]
    assert found(filter_string="metrics.auc > 0", datasets=[{"dataset_name": "rows"}]) == ["on rows"]
    assert len(found(filter_string=f"experiment_id = '{own}'")) == len(values)


def test_tags_of_logged_models_go_again_whatever_their_names() -> None:
    client = MlflowClient()
    model = client.create_logged_model("0", "tagged")
    for key in ("a:b", "team/desk", "naïve name"):
        client.set_logged_model_tags(model.model_id, {key: "v"})
        client.delete_logged_model_tag(model.model_id, key)
    assert client.get_logged_model(model.model_id).tags == {}


def test_a_large_artifact_goes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1000000")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "400000")
    data = np.random.default_rng(1).bytes(1_100_001)
    (tmp_path / "big.bin").write_bytes(data)
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.log_artifact(run, str(tmp_path / "big.bin"), "parts")
    (listed,) = client.list_artifacts(run, "parts")
    assert (listed.path, listed.file_size) == ("parts/big.bin", len(data))
    (tmp_path / "got").mkdir()
    assert Path(client.download_artifacts(run, "parts/big.bin", str(tmp_path / "got"))).read_bytes() == data


def test_autologging_keeps_parameters_metrics_and_the_dataset() -> None:
    mlflow.sklearn.autolog(log_models=False, silent=True)
    try:
        with mlflow.start_run() as run:
            fitted()
            inputs = np.zeros((4, 2))
            mlflow.log_input(mlflow.data.from_numpy(inputs, name="zeros"), context="training")
    finally:
        mlflow.sklearn.autolog(disable=True)
    found = MlflowClient().get_run(run.info.run_id)
    assert found.data.params["C"] == "1.0"
    assert 0.5 < found.data.metrics["training_accuracy_score"] <= 1
    assert "zeros" in {each.dataset.name for each in found.inputs.dataset_inputs}
    by_dataset = mlflow.search_runs(experiment_ids=["0"], filter_string="dataset.name = 'zeros'")
    assert list(by_dataset.run_id) == [run.info.run_id]
    by_context = mlflow.search_runs(experiment_ids=["0"], filter_string="dataset.context = 'training'")
    assert list(by_context.run_id) == [run.info.run_id]


def test_a_model_is_logged_registered_aliased_and_loaded() -> None:
    model, inputs = fitted()
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            model, name="clf", registered_model_name="late flights", pip_requirements=["scikit-learn"]
        )
        mlflow.log_metric("auc", 0.9, model_id=info.model_id)
    client = MlflowClient()
    client.set_registered_model_alias("late flights", "champion", "1")
    expected = model.predict(inputs)
    for address in (
        info.model_uri,
        "models:/late flights/1",
        "models:/late flights@champion",
        "models:/late flights/latest",
    ):
        assert (mlflow.pyfunc.load_model(address).predict(inputs) == expected).all()
    version = client.get_model_version_by_alias("late flights", "champion")
    assert (version.version, version.run_id, version.status) == ("1", run.info.run_id, "READY")
    logged = mlflow.search_logged_models(experiment_ids=["0"], filter_string="metrics.auc > 0.8", output_format="list")
    assert [(each.model_id, each.metrics[0].value) for each in logged] == [(info.model_id, 0.9)]
    assert client.get_logged_model(info.model_id).status == "READY"
    assert [each.model_id for each in client.get_run(run.info.run_id).outputs.model_outputs] == [info.model_id]
    mlflow.set_logged_model_tags(info.model_id, {"a/b": "c"})
    client.delete_logged_model_tag(info.model_id, "a/b")
    assert "a/b" not in client.get_logged_model(info.model_id).tags


def test_names_of_any_script_need_no_quotes_in_filters() -> None:
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.log_metric(run, "größe", 3.0)
    assert [each.info.run_id for each in client.search_runs(["0"], "metrics.größe > 2")] == [run]
    assert client.search_model_versions("version_number = '7'") == []


def test_the_numbers_of_deleted_versions_are_never_given_again() -> None:
    client = MlflowClient()
    run = client.create_run("0").info
    client.log_text(run.run_id, "{}", "m/model.json")
    client.create_registered_model("m", tags={"a": "1"}, description="d")
    for _ in range(2):
        client.create_model_version("m", f"runs:/{run.run_id}/m", run.run_id)
    client.delete_model_version("m", "2")
    assert client.create_model_version("m", f"{run.artifact_uri}/m", run.run_id).version == "3"
    client.set_model_version_tag("m", "3", "k", "v")
    client.update_model_version("m", "3", "third")
    assert client.transition_model_version_stage("m", "3", "Staging").current_stage == "Staging"
    assert [each.version for each in client.get_latest_versions("m", ["Staging"])] == ["3"]
    assert [each.version for each in client.search_model_versions("name = 'm' AND tags.k = 'v'")] == ["3"]
    client.rename_registered_model("m", "n")
    assert client.get_registered_model("n").tags == {"a": "1"}
    assert [each.name for each in client.search_registered_models("name LIKE 'n%'")] == ["n"]
    client.delete_registered_model("n")
    assert client.search_registered_models() == []


def test_prompts_are_versioned_and_stay_out_of_model_searches() -> None:
    mlflow.genai.register_prompt(name="greet", template="Hello {{name}}", commit_message="first", tags={"l": "en"})
    second = mlflow.genai.register_prompt(name="greet", template="Good day {{name}}")
    mlflow.genai.set_prompt_alias("greet", "live", 2)
    assert second.version == 2
    assert mlflow.genai.load_prompt("prompts:/greet/1").format(name="Ada") == "Hello Ada"
    assert mlflow.genai.load_prompt("prompts:/greet@live").format(name="Ada") == "Good day Ada"
    assert [each.name for each in mlflow.genai.search_prompts()] == ["greet"]
    assert MlflowClient().search_registered_models() == []
    assert MlflowClient().search_model_versions() == []


def test_a_token_in_the_address_is_enough(server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    host = server.url.removeprefix("http://")
    for user in (f"any:{token}", f"{token}:any"):
        mlflow.set_tracking_uri(f"http://{user}@{host}")
        assert mlflow.search_experiments()[0].name == "Default"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.owner)
    mlflow.set_tracking_uri(server.url)
    made = MlflowClient().create_experiment("in the project that the user name says")
    answer = httpx.get(
        f"{server.url}/api/2.0/mlflow/experiments/get",
        params={"experiment_id": made},
        headers={"authorization": f"Bearer {server.token('elsewhere')}"},
    )
    assert answer.json()["experiment"]["name"] == "in the project that the user name says"


def test_the_cost_of_a_run_is_what_the_client_measured(project: str, rest: httpx.Client) -> None:
    with mlflow.start_run() as plain:
        mlflow.log_metric("loss", 0.5)
    cost = rest.get(f"/api/projects/{project}/runs/{plain.info.run_id}").json()["cost"]
    info = MlflowClient().get_run(plain.info.run_id).info
    assert [(each["name"], each["value"], each["measured"]) for each in cost["figures"]] == [
        ("seconds", (info.end_time - info.start_time) / 1000, True)
    ]
    assert set(cost["unknown"]) == {"cpu_seconds", "memory", "joules"}


def test_the_cost_of_a_run_has_the_samples_of_its_machine(
    project: str, rest: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    client = MlflowClient()
    with mlflow.start_run(log_system_metrics=True) as run:
        begun = rest.get(f"/api/projects/{project}/runs/{run.info.run_id}").json()["cost"]
        own, load = run.info.run_id, "system/cpu_utilization_percentage"
        assert any(len(client.get_metric_history(own, load)) >= 3 for _ in range(5_000))
    assert begun["unknown"]["seconds"] == "the run has not ended"
    found = client.get_run(run.info.run_id)
    cost = rest.get(f"/api/projects/{project}/runs/{run.info.run_id}").json()["cost"]
    figures = {each["name"]: each for each in cost["figures"]}
    history = client.get_metric_history(run.info.run_id, "system/system_memory_usage_megabytes")
    assert figures["machine_memory"]["value"] == pytest.approx(max(each.value for each in history) * 1e6 / 2**20)
    kept = [each.value for each in client.get_metric_history(own, load) if each.step or each.value]
    assert figures["machine_load"]["value"] == pytest.approx(sum(kept) / len(kept))
    assert figures["machine_load"]["how"].startswith(f"mean of {len(kept)} samples of 1 machine")
    assert figures["seconds"]["value"] == (found.info.end_time - found.info.start_time) / 1000
    # Nothing that reads a GPU is installed here, and the client does not measure the power of processors.
    assert cost["unknown"]["joules"] == "nothing that was logged counts energy or power"
    page = rest.get(f"/projects/{project}/runs/{run.info.run_id}").text
    assert "all processors, and whatever else ran on them" in page
