"""What becomes of a provider's answer: its words, what they cite, what can be checked of them at once."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from holdtrue.llm.guardrails.model import Verdict
from holdtrue.llm.model import Ask, Reply, Settings
from holdtrue.llm.retrieval import Hit

FILTERED: Final = "content_filter"
_CITED: Final = re.compile(r"\[([^\[\]\s]{1,200})\]")
_SHARED: Final = ("id", "object", "created", "system_fingerprint")


def answer_text(body: Mapping[str, Any]) -> str:
    """Return the words of an answer in OpenAI's form, "" if it only calls tools."""
    message = body["choices"][0]["message"]
    return _words(message.get("content")) or _words(message.get("refusal"))


def _words(content: Any) -> str:
    """Return a text, or the text parts of a list of parts; other kinds of parts have no words."""
    if isinstance(content, list):
        parts = [each.get("text") for each in content if isinstance(each, Mapping) and each.get("type") == "text"]
        return "".join(text for text in parts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def with_calls(body: Mapping[str, Any], calls: Sequence[Any]) -> dict[str, Any]:
    """Return an answer in OpenAI's form with its first choice's calls of tools exchanged."""
    first, *others = body["choices"]
    message = {**first["message"], "tool_calls": list(calls)}
    return {**body, "choices": [{**first, "message": message}, *others]}


def tool_calls(body: Mapping[str, Any]) -> list[Any]:
    """Return the tool calls of an answer in OpenAI's form."""
    return body["choices"][0]["message"].get("tool_calls") or []


def citations(text: str, hits: Sequence[Hit]) -> tuple[str, ...]:
    """Return the ids of passages that a text cites, each once, in order."""
    known = {hit.id for hit in hits}
    return tuple(dict.fromkeys(name for name in _CITED.findall(text) if name in known))


def reply_to(
    ask: Ask,
    settings: Settings,
    watched: Sequence[str],
    body: Mapping[str, Any],
    verdict: Verdict | None,
    hits: Sequence[Hit],
    facts: Mapping[str, Any],
    *,
    of_calls: Sequence[Verdict] = (),
) -> Reply:
    """Return the reply that a provider's answer makes under a verdict that lets it go on.

    `watched` names the guards that look at answers: each of them is a check, of its words and of its calls of tools.
    """
    said = answer_text(body) if verdict is None else verdict.text
    cited = citations(said, hits)
    abstained = any(each in said for each in settings.abstentions)
    checks = {"answered": 0.0 if abstained else 1.0}
    if hits and not abstained and not tool_calls(body):
        checks["cited"] = 1.0 if cited else 0.0
    if verdict is not None:
        checks["unblocked"] = 1.0
        noted = {finding.guard for each in (verdict, *of_calls) for finding in each.findings}
        checks.update((guard, 0.0 if guard in noted else 1.0) for guard in watched)
    return Reply(
        body=_body(body, ask, said),
        text=said,
        checks=checks,
        passages=tuple(hits),
        cited=cited,
        abstained=abstained,
        blocked="",
        facts=dict(facts),
    )


def _body(body: Mapping[str, Any], ask: Ask, said: str) -> dict[str, Any]:
    """Return the answer under the application's name, with the words that guardrails left, and nothing unguarded.

    Of a provider's answer only what was looked at goes on: not its thoughts, other choices, or scored tokens.
    """
    choice = body["choices"][0]
    calls = tool_calls(body)
    message: dict[str, Any] = {"role": "assistant", "content": said if said or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    made = {name: body[name] for name in _SHARED if name in body}
    made["model"] = f"app:{ask.service}"
    reason = choice.get("finish_reason")
    made["choices"] = [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}]
    return {**made, "usage": body.get("usage")}


def refusal(
    ask: Ask,
    settings: Settings,
    where: str,
    moment: int,
    *,
    said: str | None = None,
    hits: Sequence[Hit] = (),
    facts: Mapping[str, Any] | None = None,
) -> Reply:
    """Return the reply where guardrails block the `input` or the `output`; `said` has been said until then."""
    words = settings.refusal if said is None else said
    body = _words_alone(ask, words, moment, FILTERED, facts or {})
    checks = {"unblocked": 0.0} if where == "output" else dict[str, float]()
    return Reply(body, words, checks, tuple(hits), (), False, where, {**(facts or {}), "blocked": where})


def stand_in(ask: Ask, words: str, moment: int) -> Reply:
    """Return the reply of an application that is switched off: words that its operator chose, and nothing checked."""
    return Reply(_words_alone(ask, words, moment, "stop", {}), words, {}, (), (), False, "")


def _words_alone(ask: Ask, words: str, moment: int, reason: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer in OpenAI's form that no provider gave; `facts` tell what was used until then."""
    usage = {name: facts.get(name, 0) for name in ("input_tokens", "output_tokens")}
    return {
        "id": ask.prediction,
        "object": "chat.completion",
        "created": moment,
        "model": f"app:{ask.service}",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": words, "refusal": None},
                "finish_reason": reason,
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": sum(usage.values()),
        },
    }
