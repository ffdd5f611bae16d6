"""Mask what people said where a project keeps it masked: with the detectors that guard applications."""

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from holdtrue.traces.redaction import mask_text

if TYPE_CHECKING:
    from holdtrue.llm.guardrails import Guardrails

_WHOLE: Final = "[redacted]"
# Personal data and secrets have a digit, an at sign, or stand after a sign of assignment.
_HINT: Final = re.compile(r"[0-9@:=]|-----")
# Ids of this house, of traces and spans: by chance their digits look like a payment card's.
_ID: Final = re.compile(
    r"(?:call|dec|evd|grd|idx|mdl|pol|prd|prm|rel|req|rol|rte|svc|tok|usr)_[0-9a-z]{16,40}|"
    r"(?=[0-9]*[a-f])(?:[0-9a-f]{16}|[0-9a-f]{32})"
)
_SHORT: Final = 256
_KEPT: Final = 8192
_OPTIONS: Final = {"max_chars": 1_000_000, "time_ms": 10_000}


class Masker:
    """Return texts with secrets and personal data masked; a text that cannot be looked at whole is left out.

    The detectors are loaded with the first text.
    """

    def __init__(self) -> None:
        self._guardrails: Guardrails | None = None
        # Values of attributes come again and again.
        self._known = lru_cache(maxsize=_KEPT)(self._masked)

    def __call__(self, text: str) -> str:
        """Return a text as it may be kept."""
        if _HINT.search(text) is None or _ID.fullmatch(text):
            return text
        return self._known(text) if len(text) <= _SHORT else self._masked(text)

    def _masked(self, text: str) -> str:
        if self._guardrails is None:
            from holdtrue.llm.guardrails import compile_guardrails

            guards = [{"kind": kind, "action": "mask", "options": _OPTIONS} for kind in ("secrets", "personal_data")]
            self._guardrails = compile_guardrails({"name": "capture", "guards": guards})
        # What has the form of a secret is taken out whether or not its checksum is right.
        verdict = self._guardrails.check_input(mask_text(text))
        return _WHOLE if verdict.blocked else verdict.text
