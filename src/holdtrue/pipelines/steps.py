"""Steps whose results are kept by content: what did not change is never computed again."""

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdtrue.core.canonical import content_hash
from holdtrue.core.clock import Clock
from holdtrue.storage import ActionCache, BlobStore

Code = Callable[..., Any] | Sequence[Callable[..., Any]] | None


@dataclass(frozen=True, slots=True)
class StepDone:
    """Say how one step ended: whether its result was there already, and how long it took in seconds."""

    name: str
    key: str
    digest: str
    cached: bool
    seconds: float


@dataclass(slots=True)
class Pipeline:
    """Run steps against a cache. A step's result is durable before the next step starts.

    A run that was killed is simply run again: the steps that ended are found in the cache.
    """

    blobs: BlobStore
    actions: ActionCache
    clock: Clock
    on_step: Callable[[StepDone], None] = lambda _: None
    done: list[StepDone] = field(default_factory=list[StepDone])

    def step(self, name: str, inputs: Any, work: Callable[[], bytes], *, code: Code = None) -> bytes:
        """Return the bytes of `work`, from the cache if the same step ran before.

        The same step is: the same name, the same `inputs` (JSON, with the hashes of all that is read)
        and the same source text of `code`, the functions of the user that it runs.
        """
        key = content_hash({"step": name, "inputs": inputs, "code": code_digest(code)})
        start = self.clock.monotonic()
        digest = self.actions.get(key)
        cached = digest is not None and self.blobs.has(digest)
        if cached:
            assert digest is not None
            result = self.blobs.get(digest)
        else:
            result = work()
            digest = self.blobs.put(result)
            self.actions.put(key, digest)
        assert digest is not None
        done = StepDone(name, key, digest, cached, self.clock.monotonic() - start)
        self.done.append(done)
        self.on_step(done)
        return result


def code_digest(code: Code) -> str:
    """Return a hash of the source text of functions; comments and indentation around them do not count."""
    if code is None:
        return ""
    functions = [code] if callable(code) else list(code)
    return content_hash([_source(each) for each in functions])


def _source(function: Callable[..., Any]) -> str:
    return textwrap.dedent(inspect.getsource(function))
