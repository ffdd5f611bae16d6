"""Prompts: logic-less templates with typed variables, written as TOML files, rendered into chat requests.

`{{name}}` stands for a variable and is replaced once, as text. Everything else in double braces is text: there
are no expressions, no attributes, no loops, so that neither a template nor a value can compute anything.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, InvalidInput, NotFound
from holdtrue.core.ids import check_name
from holdtrue.llm.gateway.rules import stated_limit

_VARIABLE: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST_CHARACTERS: Final = 200_000
MOST_VALUE: Final = 400_000
_PARAMETERS: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "top_k",
        "top_logprobs",
        "top_p",
    }
)


class BadPrompt(ConfigurationError):
    """A prompt cannot be used as it is written."""

    code = "bad_prompt"


class PromptVariable(InvalidInput):
    """A value for a prompt's variable is missing, unknown or of another type."""

    code = "prompt_variable"


@dataclass(frozen=True, slots=True)
class Variable:
    """Describe a variable of a prompt.

    `source` says where its value comes from: the caller's `variables`, the last message of the user, or the
    passages that were retrieved. A `list` is written as one line per item.
    """

    type: Literal["string", "integer", "number", "boolean", "list"] = "string"
    source: Literal["caller", "user", "retrieval"] = "caller"
    default: Any = None
    required: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one message of a chat template."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Hold one prompt: messages, variables, model parameters, tools, and the schema of its output.

    Its JSON form is the content of a version of the kind “prompt”. `model` names the provider's model that is
    asked when the prompt is used alone.
    """

    messages: tuple[Message, ...]
    variables: dict[str, Variable] = field(default_factory=dict[str, Variable])
    model: str = ""
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    tools: tuple[dict[str, Any], ...] = ()
    output: dict[str, Any] | None = None
    description: str = ""

    @property
    def question(self) -> str | None:
        """Return the variable that takes the user's last message, if there is one."""
        return next((name for name, each in self.variables.items() if each.source == "user"), None)

    @property
    def passages(self) -> str | None:
        """Return the variable that takes the retrieved passages, if there is one."""
        return next((name for name, each in self.variables.items() if each.source == "retrieval"), None)


def read_prompt(path: Path) -> tuple[str, Prompt]:
    """Return the name and the prompt in a TOML file; raise BadPrompt or NotFound that names file and place.

    The name is the file's `name`, or else that of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"There is no prompt file at {path}.", mend="Write it, or correct the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path.name, f"it cannot be read: {error}", "Save it as UTF-8 text.") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad(path.name, f"it is not TOML: {error}", "Correct that place.") from None
    name = data.pop("name", path.stem)
    return check_name(str(name), "prompt name"), parse_prompt(data, path.name)


def parse_prompt(data: Any, what: str) -> Prompt:
    """Return the prompt that JSON describes; raise BadPrompt for what could not be rendered."""
    try:
        prompt = load(Prompt, data, f"The prompt {what}")
    except ConfigurationError as error:
        raise BadPrompt(error.what, why=error.why, mend=error.mend, facts=error.facts) from None
    _check(prompt, what)
    return prompt


def content_of(prompt: Prompt) -> dict[str, Any]:
    """Return the content under which a prompt is registered."""
    return dump(prompt)


def _check(prompt: Prompt, what: str) -> None:
    if not prompt.messages:
        raise _bad(what, "it has no messages", "Write at least one [[messages]] with role and content.")
    if sum(len(each.content) for each in prompt.messages) > MOST_CHARACTERS:
        raise _bad(what, f"its messages have more than {MOST_CHARACTERS} characters", "Shorten them.")
    used = {name for each in prompt.messages for name in _VARIABLE.findall(each.content)}
    for name in sorted(used - prompt.variables.keys()):
        known = ", ".join(sorted(prompt.variables)) or "none"
        raise _bad(
            what, f"it uses {{{{{name}}}}}, which is not declared (declared: {known})", f"Add [variables.{name}]."
        )
    for name in sorted(prompt.variables.keys() - used):
        raise _bad(what, f"the variable {name} is declared and not used", "Use it, or remove its declaration.")
    for name, variable in prompt.variables.items():
        if _IDENTIFIER.fullmatch(name) is None:
            raise _bad(what, f"{name!r} is not a variable's name", "Use letters, digits and underscores.")
        if variable.default is not None:
            _text(what, name, variable, variable.default)
    for source in ("user", "retrieval"):
        named = [name for name, each in prompt.variables.items() if each.source == source]
        if len(named) > 1:
            raise _bad(what, f"{' and '.join(named)} both take the {source}'s text", "Let one variable do so.")
    unknown = sorted(prompt.parameters.keys() - _PARAMETERS)
    if unknown:
        raise _bad(what, f"there is no parameter {unknown[0]!r}", f"Known: {', '.join(sorted(_PARAMETERS))}.")
    for tool in prompt.tools:
        function = tool.get("function") if isinstance(tool.get("function"), dict) else None
        if tool.get("type") != "function" or function is None or not isinstance(function.get("name"), str):
            raise _bad(what, "a tool has not the form of the chat API", 'Write type = "function" and [tools.function].')
    if prompt.output is not None and not isinstance(prompt.output.get("type"), str):
        raise _bad(what, "its output is not a JSON schema with a type", 'Write for example type = "object".')


def render(prompt: Prompt, values: Mapping[str, Any], what: str = "") -> list[dict[str, Any]]:
    """Return the messages with `values` in their places; raise PromptVariable for what does not fit."""
    unknown = sorted(values.keys() - prompt.variables.keys())
    if unknown:
        raise PromptVariable(
            f"The prompt {what} has no variable {unknown[0][:80]!r}.".replace("  ", " "),
            why=f"Its variables: {', '.join(sorted(prompt.variables)) or 'none'}.",
            mend="Leave it out, or correct its name.",
            facts={"variable": unknown[0][:80]},
        )
    texts: dict[str, str] = {}
    for name, variable in prompt.variables.items():
        value = values.get(name, variable.default)
        if value is None and variable.required:
            raise PromptVariable(
                f"The prompt {what} needs a value for the variable “{name}”.".replace("  ", " "),
                why=variable.description or f"It is of the type {variable.type} and has no default.",
                mend=f'Send it: "variables": {{"{name}": …}}',
                facts={"variable": name},
            )
        texts[name] = "" if value is None else _text(what, name, variable, value)
    return [
        {"role": each.role, "content": _VARIABLE.sub(lambda found: texts[found[1]], each.content)}
        for each in prompt.messages
    ]


def request_of(prompt: Prompt, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the chat request that a rendered prompt makes: messages, parameters, tools, output schema."""
    body: dict[str, Any] = {**prompt.parameters, "messages": [dict(each) for each in messages]}
    if prompt.tools:
        body["tools"] = [dict(each) for each in prompt.tools]
    if prompt.output is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "output", "strict": True, "schema": prompt.output},
        }
    return body


def compose(prompt: Prompt, body: Mapping[str, Any], given: Mapping[str, Any], what: str = "") -> dict[str, Any]:
    """Return the chat request for a client's `body`: the prompt's messages, with the conversation in them.

    The last message of the user fills the variable that takes it; what was said before stands in front of the
    prompt's last message. `given` are values from elsewhere, such as retrieved passages. What the client may add
    is `variables`, `max_tokens` below the prompt's own, and `stream`; everything else is the prompt's matter.
    """
    history, question = conversation(body.get("messages"))
    variables = body.get("variables") or {}
    if not isinstance(variables, Mapping):
        raise PromptVariable("The field variables is not an object.", mend='Send "variables": {"name": value}.')
    values: dict[str, Any] = {**variables, **given}
    name = prompt.question
    if name is not None and name not in values and question is not None:
        values[name] = question
    elif question is not None and name is None:
        history = [*history, {"role": "user", "content": question}]
    messages = render(prompt, values, what)
    if name is None:
        messages = [*messages, *history]
    else:
        place = max(index for index, each in enumerate(prompt.messages) if name in _VARIABLE.findall(each.content))
        messages = [*messages[:place], *history, *messages[place:]]
    made = request_of(prompt, messages)
    asked = stated_limit(dict(body))
    own = made.get("max_completion_tokens", made.get("max_tokens"))
    if asked is not None and (own is None or asked < own):
        made.pop("max_completion_tokens", None)
        made["max_tokens"] = asked
    return made


def conversation(messages: Any) -> tuple[list[dict[str, Any]], str | None]:
    """Split a client's messages into what was said before and the user's last words; raise InvalidInput.

    A governed prompt sets the system message itself, so a client's is refused rather than mixed in.
    """
    if messages is None:
        return [], None
    if not isinstance(messages, list) or not all(isinstance(each, Mapping) for each in messages):
        raise InvalidInput("The field messages is not a list of messages.", mend="Send objects with role and content.")
    for each in messages:
        if each.get("role") in ("system", "developer"):
            raise InvalidInput(
                "This request brings a system message, and the prompt has its own.",
                why="A prompt is released as a whole; what a client adds to it would be untested.",
                mend="Leave the system message out, or change the prompt and release it.",
            )
        if each.get("role") not in ("user", "assistant", "tool"):
            raise InvalidInput("A message has a role that is not known.", mend="Use user, assistant or tool.")
    plain = [dict(each) for each in messages]
    if not plain or plain[-1]["role"] != "user":
        return plain, None
    return plain[:-1], text_of(plain[-1].get("content"))


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, or the text parts of a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [each.get("text") for each in content if isinstance(each, Mapping) and each.get("type") == "text"]
        if parts and all(isinstance(each, str) for each in parts):
            return "\n".join(str(each) for each in parts)
    raise InvalidInput("The last message has no text.", mend="Send its content as a string.")


_NAMES: Final[Mapping[type, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "list",
    type(None): "null",
}
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
}


def _text(what: str, name: str, variable: Variable, value: Any) -> str:
    """Return a value as text; raise PromptVariable for one of another type, or one that is too long."""
    boolean = isinstance(value, bool)
    items: list[Any] = [*value] if isinstance(value, list | tuple) else []
    fits = isinstance(value, _KINDS[variable.type]) and boolean == (variable.type == "boolean")
    if not fits or not all(isinstance(each, str) for each in items):
        raise PromptVariable(
            f"The variable “{name}” of the prompt {what} is of the type {variable.type}.".replace("  ", " "),
            why=f"The value is of the type {_NAMES.get(type(value), 'object')}.",
            mend="Send a value of that type.",
            facts={"variable": name},
        )
    if variable.type == "list":
        text = "\n".join(items)
    else:
        text = str(value).lower() if variable.type == "boolean" else str(value)
    if len(text) > MOST_VALUE:
        raise PromptVariable(
            f"The value of the variable “{name}” has {len(text)} characters.",
            why=f"At most {MOST_VALUE} are put into a prompt.",
            mend="Shorten it.",
        )
    return text


def _bad(what: str, why: str, mend: str) -> BadPrompt:
    return BadPrompt(f"The prompt {what} cannot be used.", why=f"{why[:1].upper()}{why[1:]}.", mend=mend)
