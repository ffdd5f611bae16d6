"""Explain one prediction: record → features → release → decision → evidence → data."""

from datetime import timedelta
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from holdtrue import catalog, governance, traces
from holdtrue.catalog import Release, Version
from holdtrue.core.clock import from_microseconds
from holdtrue.core.codec import dump
from holdtrue.core.errors import NotFound
from holdtrue.delivery import bundles, store
from holdtrue.delivery.model import Rollout
from holdtrue.serving import Bundle, load_probed
from holdtrue.serving.assembly import compile_assembly
from holdtrue.serving.contributions import NotExplained
from holdtrue.serving.explaining import explaining
from holdtrue.storage import Stores

_LABEL_AGE = timedelta(days=400)
_ANSWER = ("documents", "checks")


def why(stores: Stores, project: str, prediction_id: str, *, contributions: bool = False) -> dict[str, Any]:
    """Return everything that made a prediction what it was; raise NotFound for an unknown id.

    Keys: prediction, inputs, features, label, answer (of an application), release, versions, dataset, rollout,
    deployment, decision, evidence, approvals; and with `contributions` what each feature contributed to the score,
    computed of the recorded features by the model of that release (NotExplained where nothing can tell).
    """
    record = stores.journal.find("prediction", project, prediction_id)
    if record is None:
        raise NotFound.of("prediction", prediction_id)
    label = _label(stores, project, record)
    answer = _answer(stores, project, record)

    def explain(connection: sa.Connection) -> dict[str, Any]:
        told = {**_of_record(record), "label": label, "answer": answer}
        return {**told, **_of_release(connection, project, record)}

    told = stores.ledger.read(explain)
    return {**told, "contributions": _contributions(stores, project, record)} if contributions else told


def _contributions(stores: Stores, project: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return what the features of a record contributed to its score."""
    if record.get("documents") is not None or record.get("score") is None or record.get("fallback"):
        raise NotExplained(
            "This answer has no contributions of features.",
            why="No model of features gave it: an application did, or what stood in for a model that failed.",
            mend="Ask without contributions: holdtrue why PREDICTION",
        )

    def look(connection: sa.Connection) -> Bundle:
        return bundles.bundle(connection, project, catalog.release(connection, project, record["release"]))

    bundle = stores.ledger.read(look)
    model = load_probed(stores.blobs.get(bundle.model.digest), bundle.model.digest, bundle.model.format)
    names = compile_assembly(bundle, model.features).names
    explain = explaining(bundle, model, names, stores.blobs.get)
    if explain is None:
        raise NotExplained(
            f"The answers of {bundle.release} are not explained.",
            why="It keeps no sample of training rows to compare with, and its model tells nothing by itself.",
            mend="Releases made by `holdtrue run` from now on keep one.",
        )
    values = [record.get(f"f_{name}") for name in names]
    row = np.array([[np.nan if value is None else value for value in values]], np.float32)
    return explain(row).of_row(0)


def _of_record(record: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in record.items() if name[:2] not in ("x_", "f_") and name not in _ANSWER}
    plain["time"] = from_microseconds(record["time"]).isoformat()
    if record.get("recorded_at") is not None:
        plain["recorded_at"] = from_microseconds(record["recorded_at"]).isoformat()
    return {
        "prediction": plain,
        "inputs": {name[2:]: value for name, value in record.items() if name.startswith("x_")},
        "features": {name[2:]: value for name, value in record.items() if name.startswith("f_")},
    }


def _answer(stores: Stores, project: str, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return what an application's answer rests on, what was checked of it, and what people said of it."""
    if record.get("documents") is None:
        return None
    since = from_microseconds(record["time"]) - timedelta(days=1)
    feedback = stores.journal.table("feedback", project, since=since, until=since + _LABEL_AGE)
    question, text = _said(stores, project, record)
    return {
        "question": question,
        "text": text,
        "documents": orjson.loads(record["documents"]),
        "checks": orjson.loads(record["checks"]),
        "trace": record.get("trace_id"),
        "feedback": [
            {name: row.get(name) for name in ("name", "value", "comment")}
            for row in feedback.to_pylist()
            if row.get("prediction_id") == record["id"]
        ],
    }


def _said(stores: Stores, project: str, record: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the beginnings of question and answer as their trace has them, None where nothing was kept."""
    if record.get("trace_id") is None:
        return None, None
    try:
        trace = traces.find_trace(stores, project, record["trace_id"])
    except NotFound:
        return None, None
    mine = [span for span in trace.spans if span.prediction_id == record["id"] and span.operation == "invoke_agent"]
    return (mine[0].input, mine[0].output) if mine else (None, None)


def _label(stores: Stores, project: str, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first label of the prediction's id or key, or None while it has not come."""
    since = from_microseconds(record["time"]) - timedelta(days=2)
    labels = stores.journal.table(
        "label",
        project,
        service=record["service"],
        since=since,
        until=since + _LABEL_AGE,
        columns=["id", "time", "key", "prediction_id", "value", "known_at"],
    )
    ids = {record["id"], record.get("prediction_id")}
    found = [
        row
        for row in labels.to_pylist()
        if row.get("prediction_id") in ids - {None}
        or (row.get("prediction_id") is None and row.get("key") is not None and row["key"] == record.get("key"))
    ]
    if not found:
        return None
    first = min(found, key=lambda row: row.get("known_at") or row["time"])
    known_at = first.get("known_at") or first["time"]
    return {
        "value": first["value"],
        "time": from_microseconds(first["time"]).isoformat(),
        "known_at": from_microseconds(known_at).isoformat(),
        "labels": len(found),
    }


def _of_release(connection: sa.Connection, project: str, record: dict[str, Any]) -> dict[str, Any]:
    release = catalog.release(connection, project, record["release"])
    versions = {role: catalog.get(connection, project, name) for role, name in release.manifest.versions.items()}
    rollout = store.rollout(connection, project, record["rollout"]) if record.get("rollout") else None
    decision = _decision(connection, project, release, record)
    evidence = (
        governance.latest_evidence(connection, project, release)
        if decision is None
        else [governance.evidence(connection, project, name) for name in decision.evidence]
    )
    return {
        "release": {
            "id": release.id,
            "service": release.service,
            "created_at": release.created_at.isoformat(),
            "created_by": release.created_by,
            "commit": release.manifest.commit,
            "environment_lock": release.manifest.environment_lock,
            "config": dict(release.manifest.config),
        },
        "versions": {role: _short(version) for role, version in versions.items()},
        "dataset": _dataset(versions.get("dataset")),
        "rollout": None
        if rollout is None
        else {
            "id": rollout.id,
            "state": rollout.state.value,
            "champion": rollout.champion,
            "challenger": rollout.challenger,
            "started_at": rollout.started_at.isoformat(),
            "why": rollout.reason or _why_so_far(rollout),
        },
        "decision": None if decision is None else dump(decision),
        "evidence": [dump(each) for each in evidence],
        "approvals": [
            dump(each)
            for each in governance.approvals(connection, project, release.id)
            if decision is None or each.id in decision.approvals
        ],
    }


def _why_so_far(rollout: Rollout) -> str:
    """Return the reason of the last judgement of a rollout, "" before the first."""
    return str(rollout.verdict.get("why", "")) if isinstance(rollout.verdict, dict) else ""


def _decision(
    connection: sa.Connection, project: str, release: Release, record: dict[str, Any]
) -> governance.Decision | None:
    """Return the decision on which the release answered (or scored in the shadow) at that moment."""
    if record.get("rollout"):
        rollout = store.rollout(connection, project, record["rollout"])
        if rollout.challenger == release.id:
            return governance.decision(connection, project, rollout.decision)
    # What was answered where an environment must be named is recorded apart, under its name.
    environment = str(record["service"]).partition("@")[2] or None
    changes = store.list_changes(connection, project, release.service, environment)
    mine = [change for change in changes if change.release == release.id]
    if not mine:
        return None
    when = record.get("recorded_at") or record["time"]
    before = [change for change in mine if change.time <= from_microseconds(when)]
    return governance.decision(connection, project, (before or mine[:1])[-1].decision)


def _short(version: Version) -> dict[str, Any]:
    return {
        "id": version.id,
        "kind": version.kind,
        "name": version.label,
        "created_at": version.created_at.isoformat(),
        "created_by": version.created_by,
    }


def _dataset(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {**_short(version), "fragments": version.content.get("fragments", {})}
