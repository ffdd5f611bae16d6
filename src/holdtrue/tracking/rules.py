"""Pure rules of tracking: what may be logged, under which names, and where artifacts may stand."""

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any
from urllib.parse import unquote

from holdtrue.core.errors import InvalidInput
from holdtrue.tracking.model import (
    ENTITIES_PER_BATCH,
    EXPERIMENT_NAME_LENGTH,
    KEY_LENGTH,
    LARGEST,
    METRICS_PER_BATCH,
    PARAM_LENGTH,
    PARAMS_PER_BATCH,
    TAG_LENGTH,
    TAGS_PER_BATCH,
    Metric,
    Pair,
)

# Letters, digits, _ - . : and spaces, in parts between slashes, none of which is “.” or “..”.
_PART = r"(?!\.{1,2}(?:/|$))[\w.\- :]+"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_SIGNS = re.compile(r"[\w.\- :]*")
_RUN = re.compile(r"[A-Za-z0-9][\w-]{0,255}", re.ASCII)
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LOCATION = re.compile(r"mlflow-artifacts:/(?:[A-Za-z0-9_~@+=,-][A-Za-z0-9._~@+=,-]*(?:/(?!$))?)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INT64 = 1 << 63
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_ADJECTIVES = ("able", "bold", "calm", "deft", "eager", "fair", "glad", "keen", "lucid", "merry", "neat", "plain")
_NOUNS = ("ash", "birch", "crane", "dove", "elm", "finch", "gull", "heron", "ibis", "lark", "moth", "otter")


def check_key(key: Any, what: str = "name") -> str:
    """Return `key` if it may name a metric, parameter or tag, else raise InvalidInput."""
    if not isinstance(key, str) or not key:
        raise InvalidInput(f"Missing value for required parameter '{what}'.", mend="A key name must be provided.")
    if len(key) > KEY_LENGTH:
        raise InvalidInput(f"'{what}' exceeds the maximum length of {KEY_LENGTH} characters.")
    if _KEY.fullmatch(key) is None:
        raise InvalidInput(
            f"Invalid value {key!r} for parameter '{what}' supplied.",
            why="Names may only contain letters, digits, underscores (_), dashes (-), periods (.), spaces ( ), "
            "colons (:) and slashes (/), and no part between slashes may be empty, “.” or “..”.",
        )
    return key


def whole(value: Any, what: str, default: int | None = None) -> int:
    """Return a 64-bit integer that came as a number or as text."""
    if value is None and default is not None:
        return default
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < _INT64:
        raise InvalidInput(f"Invalid value for parameter '{what}' supplied.", why="It must be a 64-bit whole number.")
    return value


def number(value: Any, what: str) -> float:
    """Return a double that came as a number, or as text such as "NaN" (JSON has no such numbers)."""
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.copysign(math.inf, value)
    if isinstance(value, str):
        if value in _WORDS:
            return _WORDS[value]
        if _NUMBER.fullmatch(value):
            return float(value)
    raise InvalidInput(
        f"Invalid value {str(value)[:80]!r} for parameter '{what}' supplied.",
        why="Please specify value as a valid double (64-bit floating point).",
    )


def metric(key: Any, value: Any, timestamp: Any, step: Any, what: str = "") -> Metric:
    """Return a metric whose parts are checked; raise InvalidInput naming the part that cannot be."""
    if type(key) is not str or len(key) > KEY_LENGTH or _KEY.fullmatch(key) is None:
        check_key(key, f"{what}name")
    if value is None:
        raise InvalidInput(f"Missing value for required parameter '{what}value'.")
    found = value if type(value) is float else number(value, f"{what}value")
    moment = timestamp if type(timestamp) is int else whole(timestamp, f"{what}timestamp")
    place = step if type(step) is int else whole(step, f"{what}step", 0)
    if not 0 <= moment < _INT64 or not -_INT64 <= place < _INT64:
        raise InvalidInput(
            f"Invalid value {moment} for parameter '{what}timestamp' supplied.",
            why="Timestamp must be a nonnegative long (64-bit integer).",
        )
    if found != found:
        return Metric(key, place, moment, 0.0, 1)
    return Metric(key, place, moment, max(-LARGEST, min(LARGEST, found)), 0)


def metrics(items: Sequence[Mapping[str, Any]]) -> tuple[Metric, ...]:
    """Return the metrics of a batch, checked; raise InvalidInput naming the first part that cannot be.

    What all clients send (texts, whole numbers, finite numbers) is checked column by column, four times as fast as one
    by one; anything else, and whatever is wrong, goes through `metric`.
    """
    try:
        keys = [each["key"] for each in items]
        values = [each["value"] for each in items]
        moments = [each["timestamp"] for each in items]
        steps = [each.get("step", 0) for each in items]
        if items and _plain(keys, values, moments, steps):
            columns = zip(keys, steps, moments, map(float, values), repeat(0), strict=False)
            # What the class does itself, without its call: a third of the time.
            return tuple(map(tuple.__new__, repeat(Metric), columns))
    except (KeyError, OverflowError):
        pass
    return tuple(
        metric(each.get("key"), each.get("value"), each.get("timestamp", 0), each.get("step", 0), f"metrics[{place}].")
        for place, each in enumerate(items)
    )


def _plain(keys: list[Any], values: list[Any], moments: list[Any], steps: list[Any]) -> bool:
    """Tell whether columns of metrics hold what is kept as it came.

    A sum is finite only if all of it is; where finite values sum up to infinity, they are merely looked at one by one.
    """
    return (
        set(map(type, keys)) == {str}
        and set(map(type, values)) <= {float, int}
        and set(map(type, moments)) == {int}
        and set(map(type, steps)) == {int}
        and math.isfinite(sum(values))
        and min(moments) >= 0
        and max(moments) < _INT64
        and min(steps) >= -_INT64
        and max(steps) < _INT64
        and _names(set(keys))
    )


def _names(keys: set[str]) -> bool:
    """Tell whether all of these may name a metric; names without “/” are looked through as one text."""
    if max(map(len, keys)) > KEY_LENGTH:
        return False
    if _SIGNS.fullmatch("".join(keys)):
        return keys.isdisjoint(("", ".", ".."))
    return all(map(_KEY.fullmatch, keys))


def pair(key: Any, value: Any, limit: int, what: str) -> Pair:
    """Return a parameter or tag whose key and value are checked."""
    name = check_key(key, f"{what}.key")
    text = "" if value is None else value
    if not isinstance(text, str):
        raise InvalidInput(f"Invalid value for parameter '{what}.value' supplied.", why="It must be text.")
    if len(text) > limit:
        raise InvalidInput(f"'{what}.value' exceeds the maximum length of {limit} characters.")
    return Pair(name, text)


def param(key: Any, value: Any, what: str = "param") -> Pair:
    """Return a parameter."""
    return pair(key, value, PARAM_LENGTH, what)


def tag(key: Any, value: Any, what: str = "tag") -> Pair:
    """Return a tag of a run."""
    return pair(key, value, TAG_LENGTH, what)


def check_batch(metrics: int, params: int, tags: int) -> None:
    """Refuse a batch that holds more than is written at once."""
    total = metrics + params + tags
    for count, limit, what in (
        (metrics, METRICS_PER_BATCH, "metrics"),
        (params, PARAMS_PER_BATCH, "params"),
        (tags, TAGS_PER_BATCH, "tags"),
        (total, ENTITIES_PER_BATCH, "metrics, params, and tags"),
    ):
        if count > limit:
            raise InvalidInput(
                f"A batch logging request can contain at most {limit} {what}. Got {count} {what}.",
                mend=f"Please split up {what} across multiple requests and try again.",
            )


def check_distinct(params: Sequence[Pair]) -> None:
    """Refuse a batch that sets one parameter twice."""
    seen: set[str] = set()
    for each in params:
        if each.key in seen:
            raise InvalidInput(
                f"Duplicate parameter keys have been submitted: {[each.key]}.",
                mend="Please ensure the request contains only one param value per param key.",
            )
        seen.add(each.key)


def check_run_id(text: Any) -> str:
    """Return `text` if it has the form of a run's id."""
    if not isinstance(text, str) or not text:
        raise InvalidInput("Missing value for required parameter 'run_id'.")
    if _RUN.fullmatch(text) is None:
        raise InvalidInput(f"Invalid value {text[:80]!r} for parameter 'run_id' supplied.")
    return text


def experiment_id(text: Any) -> int:
    """Return the number that an experiment's id is."""
    if text is None or text == "":
        raise InvalidInput("Missing value for required parameter 'experiment_id'.")
    if isinstance(text, int) and not isinstance(text, bool) and 0 <= text < _INT64:
        return text
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or int(text) >= _INT64:
        raise InvalidInput(f"Invalid experiment ID {str(text)[:80]!r}.", why="Experiment ID must be a valid integer.")
    return int(text)


def experiment_name(name: Any) -> str:
    """Return `name` if an experiment may have it."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidInput(f"Invalid experiment name: {str(name or '')[:80]!r}.")
    if len(name) > EXPERIMENT_NAME_LENGTH:
        raise InvalidInput(f"'name' exceeds the maximum length of {EXPERIMENT_NAME_LENGTH} characters.")
    return check_text(name, "name")


def check_text(text: str, what: str) -> str:
    """Return `text` if it holds no control signs."""
    if _CONTROL.search(text):
        raise InvalidInput(f"The {what} holds control signs.", mend="Use printable signs.")
    return text


def artifact_location(text: str, default: str) -> str:
    """Return where an experiment's artifacts stand: only places that this server keeps itself."""
    if not text:
        return default
    if _LOCATION.fullmatch(text.rstrip("/")) is None:
        raise InvalidInput(
            f"Artifacts cannot be kept at {text[:200]!r}.",
            why="This server keeps artifacts itself, at addresses of the form mlflow-artifacts:/name.",
            mend="Leave the artifact location out.",
        )
    return text.rstrip("/")


def artifact_path(text: str, *, escaped: bool = False) -> str:
    """Return the plain relative name of an artifact.

    It is a name in a table and never a path of this machine; still no client may be handed one that leads
    out of its folder. Escapes are undone until none is left, so that no spelling hides one.
    """
    try:
        plain = unquote(text, errors="strict") if escaped else text
    except UnicodeDecodeError:
        plain = ""
    seen = plain
    for _ in range(8):
        further = unquote(seen)
        if further == seen:
            break
        seen = further
    for each in {plain, seen}:
        parts = each.split("/")
        drive = len(each) > 1 and each[1] == ":" and each[0].isalpha()
        if (
            not each
            or drive
            or "\\" in each
            or _CONTROL.search(each)
            or any(part in ("", ".", "..") for part in parts)
            or len(each.encode()) > 2048
        ):
            raise InvalidInput(
                "Invalid path.",
                why="An artifact's path is relative, with “/” between its parts, and no part is empty, “.” or “..”.",
                facts={"path": text[:200]},
            )
    return plain


def random_name() -> str:
    """Return a name for a run that was given none."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(900) + 100}"
