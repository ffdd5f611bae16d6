"""Predictions with named JSON fields: `POST /predict`, and an OpenAPI document for each service.

A row is one JSON object with a field for each input; a request is one row or a list of them, and is answered
by one object or a list.
"""

from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.protocols.columns import BadRequest, from_records
from holdtrue.protocols.named import answer_columns, body_of, plan_of
from holdtrue.protocols.signature import document
from holdtrue.serving import Answer, Bundle, Endpoint, Engine, Reply, Request
from holdtrue.serving.possible import said

PATH: Final = "/predict"


def endpoints(engine: Engine) -> tuple[Endpoint, ...]:
    """Return the endpoints over `engine`; all of them need the permission to predict."""
    routes = _Routes(engine)
    table = (
        ("GET", "/predict/openapi.json", routes.describe),
        ("GET", "/predict/{service}/openapi.json", routes.describe),
        ("POST", "/predict", routes.predict),
        ("POST", "/predict/{service}", routes.predict),
        ("POST", "/predict/{service}/versions/{release}", routes.predict),
    )
    return tuple(
        Endpoint(method, path, Permission.PREDICT, handle, deferrable=method == "POST")
        for method, path, handle in table
    )


class _Routes:
    """Answer over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def predict(self, request: Request) -> Reply:
        plan = await plan_of(self._engine, request)
        try:
            asked = orjson.loads(body_of(request))
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"The body is not JSON: {error}") from None
        if type(asked) not in (dict, list):
            raise BadRequest("The body is neither a JSON object nor a list of them.")
        columns = from_records(asked if type(asked) is list else [asked], "the body")
        answer = await answer_columns(self._engine, request, plan, columns)
        names = said(plan.bundle, answer)
        rows = [_row(plan.bundle, answer, row, names[row]) for row in range(len(answer.ids))]
        return Reply(200, orjson.dumps(rows if type(asked) is list else rows[0]))

    async def describe(self, request: Request) -> Reply:
        plan = await plan_of(self._engine, request)
        return Reply(200, orjson.dumps(document(plan.route.service, plan)))


def _row(bundle: Bundle, answer: Answer, row: int, said: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "outputs": {bundle.output: said},
        "prediction_id": answer.ids[row],
        "release": answer.releases[row],
        "arm": answer.arms[row],
    }
    if bundle.classes:
        chances = None if answer.chances is None else answer.chances[row]
        found["probabilities"] = None if chances is None else dict(zip(bundle.classes, chances, strict=True))
    if answer.fallback is not None:
        found["fallback"] = answer.fallback[row]
    if answer.abstained is not None:
        found["abstained"] = answer.abstained[row]
    if answer.sets is not None:
        found["set"] = answer.sets[row]
    if answer.contributions is not None:
        found["contributions"] = answer.contributions[row]
    return found
