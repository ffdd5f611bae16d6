"""Take traces in on the control plane: the same redaction and journal as on the data plane, opened when first used."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from holdtrue.storage import Stores
from holdtrue.traces.infos.model import Assessment, TraceInfo
from holdtrue.traces.model import Capture, TraceSettings
from holdtrue.traces.online import SpanSink
from holdtrue.traces.redaction import Redactor, mask_text

WRITER: Final = "control-traces"
_SEGMENT: Final = 16 << 20
# Metadata and tags that repeat what was said to and by the application.
_CONTENT: Final = frozenset({"mlflow.traceInputs", "mlflow.traceOutputs"})


class Intake:
    """Hold the sink of spans that come to the control plane, and clean what is said of traces beside spans."""

    def __init__(
        self,
        stores: Stores,
        captures: Mapping[str, Capture] = MappingProxyType({}),
        default: Capture = Capture.FULL,
    ) -> None:
        """`captures` and `default` say how much of what people and models said is kept of a project."""
        self._stores = stores
        self._captures = captures
        self._default = default
        self._redactor = Redactor()
        self._opening = threading.Lock()
        self._sink: SpanSink | None = None

    def sink(self) -> SpanSink:
        """Return where spans are written; the journal's writer is opened with the first of them."""
        with self._opening:
            if self._sink is None:
                writer = self._stores.journal.writer(WRITER, "strict", segment_bytes=_SEGMENT)
                settings = {project: TraceSettings(each) for project, each in self._captures.items()}
                default = TraceSettings(self._default)
                self._sink = SpanSink(writer, self._stores.clock, settings, default=default)
            return self._sink

    def capture(self, project: str) -> Capture:
        """Return how much is kept of a project."""
        return self._captures.get(project, self._default)

    def clean(self, project: str, info: TraceInfo) -> TraceInfo:
        """Return what may be stored of a trace."""
        capture = self.capture(project)
        kept = {"request": info.request, "response": info.response}
        if capture is Capture.OFF:
            kept = dict.fromkeys(kept, "")
        return replace(
            info,
            metadata=self._pairs(info.metadata, capture),
            tags=self._pairs(info.tags, capture),
            client_request=self._text(info.client_request, capture),
            **{name: self._text(text, capture) for name, text in kept.items()},
        )

    def clean_assessment(self, project: str, row: Assessment) -> Assessment:
        """Return what may be stored of an assessment; with capture off, of its texts only short ones that judge."""
        capture = self.capture(project)
        value, body = self._redactor.scrub([row.value, dict(row.body)])
        if capture is not Capture.FULL:
            value, body = _masked(value), _masked(body)
        if capture is Capture.OFF:
            body = {name: each for name, each in body.items() if name != "rationale"}
        return replace(row, value=value, body=body)

    def clean_json(self, project: str, value: Any) -> Any:
        """Return what may be stored of JSON that a client keeps on purpose, such as the cases of an evaluation."""
        scrubbed = self._redactor.scrub(value)
        return scrubbed if self.capture(project) is Capture.FULL else _masked(scrubbed)

    def text(self, project: str, text: str) -> str:
        """Return what may be stored of a text."""
        return self._text(text, self.capture(project))

    def _text(self, text: str, capture: Capture) -> str:
        scrubbed: str = self._redactor.scrub(text)
        return scrubbed if capture is Capture.FULL else mask_text(scrubbed)

    def _pairs(self, pairs: Mapping[str, str], capture: Capture) -> dict[str, str]:
        kept = {key: value for key, value in pairs.items() if capture is not Capture.OFF or key not in _CONTENT}
        return {key: self._text(value, capture) for key, value in kept.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        pairs: Mapping[Any, Any] = value
        return {key: _masked(each) for key, each in pairs.items()}
    if isinstance(value, Sequence):
        items: Sequence[Any] = value
        return [_masked(each) for each in items]
    return value
