"""Find credentials: keys of known providers, private keys, tokens, passwords in URLs, and assignments."""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import orjson

from holdtrue.llm.guardrails.detectors.checks import crc62
from holdtrue.llm.guardrails.detectors.matching import Page, Rule, entropy, near, page_of, scan
from holdtrue.llm.guardrails.model import Hit, Steps, Subject

_SURE: Final = 1.0
_FORM: Final = 0.9
_LIKELY: Final = 0.6
_MOST_KEY: Final = 20_000
_PLACEHOLDERS: Final = (
    "example",
    "placeholder",
    "your",
    "changeme",
    "change-me",
    "change_me",
    "redacted",
    "dummy",
    "xxxx",
    "****",
    "....",
    "insert",
    "replace",
    "sample",
    "todo",
    "1234567890abcdef",
    "removed",
    "hidden",
)
_NO_PASSWORDS: Final = frozenset(
    {
        "password",
        "passwd",
        "pass",
        "secret",
        "token",
        "pwd",
        "passwort",
        "none",
        "null",
        "true",
        "false",
        "undefined",
        "test",
        "pw",
        "required",
        "optional",
    }
)


def _dense(match: re.Match[str], page: Page) -> float:
    """Accept what varies as random signs do: a row of x is an example, not a key."""
    value = match.group()
    if any(word in value.lower() for word in _PLACEHOLDERS):
        return 0.0
    return _FORM if len(set(value[-24:])) >= 8 else 0.0


def _github(match: re.Match[str], page: Page) -> float:
    # The checksum makes it certain; without it the form alone is still worth a warning, as the body varies.
    body = match.group("b")
    if crc62(body[:30]) == body[30:]:
        return _SURE
    return _dense(match, page)


def _holdtrue(match: re.Match[str], page: Page) -> float:
    head, _, checksum = match.group().rpartition("_")
    return _SURE if crc62(head) == checksum else 0.0


def _aws_secret(match: re.Match[str], page: Page) -> float:
    value = match.group()
    mixed = value.lower() != value != value.upper() and any(sign.isdigit() for sign in value)
    if not mixed or len(set(value)) < 16:
        return 0.0
    words = ("aws_secret", "secretaccesskey", "secret_access_key", "secret access key", "aws secret", "akia", "asia")
    return _SURE if near(page, *match.span(), words, 80, 40) else 0.0


def _openai(match: re.Match[str], page: Page) -> float:
    value = match.group()
    if "T3BlbkFJ" in value:
        return _SURE
    if any(word in value.lower() for word in _PLACEHOLDERS):
        return 0.0
    body = value[3:]
    mixed = any(s.isdigit() for s in body) and any(s.isupper() for s in body) and any(s.islower() for s in body)
    return _FORM if mixed and len(set(body)) >= 12 else 0.0


def _segment(text: str) -> Any:
    try:
        return orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return None


def _jwt(match: re.Match[str], page: Page) -> float:
    header, payload, _ = match.group().split(".")
    described = _segment(header)
    return _SURE if isinstance(described, dict) and "alg" in described and isinstance(_segment(payload), dict) else 0.0


def _basic(match: re.Match[str], page: Page) -> float:
    try:
        plain = base64.b64decode(match.group("v"), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return 0.0
    _, colon, password = plain.partition(":")
    return _FORM if colon and len(password) >= 3 and plain.isprintable() else 0.0


def _bearer(match: re.Match[str], page: Page) -> float:
    return _LIKELY + 0.2 if looks_random(match.group("v")) else 0.0


def _url_password(match: re.Match[str], page: Page) -> float:
    return _FORM if _is_password(match.group("v"), letters_are_enough=True) else 0.0


def _ado_password(match: re.Match[str], page: Page) -> float:
    words = ("server=", "data source=", "host=", "user id=", "uid=", "://")
    value = match.group("v")
    return _FORM if near(page, *match.span(), words, 200) and _is_password(value, letters_are_enough=True) else 0.0


def looks_random(value: str) -> bool:
    """Tell whether a value varies as generated keys do, and is no name, call or placeholder."""
    if len(value) < 16 or any(word in value.lower() for word in _PLACEHOLDERS):
        return False
    digits = sum(sign.isdigit() for sign in value)
    letters = sum(sign.isalpha() for sign in value)
    return digits >= 2 and letters >= 4 and entropy(value) >= 3.0


def _is_password(value: str, letters_are_enough: bool = False) -> bool:
    lower = value.lower()
    if (
        any(word in lower for word in ("password", "secret", "_key"))
        and value.replace("_", "").replace("-", "").isalpha()
    ):
        return False
    if len(value) < 4 or lower in _NO_PASSWORDS or value[0] in "$<{%[" or "${" in value or "{{" in value:
        return False
    if len(set(value)) < 4 or any(word in lower for word in _PLACEHOLDERS):
        return False
    return letters_are_enough or (
        len(value) >= 6 and any(s.isalpha() for s in value) and not value.replace("-", "").replace("_", "").isalpha()
    )


def _rule(label: str, needles: tuple[str, ...], pattern: str, check: Callable[..., float], fold: bool = False) -> Rule:
    return Rule(label, needles, re.compile(pattern, re.IGNORECASE if fold else 0), check, fold)


_L: Final = "(?<![A-Za-z0-9])"
_LS: Final = "(?<![A-Za-z0-9_-])"
_R: Final = "(?![A-Za-z0-9])"

RULES: Final = (
    _rule("aws_access_key", ("AKIA", "ASIA", "ABIA", "ACCA"), _L + r"A(?:KI|SI|BI|CC)A[A-Z2-7]{16}" + _R, _dense),
    _rule(
        "aws_secret_key",
        ("ecret", "ECRET", "AKIA", "ASIA"),
        r"(?<![A-Za-z0-9+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
        _aws_secret,
    ),
    _rule(
        "github_token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _L + r"gh[pousr]_(?P<b>[A-Za-z0-9]{36})" + _R, _github
    ),
    _rule("github_token", ("github_pat_",), _L + r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}" + _R, _dense),
    _rule("gitlab_token", ("gl",), _L + r"gl(?:pat|dt|rt|ptt|ft|soat|cbt)-[A-Za-z0-9_-]{20,64}", _dense),
    _rule("slack_token", ("xox",), _L + r"xox[abeoprs]-[A-Za-z0-9-]{10,250}", _dense),
    _rule(
        "slack_webhook",
        ("hooks.slack.com/",),
        r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{20,100}",
        _dense,
    ),
    _rule("stripe_key", ("_live_", "_test_"), _L + r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}", _dense),
    _rule("stripe_key", ("whsec_",), _L + r"whsec_[A-Za-z0-9+/=]{24,100}", _dense),
    _rule("google_api_key", ("AIza",), _L + r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])", _dense),
    _rule(
        "google_oauth_secret",
        ("GOCSPX-", "ya29."),
        _L + r"(?:GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{20,500})",
        _dense,
    ),
    _rule("anthropic_key", ("sk-ant-",), _LS + r"sk-ant-[a-z0-9]{3,12}-[A-Za-z0-9_-]{24,200}", _dense),
    _rule("openai_key", ("sk-",), _LS + r"sk-(?!ant-)[A-Za-z0-9_-]{20,300}", _openai),
    _rule(
        "holdtrue_token", ("ht_",), _L + r"ht_[a-z]{3,12}_[0-9a-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}" + _R, _holdtrue
    ),
    _rule("npm_token", ("npm_",), _L + r"npm_(?P<b>[A-Za-z0-9]{36})" + _R, _github),
    _rule("pypi_token", ("pypi-AgE",), _L + r"pypi-AgE[A-Za-z0-9_-]{50,1000}", _dense),
    _rule("huggingface_token", ("hf_",), _L + r"hf_[A-Za-z0-9]{30,40}" + _R, _dense),
    _rule("sendgrid_key", ("SG.",), _L + r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}", _dense),
    _rule("telegram_token", (":AA",), r"(?<![0-9])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])", _dense),
    _rule("azure_storage_key", ("accountkey=",), r"AccountKey=(?P<v>[A-Za-z0-9+/]{86}==)", _dense, fold=True),
    _rule("jwt", ("eyJ",), _LS + r"eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{16,2000}", _jwt),
    _rule("generic_secret", ("basic ",), r"\bBasic[ ](?P<v>[A-Za-z0-9+/]{8,500}={0,2})", _basic, fold=True),
    _rule("generic_secret", ("bearer ",), r"\bBearer[ ](?P<v>[A-Za-z0-9._~+/-]{16,4000}={0,2})", _bearer, fold=True),
    _rule(
        "connection_password",
        ("://",),
        r"://[^\s/:@\"'<>?#]{0,64}:(?P<v>[^\s/@\"'<>]{3,128})@(?=[A-Za-z0-9\[])",
        _url_password,
    ),
    _rule(
        "connection_password",
        ("password=", "pwd="),
        r"[;?&]\s?(?:password|pwd)=(?P<v>[^\s;&\"'<>]{4,128})",
        _ado_password,
        fold=True,
    ),
)

# What a value is assigned to, and whether it may be one that a person thought up.
_KEYWORDS: Final = tuple(
    (word, human)
    for human, words in (
        (
            True,
            (
                "password",
                "passwd",
                "passphrase",
                "passwort",
                "kennwort",
                "mot de passe",
                "contraseña",
                "senha",
                "_pass",
                "pwd",
                "pw",
            ),
        ),
        (
            False,
            (
                "token",
                "secret",
                "api_key",
                "apikey",
                "api-key",
                "access_key",
                "accesskey",
                "access-key",
                "secret_key",
                "private_key",
                "signing_key",
                "encryption_key",
                "encryption-key",
                "auth_key",
                "master_key",
                "secretkey",
                "clientsecret",
                "credential",
            ),
        ),
    )
    for word in words
)
_LINK: Final = re.compile(
    r"(?:[_-][A-Za-z0-9]{1,12}){0,2}[\"'`\]]?[ \t]{0,3}"
    r"(?:(?:is|ist|lautet|est|es|é)\b[ ]{0,2}:?|=>|:=|==?|:)[ \t]{0,3}"
    r"(?:(?P<q>[\"'`])(?P<quoted>[^\"'`\r\n]{4,200})(?P=q)|(?P<bare>[^\s\"'`,;&<>(){}\[\]]{4,200}))"
)
LABELS: Final = tuple(sorted({rule.label for rule in RULES} | {"private_key"}))


def secret_detector(kinds: Collection[str], allow: Collection[str]) -> Callable[[Subject], Steps]:
    """Return a detector of the secrets in `kinds`; a value in `allow` is never reported."""
    rules = tuple(rule for rule in RULES if rule.label in kinds)
    allowed = frozenset(allow)

    def detect(subject: Subject) -> Steps:
        page = page_of(subject.text)
        for rule in rules:
            yield _kept(scan(rule, page), page, allowed)
        if "private_key" in kinds:
            yield list(_private_keys(page))
        if "generic_secret" in kinds:
            yield _kept(_assignments(page), page, allowed)
        return 0.0

    return detect


def _kept(hits: list[Hit], page: Page, allowed: frozenset[str]) -> list[Hit]:
    return [hit for hit in hits if page.text[hit.start : hit.end] not in allowed] if allowed else hits


_BEGIN: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_END: Final = re.compile(r"-----END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BODY: Final = re.compile(r"(?:[A-Za-z0-9+/=]|\\[nr]|[\s:,-])*")


def _private_keys(page: Page) -> Iterator[Hit]:
    """Find PEM blocks with a body; one that is cut off counts to where its signs end."""
    text = page.text
    if "PRIVATE KEY" not in text:
        return
    begins = list(_BEGIN.finditer(text))
    for at, begin in enumerate(begins):
        limit = min(begin.end() + _MOST_KEY, begins[at + 1].start() if at + 1 < len(begins) else len(text))
        end = _END.search(text, begin.end(), limit)
        stop = end.end() if end else _body_end(text, begin.end(), limit)
        body = text[begin.end() : end.start() if end else stop]
        if len(re.sub(r"\\[nr]|[^A-Za-z0-9+/]", "", body)) >= 64:
            yield Hit(begin.start(), stop, _SURE, "private_key")


def _body_end(text: str, start: int, limit: int) -> int:
    body = _BODY.match(text, start, limit)
    return start if body is None else start + len(body.group().rstrip())


def _assignments(page: Page) -> list[Hit]:
    hits: list[Hit] = []
    for word, human in _KEYWORDS:
        at = page.lower.find(word)
        while at >= 0:
            link = _LINK.match(page.text, at + len(word))
            if link is not None and not (word == "pw" and page.text[at - 1 : at].isalnum()):
                hits += _assigned(link, page, human)
            at = page.lower.find(word, at + len(word))
    return hits


def _assigned(link: re.Match[str], page: Page, human: bool) -> Iterator[Hit]:
    group = "quoted" if link.group("quoted") is not None else "bare"
    value, (start, end) = link.group(group), link.span(group)
    if group == "bare":
        if page.text[end : end + 1] == "(":
            return
        value = value.rstrip(".:")
        end = start + len(value)
    if group == "quoted" and any(sign.isspace() for sign in value):
        return
    if looks_random(value) or (human and _is_password(value)):
        yield Hit(start, end, _LIKELY, "generic_secret")
