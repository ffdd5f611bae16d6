"""What the attributes of a span mean: one column each for what people search and count by.

Names are those of the OpenTelemetry GenAI conventions first, then their predecessors, OpenInference, MLflow, Traceloop.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import orjson

_SHORT: Final = 200
_MOST_TOKENS: Final = 1_000_000_000
_MOST_COST: Final = 1_000_000.0

_MLFLOW_USAGE: Final = "mlflow.chat.tokenUsage"

# Column → the attributes that say it, the one that counts first.
TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "operation": (
        "gen_ai.operation.name",
        "openinference.span.kind",
        "traceloop.span.kind",
        "mlflow.spanType",
        "llm.request.type",
    ),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "model": (
        "gen_ai.request.model",
        "gen_ai.response.model",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
        "mlflow.llm.model",
    ),
    "release": ("holdtrue.release", "service.version"),
    "prompt": (
        "holdtrue.prompt",
        "gen_ai.prompt.name",
        "llm.prompt_template.version",
        "gen_ai.prompt.version",
        "mlflow.prompt.version",
    ),
    "user": ("user.id", "enduser.id", "mlflow.trace.user"),
    "session": ("session.id", "gen_ai.conversation.id", "mlflow.trace.session", "thread.id"),
    "prediction_id": ("holdtrue.prediction_id",),
}
COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        _MLFLOW_USAGE,
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        _MLFLOW_USAGE,
    ),
}
SUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "cost": ("holdtrue.cost", "gen_ai.usage.cost", "llm.cost.total", "gen_ai.usage.total_cost")
}


def facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that attributes say something about, by name."""
    found: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    meanings = _MEANINGS.get
    for name, said in attributes.items():
        known = meanings(name)
        if known is None:
            continue
        for column, rank, read in known:
            if rank < ranks.get(column, 99) and (value := read(said, name, column)) is not None:
                found[column], ranks[column] = value, rank
    return found


def _text(value: Any, name: str, column: str) -> str | None:
    if type(value) is not str or not value:
        return None
    if value[0] == '"' and name.startswith("mlflow."):  # MLflow sends every value as JSON
        value = value.strip('"')
    return value if len(value) <= _SHORT else value[:_SHORT]


def _count(value: Any, name: str, column: str) -> int | None:
    if name == _MLFLOW_USAGE:
        try:
            parts = orjson.loads(value) if type(value) is str else value
        except orjson.JSONDecodeError:
            return None
        value = parts.get(column) if isinstance(parts, dict) else None
    # A provider's word is not trusted: negative or absurd numbers are no counts.
    if type(value) in (int, float) and 0 <= value < _MOST_TOKENS:
        return int(value)
    return None


def _sum(value: Any, name: str, column: str) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < _MOST_COST else None


_Reader: TypeAlias = Callable[[Any, str, str], Any]


def _meanings() -> dict[str, tuple[tuple[str, int, _Reader], ...]]:
    """Return for each attribute the columns it says something about, with its rank in each and how it is read."""
    found: dict[str, tuple[tuple[str, int, _Reader], ...]] = {}
    for table, read in ((TEXTS, _text), (COUNTS, _count), (SUMS, _sum)):
        for column, names in table.items():
            for rank, name in enumerate(names):
                found[name] = (*found.get(name, ()), (column, rank, read))
    return found


_MEANINGS: Final = _meanings()
