"""The answer to “why did this prediction come out so”, as an outline a person reads."""

from collections.abc import Iterator, Mapping
from typing import Any


def explained(found: Mapping[str, Any]) -> list[str]:
    """Return lines from the raw row to the data the model was made of."""
    return [*_prediction(found), *_contributed(found), *_release(found), *_decision(found), *_data(found)]


def _prediction(found: Mapping[str, Any]) -> Iterator[str]:
    said = found["prediction"]
    who = f"{said['release']} ({said['arm']})"
    answer = found.get("answer")
    score = "" if answer else f": {_number(said['score'])}"
    yield f"prediction  {said['id']}{score}, at {said['time'][:16]} by {who}"
    if said.get("fallback"):
        other = said.get("fallback_release")
        off = "the service was switched off" if said["arm"] == "stopped" else "the model failed"
        yield f"            {off}, and {other or 'the constant fallback'} answered"
    if answer:
        yield from _answer(answer)
        return
    label = found.get("label")
    if label is None:
        yield "truth       not known yet"
    else:
        yield f"truth       {_number(label['value'])}, known {label['known_at'][:16]}"
    yield "row         " + ", ".join(f"{name} {value}" for name, value in found["inputs"].items())
    yield "features    " + ", ".join(f"{name} {_number(value)}" for name, value in found["features"].items())


def _contributed(found: Mapping[str, Any]) -> Iterator[str]:
    told = found.get("contributions")
    if told is None:
        return
    yield f"because     base {_number(told['base'])}, and on the scale of the {told['scale']}:"
    errors = told.get("error", {})
    for name, value in told["values"].items():
        error = f" ± {errors[name]:.2g}" if errors else ""
        yield f"            {value:+.3g}{error}  {name}"
    yield f"            = {_number(told['total'])}"


def _answer(answer: Mapping[str, Any]) -> Iterator[str]:
    if answer.get("question"):
        yield f"question    {answer['question']}"
        yield f"answer      {answer['text']}"
    for document in answer["documents"]:
        mark = "cited" if document.get("cited") else "read"
        score = _number(document["score"])
        yield f"document    {document['document']} ({mark}, passage {document['id']}, score {score})"
    checks = ", ".join(f"{name} {_number(value)}" for name, value in answer["checks"].items())
    yield f"checks      {checks or 'none'}"
    for each in answer["feedback"]:
        comment = f" – {each['comment']}" if each["comment"] else ""
        yield f"feedback    {each['name']}: {_number(each['value'])}{comment}"
    if answer.get("trace"):
        yield f"trace       {answer['trace']} (holdtrue traces show {answer['trace']})"


def _release(found: Mapping[str, Any]) -> Iterator[str]:
    release, versions = found["release"], found["versions"]
    yield f"release     {release['id']}, made {release['created_at'][:10]} by {release['created_by']}"
    for role, version in versions.items():
        yield f"            {role}: {version['id']} ({version['name']})"
    rollout = found.get("rollout")
    if rollout:
        yield f"rollout     {rollout['id']}: {rollout['challenger']} against {rollout['champion']}, {rollout['state']}"
        if rollout.get("why"):
            yield f"            {rollout['why']}"


def _decision(found: Mapping[str, Any]) -> Iterator[str]:
    decision = found.get("decision")
    if decision is None:
        yield "decision    none recorded"
        return
    outcome = f"{decision['outcome']} for {decision['environment']}"
    yield f"decision    {decision['id']}: {outcome}, policy {decision['policy']}"
    for finding in decision["findings"]:
        yield f"            {'✓' if finding['passed'] else '✗'} {finding['rule']}: {finding['why']}"
    for approval in found["approvals"]:
        yield f"approval    {approval['name']}: {approval['reason'] or 'no reason given'}"
    for evidence in found["evidence"]:
        yield f"evidence    {evidence['id']} ({evidence['kind']})"


def _data(found: Mapping[str, Any]) -> Iterator[str]:
    dataset = found.get("dataset")
    if dataset is None:
        return
    parts = dataset["fragments"]
    rows = sum(part["rows"] for part in parts.values())
    yield f"data        {dataset['id']} ({dataset['name']}): {', '.join(parts)}; {rows:,} rows"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)
