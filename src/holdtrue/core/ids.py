"""Names of things: content ids, time-ordered ids, and the names users choose."""

import os
import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import InvalidInput

PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "config": "cfg",
        "contract": "ctr",
        "dataset": "ds",
        "feature_view": "fv",
        "guardrail": "grd",
        "index": "idx",
        "model": "mdl",
        "policy": "pol",
        "prompt": "prm",
        "release": "rel",
        "route": "rte",
        "split": "spl",
        "test_set": "tst",
    }
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PREDICTION = re.compile(r"prd_[0-9a-f]{31}")
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def version_id(kind: str, content: Any) -> str:
    """Name an immutable version: the kind's prefix and 16 hexadecimal digits of its content's hash."""
    return f"{PREFIXES[kind]}_{content_hash({'kind': kind, 'content': content})[:16]}"


def new_id(prefix: str, now: datetime) -> str:
    """Make an id that sorts by time: 48 bits of milliseconds, then 80 random bits (as ULID does)."""
    number = (int(now.timestamp() * 1000) << 80) | int.from_bytes(os.urandom(10))
    digits: list[str] = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits.append(_BASE32[digit])
    return f"{prefix}_{''.join(reversed(digits))}"


def is_prediction_id(text: str) -> bool:
    """Tell whether `text` has the form of the ids that answers come with."""
    return _PREDICTION.fullmatch(text) is not None


def check_name(text: str, what: str = "name") -> str:
    """Return `text` if it may name a thing, else raise InvalidInput."""
    if _NAME.fullmatch(text) is None:
        raise InvalidInput(
            f"{text[:80]!r} cannot be used as a {what}.",
            why="A name has 1 to 63 letters, digits, dots, dashes or underscores, and starts with a letter or digit.",
            mend=f"Choose another {what}, for example “flight-delays”.",
            facts={"what": what},
        )
    return text
