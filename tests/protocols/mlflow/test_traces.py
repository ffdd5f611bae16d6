"""Tracing with the real client, unchanged: spans land in the journal, infos are changed, found and deleted."""

# The client loads its parts lazily and hides them from type checkers; its results are optional throughout.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalIterable=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false, reportOptionalSubscript=false

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import mlflow
import openai
import pytest
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback, SpanType
from mlflow.exceptions import MlflowException

from tests.protocols.mlflow.conftest import Server

pytestmark = pytest.mark.usefixtures("mlflow_of")

HEX = "0af7651916cd43dd8448eb211c80319c"


IN_THE_BACKGROUND = "test_a_trace_comes_back_with_its_spans_as_they_were"


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no trace of one test's client in the next one's.

    The client sends traces in the background, and takes seconds to be done with that: one test lets it, as the quick
    start does.
    """
    if request.function.__name__ != IN_THE_BACKGROUND:
        monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    mlflow.tracing.reset()
    yield
    mlflow.flush_trace_async_logging(terminate=True)
    mlflow.tracing.reset()


@mlflow.trace(span_type=SpanType.TOOL)
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@mlflow.trace(name="answer", attributes={"kind": "quick start"})
def answer(question: str) -> str:
    """Answer a question, with a tool and a model."""
    with mlflow.start_span(name="model", span_type=SpanType.LLM) as span:
        span.set_inputs({"messages": [{"role": "user", "content": question}]})
        span.set_attribute("deep", {"list": [1, 2.5, None, True], "text": "näh"})
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        span.add_event(mlflow.entities.SpanEvent("thought", attributes={"about": "numbers"}))
        span.set_outputs({"choices": [{"message": {"role": "assistant", "content": "It is three."}}]})
    mlflow.update_current_trace(
        tags={"team": "desk"},
        metadata={"mlflow.trace.user": "ann", "mlflow.trace.session": "s-1"},
        client_request_id="request-1",
    )
    return f"{add(1, 2)}"


def traced(question: str = "What is one and two?") -> str:
    """Return the id of a trace that was just made and is stored."""
    answer(question)
    mlflow.flush_trace_async_logging()
    trace_id = mlflow.get_last_active_trace_id()
    assert trace_id is not None
    return trace_id


def test_a_trace_comes_back_with_its_spans_as_they_were() -> None:
    mlflow.set_experiment("tracing")
    with mlflow.start_run() as run:
        trace_id = traced()
    trace = mlflow.get_trace(trace_id)
    info = trace.info
    assert (info.state, info.client_request_id, info.tags["mlflow.traceName"]) == ("OK", "request-1", "answer")
    assert info.tags["team"] == "desk"
    assert info.trace_metadata["mlflow.sourceRun"] == run.info.run_id
    assert json.loads(info.request_preview) == {"question": "What is one and two?"}
    assert info.execution_duration is not None
    root, model, tool = trace.data.spans
    assert (root.name, root.parent_id, root.inputs) == ("answer", None, {"question": "What is one and two?"})
    assert (model.span_type, model.parent_id) == ("LLM", root.span_id)
    assert model.attributes["deep"] == {"list": [1, 2.5, None, True], "text": "näh"}
    assert [(event.name, event.attributes) for event in model.events] == [("thought", {"about": "numbers"})]
    assert (tool.name, tool.span_type, tool.inputs, tool.outputs) == ("add", "TOOL", {"x": 1, "y": 2}, 3)
    assert root.status.status_code == "OK"
    assert info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def test_a_failure_is_an_error_with_its_exception() -> None:
    @mlflow.trace
    def broken() -> None:
        raise ValueError("no such flight")

    with pytest.raises(ValueError, match="no such flight"):
        broken()
    mlflow.flush_trace_async_logging()
    (trace,) = mlflow.search_traces(return_type="list", filter_string="trace.status = 'ERROR'")
    assert trace.data.spans[0].status.description == "ValueError: no such flight"
    assert trace.data.spans[0].events[0].attributes["exception.type"] == "ValueError"
    for said, found in (("no such flight", 1), ("exception.type", 1), ("no such train", 0)):
        text = f"span.content LIKE '%{said}%' AND trace.text LIKE '%{said}%'"
        assert len(mlflow.search_traces(return_type="list", filter_string=text)) == found


def test_spans_are_those_of_the_pages_and_the_search_of_the_house(rest: httpx.Client) -> None:
    trace_id = traced()
    found = rest.get(f"/api/traces/{trace_id.removeprefix('tr-')}").json()
    assert [span["name"] for span in found["spans"]] == ["answer", "model", "add"]
    assert (found["input_tokens"], found["output_tokens"]) == (3, 4)
    (listed,) = rest.get(f"/api/projects/{rest.get('/api/whoami').json()['project']}/traces?text=three").json()["items"]
    assert listed["trace_id"] == trace_id.removeprefix("tr-")


def test_what_is_noted_of_a_trace_is_on_its_page(server: Server, rest: httpx.Client, project: str) -> None:
    trace_id = traced()
    mlflow.set_trace_tag(trace_id, "place", "<Roma>")
    mlflow.log_expectation(trace_id=trace_id, name="expected", value={"answer": 3})
    mlflow.log_feedback(trace_id=trace_id, name="helpful", value=True)
    own = trace_id.removeprefix("tr-")
    page = rest.get(f"/projects/{project}/traces/{own}").text
    assert "&lt;Roma&gt;" in page
    assert "expected: {&#34;answer&#34;:3}" in page
    assert "helpful" in page
    info = rest.get(f"/api/traces/{own}").json()["info"]
    assert (info["tags"]["place"], info["experiment"], info["state"]) == ("<Roma>", 0, "OK")


def test_searches_are_filtered_ordered_and_paged() -> None:
    ids = [traced(f"Question {number} of many") for number in range(3)]
    client = MlflowClient()
    client.set_trace_tag(ids[1], "chosen", "yes")

    def found(filter: str, **more: Any) -> list[str]:
        return [each.info.trace_id for each in client.search_traces(["0"], filter_string=filter, **more)]

    newest = list(reversed(ids))
    assert found("") == newest
    assert found("", order_by=["timestamp_ms ASC"]) == ids
    assert found("tag.chosen = 'yes'") == [ids[1]]
    assert found("tags.chosen IS NULL AND trace.status = 'OK'") == [ids[2], ids[0]]
    assert found("name = 'answer' AND attributes.timestamp_ms > 0 AND execution_time_ms >= 0") == newest
    assert found("metadata.`mlflow.trace.user` ILIKE 'ANN'") == newest
    assert found("client_request_id IN ('request-1', 'other')") == newest
    assert found(f"request_id = '{ids[0]}'") == found(f"trace_id IN ('{ids[0].removeprefix('tr-')}')") == [ids[0]]
    assert found("span.name = 'model' AND span.type = 'LLM'") == newest
    assert found("span.name = 'model' AND span.type = 'TOOL'") == []
    assert found("span.attributes.deep LIKE '%2.5%' AND trace.text LIKE '%Question 1%'") == [ids[1]]
    assert found("tag.chosen RLIKE '^y.s$'") == found("trace.text RLIKE 'Question [1]'") == [ids[1]]
    assert found("name RLIKE '^ans' AND metadata.`mlflow.trace.user` RLIKE 'nn$' AND status RLIKE 'O.'") == newest
    assert found(f"trace_id RLIKE '^{ids[0]}$'") == [ids[0]]
    assert found("span.name RLIKE '^mod' AND span.type RLIKE 'LLM|TOOL'") == newest
    assert found("name RLIKE 'nobody'") == found("span.name RLIKE '^$'") == found("tag.none RLIKE '.*'") == []
    mlflow.log_feedback(trace_id=ids[2], name="tone", value="kind and plain")
    assert found("feedback.tone RLIKE 'kind.*plain'", max_results=1) == [ids[2]]
    pages = [client.search_traces(["0"], filter_string="name RLIKE 'answer'", max_results=2)]
    pages.append(
        client.search_traces(["0"], filter_string="name RLIKE 'answer'", max_results=2, page_token=pages[0].token)
    )
    assert [each.info.trace_id for page in pages for each in page] == newest
    first = client.search_traces(["0"], max_results=2)
    assert [each.info.trace_id for each in first] == newest[:2]
    assert [each.info.trace_id for each in client.search_traces(["0"], max_results=2, page_token=first.token)] == [
        ids[0]
    ]
    assert len(mlflow.search_traces()) == 3
    with pytest.raises(MlflowException, match="at sign 13") as refused:
        found("tag.a = 'b' AMD name = 'c'")
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_mistake_in_a_filter_is_pointed_at() -> None:
    client = MlflowClient()
    for text, place in (("span.nope = 'a'", 6), ("timestamp RLIKE 'a'", 1), ("bogus.x = 1", 1), ("name > 1", 1)):
        with pytest.raises(MlflowException, match=f"at sign {place}:") as refused:
            client.search_traces(["0"], filter_string=text)
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("pattern", ["(", "a" * 1_001, "(?=x)", r"(a)\1"])
def test_what_is_no_regular_expression_is_refused(rest: httpx.Client, pattern: str) -> None:
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    wish = {"locations": [location], "filter": f"name RLIKE '{pattern}'"}
    answer = rest.post(f"{TRACES}/search", json=wish)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert "regular expression" in answer.json()["message"]


def test_an_evil_regular_expression_takes_no_longer_than_another(rest: httpx.Client) -> None:
    mlflow.set_trace_tag(traced(), "long", "a" * 4_000 + "!")
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    wish = {"locations": [location], "filter": "tag.long RLIKE '^(a+)+$'"}
    # With an engine that goes back, it would take longer than the universe exists.
    assert rest.post(f"{TRACES}/search", json=wish, timeout=20).json() == {"traces": []}


def test_a_deleted_experiment_takes_no_trace(rest: httpx.Client) -> None:
    client = MlflowClient()
    gone = client.create_experiment("gone")
    client.delete_experiment(gone)
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": gone}}
    refusals = [
        rest.post(TRACES, json={"trace": {"trace_info": {**INFO, "trace_location": location}}}),
        rest.post("/v1/traces", json=export(), headers={"x-mlflow-experiment-id": gone}),
    ]
    for answer in refusals:
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert "active" in answer.json()["message"]


def test_tags_are_set_and_removed() -> None:
    trace_id = traced()
    mlflow.set_trace_tag(trace_id, "a/b c", "1")
    assert mlflow.get_trace(trace_id).info.tags["a/b c"] == "1"
    mlflow.delete_trace_tag(trace_id, "a/b c")
    assert "a/b c" not in mlflow.get_trace(trace_id).info.tags
    with pytest.raises(MlflowException) as refused:
        mlflow.delete_trace_tag(trace_id, "a/b c")
    assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_assessments_are_logged_changed_overridden_and_deleted(rest: httpx.Client, project: str) -> None:
    trace_id = traced()
    person = AssessmentSource("HUMAN", "bob")
    liked = mlflow.log_feedback(trace_id=trace_id, name="helpful", value=True, source=person, rationale="Good.")
    wanted = mlflow.log_expectation(trace_id=trace_id, name="expected", value={"answer": ["3"]})
    failed = mlflow.log_feedback(trace_id=trace_id, name="judge", error=ValueError("no key"))
    assert mlflow.get_assessment(trace_id, liked.assessment_id).rationale == "Good."
    assert mlflow.get_assessment(trace_id, wanted.assessment_id).value == {"answer": ["3"]}
    assert mlflow.get_assessment(trace_id, failed.assessment_id).error.error_message == "no key"
    changed = mlflow.update_assessment(trace_id, liked.assessment_id, Feedback(name="helpful", value=0.25))
    assert (changed.value, changed.source.source_id, changed.rationale) == (0.25, "bob", "Good.")
    told = rest.get(f"/api/traces/{trace_id.removeprefix('tr-')}").json()["feedback"]
    assert [(each["name"], each["value"], each["user"]) for each in told] == [("helpful", 0.25, "bob")]
    listed = rest.get(f"/api/projects/{project}/traces", params={"feedback": "helpful", "feedback_most": 0.3}).json()
    assert [each["trace_id"] for each in listed["items"]] == [trace_id.removeprefix("tr-")]
    over = mlflow.override_feedback(trace_id=trace_id, assessment_id=liked.assessment_id, value="no")
    valid = {each.assessment_id: each.valid for each in mlflow.get_trace(trace_id).info.assessments}
    assert (valid[liked.assessment_id], valid[over.assessment_id]) == (False, True)
    client = MlflowClient()
    assert len(client.search_traces(["0"], filter_string="feedback.helpful = 'no'")) == 1
    assert len(client.search_traces(["0"], filter_string="feedback.helpful > 0.2")) == 0
    mlflow.delete_assessment(trace_id=trace_id, assessment_id=over.assessment_id)
    mlflow.delete_assessment(trace_id=trace_id, assessment_id=wanted.assessment_id)
    kept = {each.assessment_id: each.valid for each in mlflow.get_trace(trace_id).info.assessments}
    assert kept == {liked.assessment_id: True, failed.assessment_id: True}
    with pytest.raises(MlflowException) as missing:
        mlflow.get_assessment(trace_id, over.assessment_id)
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_deleted_traces_are_gone_everywhere(rest: httpx.Client, project: str) -> None:
    gone, kept = traced("first"), traced("second")
    client = MlflowClient()
    assert client.delete_traces(experiment_id="0", trace_ids=[gone]) == 1
    assert mlflow.get_trace(gone) is None
    assert [each.info.trace_id for each in client.search_traces(["0"])] == [kept]
    assert rest.get(f"/api/traces/{gone.removeprefix('tr-')}").status_code == 404
    listed = rest.get(f"/api/projects/{project}/traces").json()["items"]
    assert [each["trace_id"] for each in listed] == [kept.removeprefix("tr-")]
    latest = client.get_trace(kept).info.request_time
    assert client.delete_traces(experiment_id="0", max_timestamp_millis=latest, max_traces=5) == 1
    assert client.search_traces(["0"]) == []


def test_secrets_are_left_out_before_anything_is_stored(server: Server) -> None:
    secret = "sk-" + "q7" * 20
    trace_id = traced(f"My key is {secret}, keep it")
    mlflow.set_trace_tag(trace_id, "note", f"Bearer {secret}")
    mlflow.log_feedback(trace_id=trace_id, name="n", value="x", rationale=f"it says {secret}")
    trace = mlflow.get_trace(trace_id)
    assert "[redacted]" in trace.data.spans[0].inputs["question"]
    assert "[redacted]" in trace.info.request_preview
    for path in server.home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path.name


def test_calls_of_a_model_are_logged_by_themselves() -> None:
    def model(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        message = {"role": "assistant", "content": f"You said: {asked['messages'][0]['content']}"}
        return httpx.Response(
            200,
            json={
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11},
            },
        )

    mlflow.openai.autolog()
    try:
        with httpx.Client(transport=httpx.MockTransport(model)) as http:
            client = openai.OpenAI(api_key="test", base_url="http://model.test/v1", http_client=http)
            client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
    finally:
        mlflow.openai.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    (trace,) = mlflow.search_traces(return_type="list")
    (span,) = trace.data.spans
    assert (span.span_type, span.outputs["choices"][0]["message"]["content"]) == ("CHAT_MODEL", "You said: Hello")
    assert trace.info.token_usage["total_tokens"] == 11


def test_traces_are_linked_to_a_run() -> None:
    trace_id = traced()
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.link_traces_to_run([trace_id], run)
    assert [each.info.trace_id for each in client.search_traces(locations=["0"], run_id=run)] == [trace_id]


def test_traces_are_found_by_the_version_of_a_prompt(rest: httpx.Client) -> None:
    """The client's own tag has spaces between its parts, this server's has none."""
    client = MlflowClient()
    said = mlflow.genai.register_prompt("greet_all", "Hello {{name}}")
    by_call, by_tag, other = traced(), traced(), traced()
    client.link_prompt_versions_to_trace([said], by_call)
    client.set_trace_tag(by_tag, "mlflow.linkedPrompts", json.dumps([{"name": said.name, "version": "1"}]))
    client.set_trace_tag(other, "mlflow.linkedPrompts", json.dumps([{"name": said.name, "version": "11"}]))

    def found(text: str) -> set[str]:
        return {each.info.trace_id for each in client.search_traces(locations=["0"], filter_string=text)}

    assert found("prompt = 'greet_all/1'") == {by_call, by_tag}
    assert found("trace.prompt = 'greet_all/2'") == found("prompt = 'GREET_ALL/1'") == set()
    for text in ("prompt LIKE 'greet%/1'", "prompt = 'greet'", "prompt IS NULL"):
        with pytest.raises(MlflowException, match="at sign 1: Traces of a prompt"):
            found(text)
    client.set_trace_tag(other, "mlflow.linkedPrompts", "no list")
    link = {"trace_id": other, "prompt_versions": [{"name": said.name, "version": "1"}]}
    refused = rest.post("/api/2.0/mlflow/traces/link-prompts", json=link)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), refused.text
    by_server = traced()
    assert rest.post("/api/2.0/mlflow/traces/link-prompts", json=link | {"trace_id": by_server}).status_code == 200
    assert found("prompt = 'greet_all/1'") == {by_call, by_tag, by_server}


def export(**more: Any) -> dict[str, Any]:
    """Return an export request of one span."""
    span = {"traceId": HEX, "spanId": "b7ad6b7169203331", "name": "root", "startTimeUnixNano": "1000000000000000000"}
    span |= {"endTimeUnixNano": "1000000001000000000", **more}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def test_plain_exporters_may_send_here_and_their_traces_are_found(rest: httpx.Client) -> None:
    packed = gzip.compress(json.dumps(export()).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert rest.post("/v1/traces", content=packed, headers=headers).json() == {}
    (found,) = MlflowClient().search_traces(["0"])
    assert (found.info.trace_id, found.data.spans[0].name) == (f"tr-{HEX}", "root")


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{}", {"content-type": "text/plain"}, 415, "BAD_REQUEST"),
        (b"[]", {"content-type": "application/json"}, 400, "INVALID_PARAMETER_VALUE"),
        (b"no protobuf", {"content-type": "application/x-protobuf"}, 400, "INVALID_PARAMETER_VALUE"),
        (b"{}", {"content-type": "application/json", "content-encoding": "br"}, 415, "BAD_REQUEST"),
        (b"{}", {"content-type": "application/json", "x-mlflow-experiment-id": "77"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        (b"{}", {"content-type": "application/json", "x-mlflow-experiment-id": "a"}, 400, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_exports_that_are_none_are_refused(
    rest: httpx.Client, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = rest.post("/v1/traces", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


def test_malformed_spans_are_counted_and_the_rest_is_stored(rest: httpx.Client) -> None:
    body = export()
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].append({"traceId": "12", "spanId": "1"})
    answer = rest.post("/v1/traces", json=body)
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert len(MlflowClient().search_traces(["0"])) == 1


TRACES = "/api/3.0/mlflow/traces"
INFO = {
    "trace_id": f"tr-{HEX}",
    "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
    "request_time": "2026-03-01T12:00:00.250Z",
    "execution_duration": "1.5s",
    "state": "OK",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"trace_id": "tr-../../x"},
        {"trace_id": None},
        {"trace_location": {"type": "INFERENCE_TABLE"}},
        {"trace_location": []},
        {"request_time": "yesterday"},
        {"request_time": 12},
        {"execution_duration": "-1s"},
        {"state": "FINE"},
        {"trace_metadata": {"a": 1}},
        {"trace_metadata": {"a": "x" * 9000}},
        {"tags": {"k" * 300: "x"}},
        {"tags": {str(number): "x" for number in range(300)}},
        {"client_request_id": "x" * 300},
    ],
)
def test_traces_that_cannot_be_are_refused(rest: httpx.Client, wrong: dict[str, Any]) -> None:
    answer = rest.post(TRACES, json={"trace": {"trace_info": {**INFO, **wrong}}})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert rest.get(f"{TRACES}/tr-{HEX}").status_code == 404


def test_a_trace_may_be_stated_twice_and_spans_come_before_or_after(rest: httpx.Client) -> None:
    late = {"trace": {"trace_info": {**INFO, "tags": {"t": "v"}}, "unknown": 1}}
    assert rest.post(TRACES, json=late).status_code == 200
    first = rest.post(TRACES, json=late).json()["trace"]["trace_info"]
    assert (first["execution_duration"], first["request_time"]) == ("1.500s", "2026-03-01T12:00:00.250Z")
    assert rest.post("/v1/traces", json=export()).status_code == 200
    # What the sender said of the whole is not overwritten by what a span says.
    assert rest.get(f"{TRACES}/tr-{HEX}").json()["trace"]["trace_info"]["execution_duration"] == "1.500s"
    assert len(rest.get(f"{TRACES}/get", params={"trace_id": f"tr-{HEX}"}).json()["trace"]["spans"]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"assessment_name": "n"},
        {"assessment_name": "n", "feedback": {"value": 1}, "expectation": {"value": 1}},
        {"assessment_name": "", "feedback": {"value": 1}},
        {"assessment_name": "n", "feedback": {"value": 1}, "trace_id": "tr-" + "1" * 32},
        {"assessment_name": "n", "feedback": {"value": 1}, "metadata": {"a": 1}},
        {"assessment_name": "n", "feedback": {"value": 1}, "create_time": "now"},
        {"assessment_name": "n", "expectation": {"serialized_value": {"value": "{"}}},
    ],
)
def test_assessments_that_cannot_be_are_refused(rest: httpx.Client, wrong: dict[str, Any]) -> None:
    rest.post(TRACES, json={"trace": {"trace_info": INFO}})
    answer = rest.post(f"{TRACES}/tr-{HEX}/assessments", json={"assessment": wrong})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "assessments" not in rest.get(f"{TRACES}/tr-{HEX}").json()["trace"]["trace_info"]


def test_traces_of_another_project_are_not_seen(server: Server, rest: httpx.Client) -> None:
    rest.post(TRACES, json={"trace": {"trace_info": INFO}})
    rest.post("/v1/traces", json=export())
    with server.rest(server.token("elsewhere")) as other:
        assert other.get(f"{TRACES}/tr-{HEX}").status_code == 404
        assert other.get(f"{TRACES}/batchGet", params={"trace_ids": f"tr-{HEX}"}).json() == {"traces": []}
        assert other.patch(f"{TRACES}/tr-{HEX}/tags", json={"key": "a", "value": "b"}).status_code == 404
        deleted = other.post(f"{TRACES}/delete-traces", json={"experiment_id": "0", "request_ids": [f"tr-{HEX}"]})
        assert deleted.json() == {"traces_deleted": 0}
    with server.rest(server.token("readers", "viewer")) as reader:
        assert reader.post(TRACES, json={"trace": {"trace_info": INFO}}).json()["error_code"] == "PERMISSION_DENIED"


def test_a_deletion_names_what_goes(rest: httpx.Client) -> None:
    answer = rest.post(f"{TRACES}/delete-traces", json={"experiment_id": "0"})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
