"""Use cases of search: runs and experiments by filter and order, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.core.filters import Id, Vocabulary, parse_filter, parse_order
from holdtrue.core.paging import place_of, token_of
from holdtrue.tracking import service
from holdtrue.tracking.model import DEFAULT, PAGE_LIMIT, Experiment, Run, View
from holdtrue.tracking.search import store

_TAGS = dict.fromkeys(("tag", "tags"), "tag")
_ATTRIBUTES = dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute")

RUNS: Final = Vocabulary(
    entities=MappingProxyType(
        {
            **dict.fromkeys(("metric", "metrics"), "metric"),
            **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
            **dict.fromkeys(("dataset", "datasets"), "dataset"),
            **_TAGS,
            **_ATTRIBUTES,
        }
    ),
    attributes=MappingProxyType(
        {
            "run_id": ("id", str),
            "run_uuid": ("id", str),
            "run_name": ("name", str),
            "run name": ("name", str),
            "status": ("status", str),
            "artifact_uri": ("artifact_uri", str),
            "user_id": ("user", str),
            "lifecycle_stage": ("lifecycle", str),
            "start_time": ("start_ms", int),
            "start time": ("start_ms", int),
            "created": ("start_ms", int),
            "end_time": ("end_ms", int),
            "end time": ("end_ms", int),
        }
    ),
    numeric=frozenset({"metric"}),
    closed=MappingProxyType(
        {"dataset": MappingProxyType({"name": ("name", str), "digest": ("digest", str), "context": ("context", str)})}
    ),
)

EXPERIMENTS: Final = Vocabulary(
    entities=MappingProxyType({**_TAGS, **_ATTRIBUTES}),
    attributes=MappingProxyType(
        {
            "name": ("name", str),
            "experiment_id": ("id", Id),
            "creation_time": ("created_ms", int),
            "last_update_time": ("updated_ms", int),
        }
    ),
)

ATTRIBUTES_ALONE: Final = frozenset({"attribute"})
_ORDERED: Final = frozenset({"metric", "param", "tag", "attribute"})


@dataclass(frozen=True, slots=True)
class Search:
    """Ask for runs in experiments, as a client writes it."""

    experiments: Sequence[int] = ()
    filter: str = ""
    view: View = "active"
    limit: int = 1000
    order: Sequence[str] = ()
    page: str | None = None


def check_limit(limit: int, most: int = PAGE_LIMIT) -> int:
    """Return a page size that is served."""
    if not 1 <= limit <= most:
        raise InvalidInput(
            f"Invalid value {limit} for parameter 'max_results' supplied.",
            why=f"It must be at least 1 and at most {most}.",
        )
    return limit


def search_runs(connection: sa.Connection, project: str, wish: Search) -> tuple[list[Run], str | None]:
    """Return a page of runs with their data, and the token of the next page."""
    check_limit(wish.limit)
    wanted = tuple(sorted(set(wish.experiments)))
    conditions, orders = parse_filter(wish.filter, RUNS), parse_order(wish.order, RUNS, _ORDERED)
    question = ["runs", list(wanted), wish.filter, wish.view, list(wish.order)]
    query = store.RunQuery(wanted, wish.view, conditions, orders, wish.limit, place_of(question, wish.page))
    found = store.search_runs(connection, project, query)
    token = None if found.next is None else token_of(question, found.next)
    return service.whole_runs(connection, project, found.runs), token


def search_experiments(
    connection: sa.Connection,
    project: str,
    *,
    filter: str = "",
    view: View = "active",
    limit: int = 1000,
    order: Sequence[str] = (),
    page: str | None = None,
) -> tuple[list[Experiment], str | None]:
    """Return a page of experiments, and the token of the next page."""
    check_limit(limit)
    conditions, orders = parse_filter(filter, EXPERIMENTS), parse_order(order, EXPERIMENTS, ATTRIBUTES_ALONE)
    question = ["experiments", filter, view, list(order)]
    place = place_of(question, page)
    found, last = store.search_experiments(connection, project, view, conditions, orders, limit, place)
    if not found and place is None and not conditions and view != "deleted":
        # Nothing was written in this project yet.
        found = [] if _written(connection, project) else [service.default_experiment()]
    return found, None if last is None else token_of(question, last)


def _written(connection: sa.Connection, project: str) -> bool:
    default = service.find_experiment(connection, project, id=DEFAULT)
    return default != service.default_experiment()
