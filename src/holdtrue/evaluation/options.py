"""The options of each kind of check, and what makes them unusable."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdtrue.evaluation.matching import BadCheck, check_pattern, check_schema


@dataclass(frozen=True, slots=True)
class Exact:
    """Options of “exact”: the answer is one of the reference answers, apart from what may differ."""

    ignore_case: bool = True
    ignore_punctuation: bool = True


@dataclass(frozen=True, slots=True)
class Contains:
    """Options of “contains”: the case's strings (with `any`, one of them) and `must` are there, and `never` is not."""

    any: bool = False
    ignore_case: bool = True
    must: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Regex:
    """Options of “regex”: the case's pattern, or else `pattern`, of RE2, is found in the answer (`absent`: is not)."""

    pattern: str = ""
    absent: bool = False


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """Options of “json_schema”: the answer is JSON of the case's schema, or else of `json_schema`."""

    json_schema: Mapping[str, Any] | None = None
    fenced: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """Options of “tool_call”: the case's calls were made, with at least (`exact`: only) their arguments."""

    exact: bool = False
    ordered: bool = False
    extra: bool = False


@dataclass(frozen=True, slots=True)
class Similarity:
    """Options of “similarity”: likeness to the closest reference answer, by words (F1) or by meaning (cosine)."""

    by: Literal["words", "embedding"] = "words"
    minimum: float = 0.6
    embedding: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """Options of “citation”: what is cited was retrieved, is the expected source, and holds what the answer says.

    `source` says where the case's sources must be (any of them; with `all_sources`, all). `support` is the share of a
    sentence's words of content that the cited passages must have (0: not looked at), `sentences` the share of
    sentences of which that must be true.
    """

    source: Literal["cited", "retrieved", "anywhere"] = "cited"
    all_sources: bool = False
    support: float = 0.6
    sentences: float = 0.8


@dataclass(frozen=True, slots=True)
class Abstention:
    """Options of “abstention”: `phrases` that, near the beginning of an answer, mean that it declines."""

    phrases: tuple[str, ...] = (
        "i don't know",
        "i do not know",
        "i cannot answer",
        "i can't answer",
        "i am not able to answer",
        "i'm not able to answer",
        "i could not find",
        "i couldn't find",
        "i have no information",
        "there is no information",
        "the documents do not",
        "the sources do not",
        "the passages do not",
        "the context does not",
    )


@dataclass(frozen=True, slots=True)
class Length:
    """Options of “length”: bounds on words and characters."""

    min_words: int = 0
    max_words: int | None = None
    min_characters: int = 0
    max_characters: int | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Options of “latency”: the most seconds that an answer may take."""

    max_seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Options of “cost”: the most that an answer may cost, in millionths of the gateway's currency."""

    max_micros: int


def check_options(options: Any) -> None:
    """Raise BadCheck for options that no answer could be graded by."""
    if isinstance(options, Regex) and options.pattern:
        check_pattern(options.pattern)
    elif isinstance(options, JsonSchema) and options.json_schema is not None:
        check_schema(options.json_schema)
    elif isinstance(options, Similarity):
        _between("minimum", options.minimum, 0.0, 1.0)
    elif isinstance(options, Citation):
        _between("support", options.support, 0.0, 1.0)
        _between("sentences", options.sentences, 0.0, 1.0)
    elif isinstance(options, Contains) and any(not text for text in (*options.must, *options.never)):
        raise BadCheck("A check “contains” has an empty string.", why="Every text has that.", mend="Remove it.")
    elif isinstance(options, Length):
        _ordered("words", options.min_words, options.max_words)
        _ordered("characters", options.min_characters, options.max_characters)
    elif isinstance(options, Latency):
        _between("max_seconds", options.max_seconds, 0.0, math.inf)
    elif isinstance(options, Cost):
        _between("max_micros", options.max_micros, 0.0, math.inf)


def _between(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        limits = f"between {least:g} and {most:g}" if math.isfinite(most) else f"at least {least:g}"
        raise BadCheck(f"The option {name} is {value}.", why=f"It is {limits}.", mend="Choose another number.")


def _ordered(name: str, least: int, most: int | None) -> None:
    if least < 0 or (most is not None and most < least):
        raise BadCheck(f"A length of {least} to {most} {name} does not exist.", mend="Choose other numbers.")
