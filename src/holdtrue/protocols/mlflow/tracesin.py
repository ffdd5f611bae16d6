"""Traces brought over from another system: written down as they were, spans into the journal, nothing twice."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from holdtrue import tracking
from holdtrue.core.access import Permission
from holdtrue.core.codec import load
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.tracejson import ARTIFACTS, assessment_of, info_of, moment_of
from holdtrue.protocols.mlflow.traces import read_body
from holdtrue.traces import infos
from holdtrue.traces import service as traces
from holdtrue.traces.intake import Intake


@dataclass(frozen=True, slots=True)
class ImportedTrace:
    """Carry a trace: the protocol's own JSON of its info and assessments, and its spans as OTLP's JSON."""

    experiment: str
    info: Mapping[str, Any]
    spans: Mapping[str, Any] = field(default_factory=dict[str, Any])
    assessments: tuple[Mapping[str, Any], ...] = ()


def imported_routes(intake: Intake) -> Routes:
    """Return the routes of traces that are brought over."""
    routes = Routes("protocols.mlflow")

    @routes.add(
        "POST",
        "/api/projects/{project}/imported-traces",
        Permission.TRACES_WRITE,
        summary="Bring a trace over as it was",
        kind="stream",
    )
    async def bring(call: Call) -> Any:
        """Write a trace down with its spans and assessments; the body is JSON. Returns what there is of it now."""
        return await _bring(call, intake, _parsed(await read_body(call)))

    return routes


def _parsed(body: bytes) -> ImportedTrace:
    try:
        return load(ImportedTrace, orjson.loads(body), "The request")
    except orjson.JSONDecodeError as error:
        raise InvalidInput("The body is not JSON.", why=str(error)) from None


async def _bring(call: Call, intake: Intake, wish: ImportedTrace) -> dict[str, Any]:
    from holdtrue.protocols.otlpbodies import parse_json

    place = await call.stores.ledger.read_async(
        lambda c: tracking.find_experiment(c, call.project, name=wish.experiment)
    )
    location = {"mlflow_experiment": {"experiment_id": str(place.id)}}
    info = intake.clean(call.project, info_of({**wish.info, "trace_location": location}))
    located = f"{place.artifact_location}/traces/tr-{info.id}/artifacts"
    info = replace(info, tags={**info.tags, ARTIFACTS: located})
    batch = await asyncio.to_thread(lambda: parse_json(orjson.dumps(wish.spans)))
    known = (await asyncio.to_thread(traces.spans_of, call.stores, call.project, [info.id]))[info.id]
    have = {span.span_id for span in known}
    new = [span for span in batch.spans if span.trace_id == info.id and span.span_id not in have]
    if new:
        await intake.sink().write(call.project, new)
    rows = [_assessment(call, intake, info.id, each) for each in wish.assessments]

    def work(tx: Any) -> None:
        infos.start(tx, info)
        infos.bring_assessments(tx, rows)

    await call.write_async(work)
    return {"id": info.id, "spans": len(have) + len(new), "rejected": batch.rejected, "assessments": len(rows)}


def _assessment(call: Call, intake: Intake, trace: str, said: Mapping[str, Any]) -> infos.Assessment:
    """Return an assessment under the id and with the moments it had."""
    named = said.get("assessment_id")
    if not isinstance(named, str) or not 1 <= len(named) <= 64:
        raise InvalidInput("An assessment that is brought over has the id it had.")
    row = assessment_of(trace, dict(said), int(call.stores.clock.now().timestamp() * 1000))
    updated = moment_of(said.get("last_update_time") or said.get("create_time"), "last_update_time")
    kept = replace(row, id=named, updated_ms=updated, valid=said.get("valid", True) is not False)
    return intake.clean_assessment(call.project, kept)
