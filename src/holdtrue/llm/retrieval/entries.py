"""What one document is in an index: its text, its chunks, their vectors and terms, as one run of bytes.

It depends on the document and on how it was read, cut and embedded, and on nothing else; so every version of an
index shares it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache

import numpy as np

from holdtrue.core.canonical import bytes_hash, content_hash
from holdtrue.llm.retrieval import arrays
from holdtrue.llm.retrieval.arrays import Array
from holdtrue.llm.retrieval.chunking import chunk_document, outline
from holdtrue.llm.retrieval.embedding import Embedder
from holdtrue.llm.retrieval.keywords import counted
from holdtrue.llm.retrieval.model import HEADING_MARK, Chunk, Document, DocumentRefused, IndexSpec, Kind, Reason, Source
from holdtrue.llm.retrieval.parsing import Parsed, revision

# Part of every key: raise it when chunks, terms or the layout of an entry change.
_REVISION = 1


def entry_keys(spec: IndexSpec, embedder: str) -> Callable[[Document | Source], str]:
    """Return the function that names the entry of a document by all that it is made from.

    `embedder` is the name and version of the model, or a text that says that there is none.
    """
    shared = {"revision": _REVISION, "chunking": asdict(spec.chunking), "embedder": embedder}
    parsing = asdict(spec.parsing)

    @lru_cache
    def common(kind: Kind, parsed: bool) -> str:
        return content_hash(
            shared | {"kind": kind} | ({"parser": revision(kind), "parsing": parsing} if parsed else {})
        )

    def key(item: Document | Source) -> str:
        parsed = isinstance(item, Source)
        title = item.name if parsed else item.title
        # A digest and a hash have no line ends, so no two items give the same text.
        return bytes_hash(f"{common(item.kind, parsed)}\n{item.digest}\n{title}".encode())

    return key


def document_of(item: Document | Source, parse: Callable[[Source], Parsed]) -> Document:
    """Return a document, parsed if it was not; its title is its own, its first heading, or its name."""
    if isinstance(item, Document):
        return item
    parsed = parse(item)
    headings = [] if parsed.title else outline(parsed.text, parsed.kind)
    title = parsed.title or (headings[0].title if headings else item.name)
    return Document(item.id, title, parsed.text, item.uri, item.digest, kind=parsed.kind)


def make_entry(document: Document, spec: IndexSpec, embedder: Embedder | None, known: dict[str, int]) -> bytes:
    """Return the entry of a document; raise DocumentRefused if there is nothing in it to be found.

    `known` remembers the keys of terms from document to document.
    """
    chunks = chunk_document(document, spec.chunking)
    if not chunks:
        raise DocumentRefused.of(Reason.EMPTY, "It holds no words.")
    said = [_said(chunk) for chunk in chunks]
    ends = _byte_ends(document.text, chunks)
    headings, heading_lengths = arrays.join([HEADING_MARK.join(chunk.heading).encode() for chunk in chunks])
    made: dict[str, Array] = {
        "text": np.frombuffer(document.text.encode(), np.uint8),
        "chars": np.array([[chunk.start, chunk.end] for chunk in chunks], np.int32),
        "bytes": np.array(ends, np.int32),
        "headings": headings,
        "heading_lengths": heading_lengths,
        **counted(said, known),
    }
    if embedder is not None:
        made["vectors"] = embedder.passages(said).astype(np.float16)
    return arrays.pack(made, {"title": document.title})


def read_entry(data: bytes) -> tuple[Mapping[str, Array], str]:
    """Return the arrays of an entry and the document's title."""
    found, meta = arrays.unpack(data)
    return found, meta["title"]


def _said(chunk: Chunk) -> str:
    """Return a chunk as it is embedded and found: below the title and headings that say what it is about."""
    path = [part for part in chunk.heading if part != chunk.title]
    return "\n".join((" › ".join((chunk.title, *path)), chunk.text))


def _byte_ends(text: str, chunks: list[Chunk]) -> list[tuple[int, int]]:
    """Return where each chunk starts and ends in the UTF-8 form of the text."""
    if text.isascii():
        return [(chunk.start, chunk.end) for chunk in chunks]
    places = sorted({place for chunk in chunks for place in (chunk.start, chunk.end)})
    found: dict[int, int] = {}
    at = total = 0
    for place in places:
        total += len(text[at:place].encode())
        at, found[place] = place, total
    return [(found[chunk.start], found[chunk.end]) for chunk in chunks]
