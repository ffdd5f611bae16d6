"""Search: the filter language, its compilation to bound SQL, and pages that stay stable."""

from holdtrue.core.filters import Condition, FilterError, Order, Vocabulary, parse_filter, parse_order
from holdtrue.core.paging import place_of, token_of
from holdtrue.tracking.search.service import (
    ATTRIBUTES_ALONE,
    RUNS,
    Search,
    check_limit,
    search_experiments,
    search_runs,
)

__all__ = [
    "ATTRIBUTES_ALONE",
    "RUNS",
    "Condition",
    "FilterError",
    "Order",
    "Search",
    "Vocabulary",
    "check_limit",
    "parse_filter",
    "parse_order",
    "place_of",
    "search_experiments",
    "search_runs",
    "token_of",
]
