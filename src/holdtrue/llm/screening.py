"""Guard all that a client sends to an application: the question, what was said before, tools' results, variables.

Who asks can write any of it, also the turns that it says the assistant spoke, so all of it passes the same guards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.llm.guardrails.model import RANK, Decision, Verdict

MOST_CHARACTERS: Final = 1_000_000
MOST_TEXTS: Final = 2_000
_MOST_DEPTH: Final = 16
# What says how a part is to be read, and names that only tie parts together; no model is shown them as words.
_FORM: Final = frozenset({"role", "type", "id", "tool_call_id", "media_type", "format", "detail"})
_BINARY: Final = frozenset({"url", "data", "file_data"})

Check = Callable[[str], Verdict]


@dataclass(frozen=True, slots=True)
class Screened:
    """Hold a request as guards leave it, and what they found.

    `verdicts` are those of the texts in which something was found or a guard failed, `messages` the places of the
    messages that these stand in.
    """

    body: dict[str, Any]
    verdicts: tuple[Verdict, ...]
    messages: tuple[int, ...]

    @property
    def action(self) -> Decision:
        """Return the gravest of what follows for its texts."""
        actions: list[Decision] = ["pass", *(verdict.action for verdict in self.verdicts)]
        return max(actions, key=lambda action: RANK[action])

    @property
    def blocked(self) -> bool:
        """Tell whether the request must not go on."""
        return self.action == "block"


class _Reader:
    """Check each text once, however often it stands in a request."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._left = MOST_CHARACTERS
        self._known: dict[str, Verdict] = {}
        self.noted: dict[int, Verdict] = {}

    def clean(self, text: str) -> str:
        """Return a text as guards leave it."""
        if not text or text.isspace():
            return text
        verdict = self._known.get(text)
        if verdict is None:
            self._left -= len(text)
            if self._left < 0 or len(self._known) >= MOST_TEXTS:
                raise TooLarge(
                    "The conversation is too long to be checked.",
                    why=f"An application takes up to {MOST_CHARACTERS} characters in {MOST_TEXTS} texts.",
                    mend="Leave out the oldest turns.",
                )
            verdict = self._known[text] = self._check(text)
        if verdict.findings or verdict.failed:
            self.noted[id(verdict)] = verdict
        return verdict.text

    def each(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value with all its texts as guards leave them."""
        if isinstance(value, str):
            return self.clean(value)
        if depth > _MOST_DEPTH:
            raise InvalidInput(f"A message nests deeper than {_MOST_DEPTH}.", mend="Send its content as text.")
        if isinstance(value, list):
            return [self.each(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        left = _FORM if value.get("type") == "text" else _FORM | _BINARY
        return {key: item if key in left else self.each(item, depth + 1) for key, item in value.items()}


def screen(body: Mapping[str, Any], check: Check) -> Screened:
    """Return a chat request with its messages and variables as guards leave them; raise TooLarge, InvalidInput.

    Neighbouring text parts of a message become one, so that nothing is cut in two to get past a guard.
    """
    reader = _Reader(check)
    messages: list[Any] = []
    found: dict[int, Verdict] = {}
    places: list[int] = []
    for place, message in enumerate(body["messages"]):
        whole = {**message, "content": joined(message["content"])} if "content" in message else dict(message)
        messages.append(reader.each(whole))
        if reader.noted:
            places.append(place)
            found |= reader.noted
            reader.noted = {}
    made: dict[str, Any] = {**body, "messages": messages}
    if isinstance(body.get("variables"), Mapping):
        made["variables"] = {key: reader.each(value) for key, value in body["variables"].items()}
    return Screened(made, (*found.values(), *reader.noted.values()), tuple(places))


def joined(content: Any) -> Any:
    """Return a message's content with neighbouring text parts as one; one of nothing but text is that text."""
    if not isinstance(content, list):
        return content
    parts: list[Any] = []
    texts: list[str] = []

    def flush() -> None:
        if texts:
            parts.append({"type": "text", "text": "\n".join(texts)})
            texts.clear()

    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if isinstance(text, str):
            texts.append(text)
        else:
            flush()
            parts.append(part)
    flush()
    return parts[0]["text"] if len(parts) == 1 and parts[0].get("type") == "text" else parts
