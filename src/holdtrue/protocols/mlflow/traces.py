"""Traces: spans over OTLP at the tracking address, what is known of traces, tags, assessments, search, deletion.

Spans go to the journal where all spans are; what may be changed of a trace (tags, assessments) stands in the ledger.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from holdtrue import tracking
from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput, StorageFull, TooLarge, Unavailable
from holdtrue.door import Call, Reply, Routes
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, objects, several, text, texts, whole
from holdtrue.protocols.mlflow.tracejson import (
    ARTIFACTS,
    assessment_json,
    assessment_of,
    info_json,
    info_of,
    span_json,
)
from holdtrue.traces import Span, StoredSpan, infos
from holdtrue.traces import service as traces
from holdtrue.traces.infos import TraceInfo, TraceSearch, check_trace_id
from holdtrue.traces.intake import Intake
from holdtrue.tracking import rules

READ, WRITE = Permission.TRACES_READ, Permission.TRACES_WRITE
JUDGE, DELETE = Permission.LABELS_WRITE, Permission.RUNS_WRITE
V2, V3 = "/api/2.0/mlflow/traces", "/api/3.0/mlflow/traces"
OTLP_PATH: Final = "/v1/traces"
EXPERIMENT_HEADER: Final = "x-mlflow-experiment-id"
BODY_LIMIT: Final = 32 << 20
MOST_TRACES: Final = 100
_DEFAULT: Final = "0"


def trace_routes(intake: Intake) -> Routes:
    """Return the routes of traces; spans and texts pass through `intake` before they are stored."""
    routes = Routes("protocols.mlflow", MLFLOW)
    _spans(routes, intake)
    _stating(routes, intake)
    _reading(routes)
    _deleting(routes)
    _tags(routes, intake)
    _assessments(routes, intake)
    return routes


def _spans(routes: Routes, intake: Intake) -> None:
    @routes.add(
        "POST",
        OTLP_PATH,
        WRITE,
        summary="Take spans over OTLP, as MLflow's clients send them",
        kind="stream",
        headers=("content-type", "content-encoding", EXPERIMENT_HEADER),
    )
    async def export(call: Call) -> Any:
        """Store spans, and note their traces in the experiment that the header names."""
        from holdtrue.protocols.otlp import JSON, PROTOBUF, UnsupportedMedia, accepted, inflate
        from holdtrue.protocols.otlpbodies import Batch, read_json, read_protobuf

        media = call.headers.get("content-type", "").partition(";")[0].strip().lower().encode()
        if media not in (JSON, PROTOBUF):
            raise UnsupportedMedia("The body has a type that is not taken.", mend="Send protobuf or JSON of OTLP.")
        experiment = rules.experiment_id(call.headers.get(EXPERIMENT_HEADER) or _DEFAULT)
        await call.stores.ledger.read_async(lambda c: _active(c, call.project, experiment))
        sink = intake.sink()
        sink.check_room()
        encoding = call.headers.get("content-encoding", "identity").strip().lower().encode()
        body = inflate(await read_body(call), encoding)
        batch, seen = Batch(), dict[str, list[Span]]()
        read = read_json(body, batch) if media == JSON else read_protobuf(body, batch)
        try:
            await sink.write(call.project, _noted(read, seen))
        except StorageFull as error:  # exporters try 503 again, and drop their spans at 507
            raise Unavailable(error.what, why=error.why, mend=error.mend) from error
        found = [intake.clean(call.project, infos.from_spans(experiment, each)) for each in seen.values()]
        if found:
            await call.write_async(lambda tx: infos.begin(tx, found))
        return Reply(accepted(batch, media), media_type=media.decode())


def _active(connection: Any, project: str, experiment: int) -> tracking.Experiment:
    """Return an experiment that takes traces."""
    found = tracking.find_experiment(connection, project, id=experiment)
    if found.lifecycle != "active":
        raise tracking.NotActive(
            f"The experiment {experiment} must be in the 'active' state. Current state is deleted.",
            mend="Restore it, or use another one.",
        )
    return found


async def read_body(call: Call) -> bytes:
    """Return a streamed body, no longer than a trace may be."""
    assert call.stream is not None
    parts: list[bytes] = []
    size = 0
    async for chunk in call.stream:
        size += len(chunk)
        if size > BODY_LIMIT:
            raise TooLarge(f"The body is over {BODY_LIMIT >> 20} MiB.", mend="Send fewer or shorter spans at once.")
        parts.append(chunk)
    return b"".join(parts)


def _noted(spans: Iterable[Span], seen: dict[str, list[Span]]) -> Iterator[Span]:
    for span in spans:
        seen.setdefault(span.trace_id, []).append(span)
        yield span


def _stating(routes: Routes, intake: Intake) -> None:
    @routes.post(V3, WRITE, summary="Say what is known of a trace as a whole")
    async def start(call: Call, body: Fields) -> Any:
        """Write a trace down."""
        trace = body.get("trace")
        info = intake.clean(call.project, info_of(trace.get("trace_info") if isinstance(trace, dict) else None))

        def work(tx: Any) -> TraceInfo:
            place = _active(tx.connection, tx.project, info.experiment)
            located = f"{place.artifact_location}/traces/tr-{info.id}/artifacts"
            return infos.start(tx, replace(info, tags={**info.tags, ARTIFACTS: located}))

        return {"trace": {"trace_info": info_json(await call.write_async(work))}}


def _reading(routes: Routes) -> None:
    @routes.get(f"{V3}/get", READ, summary="Show a trace with its spans")
    def get(call: Call, body: Fields) -> Any:
        """Return a trace with its spans."""
        own = check_trace_id(body.get("trace_id"))
        return {"trace": _traces(call, [own], needed=True)[0]}

    @routes.get(f"{V3}/batchGet", READ, summary="Show several traces with their spans")
    def batch_get(call: Call, body: Fields) -> Any:
        """Return traces with their spans."""
        return {"traces": _traces(call, _ids(body, "trace_ids"))}

    @routes.post(f"{V3}/batchGetInfos", READ, summary="Show what is known of several traces")
    def batch_get_infos(call: Call, body: Fields) -> Any:
        """Return what is known of traces."""
        ids = _ids(body, "trace_ids")
        return {"trace_infos": [info_json(info) for info, _ in _found(call, ids, spans=False)]}

    @routes.get(f"{V3}/{{trace_id}}", READ, summary="Show what is known of a trace")
    def get_info(call: Call, body: Fields) -> Any:
        """Return what is known of a trace."""
        own = check_trace_id(call.path["trace_id"])
        found = _found(call, [own], spans=False)
        if not found:
            raise infos.NoTrace.named(call.path["trace_id"])
        return {"trace": {"trace_info": info_json(found[0][0])}}

    @routes.post(f"{V3}/search", READ, summary="Search traces of experiments")
    def search(call: Call, body: Fields) -> Any:
        """Return a page of traces."""
        wish = TraceSearch(
            _locations(body), text(body, "filter", ""), whole(body, "max_results", 100), texts(body, "order_by"),
            text(body, "page_token", ""),
        )  # fmt: skip

        def spans(id: str) -> list[StoredSpan]:
            return traces.spans_of(call.stores, call.project, [id])[id]

        found, token = call.read(lambda c: infos.search(c, call.project, wish, spans))
        answer: dict[str, Any] = {"traces": [info_json(each) for each in found]}
        return answer | ({"next_page_token": token} if token else {})


def _deleting(routes: Routes) -> None:
    async def delete(call: Call, body: Fields) -> Any:
        """Delete traces."""
        experiment = rules.experiment_id(body.get("experiment_id"))
        named = several(body, "request_ids") or several(body, "trace_ids")
        ids = [check_trace_id(each) for each in named] if named else None
        before, most = body.get("max_timestamp_millis"), body.get("max_traces")
        before_ms = None if before is None else whole(body, "max_timestamp_millis", 0)
        limit = None if most is None else whole(body, "max_traces", 0)
        gone = await call.write_async(
            lambda tx: infos.delete_traces(tx, experiment, ids=ids, before_ms=before_ms, most=limit)
        )
        return {"traces_deleted": gone}

    for base in (V2, V3):
        routes.post(f"{base}/delete-traces", DELETE, summary="Delete traces")(delete)


def _locations(body: Fields) -> list[int]:
    found: list[int] = []
    for each in objects(body, "locations"):
        named = each.get("mlflow_experiment")
        if not isinstance(named, dict):
            raise InvalidInput("Traces are searched in MLflow experiments only.")
        found.append(rules.experiment_id(named.get("experiment_id")))
    return found


def _ids(body: Fields, name: str) -> list[str]:
    named = several(body, name)
    if len(named) > MOST_TRACES:
        raise InvalidInput(f"A request names at most {MOST_TRACES} traces.")
    return list(dict.fromkeys(check_trace_id(each) for each in named))


def _traces(call: Call, ids: list[str], *, needed: bool = False) -> list[dict[str, Any]]:
    found = _found(call, ids, spans=True)
    if needed and not found:
        raise infos.NoTrace.named(f"tr-{ids[0]}")
    return [{"trace_info": info_json(info), "spans": [span_json(span) for span in own]} for info, own in found]


def _found(call: Call, ids: list[str], *, spans: bool) -> list[tuple[TraceInfo, list[StoredSpan]]]:
    """Return traces by their ids with their spans; one of which only spans came is told from these."""
    known = {info.id: info for info in call.read(lambda c: infos.several(c, call.project, ids))}
    missing = [each for each in ids if each not in known]
    gone = call.read(lambda c: infos.hidden(c, call.project, missing)) if missing else frozenset[str]()
    wanted = [each for each in (ids if spans else missing) if each not in gone]
    read = traces.spans_of(call.stores, call.project, wanted) if wanted else {}
    for each in missing:
        if read.get(each):
            known[each] = infos.from_spans(0, read[each])
    return [(known[each], read.get(each, [])) for each in ids if each in known]


def _tags(routes: Routes, intake: Intake) -> None:
    async def set_tag(call: Call, body: Fields) -> Any:
        """Set a tag."""
        own, key, value = check_trace_id(call.path["trace_id"]), text(body, "key"), text(body, "value", "")
        kept = intake.text(call.project, value)
        await call.write_async(lambda tx: infos.set_tag(tx, own, key, kept))
        return {}

    async def delete_tag(call: Call, body: Fields) -> Any:
        """Remove a tag."""
        own, key = check_trace_id(call.path["trace_id"]), text(body, "key")
        await call.write_async(lambda tx: infos.delete_tag(tx, own, key))
        return {}

    for base in (V2, V3):
        routes.patch(f"{base}/{{trace_id}}/tags", WRITE, summary="Set a tag of a trace")(set_tag)
        routes.delete(f"{base}/{{trace_id}}/tags", WRITE, summary="Remove a tag of a trace")(delete_tag)

    @routes.post(f"{V2}/link-to-run", WRITE, summary="Link traces to a run")
    async def link_to_run(call: Call, body: Fields) -> Any:
        """Note the run that traces belong to."""
        ids, run = _ids(body, "trace_ids"), rules.check_run_id(body.get("run_id"))

        def work(tx: Any) -> None:
            tracking.find_run_info(tx.connection, tx.project, run)
            infos.link_run(tx, ids, run)

        await call.write_async(work)
        return {}

    @routes.post(f"{V2}/link-prompts", WRITE, summary="Link prompt versions to a trace")
    async def link_prompts(call: Call, body: Fields) -> Any:
        """Note the prompt versions that a trace used."""
        own = check_trace_id(body.get("trace_id"))
        prompts = [(text(each, "name"), text(each, "version")) for each in objects(body, "prompt_versions")]
        await call.write_async(lambda tx: infos.link_prompts(tx, own, prompts))
        return {}


def _assessments(routes: Routes, intake: Intake) -> None:
    one = f"{V3}/{{trace_id}}/assessments/{{assessment_id}}"

    @routes.post(f"{V3}/{{trace_id}}/assessments", JUDGE, summary="Assess a trace")
    async def create(call: Call, body: Fields) -> Any:
        """Write an assessment down."""
        own = check_trace_id(call.path["trace_id"])
        now = int(call.stores.clock.now().timestamp() * 1000)
        row = intake.clean_assessment(call.project, assessment_of(own, body.get("assessment"), now))
        made = await call.write_async(lambda tx: infos.add_assessment(tx, row))
        return {"assessment": assessment_json(made)}

    @routes.get(one, READ, summary="Show an assessment")
    def get(call: Call, body: Fields) -> Any:
        """Return an assessment."""
        own, named = check_trace_id(call.path["trace_id"]), call.path["assessment_id"]
        return {"assessment": assessment_json(call.read(lambda c: infos.find_assessment(c, call.project, own, named)))}

    @routes.patch(one, JUDGE, summary="Change an assessment")
    async def update(call: Call, body: Fields) -> Any:
        """Change the named fields of an assessment."""
        own, named = check_trace_id(call.path["trace_id"]), call.path["assessment_id"]
        said = body.get("assessment")

        def work(tx: Any) -> Any:
            before = infos.find_assessment(tx.connection, tx.project, own, named)
            now = int(tx.now.timestamp() * 1000)
            row = intake.clean_assessment(tx.project, assessment_of(own, said, now, before))
            return infos.change_assessment(tx, row)

        return {"assessment": assessment_json(await call.write_async(work))}

    @routes.delete(one, JUDGE, summary="Delete an assessment")
    async def delete(call: Call, body: Fields) -> Any:
        """Delete an assessment."""
        own, named = check_trace_id(call.path["trace_id"]), call.path["assessment_id"]
        await call.write_async(lambda tx: infos.delete_assessment(tx, own, named))
        return {}
