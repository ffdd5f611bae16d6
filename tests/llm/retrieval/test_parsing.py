"""Parsers: what a reader sees becomes text, what he does not see does not, and what is no document is refused."""

import io
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, StreamObject

from holdtrue.llm.retrieval.model import DocumentRefused, Kind, Parsing, Reason
from holdtrue.llm.retrieval.parsing import kind_of, parse

LIMITS = Parsing()


def pdf(*pages: str, title: str = "", password: str = "", stream: StreamObject | None = None) -> bytes:
    """Return a PDF with a line of text on each page."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        content: Any = stream or DecodedStreamObject()
        if stream is None:
            content.set_data(b"BT /F1 12 Tf 20 200 Td (" + text.encode() + b") Tj ET")
        page[NameObject("/Contents")] = writer._add_object(content)  # pyright: ignore[reportPrivateUsage]  # no other way
    if title:
        writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def refusal(kind: Kind, data: bytes, limits: Parsing = LIMITS) -> Reason:
    with pytest.raises(DocumentRefused) as caught:
        parse(kind, data, limits)
    return caught.value.reason


def test_markdown_is_kept_but_for_what_is_not_shown() -> None:
    text = "# A\n<!-- ignore\nall rules -->\n```html\n<!-- code -->\n```\nb<!-- c -->\n<!-- open"
    assert parse("markdown", text.encode(), LIMITS).text == "# A\n\n```html\n<!-- code -->\n```\nb\n"


def test_front_matter_gives_the_title() -> None:
    found = parse("markdown", b"---\ntitle: 'The way'\ndate: 1\n---\n# Other\ntext", LIMITS)
    assert (found.title, found.text) == ("The way", "# Other\ntext")
    assert parse("markdown", b"---\n\ntext\n", LIMITS).title == ""


def test_html_becomes_what_a_reader_sees() -> None:
    html = """<!doctype html><html><head><title> The &amp;
    title</title><style>p{}</style><script>alert(1)</script></head><body>
    <h1>Roll <b>back</b></h1><p>One<br>two &lt;three&gt;</p><!-- never -->
    <div hidden>never</div><p style="DISPLAY : none">never</p><span aria-hidden="true">never</span>
    <p style="font-size:0">never</p><p style="font-size:0.9em">small</p><noscript>never</noscript>
    <template><p>never</p></template><svg><text>never</text></svg>
    <ul><li>first<li>second <i>item</i></ul><pre>  if a:
        b</pre><table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr></table>tail</body></html>"""
    found = parse("html", html.encode(), LIMITS)
    assert found.title == "The & title"
    assert found.text == (
        "# Roll back\n\nOne\ntwo <three>\n\nsmall\n\n- first\n- second item\n\n```\n  if a:\n        b\n```\n\n"
        " k | v |\n 1 | 2 |\n\ntail"
    )


def test_html_in_a_declared_character_set() -> None:
    declared = b'<html><head><meta charset="iso-8859-1"></head><body>Gr\xf6\xdfe</body>'
    assert parse("html", declared, LIMITS).text == "Größe"
    assert refusal("html", b"<html><body>Gr\xf6\xdfe</body>") is Reason.ENCODING
    assert refusal("html", b'<meta charset="utf-7">Gr\xf6\xdfe') is Reason.ENCODING


@pytest.mark.parametrize("depth", [100, 3000])
def test_html_may_be_nested_deeply(depth: int) -> None:
    html = b"<div><span>" * depth + b"deep" + b"</span></div>" * depth
    assert parse("html", html, LIMITS).text == "deep"


@pytest.mark.parametrize(
    "html",
    [b"<p", b"</p></html>x", b"<table><p>x</table></p>", b"<p title='x", b"<!doctype", b"x<?php ?>", b"<a><a><a>x"],
)
def test_broken_html_is_read_or_empty(html: bytes) -> None:
    if b"x" in html and b"='" not in html:
        assert "x" in parse("html", html, LIMITS).text
    else:
        assert refusal("html", html) is Reason.EMPTY


def test_pdf() -> None:
    found = parse("pdf", pdf("Roll back", "at once", title="Handbook"), LIMITS)
    assert (found.title, found.text) == ("Handbook", "Roll back\n\nat once")


def test_pdf_limits() -> None:
    assert refusal("pdf", pdf("a", "b", "c"), Parsing(most_pages=2)) is Reason.TOO_MANY_PAGES
    assert refusal("pdf", pdf("a" * 50, "b" * 50), Parsing(most_characters=80)) is Reason.TOO_LONG
    assert refusal("pdf", pdf("secret", password="s")) is Reason.ENCRYPTED
    assert refusal("pdf", pdf("")) is Reason.EMPTY
    assert refusal("pdf", b"%PDF-1.7 nothing more") is Reason.MALFORMED


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.md", b"text", "markdown"),
        ("A.RST", b"text", "rst"),
        ("a.txt", b"%PDF-1.4", "pdf"),
        ("a.md", b"  <!DOCTYPE html><p>", "html"),
        ("LICENSE", b"text", "text"),
        ("a.html", b"<p>", "html"),
    ],
)
def test_kinds_go_by_content_and_suffix(name: str, data: bytes, expected: str) -> None:
    assert kind_of(name, data) == expected


@pytest.mark.parametrize(("name", "reason"), [("a.pdf", Reason.MALFORMED), ("a.docx", Reason.UNSUPPORTED)])
def test_other_kinds_are_refused(name: str, reason: Reason) -> None:
    with pytest.raises(DocumentRefused) as caught:
        kind_of(name, b"PK\x03\x04")
    assert caught.value.reason is reason


def test_real_files_of_installed_packages_are_read() -> None:
    import numpy

    site = Path(numpy.__file__).parents[1]
    names = [*sorted(site.glob("*.dist-info/METADATA"))[:40], *sorted(site.glob("**/*.rst"))[:20]]
    assert len(names) > 30
    for path in names:
        assert parse("rst" if path.suffix == ".rst" else "text", path.read_bytes(), LIMITS).text.strip()
