"""Build an index: find, read, cut and embed what is new, take over the rest, and put it together."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from holdtrue.core.codec import dump
from holdtrue.llm.retrieval import arrays
from holdtrue.llm.retrieval.embedding import Embed, Embedder, open_embedder
from holdtrue.llm.retrieval.entries import document_of, entry_keys, make_entry, read_entry
from holdtrue.llm.retrieval.isolation import Parsers
from holdtrue.llm.retrieval.model import (
    FORMAT,
    Built,
    Document,
    DocumentRefused,
    IndexSpec,
    NoDocuments,
    Progress,
    Reason,
    Skipped,
    Source,
)
from holdtrue.llm.retrieval.packing import Before, Part, pack_files
from holdtrue.pipelines import Pipeline
from holdtrue.storage import BlobStore

Item = Document | Source | Skipped
_MOST_REPORTED = 200
# Documents that wait for each thread: enough to keep it busy, few enough to hold their bytes in memory.
_AHEAD = 4
_TELL_EVERY = 25


@dataclass(slots=True)
class _Work:
    """What a build needs at hand, and what it has seen."""

    pipeline: Pipeline
    spec: IndexSpec
    embedder: Embedder | None
    named: str
    parsers: Parsers
    before: "_Previous | None"
    tell: Callable[[Progress], None]
    known: dict[str, int] = field(default_factory=dict[str, int])
    parts: list[Part] = field(default_factory=list[Part])
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    made: list[str] = field(default_factory=list[str])

    def skip(self, uri: str, refused: DocumentRefused, key: str = "") -> None:
        """Note that a document is left out."""
        self.skipped.append(Skipped(uri, refused.reason, refused.facts["detail"], key))

    def progress(self, stage: Literal["documents", "packing"], done: int, total: int | None) -> None:
        """Tell how far the build is."""
        self.tell(Progress(stage, done, total, len(self.made), len(self.skipped)))


@dataclass(frozen=True, slots=True)
class _Previous:
    """The version before: its files, its documents with their places by id, and what was left out by uri."""

    content: Mapping[str, Any]
    files: Before
    parts: Mapping[str, Part]
    refused: Mapping[str, Skipped]

    @classmethod
    def of(cls, blobs: BlobStore, content: Mapping[str, Any] | None) -> "_Previous | None":
        if content is None or content.get("format") != FORMAT:
            return None
        manifest = read_manifest(blobs, content)
        parts = {each["id"]: Part(**each, place=place) for place, each in enumerate(manifest["documents"])}
        refused = {each["uri"]: Skipped(**{**each, "reason": Reason(each["reason"])}) for each in manifest["skipped"]}
        digests = {name: each["digest"] for name, each in content["files"].items()}
        files = {name: arrays.unpack(arrays.map_file(blobs.path(each), each))[0] for name, each in digests.items()}
        return cls(content, Before.of(files), parts, refused)


def build_index(
    pipeline: Pipeline,
    blobs: BlobStore,
    spec: IndexSpec,
    documents: Iterable[Item],
    embed: Embed | None = None,
    previous: Mapping[str, Any] | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Built:
    """Build the index of `documents` and return its content for the catalog, its blobs and a summary.

    Each document is a cached step; one that is in `previous` (the content of a version whose files are in `blobs`)
    unchanged is not even looked up. The result is the same with and without a cache or a previous version, and
    whatever the order of the documents. `embed` is the function behind an embedder “http:MODEL”; it is called from
    `workers` threads (by default one for each core). Raises NoDocuments if no document is left,
    EmbedderMissing, EmbedderFailed, MissingExtra.
    """
    embedder = None if spec.model == "none" else open_embedder(spec.embedder, embed)
    named = f"{embedder.name} {embedder.version}" if embedder else spec.model
    with Parsers(spec.parsing) as parsers:
        # A change of some other library is no reason to embed everything again: what counts is in the key.
        alone = replace(pipeline, engine="")
        work = _Work(alone, spec, embedder, named, parsers, _Previous.of(blobs, previous), on_progress)
        _collect(work, documents, workers or len(os.sched_getaffinity(0)))
    work.parts.sort(key=lambda part: part.id)
    work.skipped.sort(key=lambda each: (each.uri, each.reason, each.detail))
    if not work.parts:
        raise _nothing(work.skipped)
    work.progress("packing", 0, 1)
    built = _store(work, blobs)
    work.progress("packing", 1, 1)
    return built


def read_manifest(blobs: BlobStore, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an index says of each of its documents, and of each that was left out."""
    return orjson.loads(blobs.get(content["manifest"]))


def _collect(work: _Work, documents: Iterable[Item], threads: int) -> None:
    """Fill `work.parts`: from the version before, or by steps that several threads take."""
    waiting: deque[tuple[Document | Source, str, Future[bytes]]] = deque()
    named = entry_keys(work.spec, work.named)
    with ThreadPoolExecutor(threads, "retrieval") as pool:
        try:
            for number, item in enumerate(_distinct(work, documents), 1):
                key = named(item)
                if not _known(work, item, key):
                    waiting.append((item, key, pool.submit(_entry, work, item, key)))
                if len(waiting) >= _AHEAD * threads:
                    _take(work, *waiting.popleft())
                if number % _TELL_EVERY == 0:
                    work.progress("documents", number - len(waiting), None)
            while waiting:
                _take(work, *waiting.popleft())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    total = len(work.parts) + len(work.skipped)
    work.progress("documents", total, total)


def _distinct(work: _Work, documents: Iterable[Item]) -> Iterator[Document | Source]:
    seen: set[str] = set()
    for item in documents:
        if isinstance(item, Skipped):
            work.skipped.append(item)
        elif item.id in seen:
            again = DocumentRefused.of(Reason.DUPLICATE, f"There is another document called {item.id[:200]!r}.")
            work.skip(item.uri, again)
        else:
            seen.add(item.id)
            yield item


def _known(work: _Work, item: Document | Source, key: str) -> bool:
    """Take what the version before says of a document, if it would say the same again."""
    if work.before is None:
        return False
    part = work.before.parts.get(item.id)
    if part is not None and part.key == key:
        work.parts.append(part if part.uri == item.uri else replace(part, uri=item.uri))
        return True
    refused = work.before.refused.get(item.uri)
    # A parser that died may have been killed by something else: that document is tried again.
    if refused is not None and refused.key == key and refused.reason is not Reason.CRASHED:
        work.skipped.append(refused)
        return True
    return False


def _entry(work: _Work, item: Document | Source, key: str) -> bytes:
    """Return a document's entry, from the cache if it was made before."""

    def make() -> bytes:
        document = document_of(item, lambda source: work.parsers.parse(source.kind, source.data))
        made = make_entry(document, work.spec, work.embedder, work.known)
        work.made.append(item.id)
        return made

    return work.pipeline.step("retrieval entry", {"key": key}, make)


def _take(work: _Work, item: Document | Source, key: str, future: Future[bytes]) -> None:
    try:
        entry = future.result()
    except DocumentRefused as refused:
        work.skip(item.uri, refused, key)
        return
    found, title = read_entry(entry)
    work.parts.append(Part(item.id, item.uri, title, item.digest, key, len(found["chars"]), entry))


def _store(work: _Work, blobs: BlobStore) -> Built:
    """Pack, store, and describe."""
    before, parts = work.before, work.parts
    if before is not None and parts == list(before.parts.values()):
        files, dimensions = before.content["files"], _dimensions(before.content)
    else:
        packed = pack_files(parts, before.files if before else None, vectors=work.embedder is not None)
        files = {name: {"digest": blobs.put(data), "bytes": len(data)} for name, data in packed.items()}
        found = arrays.unpack(packed["vectors"])[0]["vectors"] if "vectors" in packed else None
        dimensions = 0 if found is None else found.shape[1]
    listed = {"documents": [part.listed() for part in parts], "skipped": [each.listed() for each in work.skipped]}
    manifest = blobs.put(orjson.dumps(listed, option=orjson.OPT_SORT_KEYS))
    reasons = dict(sorted(Counter(each.reason.value for each in work.skipped).items()))
    model = work.embedder
    content: dict[str, Any] = {
        "format": FORMAT,
        "spec": dump(work.spec),
        "embedder": {"name": model.name, "version": model.version, "dimensions": dimensions} if model else None,
        "documents": len(parts),
        "chunks": sum(part.chunks for part in parts),
        "skipped": reasons,
        "files": files,
        "manifest": manifest,
    }
    return Built(content, (*(str(each["digest"]) for each in files.values()), manifest), _summary(work, content))


def _dimensions(content: Mapping[str, Any]) -> int:
    return content["embedder"]["dimensions"] if content["embedder"] else 0


def _summary(work: _Work, content: Mapping[str, Any]) -> dict[str, Any]:
    """Say what was done, and each document that was left out (the first 200 of them; the manifest has all)."""
    before = {} if work.before is None else work.before.parts
    names = {part.id for part in work.parts}
    return {
        "documents": len(work.parts),
        "chunks": content["chunks"],
        "made": len(work.made),
        "from_cache": sum(part.entry is not None for part in work.parts) - len(work.made),
        "from_previous": sum(part.entry is None for part in work.parts),
        "removed": len(before.keys() - names),
        "skipped": len(work.skipped),
        "reasons": content["skipped"],
        "left_out": [each.to_json() for each in work.skipped[:_MOST_REPORTED]],
        "bytes": sum(each["bytes"] for each in content["files"].values()),
    }


def _nothing(skipped: list[Skipped]) -> NoDocuments:
    first = "; ".join(f"{each.uri[:80]}: {each.detail}" for each in skipped[:3])
    return NoDocuments(
        "There is nothing to put into the index.",
        why=f"{len(skipped)} documents were left out ({first})." if skipped else "No document was given.",
        mend="Correct the patterns of the sources, or mend the documents.",
        facts={"left_out": [each.to_json() for each in skipped[:_MOST_REPORTED]]},
    )
