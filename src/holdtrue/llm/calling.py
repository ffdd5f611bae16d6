"""Guard what an answer gives to tools: every value in the arguments of its calls, as the words of the answer are."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdtrue.llm.guardrails.model import RANK, Decision, Verdict

Check = Callable[[str], Verdict]

# Shorter numbers are no value that a guard knows.
_DIGITS: Final = 6
_MOST_DEPTH: Final = 64
# By the kind of a call, the name of what it gives to the tool.
_GIVEN: Final = {"function": "arguments", "custom": "input"}


@dataclass(frozen=True, slots=True)
class Calls:
    """Hold the calls of an answer as guards leave them, and what they found.

    A call in which nothing is masked is the very object that came. `broken` tells that a call could not be looked
    at, or that masking it left no JSON: nothing of the answer's calls may go on then.
    """

    calls: tuple[Any, ...]
    verdicts: tuple[Verdict, ...]
    broken: bool = False

    @property
    def action(self) -> Decision:
        """Return the gravest of what follows for its values."""
        actions: list[Decision] = ["block" if self.broken else "pass", *(each.action for each in self.verdicts)]
        return max(actions, key=lambda action: RANK[action])


class _Broken(Exception):
    """A call cannot be guarded."""


class _Walker:
    def __init__(self, check: Check) -> None:
        self._check = check
        self.noted: list[Verdict] = []

    def clean(self, text: str) -> str:
        """Return a text as guards leave it."""
        if not text or text.isspace():
            return text
        verdict = self._check(text)
        if verdict.findings or verdict.failed:
            self.noted.append(verdict)
        return verdict.text

    def each(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value with its texts, names and long numbers as guards leave them."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and len(repr(value)) > _DIGITS:
            plain = repr(value)
            left = self.clean(plain)
            return value if left == plain else left
        if depth > _MOST_DEPTH:
            raise _Broken
        if isinstance(value, list):
            return [self.each(item, depth + 1) for item in value]
        if isinstance(value, Mapping):
            return {self.clean(name): self.each(item, depth + 1) for name, item in value.items()}
        return value

    def arguments(self, text: str) -> str:
        """Return a call's arguments as guards leave them; raise _Broken where no JSON would be left of JSON."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            # Providers cut calls short at the limit of tokens: a client sees as much as guards can.
            return self.clean(text)
        walked = self.each(value)
        plain = text if walked == value else json.dumps(walked, ensure_ascii=False)
        # A value may be told by the name that it stands beside.
        whole = self.clean(plain)
        if whole is not plain:
            try:
                json.loads(whole)
            except ValueError as error:
                raise _Broken from error
        return whole


def _guarded(call: Any, walker: _Walker) -> Any:
    """Return one call; raise _Broken for one of an unknown form."""
    for kind, name in _GIVEN.items():
        part = call.get(kind) if isinstance(call, Mapping) else None
        if isinstance(part, Mapping) and isinstance(part.get(name), str):
            given = walker.arguments(part[name])
            return call if given == part[name] else {**call, kind: {**part, name: given}}
    raise _Broken


def guard_calls(calls: Sequence[Any], check: Check) -> Calls:
    """Return the calls of an answer in OpenAI's form with their arguments as guards leave them."""
    walker = _Walker(check)
    left: list[Any] = []
    for call in calls:
        try:
            left.append(_guarded(call, walker))
        except _Broken:
            return Calls((), tuple(walker.noted), broken=True)
    return Calls(tuple(left), tuple(walker.noted))
