"""Decisions about requests and credentials: facts in, verdict out, no I/O."""

import base64
import binascii
import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN = re.compile(r"ht_([a-z]{3,12})_([0-9a-z]{12})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(?::[0-9]{1,5})?")
# Only signs that need no escaping: a path has one spelling, so nothing is decoded before it is decided on.
_SEGMENT = rb"[A-Za-z0-9_~@:+=,-][A-Za-z0-9._~@:+=,-]*"
_PATH = re.compile(rb"/(?:" + _SEGMENT + rb"(?:/" + _SEGMENT + rb")*)?")
# Below the few prefixes that take names of stored things: escapes too, decided on as they were sent.
_ESCAPED = re.compile(rb"/(?:[A-Za-z0-9._~@:+=,!$&'()*;%-]+(?:/[A-Za-z0-9._~@:+=,!$&'()*;%-]+)*)?")
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(sign for sign in range(256) if sign not in b"[]{}")
_NOT_STRUCTURE = bytes(sign for sign in range(256) if sign not in b'[]{}"')
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class TokenText:
    """Hold the parts of a token that has the right form; nothing is said of its being valid."""

    kind: str
    id: str


def base62(number: int, length: int) -> str:
    """Return `number` in `length` digits of base 62."""
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def make_token(kind: str, token_id: str, secret: bytes) -> str:
    """Return the text of a token: `ht_<kind>_<id>_<secret>_<checksum>`, from 32 secret bytes.

    The fixed form and the checksum let secret scanners find a leaked token without guessing.
    """
    if len(secret) != 32:
        raise ValueError("a token's secret has 32 bytes")
    head = f"ht_{kind}_{token_id}_{base62(int.from_bytes(secret), 43)}"
    return f"{head}_{_checksum(head)}"


def parse_token(text: str) -> TokenText | None:
    """Return the parts of a well-formed token whose checksum is right, else None."""
    found = _TOKEN.fullmatch(text)
    if found is None or _checksum(text.rpartition("_")[0]) != found[4]:
        return None
    return TokenText(kind=found[1], id=found[2])


def secret_digest(text: str) -> str:
    """Return the SHA-256 of a credential: enough for 256 random bits, which no dictionary holds."""
    return hashlib.sha256(text.encode()).hexdigest()


def same_secret(text: str, digest: str) -> bool:
    """Compare a credential with a stored digest in constant time."""
    return hmac.compare_digest(secret_digest(text), digest)


def csrf_token(session: str) -> str:
    """Return the token that a page of this session must send with each change."""
    return hashlib.sha256(b"csrf:" + session.encode()).hexdigest()


def plain_path(raw: bytes) -> bool:
    """Tell whether a raw request path has the only spelling that is answered.

    No escapes, no empty or dotted segments, no parameters, no trailing slash: what is decided on is what was
    sent.
    """
    return len(raw) <= 2048 and _PATH.fullmatch(raw) is not None


def escaped_path(raw: bytes) -> bool:
    """Tell whether a raw request path may name a stored thing: whole segments of URL signs, escapes unread."""
    return len(raw) <= 4096 and _ESCAPED.fullmatch(raw) is not None


def basic_credential(text: str) -> tuple[str, str] | None:
    """Return user name and password of a Basic credential, None if it is not one."""
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def host_status(values: list[str], allowed: frozenset[str]) -> int:
    """Return 200 for an allowed Host header, 400 for a missing, repeated or malformed one, 421 for another
    host.
    """
    if len(values) != 1 or _HOST.fullmatch(values[0]) is None:
        return 400
    return 200 if values[0].lower() in allowed else 421


def same_origin(origin: str | None, fetch_site: str | None, own: str) -> bool:
    """Tell whether a browser's request comes from a page of this server.

    `Sec-Fetch-Site` cannot be set by scripts; browsers that do not send it send `Origin` with every change.
    """
    if fetch_site is not None:
        return fetch_site == "same-origin" and origin in (None, own)
    return origin == own


def idempotency_key(text: str) -> bool:
    """Tell whether `text` can be an idempotency key: 1 to 200 visible ASCII signs."""
    return _KEY.fullmatch(text) is not None


def json_depth(data: bytes, limit: int) -> bool:
    """Tell whether JSON bytes nest at most `limit` deep, without parsing them; of broken JSON nothing is told.

    Texts are cut out, brackets alone are left, and each round takes the innermost pairs away: all of it is done
    by functions of the standard library that run at the speed of C, as a batch of metrics has thousands of pairs.
    """
    if data.count(b"[") + data.count(b"{") <= limit:
        return True
    left = b'"' if b"\\" in data else data.translate(_BRACKETS, _NOT_STRUCTURE).replace(b'""', b"")
    if b'"' in left:
        # A text has an escape or a bracket; without them the two marks of each text are neighbours now.
        outside = b"".join(data.split(b'"')[::2]) if b"\\" not in data else _TEXT.sub(b"", data)
        left = outside.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(limit):
        inner = left.replace(b"[]", b"")
        if len(inner) == len(left):
            return True
        left = inner
    return b"[]" not in left


def _checksum(head: str) -> str:
    return base62(zlib.crc32(head.encode()), 6)
