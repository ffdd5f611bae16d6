"""Steps whose results are kept by content: what did not change is never computed again."""

import ast
import functools
import importlib.metadata
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdtrue.core.canonical import content_hash
from holdtrue.core.clock import Clock
from holdtrue.core.errors import ConfigurationError, Corrupt, NotFound
from holdtrue.storage import ActionCache, BlobStore

Code = Callable[..., Any] | Sequence[Callable[..., Any]] | None

_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class StepDone:
    """Say how one step ended: whether its result was there already, and how long it took in seconds."""

    name: str
    key: str
    digest: str
    cached: bool
    seconds: float


def engine() -> str:
    """Return a hash of the versions of Holdtrue and of the libraries it computes with."""
    try:
        named = importlib.metadata.requires("holdtrue") or []
    except importlib.metadata.PackageNotFoundError:
        named = []
    names = {found[0] for each in named if (found := _REQUIREMENT.match(each))} | {"holdtrue"}
    versions: dict[str, str] = {}
    for name in sorted(names):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return content_hash(versions)


@dataclass(slots=True)
class Pipeline:
    """Run steps against a cache. A step's result is durable before the next step starts.

    A run that was killed is simply run again: the steps that ended are found in the cache. `on_start` is told
    the name of a step before it is computed, `on_step` how each one ended. `engine` is part of every step's key.
    """

    blobs: BlobStore
    actions: ActionCache
    clock: Clock
    on_step: Callable[[StepDone], None] = lambda _: None
    on_start: Callable[[str], None] = lambda _: None
    engine: str = field(default_factory=engine)
    done: list[StepDone] = field(default_factory=list[StepDone])

    def step(self, name: str, inputs: Any, work: Callable[[], bytes], *, code: Code = None) -> bytes:
        """Return the bytes of `work`, from the cache if the same step ran before.

        The same step is: the same name, the same `inputs` (JSON, with the hashes of all that is read), the same
        `code`, the functions of the user that it runs, and the same `engine`. A cached result that was damaged or
        collected is computed again.
        """
        key = content_hash({"step": name, "inputs": inputs, "code": code_digest(code), "engine": self.engine})
        start = self.clock.monotonic()
        digest = self.actions.get(key)
        result = None if digest is None else self._kept(digest)
        cached = result is not None
        if digest is None or result is None:
            self.on_start(name)
            result = work()
            digest = self.blobs.put(result)
            self.actions.put(key, digest)
        done = StepDone(name, key, digest, cached, self.clock.monotonic() - start)
        self.done.append(done)
        self.on_step(done)
        return result

    def _kept(self, digest: str) -> bytes | None:
        try:
            return self.blobs.get(digest)
        except (Corrupt, NotFound):
            return None


def code_digest(code: Code) -> str:
    """Return a hash of what functions say; their comments and layout do not count.

    Functions that they call count only if they are among `code` too. Raises ConfigurationError for code that
    has no source.
    """
    if code is None:
        return ""
    functions = [code] if callable(code) else list(code)
    return content_hash([_said(each) for each in functions])


def _said(function: Callable[..., Any]) -> Any:
    if isinstance(function, functools.partial):
        return [_said(function.func), repr(function.args), repr(sorted(function.keywords.items()))]
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise ConfigurationError(
            f"The source of {function!r:.80} cannot be read.",
            why="A step is known by what its functions say, so that it runs again when they change.",
            mend="Define the function in a file, with def.",
        ) from error
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        # A lambda in the middle of a statement is no statement of its own.
        return source
