"""What answers at request time: an index opened from its files, and passages written for a prompt.

Imports neither SQLAlchemy nor DuckDB. An open index never changes, so a new version takes the place of an old one
by one assignment: searches under way end on the files with which they began.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.retrieval import arrays
from holdtrue.llm.retrieval.arrays import Array
from holdtrue.llm.retrieval.embedding import Embed, Embedder, Vector, open_embedder
from holdtrue.llm.retrieval.keywords import KeywordIndex
from holdtrue.llm.retrieval.model import (
    FORMAT,
    HEADING_MARK,
    MODES,
    MOST_HITS,
    EmbedderMismatch,
    Hit,
    IndexRefused,
    Mode,
)
from holdtrue.llm.retrieval.ranking import Ranked, fuse
from holdtrue.llm.retrieval.text import clean
from holdtrue.llm.retrieval.vectors import VectorIndex
from holdtrue.storage.blobs import BlobStore

# Embedding costs time for each word; what is beyond is not looked at.
MOST_QUERY_CHARACTERS = 1000
_CANDIDATES = 100
_REMEMBERED = 1024


class Index:
    """Search the passages of one version of an index. Any number of threads may."""

    def __init__(self, content: Mapping[str, Any], files: Mapping[str, Mapping[str, Array]], embedder: Embedder | None):
        self.name: str = content["spec"]["name"]
        self.documents: int = content["documents"]
        self.chunks: int = content["chunks"]
        self._mode: Mode = content["spec"]["mode"]
        self._k: int = content["spec"]["k"]
        self._weights: Mapping[str, float] = content["spec"]["weights"]
        self._passages = _Passages(files["passages"])
        self._keywords = KeywordIndex(files["keywords"])
        self._vectors = VectorIndex(files["vectors"]) if "vectors" in files else None
        self._queries = None if embedder is None else _Queries(embedder)

    def search(self, query: str, k: int | None = None, mode: Mode | None = None) -> list[Hit]:
        """Return the `k` best passages for `query`, best first; k and mode are the index's own if not given.

        Of a query the first 1,000 characters count. A score is BM25 for “keyword”, the cosine for “vector”, and
        the fused reciprocal ranks for “hybrid”; equal scores go by document and place. Raises InvalidInput for a
        mode that the index does not have or a k that is not from 1 to 100, EmbedderFailed.
        """
        wanted, way = self._checked(k, mode)
        text = query_text(query)
        if not text:
            return []
        reach = max(_CANDIDATES, 2 * wanted) if way == "hybrid" else wanted
        by_words = _rows(self._keywords.search(text, reach)) if way != "vector" else {}
        by_meaning = self._nearest(text, reach) if way != "keyword" else {}
        if way == "hybrid":
            weights = self._weights
            lists = [(weights["vector"], [*by_meaning]), (weights["keyword"], [*by_words])]
            found = fuse(lists, wanted)
        else:
            found = list((by_words or by_meaning).items())
        meaning_ranks, word_ranks = _ranks(by_meaning), _ranks(by_words)
        return [self._passages.hit(row, score, meaning_ranks.get(row), word_ranks.get(row)) for row, score in found]

    def _nearest(self, text: str, count: int) -> dict[int, float]:
        assert self._vectors is not None
        assert self._queries is not None
        vector = self._queries.vector(text)
        if len(vector) != self._vectors.dimensions:
            raise _mismatch(f"its vectors have {len(vector)} numbers and those of the index {self._vectors.dimensions}")
        return _rows(self._vectors.search(vector, count))

    def _checked(self, k: int | None, mode: Mode | None) -> tuple[int, Mode]:
        wanted, way = self._k if k is None else k, self._mode if mode is None else mode
        if not 1 <= wanted <= MOST_HITS:
            raise InvalidInput(f"{wanted} passages cannot be given.", mend=f"Ask for 1 to {MOST_HITS}.")
        if way not in MODES or (way != "keyword" and self._vectors is None):
            raise InvalidInput(
                f"The index {self.name} cannot be searched in the mode {str(way)[:40]!r}.",
                why="It was built without vectors." if way in MODES else f"The modes are {', '.join(MODES)}.",
                mend="Use another mode, or build the index with the mode “hybrid”.",
            )
        return wanted, way


def query_text(query: str) -> str:
    """Return what of a query is looked at, and embedded: its first 1,000 characters."""
    return clean(query)[:MOST_QUERY_CHARACTERS].strip()


def open_index(blobs: BlobStore, content: Mapping[str, Any], embed: Embed | Embedder | None = None) -> Index:
    """Open an index by its content, from its files in `blobs`: the bytes that are used are those that were approved.

    `embed` is the function behind an embedder “http:MODEL”, or an embedder that several indexes share. Raises
    NotFound, Corrupt, IndexRefused, EmbedderMissing, EmbedderMismatch, MissingExtra.
    """
    if content.get("format") != FORMAT:
        raise IndexRefused(
            f"The index is of the form {str(content.get('format'))[:40]!r}, which is not known here.",
            mend="Build it again with this version of Holdtrue.",
        )
    named = content["embedder"]
    embedder = None
    if named is not None:
        embedder = embed if isinstance(embed, Embedder) else open_embedder(named["name"], embed)
        if (embedder.name, embedder.version) != (named["name"], named["version"]):
            raise _mismatch(
                f"it is {embedder.name} {embedder.version}, and the index was built with "
                f"{named['name']} {named['version']}"
            )
    files: dict[str, Mapping[str, Array]] = {}
    for name, each in content["files"].items():
        digest = each["digest"]
        files[name], _ = arrays.unpack(arrays.map_file(blobs.path(digest), digest))
    try:
        _check_fit(files)
        return Index(content, files, embedder)
    except (KeyError, ValueError, IndexError) as error:
        raise IndexRefused(
            "The files of the index do not fit together.",
            why=f"{type(error).__name__}: {error!s:.100}.",
            mend="Build it again with this version of Holdtrue.",
        ) from None


def _check_fit(files: Mapping[str, Mapping[str, Array]]) -> None:
    """Raise ValueError or KeyError if an array points outside of another, so that no search ever does."""
    passages, keywords = files["passages"], files["keywords"]
    n = len(passages["chars"])
    rows = [passages["bytes"], passages["heading_lengths"], keywords["lengths"]]
    if "vectors" in files:
        vectors = files["vectors"]
        rows += [vectors["vectors"], vectors["rough"], vectors["scales"]]
        _need(vectors["vectors"].shape == vectors["rough"].shape, "vectors")
    _need(n > 0 and all(len(each) == n for each in rows), "rows")
    for lengths, whole in (("text_lengths", "text"), ("name_lengths", "names"), ("heading_lengths", "headings")):
        _need(passages[lengths].min() >= 0 and int(passages[lengths].sum()) == len(passages[whole]), whole)
    chunks = passages["document_chunks"]
    _need(chunks.min() > 0 and int(chunks.sum()) == n and len(passages["name_lengths"]) == 3 * len(chunks), "documents")
    spans = passages["bytes"]
    _need(spans.min() >= 0 and bool((spans[:, 1] <= passages["text_lengths"].repeat(chunks)).all()), "bytes")
    starts, postings = keywords["starts"], keywords["rows"]
    _need(len(starts) == len(keywords["terms"]) + 1 and len(postings) == len(keywords["counts"]), "terms")
    _need(starts[0] == 0 and starts[-1] == len(postings) and bool((starts[1:] > starts[:-1]).all()), "starts")
    _need(not len(postings) or (postings.min() >= 0 and postings.max() < n), "postings")


def _need(fits: Any, what: str) -> None:
    if not fits:
        raise ValueError(f"{what} do not fit")


def render_passages(hits: Iterable[Hit]) -> str:
    """Return passages as blocks for a prompt; what a document says can neither close its block nor open another.

    Every “&”, “<” and “>” is escaped (and quotes in attributes), so the only tags are those written here.
    """
    blocks: list[str] = []
    for hit in hits:
        text = escape(clean(hit.text), quote=False)
        blocks.append(f'<passage id="{_attribute(hit.id)}" title="{_attribute(hit.title)}">\n{text}\n</passage>')
    return "\n".join(blocks)


def _attribute(text: str) -> str:
    return escape(" ".join(clean(text).split()))


class _Queries:
    """Embed queries, and remember the last 1,024 of them."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: OrderedDict[str, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def vector(self, text: str) -> Vector:
        """Return the vector of a query."""
        with self._lock:
            if (known := self._known.get(text)) is not None:
                self._known.move_to_end(text)
                return known
        made = self._embedder.query(text)
        with self._lock:
            self._known[text] = made
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return made


class _Passages:
    """The texts of an index, by row."""

    def __init__(self, found: Mapping[str, Array]) -> None:
        self._text, self._names, self._headings = found["text"], found["names"], found["headings"]
        self._chars, self._bytes = found["chars"], found["bytes"]
        self._rows = arrays.starts(found["document_chunks"])
        self._texts = arrays.starts(found["text_lengths"])
        self._name_starts = arrays.starts(found["name_lengths"])
        self._heading_starts = arrays.starts(found["heading_lengths"])

    def hit(self, row: int, score: float, vector_rank: int | None, keyword_rank: int | None) -> Hit:
        """Return the passage of a row."""
        document = int(self._rows.searchsorted(row, side="right")) - 1
        name, title = (self._name(3 * document + place) for place in (0, 1))
        first, last = self._bytes[row] + self._texts[document]
        start, end = self._chars[row]
        path = _cut(self._headings, self._heading_starts, row)
        return Hit(
            id=f"{name}#{row - int(self._rows[document])}",
            document=name,
            title=title,
            text=self._text[first:last].tobytes().decode(),
            score=score,
            start=int(start),
            end=int(end),
            vector_rank=vector_rank,
            keyword_rank=keyword_rank,
            heading=tuple(path.split(HEADING_MARK)) if path else (),
        )

    def _name(self, place: int) -> str:
        return _cut(self._names, self._name_starts, place)


def _cut(texts: Array, places: Array, place: int) -> str:
    return texts[places[place] : places[place + 1]].tobytes().decode()


def _rows(ranked: Ranked) -> dict[int, float]:
    rows, scores = ranked
    return dict(zip(rows.tolist(), scores.tolist(), strict=True))


def _ranks(found: Mapping[int, float] | Sequence[int]) -> dict[int, int]:
    return {row: rank for rank, row in enumerate(found, 1)}


def _mismatch(why: str) -> EmbedderMismatch:
    return EmbedderMismatch(
        "The embedding model is not the one with which the index was built.",
        why=f"{why[0].upper()}{why[1:]}.",
        mend="Build the index again with the model that is installed, or install the one it was built with.",
    )
