"""Finding documents: all that the patterns name is given or reported, and nothing outside of the root."""

import os
from pathlib import Path

import pytest

from holdtrue.core.errors import ConfigurationError
from holdtrue.llm.retrieval import Document, Parsing, Skipped, Source, find_sources, read_documents
from holdtrue.llm.retrieval.model import Reason


def _names(root: Path, *patterns: str, parsing: Parsing | None = None) -> dict[str, str]:
    """Return what was found: the kind of each source, or the reason of each that was left out."""
    found: dict[str, str] = {}
    for item in find_sources(root, patterns, parsing):
        if isinstance(item, Skipped):
            found[item.uri] = item.reason.value
        else:
            found[item.id] = item.kind if isinstance(item, Source) else "document"
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "docs" / "a.md").write_text("# A\nalpha")
    (root / "docs" / "deep" / "b.txt").write_text("beta")
    return root


def test_patterns_name_files_below_the_root(root: Path) -> None:
    assert _names(root, "docs/**/*.md", "docs/*.md") == {"docs/a.md": "markdown"}
    assert _names(root, "docs/**/*") == {"docs/a.md": "markdown", "docs/deep/b.txt": "text"}
    assert list(_names(root, "docs/deep/*.txt", "docs/a.md")) == ["docs/a.md", "docs/deep/b.txt"]


@pytest.mark.parametrize("pattern", ["../*.md", "/etc/passwd", "docs/../../x", "", "docs\\a.md", "a\0b"])
def test_no_pattern_leaves_the_root(root: Path, pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a pattern"):
        list(find_sources(root, [pattern]))


def test_a_pattern_that_names_nothing_is_an_error(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="names no file"):
        list(find_sources(root, ["dosc/*.md"]))


def test_hidden_files_are_taken_only_where_they_are_named(root: Path) -> None:
    (root / "docs" / ".secret.md").write_text("s")
    (root / ".cache").mkdir()
    (root / ".cache" / "c.md").write_text("c")
    assert _names(root, "**/*.md") == {"docs/a.md": "markdown"}
    assert ".cache/c.md" in _names(root, ".cache/*.md")


def test_links_are_followed_within_the_root_only(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text("# secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.md").write_text("# secret")
    (root / "docs" / "inside.md").symlink_to(root / "docs" / "a.md")
    (root / "docs" / "out.md").symlink_to(tmp_path / "outside.md")
    (root / "docs" / "gone.md").symlink_to(root / "nothing")
    (root / "docs" / "loop.md").symlink_to(root / "docs" / "loop.md")
    (root / "docs" / "dir").symlink_to(tmp_path / "folder")
    found = _names(root, "docs/*.md", "docs/dir/*.md")
    assert found == {
        "docs/a.md": "markdown",
        "docs/inside.md": "markdown",
        "docs/out.md": "outside_of_the_root",
        "docs/gone.md": "unreadable",
        "docs/loop.md": "unreadable",
        "docs/dir/c.md": "outside_of_the_root",
    }


def test_what_is_no_document_is_reported_with_its_reason(root: Path) -> None:
    folder = root / "docs"
    (folder / "empty.md").write_bytes(b"")
    (folder / "blank.md").write_bytes(b" \n\n ")
    (folder / "large.md").write_bytes(b"x" * 2000)
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    (folder / "fake.pdf").write_bytes(b"MZ\0\0")
    os.mkfifo(folder / "pipe.md")
    (folder / "new\nline.md").write_text("x")
    os.close(os.open(os.fsencode(folder) + b"/\xff\xfe.md", os.O_CREAT | os.O_WRONLY))
    found = _names(root, "docs/*", parsing=Parsing(most_bytes=1000))
    assert found == {
        "docs/a.md": "markdown",
        "docs/empty.md": "empty",
        "docs/blank.md": "empty",
        "docs/large.md": "too_large",
        "docs/picture.png": "unsupported",
        "docs/fake.pdf": "malformed",
        "docs/pipe.md": "not_a_regular_file",
        "docs/new\nline.md": "name",
        "docs/\\udcff\\udcfe.md": "name",
    }


def test_a_file_that_may_not_be_read_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert _names(root, "docs/*.md") == {"docs/a.md": "unreadable"}


def test_json_lines_give_a_document_each(root: Path) -> None:
    lines = [
        b'{"id": "one", "title": "One", "text": "first", "uri": "https://a/1", "meta": {"n": 1}}',
        b"",
        b'{"text": "second"}',
        b'{"id": "one", "text": "again"}',
        b'{"text": ""}',
        b'{"text": 5}',
        b"[1]",
        b"not json",
        b'{"text": "x", "titel": "y"}',
        b'{"id": "a\\nb", "text": "x"}',
        b'{"text": "lone \\ud800"}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"id": "' + b"x" * 2000 + b'", "text": "x"}',
    ]
    (root / "faq.jsonl").write_bytes(b"\n".join(lines))
    items = list(find_sources(root, ["faq.jsonl"]))
    documents = [item for item in items if isinstance(item, Document)]
    assert [(each.id, each.title, each.text, each.uri) for each in documents] == [
        ("faq.jsonl/one", "One", "first", "https://a/1"),
        ("faq.jsonl/3", "3", "second", "faq.jsonl:3"),
    ]
    assert documents[0].meta == {"n": 1}
    reasons = {item.uri: item.reason for item in items if isinstance(item, Skipped)}
    assert reasons == {
        "faq.jsonl:4": Reason.DUPLICATE,
        "faq.jsonl:5": Reason.EMPTY,
        "faq.jsonl:6": Reason.MALFORMED,
        "faq.jsonl:7": Reason.MALFORMED,
        "faq.jsonl:8": Reason.MALFORMED,
        "faq.jsonl:9": Reason.MALFORMED,
        "faq.jsonl:10": Reason.MALFORMED,
        "faq.jsonl:11": Reason.MALFORMED,
        "faq.jsonl:12": Reason.ENCODING,
        "faq.jsonl:13": Reason.MALFORMED,
        "faq.jsonl:14": Reason.NAME,
    }


def test_documents_have_a_title_and_a_digest_of_their_bytes(root: Path) -> None:
    (root / "docs" / "page.html").write_text("<title>Page</title><p>text</p>")
    (root / "docs" / "untitled.html").write_text("<h1>Heading</h1><p>text</p>")
    left_out: list[Skipped] = []
    (root / "docs" / "broken.md").write_bytes(b"\xe9\xe9\xe9")
    found = list(read_documents(root, ["docs/**/*"], on_skip=left_out.append))
    assert [(each.id, each.title) for each in found] == [
        ("docs/a.md", "A"),
        ("docs/deep/b.txt", "b"),
        ("docs/page.html", "Page"),
        ("docs/untitled.html", "Heading"),
    ]
    assert len({each.digest for each in found}) == 4
    assert [(each.uri, each.reason) for each in left_out] == [("docs/broken.md", Reason.ENCODING)]
