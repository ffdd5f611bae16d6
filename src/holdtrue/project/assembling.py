"""Make a release of an application: build its index, put it to its test set, compare it, submit it.

The same shape as training a model, and the same loop afterwards: a release that pins versions, evidence about it,
and a gate that decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from holdtrue.core.canonical import content_hash
from holdtrue.core.clock import SystemClock
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError
from holdtrue.core.ids import version_id
from holdtrue.evaluation import (
    AnswerCache,
    AnswerView,
    Case,
    Graded,
    Helpers,
    Message,
    Passage,
    TestSet,
    ToolCall,
    compare_answers,
    run_answers,
    summarise,
)
from holdtrue.llm.application import answer_text, tool_calls
from holdtrue.llm.guardrails import GuardCase, GuardrailSpec, cases_digest, compile_guardrails, load_cases, measure
from holdtrue.llm.model import Ask, Complete, Reply
from holdtrue.llm.online import build_application, compile_parts
from holdtrue.llm.retrieval import (
    Built,
    Embedder,
    RetrievalCase,
    build_index,
    evaluate_retrieval,
    find_sources,
    open_index,
)
from holdtrue.pipelines import Pipeline
from holdtrue.project.applications import Application, contents
from holdtrue.project.definitions import Project
from holdtrue.project.questions import knowing
from holdtrue.project.training import code_commit, environment_lock

_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class Standing:
    """Hold what answers now: the release, and the contents and ids of its versions by role."""

    release: str
    contents: Mapping[str, Any]
    versions: Mapping[str, str]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Making:
    """Say what is made: a release of which application, tried how, against what, by whom."""

    application: Application
    complete: Complete
    champion: Standing | None
    author: str
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class _Parts:
    """Hold what a release would pin: kind, name, content and blobs by role; and its test set."""

    found: Mapping[str, tuple[str, str, Any, Sequence[str]]]
    standing: Standing
    tests: TestSet | None
    indexed: Mapping[str, Any] | None


def assemble(project: Project, pipeline: Pipeline, making: Making) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Run all steps and return the submission (versions, release manifest, evidence), and what became of the index."""
    application = making.application
    parts = _parts(project, pipeline, making)
    policy = project.policies.get("production")
    pinned = {role: name for role, name in parts.standing.versions.items() if role != "test_set"}
    if policy is not None:
        pinned["policy"] = version_id("policy", dump(policy))
    submission = {
        "release": {
            "service": application.name,
            "commit": code_commit(project.root),
            "environment_lock": environment_lock(),
            "versions": pinned,
            "config": parts.standing.config,
        },
        "versions": [
            {"kind": kind, "name": name, "content": content, "blobs": list(blobs)}
            for kind, name, content, blobs in parts.found.values()
        ],
        "evidence": _evidence(project, pipeline, making, parts),
        "author": making.author,
    }
    return submission, parts.indexed


def evaluate(project: Project, pipeline: Pipeline, making: Making) -> dict[str, Any]:
    """Return what the test set says of the files as they are: answers, comparison and retrieval, by kind.

    Nothing is submitted. Raises ConfigurationError for an application that has no test set.
    """
    parts = _parts(project, pipeline, making)
    if parts.tests is None:
        raise ConfigurationError(
            f"The application “{making.application.name}” has no test set, so there is nothing to ask it.",
            mend='Write one, and declare it: project.application(…, test_set="questions.jsonl")',
        )
    return {each["kind"]: each["content"] for each in _tested(project, pipeline, making, parts.standing, parts.tests)}


def make_index(project: Project, pipeline: Pipeline, application: Application, champion: Standing | None) -> Built:
    """Build the index of an application; what did not change since the version that answers now is taken over.

    Raises ConfigurationError for an application that has no index, and what `build_index` raises.
    """
    if application.index is None:
        raise ConfigurationError(
            f"The application “{application.name}” has no index.",
            mend='Declare one: project.application(…, index=ht.index("pages", "pages/*.md"))',
        )
    spec = application.index.spec
    before = None if champion is None else champion.contents.get("index")
    root = (project.root / application.index.root).resolve()
    found = find_sources(root, spec.sources, spec.parsing)
    return build_index(pipeline, pipeline.blobs, spec, found, previous=before)


def _parts(project: Project, pipeline: Pipeline, making: Making) -> _Parts:
    application = making.application
    found: dict[str, tuple[str, str, Any, Sequence[str]]] = {
        role: (kind, name, content, ()) for role, (kind, name, content) in contents(application, project.root).items()
    }
    indexed = None
    if application.index is not None:
        built = make_index(project, pipeline, application, making.champion)
        found["index"] = ("index", application.index.spec.name, built.content, built.blobs)
        indexed = built.summary
    tests = None if application.test_set is None else application.test_set.read(project.root)
    if tests is not None:
        blob = pipeline.blobs.put(tests.blob())
        found["test_set"] = ("test_set", tests.name, tests.content(), (blob,))
    versions = {role: version_id(kind, content) for role, (kind, _, content, _) in found.items()}
    config = {"kind": "application", "answering": dump(application.answering)}
    held = {role: content for role, (_, _, content, _) in found.items()}
    return _Parts(found, Standing("", held, versions, config), tests, indexed)


def _evidence(project: Project, pipeline: Pipeline, making: Making, parts: _Parts) -> list[dict[str, Any]]:
    evidence: list[dict[str, Any]] = []
    if parts.tests is not None:
        evidence += _tested(project, pipeline, making, parts.standing, parts.tests)
    rails = parts.standing.contents.get("guardrails")
    if rails is not None:
        evidence.append({"kind": "guardrails", "content": orjson.loads(_measured(pipeline, rails))})
    return evidence


def _tested(
    project: Project, pipeline: Pipeline, making: Making, mine: Standing, tests: TestSet
) -> list[dict[str, Any]]:
    """Return what a test set says of the answers, of those that are given now, and of the retrieval apart."""
    embedder = knowing(pipeline, mine.contents.get("index"), tests)
    graded = try_out(project, pipeline, making, mine, tests, embedder)
    evidence: list[dict[str, Any]] = [{"kind": "answers", "content": summarise(graded)}]
    if making.champion is not None:
        theirs = making.champion.contents.get("index")
        same = (theirs or {}).get("embedder") == (mine.contents.get("index") or {}).get("embedder")
        known = embedder if same else knowing(pipeline, theirs, tests)
        before = try_out(project, pipeline, making, making.champion, tests, known)
        compared = compare_answers(before, graded)
        evidence.append({"kind": "comparison", "content": {**compared, "against": making.champion.release}})
    found = _retrieval(pipeline, mine, tests, making.application.answering.passages, embedder)
    if found is not None:
        evidence.append({"kind": "retrieval", "content": found})
    return evidence


def try_out(
    project: Project,
    pipeline: Pipeline,
    making: Making,
    standing: Standing,
    tests: TestSet,
    embedder: Embedder | None = None,
) -> Graded:
    """Put a test set to what a release pins, and grade the answers; what was asked before is not asked again."""
    application = making.application
    parts = compile_parts(pipeline.blobs, standing.contents, standing.versions, standing.config, embedder)
    ready = build_application(parts, making.complete, lambda _project, _spans: None, SystemClock())

    async def answer(case: Case, repeat: int) -> AnswerView:
        ask = Ask(
            body={"messages": _messages(case), "variables": dict(case.inputs)},
            project=project.name,
            service=application.name,
            user=f"evaluation-{repeat}",
            key="",
            release=standing.release,
        )
        timer = SystemClock()
        started = timer.monotonic()
        reply = await ready.answer(ask)
        return _view(reply, standing.release, timer.monotonic() - started)

    async def judge(messages: Sequence[Message], schema: Mapping[str, Any]) -> str:
        """Ask the judge's model through the gateway; its reply is held to the schema of a verdict."""
        assert application.judge is not None
        form = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": dict(schema)}}
        body = {"messages": [dump(each) for each in messages], "temperature": 0, "response_format": form}
        asked = Ask({}, project.name, application.name, "judge", "", release=standing.release)
        return answer_text((await making.complete(asked, application.judge, body, "")).body)

    return run_answers(
        tests,
        answer,
        application.checks,
        helpers=Helpers(complete=None if application.judge is None else judge),
        application=_digest(standing, application),
        release=standing.release,
        repeats=making.repeats,
        cache=AnswerCache(pipeline.actions, pipeline.blobs),
        concurrency=_TOGETHER,
    )


def _digest(standing: Standing, application: Application) -> str:
    roles = ("prompt", "index", "guardrails", "route")
    pinned = {role: standing.versions[role] for role in roles if role in standing.versions}
    return content_hash({"versions": pinned, "config": dict(standing.config), "name": application.name})


def _messages(case: Case) -> list[dict[str, Any]]:
    if case.messages:
        return [{"role": each.role, "content": each.content} for each in case.messages]
    return [{"role": "user", "content": case.question}]


def _view(reply: Reply, release: str, seconds: float) -> AnswerView:
    return AnswerView(
        text=reply.text,
        tool_calls=_called(reply),
        citations=reply.cited,
        passages=tuple(Passage(hit.id, hit.document, hit.text) for hit in reply.passages),
        abstained=reply.abstained or bool(reply.blocked),
        usage={name: reply.facts[name] for name in ("input_tokens", "output_tokens") if name in reply.facts},
        cost_micros=reply.facts.get("cost_micros"),
        seconds=seconds,
        release=release,
    )


def _called(reply: Reply) -> Any:
    found: list[ToolCall] = []
    for each in tool_calls(reply.body):
        function = each.get("function", {})
        try:
            arguments = orjson.loads(function.get("arguments") or "{}")
        except orjson.JSONDecodeError:
            arguments = {}
        found.append(ToolCall(str(function.get("name", "")), arguments if isinstance(arguments, dict) else {}))
    return tuple(found)


def _retrieval(
    pipeline: Pipeline, mine: Standing, tests: TestSet, passages: int, embedder: Embedder | None
) -> dict[str, Any] | None:
    """Return how well the index finds the sources of the answerable questions, apart from any answer."""
    content = mine.contents.get("index")
    cases = [
        RetrievalCase(case.text, tuple(case.expected.sources))
        for case in tests.cases
        if case.expected.answerable and case.expected.sources
    ]
    if content is None or not cases:
        return None
    inputs = {"index": content_hash(content), "cases": content_hash([dump(each) for each in cases]), "k": passages}

    def work() -> bytes:
        index = open_index(pipeline.blobs, content, embedder)
        return orjson.dumps(evaluate_retrieval(index.search, cases, k=passages))

    return orjson.loads(pipeline.step("retrieval", inputs, work))


def _measured(pipeline: Pipeline, content: Any) -> bytes:
    """Measure guardrails on the held-out cases of their kinds; the times in it are those of the first measurement."""
    spec = load(GuardrailSpec, content, "The guardrails")
    digests: dict[str, str] = {}
    for guard in spec.guards:
        digests[guard.kind] = cases_digest(guard.kind)

    def work() -> bytes:
        seen: set[str] = set()
        cases: list[GuardCase] = []
        for guard in spec.guards:
            if guard.kind not in seen:
                cases += load_cases(guard.kind, "held_out")
            seen.add(guard.kind)
        return orjson.dumps(measure(compile_guardrails(content), cases))

    return pipeline.step("guardrails", {"guardrails": content, "cases": digests}, work)
