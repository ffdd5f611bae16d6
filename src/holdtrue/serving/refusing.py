"""What the contracts of a rollout's two releases refuse: noted for each request, so that the rollout is judged on it.

Nobody is refused because of a challenger: a request that only its contract refuses is answered by the champion.
"""

from typing import Any

from holdtrue.serving.assembly import Check, Columns
from holdtrue.serving.snapshot import Bundle, Route

REFUSAL = "refusal"
"""The kind of record in the journal."""


def challenger_of(route: Route) -> str | None:
    """Return the release that wants the place of the first arm's, None without a rollout."""
    if route.rollout is None:
        return None
    if len(route.arms) > 1:
        return route.arms[-1].release
    return route.shadows[0] if route.shadows else None


def rival_check(champion: Bundle, challenger: Bundle, check: Check | None) -> Check | None:
    """Return what the challenger's contract finds in a request of today; None if both contracts are the same."""
    if check is None or champion.contract == challenger.contract:
        return None
    names = frozenset(each.name for each in challenger.inputs)

    def rival(columns: Columns) -> Any:
        return check({name: values for name, values in columns.items() if name in names})

    return rival


def refuses(check: Check, columns: Columns) -> bool:
    """Tell whether a contract refuses a request: it breaks a rule that does more than warn."""
    return any(each.severity != "warn" for each in check(columns))


def refusal_columns(
    route: Route, now_us: int, prediction: str, request_id: str | None, rows: int, *, champion: bool, challenger: bool
) -> dict[str, Any]:
    """Return the record of one request that one of the two contracts refuses, or both."""
    name = prediction.replace("prd_", "ref_", 1)
    return {
        "id": [name],
        "time": now_us,
        "recorded_at": now_us,
        "request_id": request_id or name,
        "rollout": route.rollout,
        "rows": rows,
        "champion": champion,
        "challenger": challenger,
    }
