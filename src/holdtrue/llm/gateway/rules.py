"""What the gateway decides without asking anybody: sizes, counts, costs, when to try again, when a period began."""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput
from holdtrue.llm.gateway.model import Body, Operation, Period, Price, Usage

RETRIED: Final = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may be sent again: the provider says it has not done the work."""

MOST_CHOICES: Final = 128
MOST_TOKENS: Final = 2_000_000
_MESSAGE_TOKENS: Final = 8
_COUNTED_MESSAGE: Final = 4
_CALL_TOKENS: Final = 16
_IMAGE_TOKENS: Final = 5_000
_IMAGE_COUNT: Final = 1_000
_HIDDEN_TOKENS: Final = 2_048
_BYTES_PER_TOKEN: Final = 4
_MILLION: Final = 1_000_000


def check_request(operation: Operation, body: Body) -> None:
    """Raise InvalidInput unless a request has what the gateway itself relies on; the provider judges the rest."""
    if operation is Operation.CHAT:
        messages = body.get("messages")
        if type(messages) is not list or not messages:
            raise wrong("messages", "must be a list of at least one message")
        for place, message in enumerate(messages):
            if type(message) is not dict or type(message.get("role")) is not str:
                raise wrong(f"messages[{place}]", "must be an object with a role")
    elif operation is Operation.COMPLETION:
        if not _is_text_or_list(body.get("prompt")):
            raise wrong("prompt", "must be a text or a list that is not empty")
    elif not _is_text_or_list(body.get("input")):
        raise wrong("input", "must be a text or a list that is not empty")
    if type(body.get("stream")) not in (bool, type(None)):
        raise wrong("stream", "must be true or false")
    choices(body)
    stated_limit(body)


def wrong(field: str, why: str) -> InvalidInput:
    """Say which field of a request cannot be accepted."""
    return InvalidInput(f"The field {field} {why}.", facts={"param": field.partition("[")[0]})


def choices(body: Body) -> int:
    """Return how many answers a request asks for, at most 128; raise InvalidInput."""
    most = 1
    for name in ("n", "best_of"):
        value = body.get(name)
        if value is None:
            continue
        if type(value) is not int or not 1 <= value <= MOST_CHOICES:
            raise wrong(name, f"must be a whole number from 1 to {MOST_CHOICES}")
        most = max(most, value)
    return most


def stated_limit(body: Body) -> int | None:
    """Return the number of output tokens to which a request limits itself, or None; raise InvalidInput."""
    found: int | None = None
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value <= MOST_TOKENS:
            raise wrong(name, f"must be a whole number up to {MOST_TOKENS}")
        found = value if found is None else max(found, value)
    return found


def wants_usage(body: Body) -> bool:
    """Tell whether a streamed request asks to be told its usage."""
    options = body.get("stream_options")
    return type(options) is dict and options.get("include_usage") is True


def input_bound(operation: Operation, body: Body) -> tuple[int, int]:
    """Return how many input tokens a request can have at most, and how many the gateway counts itself.

    At most: a byte-level tokenizer makes no more tokens than there are bytes of UTF-8; eight are added per
    message and sixteen per call for what a chat template puts around them, and 5,000 per image. Where the
    provider has not counted, the gateway does: one per four bytes, rounded up, four per message, 1,000 per
    image.
    """
    size, images = _sizes(operation, body)
    messages = len(body.get("messages") or ())
    return (
        size + _IMAGE_TOKENS * images + _MESSAGE_TOKENS * messages + _CALL_TOKENS,
        -(-size // _BYTES_PER_TOKEN) + _IMAGE_COUNT * images + _COUNTED_MESSAGE * messages,
    )


def count_output(texts: Iterable[str]) -> int:
    """Count output tokens where the provider has not: one per four bytes of UTF-8, rounded up."""
    return -(-sum(_bytes(text) for text in texts) // _BYTES_PER_TOKEN)


def checked_usage(reported: Any, own: Usage, *, input_most: int, output_most: int) -> Usage:
    """Return the usage a provider reports, or `own` if its numbers are missing or cannot be.

    Negative numbers and fractions cannot be, nor more input than the request has bytes (2,048 tokens on top
    are allowed for what a provider adds unseen), nor more output than was allowed.
    """
    if not isinstance(reported, Mapping):
        return own
    given, made = reported.get("prompt_tokens"), reported.get("completion_tokens", 0)
    if type(given) is not int or not 0 <= given <= input_most + _HIDDEN_TOKENS:
        return own
    if type(made) is not int or not 0 <= made <= output_most:
        return own
    details = reported.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    if type(cached) is not int or not 0 <= cached <= given:
        cached = 0
    return Usage(given, made, cached)


def cost(price: Price | None, usage: Usage) -> int:
    """Return the micro-units of money that `usage` costs, rounded up."""
    if price is None:
        return 0
    cached = price.input if price.cached_input is None else price.cached_input
    total = (usage.input - usage.cached_input) * price.input + usage.cached_input * cached + usage.output * price.output
    return -(-total // _MILLION)


def deterministic(body: Body) -> bool:
    """Tell whether a request asks for the one answer: temperature 0, or a seed, and one choice."""
    temperature = body.get("temperature")
    fixed = (type(temperature) in (int, float) and temperature == 0) or body.get("seed") is not None
    return fixed and choices(body) == 1


def jitter(attempt: int, generator: random.Random, *, base: float, cap: float) -> float:
    """Return the seconds to wait before attempt `attempt` (from 1): full jitter under an exponential bound.

    After M. Brooker, “Exponential Backoff And Jitter” (AWS Architecture Blog, 2015).
    """
    return generator.uniform(0.0, min(cap, base * 2.0 ** (attempt - 1)))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait (RFC 9110, section 10.2.3), None if none."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 12:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def period_start(period: Period, now: datetime) -> int:
    """Return when the present period began, in microseconds since the epoch; 0 for one without end."""
    if period is Period.TOTAL:
        return 0
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return microseconds(day if period is Period.DAY else day.replace(day=1))


def period_end(period: Period, now: datetime) -> datetime | None:
    """Return when the next period begins, None if never."""
    if period is Period.TOTAL:
        return None
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.DAY:
        return datetime.fromtimestamp(day.timestamp() + 86_400, UTC)
    return day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1, day=1)


def redacted(text: str, secrets: Sequence[str]) -> str:
    """Return `text` without any of `secrets`: providers like to repeat the key that they refuse."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    return text


def _sizes(operation: Operation, body: Body) -> tuple[int, int]:
    """Return the bytes of text in a request, and its images."""
    if operation is not Operation.CHAT:
        return _size(body.get("prompt" if operation is Operation.COMPLETION else "input")), 0
    size, images = 0, 0
    for message in body["messages"]:
        for name, value in message.items():
            if name == "content" and type(value) is list:
                for part in value:
                    if type(part) is dict and part.get("type") == "image_url":
                        images += 1
                    else:
                        size += _size(part.get("text", part) if type(part) is dict else part)
            elif name != "role":
                size += _size(value)
    for name in ("tools", "functions", "response_format"):
        if name in body:
            size += _size(body[name])
    return size, images


def _size(value: Any) -> int:
    if type(value) is str:
        return _bytes(value)
    if value is None:
        return 0
    return len(orjson.dumps(value))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _is_text_or_list(value: Any) -> bool:
    return type(value) is str or (type(value) is list and bool(value))
