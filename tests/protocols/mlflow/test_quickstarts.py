"""The quick starts of MLflow's documentation as programs of their own, against `holdtrue up`.

A program is set up as its user would: an address and a token in the environment, and not a line of it is ours.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from holdtrue.server.home import read_token
from holdtrue.server.ports import free_ports
from tests.forked import run_program

# Loaded before the programs are forked: to import them takes longer than most programs take.
LIBRARIES = ("mlflow.sklearn", "mlflow.pyfunc", "mlflow.genai", "sklearn.linear_model", "sklearn.model_selection")
PROGRAMS = {
    "autologging": """
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

mlflow.set_experiment("iris")
mlflow.sklearn.autolog()
X_train, X_test, y_train, y_test = train_test_split(*load_iris(return_X_y=True), random_state=42)
model = LogisticRegression(max_iter=500, random_state=8888)
model.fit(X_train, y_train)
model.score(X_test, y_test)
run = mlflow.last_active_run()
assert run.data.params["max_iter"] == "500"
assert run.data.metrics["training_accuracy_score"] > 0.9
assert any(key.startswith("LogisticRegression_score") for key in run.data.metrics), run.data.metrics
(logged,) = mlflow.search_logged_models(output_format="list")
assert (mlflow.sklearn.load_model(logged.model_uri).predict(X_test) == model.predict(X_test)).all()
""",
    "nested runs": """
import mlflow

mlflow.set_experiment("sweep")
with mlflow.start_run(run_name="sweep") as parent:
    for depth in (1, 2, 3):
        with mlflow.start_run(run_name=f"depth {depth}", nested=True):
            mlflow.log_param("depth", depth)
            for step in range(5):
                mlflow.log_metric("loss", 1 / (depth + step), step=step)
children = mlflow.search_runs(
    filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["metrics.loss ASC"]
)
assert list(children["params.depth"]) == ["3", "2", "1"], children
""",
    "pyfunc": """
import mlflow
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

mlflow.set_experiment("pyfunc")
X, y = load_iris(return_X_y=True, as_frame=True)
model = LogisticRegression(max_iter=500).fit(X, y)
with mlflow.start_run():
    info = mlflow.sklearn.log_model(
        sk_model=model, name="iris", signature=infer_signature(X, model.predict(X)), input_example=X.head(2),
        registered_model_name="iris-classifier",
    )
    mlflow.set_tag("Training Info", "Basic model for iris data")
MlflowClient().set_registered_model_alias("iris-classifier", "candidate", 1)
for uri in (info.model_uri, "models:/iris-classifier/1", "models:/iris-classifier@candidate"):
    loaded = mlflow.pyfunc.load_model(uri)
    assert (loaded.predict(X) == model.predict(X)).all()
    assert loaded.metadata.signature is not None
    assert loaded.input_example.shape == (2, 4)
""",
    "prompt registry": """
import mlflow

prompt = mlflow.genai.register_prompt(
    name="summarization-prompt",
    template="Summarize this in {{ num_sentences }} sentences: {{ content }}",
    commit_message="Initial commit",
    tags={"author": "author@example.com", "task": "summarization", "language": "en"},
)
assert prompt.version == 1
updated = mlflow.genai.register_prompt(
    name="summarization-prompt",
    template="You summarize. In {{ num_sentences }} sentences: {{ content }}",
    commit_message="Say who it is",
)
assert updated.version == 2
mlflow.genai.set_prompt_alias("summarization-prompt", alias="staging", version=2)
loaded = mlflow.genai.load_prompt(name_or_uri="prompts:/summarization-prompt@staging")
assert loaded.format(content="MLflow", num_sentences=1) == "You summarize. In 1 sentences: MLflow"
chat = mlflow.genai.register_prompt(
    name="chat-prompt",
    template=[{"role": "system", "content": "Be {{ style }}."}, {"role": "user", "content": "{{ q }}"}],
)
assert chat.format(style="kind", q="Hi")[0] == {"role": "system", "content": "Be kind."}
assert {each.name for each in mlflow.genai.search_prompts()} == {"summarization-prompt", "chat-prompt"}
mlflow.genai.set_prompt_version_tag("summarization-prompt", 1, "author", "somebody else")
assert mlflow.genai.load_prompt("summarization-prompt", version=1).tags["author"] == "somebody else"
mlflow.genai.delete_prompt_alias("summarization-prompt", "staging")
""",
    "tracing": """
import mlflow
from mlflow.entities import SpanType

mlflow.set_experiment("tracing")

@mlflow.trace(span_type=SpanType.TOOL)
def add(x, y):
    return x + y

@mlflow.trace
def agent(question):
    with mlflow.start_span(name="think", span_type=SpanType.CHAIN) as span:
        span.set_inputs({"question": question})
        total = add(1, 2)
        span.set_outputs({"total": total})
    mlflow.update_current_trace(tags={"fruit": "apple"}, metadata={"mlflow.trace.session": "s-1"})
    return f"It is {total}."

agent("What is one and two?")
trace_id = mlflow.get_last_active_trace_id()
trace = mlflow.get_trace(trace_id, flush=True)
mlflow.log_feedback(trace_id=trace_id, name="is_correct", value=True)
assert [span.name for span in trace.data.spans] == ["agent", "think", "add"]
assert trace.data.response == '"It is 3."' or trace.data.response == "It is 3.", trace.data.response
traces = mlflow.search_traces(filter_string="tag.fruit = 'apple'")
assert list(traces["trace_id"]) == [trace_id]
assert len(mlflow.search_traces(filter_string="metadata.`mlflow.trace.session` = 's-1'")) == 1
""",
}

PYTORCH = """
import mlflow
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
mlflow.set_experiment("pytorch")
mlflow.pytorch.autolog()
X = torch.randn(256, 12)
y = (X[:, 0] > 0).long()
train_loader = DataLoader(TensorDataset(X, y), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
criterion = nn.CrossEntropyLoss()
params = {"epochs": 5, "learning_rate": 0.01, "batch_size": 32}

with mlflow.start_run() as run:
    mlflow.log_params(params)
    for epoch in range(params["epochs"]):
        train_loss, correct = 0.0, 0
        for data, target in train_loader:
            optimizer.zero_grad()
            output = model(data)
            loss = criterion(output, target)
            loss.backward()
            optimizer.step()
            train_loss += loss.item()
            correct += (output.argmax(1) == target).sum().item()
        mlflow.log_metrics(
            {"train_loss": train_loss / len(train_loader), "train_accuracy": correct / len(X)}, step=epoch
        )
    signature = infer_signature(X.numpy(), model(X).detach().numpy())
    info = mlflow.pytorch.log_model(
        model, name="model", signature=signature, input_example=X[:2].numpy(), registered_model_name="signs"
    )

wanted = model(X).detach()
assert torch.allclose(mlflow.pytorch.load_model(info.model_uri)(X), wanted)
loaded = mlflow.pyfunc.load_model("models:/signs/1")
assert torch.allclose(torch.tensor(loaded.predict(X.numpy())), wanted, atol=1e-6)
client = MlflowClient()
history = client.get_metric_history(run.info.run_id, "train_loss")
assert [point.step for point in history] == [0, 1, 2, 3, 4]
assert history[-1].value < history[0].value
try:
    client.transition_model_version_stage(name="signs", version=1, stage="Production")
except MlflowException as refused:
    assert refused.error_code == "PERMISSION_DENIED", refused
else:
    raise AssertionError("a version of which no release was approved went into production")
"""

# The page of 3.17 logs a model by its signature alone; the client's own default format wants an example of the input.
WITHOUT_EXAMPLE = """
import mlflow
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

mlflow.set_experiment("pytorch alone")
X = torch.ones(4, 3)
model = torch.nn.Linear(3, 2)
signature = infer_signature(X.numpy(), model(X).detach().numpy())
for more in ({}, {"serialization_format": "pickle"}, {"input_example": X.numpy()}):
    with mlflow.start_run():
        try:
            mlflow.pytorch.log_model(model, name="model", signature=signature, **more)
        except MlflowException as refused:
            print("answer:", *more, refused.error_code, refused.message.partition(".")[0])
        else:
            print("answer:", *more, "logged")
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run `holdtrue up` and return what a client's environment holds."""
    home = tmp_path_factory.mktemp("quickstarts") / "home"
    port = free_ports("127.0.0.1")
    command = [sys.executable, "-m", "holdtrue", "up", "--home", str(home), "--port", str(port)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDTRUE_", "MLFLOW_"))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=kept, text=True)
    assert process.stdout is not None
    assert any(line.startswith("ready ") for line in process.stdout)
    owner, url = read_token(home), f"http://127.0.0.1:{port}"
    wish = {"roles": ["developer"], "project": "quickstarts"}
    answer = httpx.post(f"{url}/api/tokens", json=wish, headers={"authorization": f"Bearer {owner}"})
    yield {**kept, "MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": answer.json()["token"]}
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stdout.close()


# These load their models' libraries again and again, to learn what the models need; `test_client` does so once, too.
LONG = ("pyfunc", "pytorch")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(program, id=name, marks=pytest.mark.long if name in LONG else ())
        for name, program in {**PROGRAMS, "pytorch": PYTORCH}.items()
    ],
)
def test_a_quick_start_runs_unchanged(program: str, running: dict[str, str], tmp_path: Path) -> None:
    done = run_program(program, LIBRARIES, tmp_path, running)
    assert done.returncode == 0, done.stderr[-3000:]
    for complaint in ("Exception", "Failed to log", "Failed to send"):
        assert complaint not in done.stderr, done.stderr[-3000:]


@pytest.mark.long
def test_what_the_client_refuses_of_pytorch_it_refuses_without_any_server(
    running: dict[str, str], tmp_path: Path
) -> None:
    """Since 3.17 the client exports a graph unless told otherwise, and refuses to without an example of the input."""
    alone = {name: value for name, value in running.items() if not name.startswith("MLFLOW_")}
    alone["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path / 'alone.db'}"
    done = [run_program(WITHOUT_EXAMPLE, LIBRARIES, tmp_path, environ) for environ in (running, alone)]
    said = [[line for line in each.stdout.splitlines() if line.startswith("answer: ")] for each in done]
    assert (
        said[0]
        == said[1]
        == [
            "answer: INTERNAL_ERROR If `serialization_format` is set to 'pt2', then input_example is required",
            "answer: serialization_format logged",
            "answer: input_example logged",
        ]
    )
