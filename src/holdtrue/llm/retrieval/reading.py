"""Find documents below a folder: every file that a pattern names is given, or reported with the reason why not."""

import fnmatch
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from holdtrue.core.canonical import bytes_hash, content_hash
from holdtrue.core.errors import ConfigurationError, TooLarge
from holdtrue.llm.retrieval.entries import document_of
from holdtrue.llm.retrieval.isolation import Parsers
from holdtrue.llm.retrieval.model import Document, DocumentRefused, Parsing, Reason, Skipped, Source
from holdtrue.llm.retrieval.parsing import kind_of
from holdtrue.llm.retrieval.text import clean, decode

MOST_DOCUMENTS = 1_000_000
MOST_LINE = 4 << 20
_LONGEST_ID = 1024
_RECORD_KEYS = frozenset({"id", "title", "text", "uri", "meta"})
Found = Source | Document | Skipped


def find_sources(root: Path, patterns: Sequence[str], parsing: Parsing | None = None) -> Iterator[Found]:
    """Yield what the patterns name below `root`, sorted by path: bytes to parse, documents, or what was left out.

    Patterns are relative, as `docs/**/*.md`; hidden files and folders are taken only by patterns that name them. A
    link is followed only within `root`. A file of JSON lines (`.jsonl`) gives one document a line, with `text` and,
    if wanted, `id`, `title`, `uri` and `meta`. Raises ConfigurationError for a pattern that leaves the root or
    names no file.
    """
    limits = parsing or Parsing()
    real = root.resolve()
    seen: set[str] = set()
    for path in _paths(real, patterns):
        for item in _items(real, path, limits):
            if isinstance(item, Skipped):
                yield item
            elif item.id in seen:
                yield Skipped(item.uri, Reason.DUPLICATE, f"There is another document called {item.id[:200]!r}.")
            else:
                seen.add(item.id)
                yield item
        if len(seen) > MOST_DOCUMENTS:
            raise TooLarge(
                f"The patterns name more than {MOST_DOCUMENTS} documents.",
                mend="Split them into several indexes.",
            )


def read_documents(
    root: Path,
    patterns: Sequence[str],
    parsing: Parsing | None = None,
    on_skip: Callable[[Skipped], None] = lambda _: None,
) -> Iterator[Document]:
    """Yield the documents that the patterns name below `root`; `on_skip` is told each one that is left out."""
    limits = parsing or Parsing()
    with Parsers(limits) as parsers:
        for item in find_sources(root, patterns, limits):
            if isinstance(item, Skipped):
                on_skip(item)
                continue
            try:
                yield document_of(item, lambda source: parsers.parse(source.kind, source.data))
            except DocumentRefused as refused:
                on_skip(Skipped(item.uri, refused.reason, refused.facts["detail"]))


def _paths(root: Path, patterns: Sequence[str]) -> list[str]:
    """Return the paths below `root`, relative, that the patterns name: no folders, each once, sorted."""
    found: set[str] = set()
    for pattern in patterns:
        parts = pattern.split("/")
        if not pattern or pattern.startswith("/") or ".." in parts or "\\" in pattern or "\0" in pattern:
            raise ConfigurationError(
                f"{pattern[:80]!r} cannot be a pattern of sources.",
                why="A pattern is a path below the project's folder; it has no “..” and no backslash.",
                mend="Write, for example, “docs/**/*.md”, and move documents from elsewhere below the project.",
            )
        hidden = [part for part in parts if part.startswith(".")]
        matched = [
            relative
            for path in root.glob(pattern)
            if not path.is_dir() and _wanted(relative := os.path.relpath(path, root), hidden)
        ]
        if not matched:
            raise ConfigurationError(
                f"The pattern {pattern[:80]!r} names no file.",
                why="A source that gives nothing is more often misspelt than meant.",
                mend="Correct the pattern; it is relative to the folder of the project's file.",
            )
        found.update(matched)
    return sorted(found)


def _wanted(relative: str, hidden: list[str]) -> bool:
    """Say whether a path has no hidden part, but for those that its pattern names."""
    return all(
        not part.startswith(".") or any(fnmatch.fnmatchcase(part, each) for each in hidden)
        for part in relative.split(os.sep)
    )


def _items(root: Path, relative: str, limits: Parsing) -> Iterator[Found]:
    uri = relative.encode("utf-8", "backslashreplace").decode()
    try:
        if not relative.isprintable() or len(relative) > _LONGEST_ID:
            raise DocumentRefused.of(Reason.NAME, "Its name is too long, or has characters that cannot be shown.")
        data = _read(root, relative, limits.most_bytes)
        if relative.lower().endswith((".jsonl", ".ndjson")):
            yield from _records(relative, data)
            return
        if not data.strip():
            raise DocumentRefused.of(Reason.EMPTY, "The file is empty.")
        kind = kind_of(relative, data)
    except DocumentRefused as refused:
        yield Skipped(uri, refused.reason, refused.facts["detail"])
        return
    name = relative.rpartition("/")[2]
    yield Source(relative, uri, kind, data, bytes_hash(data), name.rpartition(".")[0] or name)


def _read(root: Path, relative: str, most: int) -> bytes:
    """Return the bytes of a regular file below `root`; where it really lies is asked of the opened file."""
    try:
        # A pipe would make the opening wait for a writer.
        descriptor = os.open(root / relative, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise DocumentRefused.of(Reason.UNREADABLE, f"It cannot be opened: {error.strerror}.") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DocumentRefused.of(Reason.IRREGULAR, "It is not a regular file.")
        if not Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(root):
            raise DocumentRefused.of(Reason.OUTSIDE, "It is a link to a file outside of the folder of the sources.")
        if status.st_size > most:
            raise DocumentRefused.of(Reason.TOO_LARGE, f"It has {status.st_size} bytes; at most {most} are read.")
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise DocumentRefused.of(Reason.UNREADABLE, f"It cannot be read: {error.strerror}.") from None
    if len(data) > most:
        raise DocumentRefused.of(Reason.TOO_LARGE, f"It grew while it was read; at most {most} bytes are read.")
    return data


def _records(relative: str, data: bytes) -> Iterator[Document | Skipped]:
    """Yield the documents of a file of JSON lines."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        uri = f"{relative}:{number}"
        try:
            yield _record(relative, number, uri, line)
        except DocumentRefused as refused:
            yield Skipped(uri, refused.reason, refused.facts["detail"])


def _record(relative: str, number: int, uri: str, line: bytes) -> Document:
    if len(line) > MOST_LINE:
        raise DocumentRefused.of(Reason.TOO_LARGE, f"The line has {len(line)} bytes; at most {MOST_LINE} are read.")
    try:
        record: Any = orjson.loads(decode(line))
    except orjson.JSONDecodeError as error:
        raise DocumentRefused.of(Reason.MALFORMED, f"The line is not JSON: {error!s:.100}.") from None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DocumentRefused.of(Reason.MALFORMED, "The line is not an object with a “text”.")
    if unknown := sorted(record.keys() - _RECORD_KEYS):
        known = ", ".join(sorted(_RECORD_KEYS))
        raise DocumentRefused.of(Reason.MALFORMED, f"The line has {unknown[0][:60]!r}; what is known is {known}.")
    named: list[Any] = [record.get("id", str(number)), record.get("title", ""), record.get("uri", uri)]
    meta: Any = record.get("meta", {})
    if not isinstance(meta, dict) or not all(isinstance(each, str) and each.isprintable() for each in named):
        raise DocumentRefused.of(Reason.MALFORMED, "“id”, “title” and “uri” are lines of text, and “meta” an object.")
    name, title, where = named
    if not name or len(name) + len(relative) >= _LONGEST_ID:
        raise DocumentRefused.of(Reason.NAME, f"An id has 1 to {_LONGEST_ID} characters with the file's name.")
    text = clean(record["text"])
    if not text.strip():
        raise DocumentRefused.of(Reason.EMPTY, "Its text is empty.")
    digest = content_hash({"title": title, "text": text})
    return Document(f"{relative}/{name}", clean(title) or name, text, where, digest, meta)
