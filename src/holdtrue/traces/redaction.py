"""What is left out before a span is stored: credentials always, personal data and content where a project says so.

Attributes whose name means a credential are dropped, addresses lose their query and user. Values of secret form are
found in one pass over all spans of a request: long runs of token signs are rare in prose, so only those few are looked
at closely.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from holdtrue.traces.model import Capture

REDACTED: Final = "[redacted]"
_KEEP, _DROP, _URL, _CONTENT = range(4)
_KNOWN_KEYS: Final = 8192
_LONG: Final = 256
_NESTED: Final = frozenset({dict, list})
_RUN: Final = 16
_BEFORE: Final = 48
_QUOTE, _BACKSLASH = b'"\\'

_SECRET_KEY = re.compile(
    r"(?:^|[._-])(?:(?:proxy[._-]?)?authorization|(?:set[._-]?)?cookies?|(?:[a-z]+[._-])*api[._-]?keys?|"
    r"(?:access|auth|refresh|id|session|security|bearer|secret|api)[._-]?tokens?|(?:client[._-]?)?secret(?:[._-]?key)?|"
    r"pass(?:word|wd|phrase)|private[._-]?key|credentials?)(?:$|[._\[-])"
)
_URL_KEY = re.compile(r"(?:^|[._-])(?:url|uri|href|target|endpoint)(?:[._](?:full|original))?$")
_QUERY_KEY = re.compile(r"(?:^|[._-])(?:url|uri|http)[._](?:query|fragment)$|(?:^|[._-])connection[._-]?string$")
_CONTENT_KEY = re.compile(
    r"gen_ai\.(?:(?:input|output)\.messages|(?:prompt|completion)(?!\.(?:name|version|id)$)|system_instructions|"
    r"tool\.(?:call\.(?:arguments|result)|definitions|description)|retrieval\.|evaluation\.explanation|"
    r"(?:user|assistant|system|tool)\.message|choice|content|agent\.description|event\.content)|"
    r"(?:input|output)\.value$|"
    r"llm\.(?:input_messages|output_messages|prompts|completions|choices|prompt_template\.(?:template|variables)|"
    r"function_call|tools)|"
    r"retrieval\.documents|embedding\.(?:embeddings|text|vector)|reranker\.|tool\.(?:parameters|description|json_schema)|"
    r"(?:tool_call|message|document)\.|mlflow\.(?:spanInputs|spanOutputs|chat\.)|traceloop\.entity\.(?:input|output)|"
    r"exception\.(?:message|stacktrace)|db\.(?:statement|query\.text)|body$|content$|error\.message$"
)

# The public forms of credentials: vendors' prefixes, JSON Web Tokens, key blocks; and what a name says is one.
_FORMS: Final = (
    r"sk-[\w-]{16,}|[prs]k_(?:live|test)_\w{10,}|pk-lf-[\w-]{16,}|ht_[a-z]{2,8}_\w{20,}|gh[pousr]_\w{20,}|"
    r"github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{20,}|lsv2_[a-z]{2}_\w{20,}|"
    r"xox[abeoprs]-[\w-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|"
    r"eyJ[\w-]{10,}\.[\w-]{6,}(?:\.[\w-]*)?"
)
_FORM = re.compile(rf"(?<![A-Za-z0-9])(?:{_FORMS})", re.ASCII)
_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL)
_NAMED = re.compile(
    r"(?i)((?:authorization|cookie|api[-_]?key|secret(?:[-_]?(?:access[-_]?)?key)?|password|passwd|"
    r"(?:access|auth|refresh|id|session|bearer)[-_]?token)[\"'\\]*\s*[:=]\s*[\"'\\]*(?:basic |bearer )?|"
    r"\b(?:bearer|basic) )"
    r"([\w.~+/=%-]{8,})"
)
_USER = re.compile(r"(?<=://)[^/@\s\"'\\]{1,200}:[^/@\s\"'\\]{1,200}@")
_QUERY = re.compile(r"(?i)([?&](?:[\w-]*(?:key|token|secret|sig|signature|password|auth)[\w-]*)=)[^&#\s\"'\\]+")
# The same forms as a run of token signs shows them, whatever stands before: the above decide whether it is one.
_HINT = re.compile(
    rb"sk-|k_live_|k_test_|pk-lf-|ht_[a-z]|gh[pousr]_|github_pat_|glpat-|hf_|gsk_|npm_|lsv2_|xox[abeoprs]-|AKIA|ASIA|"
    rb"AIza|eyJ"
)
_HINT_BEFORE = re.compile(
    rb"(?i)(?:authorization|cookie|key|secret|passw(?:or)?d|token)[\"'\\]*\s*[:=]\s*[\"'\\]*"
    rb"(?:basic |bearer )?[\"'\\n]*$|(?:bearer|basic) $"
)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")


# Of each byte whether it is no sign of a token, as numpy's truth values.
_OTHER_SIGNS: Final = bytes(
    not (chr(code).isascii() and (chr(code).isalnum() or chr(code) in "_-")) for code in range(256)
)


def mask_text(text: str) -> str:
    """Return `text` without e-mail addresses and secrets: the masking of a project that brings none of its own."""
    return _MAIL.sub("[email]", scrub_text(text)) if "@" in text else scrub_text(text)


def scrub_text(text: str) -> str:
    """Return `text` without values of secret form."""
    text = _FORM.sub(REDACTED, text)
    if "-----BEGIN" in text:
        text = _BLOCK.sub(REDACTED, text)
    text = _NAMED.sub(lambda found: found[1] + REDACTED, text)
    if "://" in text:
        text = _USER.sub("", text)
        text = _QUERY.sub(lambda found: found[1] + REDACTED, text)
    return text


def suspects(texts: Sequence[bytes]) -> list[int]:
    """Return the places of those texts that may hold something of secret form."""
    data = b"\n".join(texts)
    others = np.frombuffer(data.translate(_OTHER_SIGNS), np.bool_)
    edges = np.flatnonzero(others)
    lengths = np.diff(edges, prepend=-1)
    long = np.flatnonzero(lengths > _RUN)
    found: list[int] = []
    for stop, length in zip(edges[long].tolist(), lengths[long].tolist(), strict=True):
        start = stop - length + 1
        # After a bare quote stands a key, or the value of an attribute whose own name was looked at.
        inside = data[start - 1] != _QUOTE or data[start - 2] == _BACKSLASH
        if _HINT.search(data, start, stop) or (inside and _HINT_BEFORE.search(data[max(0, start - _BEFORE) : start])):
            found.append(start)
    tail = len(data) - 1 - (int(edges[-1]) if len(edges) else -1)
    if tail >= _RUN and _HINT.search(data, len(data) - tail):
        found.append(len(data) - tail)
    for literal in (b"-----BEGIN ", b"earer "):
        found.extend(_all_of(data, literal))
    found.extend(at for at in _all_of(data, b"://") if _USER_HINT.match(data, at + 3))
    found.extend(_assignments(data))
    if not found:
        return []
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    return np.unique(np.searchsorted(ends, found, side="right")).tolist()


_USER_HINT = re.compile(rb"[^/@\s\"'\\]{1,200}@")
_ASSIGNED = re.compile(rb"(?i)(?:key|token|secret|sig|signature|passw(?:or)?d|auth)[\w-]{0,16}$")


def _assignments(data: bytes) -> list[int]:
    """Return the places of “…key=” and the like, the form of secrets in queries and settings."""
    return [at for at in _all_of(data, b"=") if _ASSIGNED.search(data[max(0, at - 32) : at])]


def _all_of(data: bytes, needle: bytes) -> list[int]:
    found: list[int] = []
    at = data.find(needle)
    while at >= 0:
        found.append(at)
        at = data.find(needle, at + 1)
    return found


class Redactor:
    """Decide by the names of attributes what is stored of them; remembers the names it has seen."""

    def __init__(self, mask: Callable[[str], str] = mask_text) -> None:
        self._mask = mask
        self._known: dict[str, int] = {}
        self._harmless: set[str] = set()

    def clean(self, attributes: dict[str, Any], capture: Capture) -> tuple[dict[str, Any], int]:
        """Return what may be stored of some attributes, and how many were dropped or cut."""
        # The usual span, whose names are all known to be harmless, costs no loop here.
        full = capture is Capture.FULL
        if full and self._harmless.issuperset(attributes) and not _nests(attributes):
            return attributes, 0
        known, cut = self._known, 0
        kept: dict[str, Any] = {}
        for key, value in attributes.items():
            rule = known.get(key)
            if rule is None:
                rule = self._learn(key)
            if rule == _DROP:
                cut += 1
                continue
            if not full:
                if capture is Capture.OFF and (rule == _CONTENT or _is_long(value)):
                    cut += 1
                    continue
                value = _each_text(value, self._mask)
            if rule == _URL and type(value) is str:
                short = cut_url(value)
                cut += short != value
                value = short
            elif type(value) is dict or type(value) is list:
                value, inner = self._nested(value, capture)
                cut += inner
            kept[key] = value
        return kept, cut

    def text(self, text: str, capture: Capture) -> str:
        """Return what may be stored of a text that is no attribute's."""
        if not text or capture is Capture.FULL:
            return text
        return self._mask(text)

    def scrub(self, value: Any) -> Any:
        """Return a JSON value without texts of secret form."""
        return _each_text(value, scrub_text)

    def _nested(self, value: Any, capture: Capture) -> tuple[Any, int]:
        if type(value) is dict:
            return self.clean(value, capture)
        if type(value) is list and any(type(item) in (dict, list) for item in value):
            pairs = [self._nested(item, capture) for item in value]
            return [item for item, _ in pairs], sum(count for _, count in pairs)
        return value, 0

    def _learn(self, key: str) -> int:
        if len(self._known) >= _KNOWN_KEYS:
            self._known.clear()
            self._harmless.clear()
        lower = key.lower()
        if _SECRET_KEY.search(lower) or _QUERY_KEY.search(lower):
            rule = _DROP
        elif _URL_KEY.search(lower):
            rule = _URL
        else:
            rule = _CONTENT if _CONTENT_KEY.match(key) else _KEEP
        self._known[key] = rule
        if rule in (_KEEP, _CONTENT):
            self._harmless.add(key)
        return rule


def cut_url(text: str) -> str:
    """Return an address without user, query and fragment."""
    end = min((at for at in (text.find("?"), text.find("#")) if at >= 0), default=len(text))
    start = text.find("://")
    if start >= 0:
        host = text[start + 3 : end]
        user = host.partition("/")[0].rpartition("@")
        if user[1]:
            return text[: start + 3] + host[len(user[0]) + 1 :]
    return text[:end]


def _nests(attributes: dict[str, Any]) -> bool:
    """Tell whether a value holds named values, which are looked at one by one."""
    for value in attributes.values():
        kind = type(value)
        if kind is dict or (kind is list and not _NESTED.isdisjoint(map(type, value))):
            return True
    return False


def _is_long(value: Any) -> bool:
    return (type(value) is str and len(value) > _LONG) or type(value) is dict or type(value) is list


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if type(value) is str:
        return change(value)
    if type(value) is dict:
        return {key: _each_text(item, change) for key, item in value.items()}
    if type(value) is list:
        return [_each_text(item, change) for item in value]
    return value
