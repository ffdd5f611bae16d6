"""Equal questions, answered once: an exact cache in the memory of one worker, bounded in number and size."""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import orjson

from holdtrue.llm.gateway.call import Call
from holdtrue.llm.gateway.model import Usage

ENTRIES: Final = 1_000
BYTES: Final = 64 << 20
_LARGEST: Final = 4 << 20
# How an answer is delivered, and by whom it was asked for, does not change what it says.
_DELIVERY: Final = frozenset({"stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class Kept:
    """Hold one answer, and when it becomes too old (monotonic seconds)."""

    data: bytes
    provider: str
    kind: str
    model: str
    usage: Usage
    until: float


class ExactCache:
    """Keep answers under a keyed hash of everything that they depend on."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._size = 0

    def key(self, call: Call, fingerprints: Sequence[str]) -> bytes:
        """Return the key of a request: HMAC-SHA-256 over project, principal, operation, providers as they are
        configured, policy, labels, and the whole body (model, system prompt, tools, parameters, messages).
        """
        asked = {name: value for name, value in call.body.items() if name not in _DELIVERY}
        route = call.route
        scope = [
            call.caller.project,
            call.caller.actor,
            call.operation.value,
            [target.label for target in route.targets],
            list(fingerprints),
            route.policy,
            route.labels,
        ]
        data = orjson.dumps([scope, asked, call.native], option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self._secret, data, sha256)

    def find(self, key: bytes, now: float) -> Kept | None:
        """Return the answer under `key` if it is not too old."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def keep(self, key: bytes, kept: Kept) -> None:
        """Keep an answer; the ones that were not asked for longest make room."""
        if len(kept.data) > _LARGEST:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = kept
        self._size += len(kept.data)
        while len(self._kept) > ENTRIES or self._size > BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        self._size -= len(self._kept.pop(key).data)
