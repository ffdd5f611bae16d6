"""Turn bytes into text: Markdown, reStructuredText, plain text, HTML and PDF.

HTML and PDF need parsers that hostile bytes can make slow, large or crash: those run in `isolation`'s process.
"""

import importlib.metadata
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.retrieval.model import DocumentRefused, Kind, Parsing, Reason
from holdtrue.llm.retrieval.text import clean, decode

SUFFIXES: Mapping[str, Kind] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".txt": "text",
    ".text": "text",
    ".htm": "html",
    ".html": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}
_PLAIN = frozenset(["", ".adoc", ".csv", ".log", ".org", ".tex", ".toml", ".tsv", ".yaml", ".yml"])
ISOLATED: frozenset[Kind] = frozenset({"html", "pdf"})
# Part of the key of every cached result: raise it when the text that a parser gives changes.
_REVISION = 1
_LIBRARIES: Mapping[Kind, str] = {"html": "selectolax", "pdf": "pypdf"}
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FENCED = re.compile(
    r"(^ {0,3}(?:`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}(?:`{3,}|~{3,})[ \t]*$|\Z))", re.DOTALL | re.MULTILINE
)
_FRONT = re.compile(r"---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:(.*)$", re.MULTILINE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{2,40})", re.IGNORECASE)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "iso-8859-15", "windows-1252"})
_UNSEEN_TAG = re.compile(
    "audio|canvas|datalist|embed|head|iframe|math|noscript|object|script|select|style|svg|template|video"
).fullmatch
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|d[dlt]|details|div|fieldset|figcaption|figure|footer|form|h[1-6]|header|hr|li|"
    "main|nav|[ou]l|p|pre|section|summary|table|tbody|t[dhr]|tfoot|thead"
).fullmatch
_UNSEEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])|opacity\s*:\s*0(?![.\d])", re.IGNORECASE
)
_SPACES = re.compile(r"[ \t\n]+")
_BLANKS = re.compile(r"\n(?:[ \t]*\n)+")


@dataclass(frozen=True, slots=True)
class Parsed:
    """Hold what a parser found: the document's own title (or none), its text, and how headings are written in it."""

    title: str
    text: str
    kind: Kind


def revision(kind: Kind) -> str:
    """Return the version of the parser of `kind` and of the library under it."""
    library = _LIBRARIES.get(kind)
    if library is None:
        return str(_REVISION)
    try:
        return f"{_REVISION} {library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtra.of("llm", library) from None


def kind_of(name: str, data: bytes) -> Kind:
    """Return how a file is read, by its content and its suffix; raise DocumentRefused if it is not."""
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    if data[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    kind = SUFFIXES.get(suffix)
    if kind == "pdf":
        raise DocumentRefused.of(Reason.MALFORMED, "It is called a PDF and does not start as one.")
    start = data[:1024].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    if kind is None:
        if suffix in (
            "",
            ".license",
            ".readme",
            ".log",
            ".adoc",
            ".org",
            ".tex",
            ".csv",
            ".tsv",
            ".yaml",
            ".yml",
            ".toml",
        ):
            return "text"
        raise DocumentRefused.of(Reason.UNSUPPORTED, f"Files that end in {suffix[:20]!r} are not read.")
    return kind


def parse(kind: Kind, data: bytes, limits: Parsing) -> Parsed:
    """Return the text of a document; raise DocumentRefused with the reason if it gives none.

    HTML and PDF are not to be parsed in a process that matters: use `isolation.Parsers` for them. They may also raise
    MemoryError and whatever a parser of broken files stumbles over.
    """
    parsed = _PARSERS[kind](data, limits)
    if not parsed.text.strip():
        raise DocumentRefused.of(Reason.EMPTY, "It holds no text.")
    if len(parsed.text) > limits.most_characters:
        raise _too_long(limits)
    return parsed


def _text(data: bytes, limits: Parsing) -> Parsed:
    return Parsed("", clean(decode(data)), "text")


def _markdown(data: bytes, limits: Parsing) -> Parsed:
    text, title = clean(decode(data)), ""
    if front := _FRONT.match(text):
        found = _FRONT_TITLE.search(front[1] or "")
        title = found[1].strip().strip("\"'") if found else ""
        text = text[front.end() :]
    # Comments are shown to no reader, so they are not part of what is said; those in code are.
    pieces = _FENCED.split(text)
    text = "".join(piece if place % 2 else _COMMENT.sub("", piece) for place, piece in enumerate(pieces))
    return Parsed(title, text, "markdown")


def _rst(data: bytes, limits: Parsing) -> Parsed:
    return Parsed("", clean(decode(data)), "rst")


def _html(data: bytes, limits: Parsing) -> Parsed:
    try:
        from selectolax.lexbor import LexborHTMLParser, SelectolaxError
    except ImportError:
        raise MissingExtra.of("llm", "selectolax") from None
    text = _html_text(data)
    try:
        tree: Any = LexborHTMLParser(text)
    except SelectolaxError:
        # Everything is HTML in some way, so this parser fails only where it gets no memory.
        raise MemoryError from None
    head = tree.css_first("title")
    title = _SPACES.sub(" ", head.text()).strip() if head is not None else ""
    pieces: list[str] = []
    length = 0
    for piece in _seen(tree.root):
        pieces.append(piece)
        length += len(piece)
        if length > 2 * limits.most_characters:
            raise _too_long(limits)
    text = _BLANKS.sub("\n\n", clean("".join(pieces))).strip()
    return Parsed(clean(title)[:300], text, "html")


def _html_text(data: bytes) -> str:
    """Return HTML as text: by its mark or as UTF-8, else in the character set it declares, if that is a plain one."""
    try:
        return decode(data)
    except DocumentRefused as refused:
        declared = _CHARSET.search(data[:4096])
        name = declared[1].decode().lower() if declared else ""
        if refused.reason is Reason.ENCODING and name in _CHARSETS and not name.startswith("utf"):
            # As browsers do, the Latin-1 family is read as Windows-1252, whose few gaps become signs of loss.
            return data.decode("windows-1252", "replace")
        raise


def _seen(root: Any) -> Iterator[str]:
    """Yield what a reader sees of a tree, as Markdown-like text; no recursion, whatever the depth."""
    node, fenced = root, 0
    while node is not None:
        tag = node.tag
        if tag == "-text":
            content = node.text_content or ""
            yield content if fenced else _SPACES.sub(" ", content)
        enter = tag != "-text" and node.is_element_node and not _unseen(tag, node.attributes)
        if enter:
            fenced += tag == "pre"
            yield _before(tag)
            if (child := node.first_child) is not None:
                node = child
                continue
        # Up to the next thing that was not visited, closing what is left on the way.
        while node is not None:
            if enter:
                fenced -= node.tag == "pre"
                yield _after(node.tag)
            enter = True
            if node.mem_id == root.mem_id:
                return
            if (following := node.next) is not None:
                node = following
                break
            node = node.parent


def _unseen(tag: str, attributes: Mapping[str, str | None]) -> bool:
    if _UNSEEN_TAG(tag):
        return True
    if not attributes:
        return False
    style = attributes.get("style") or ""
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or (bool(style) and _UNSEEN_STYLE.search(style) is not None)
    )


def _before(tag: str) -> str:
    if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
        return f"\n\n{'#' * int(tag[1])} "
    if tag == "pre":
        return "\n\n```\n"
    if tag == "li":
        return "\n- "
    if tag in ("td", "th"):
        return " "
    return "\n" if tag == "br" else "\n\n" if _BLOCK(tag) and tag not in ("ul", "ol", "tr") else _row(tag)


def _row(tag: str) -> str:
    return "\n" if tag in ("ul", "ol", "tr") else ""


def _after(tag: str) -> str:
    if tag == "pre":
        return "\n```\n\n"
    if tag in ("td", "th"):
        return " |"
    return "" if tag in ("li", "tr") else "\n\n" if _BLOCK(tag) else ""


def _pdf(data: bytes, limits: Parsing) -> Parsed:
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError:
        raise MissingExtra.of("llm", "pypdf") from None
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentRefused.of(Reason.ENCRYPTED, "It can be read with a password only.")
        if len(reader.pages) > limits.most_pages:
            raise DocumentRefused.of(
                Reason.TOO_MANY_PAGES, f"It has {len(reader.pages)} pages; at most {limits.most_pages} are read."
            )
        text = "\n\n".join(_pages(reader, limits))
        title = (reader.metadata.title if reader.metadata else None) or ""
    except PyPdfError as error:
        raise DocumentRefused.of(Reason.MALFORMED, f"It is no PDF that can be read: {str(error)[:200]}.") from None
    return Parsed(clean(str(title))[:300].strip(), clean(text), "pdf")


def _pages(reader: Any, limits: Parsing) -> Iterator[str]:
    length = 0
    for page in reader.pages:
        text = page.extract_text()
        length += len(text)
        if length > limits.most_characters:
            raise _too_long(limits)
        yield text


def _too_long(limits: Parsing) -> DocumentRefused:
    return DocumentRefused.of(Reason.TOO_LONG, f"It has more than {limits.most_characters} characters of text.")


_PARSERS: Mapping[Kind, Callable[[bytes, Parsing], Parsed]] = {
    "markdown": _markdown,
    "rst": _rst,
    "text": _text,
    "html": _html,
    "pdf": _pdf,
}
