"""The noun of explanations, which pages and the report share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Why:
    """Hold one node of an explanation: what it is, its facts, its page, and what it rests on."""

    kind: str
    name: str
    facts: tuple[tuple[str, str], ...] = ()
    because: tuple["Why", ...] = ()
    url: str | None = None
