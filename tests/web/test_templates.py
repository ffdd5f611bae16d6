"""The house's rules for HTML, CSS and JS, and the contrast of every colour that carries words."""

import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from holdtrue.web.render import asset, environment

ROOM = Path(str(resources.files("holdtrue.web")))
TEMPLATES = sorted((ROOM / "templates").rglob("*.html"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_is_small_and_has_nothing_inline(path: Path) -> None:
    """Prevent pages of a thousand lines, and the inline style or handler that would need a hole in the policy."""
    text = path.read_text()
    assert len(text.encode()) < 3_000
    assert not re.search(r"\bstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"\|\s*safe\b|autoescape", text)
    if path.name != "report.html":
        assert "<style" not in text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)


def test_all_templates_compile() -> None:
    for path in TEMPLATES:
        environment().get_template(path.relative_to(ROOM / "templates").as_posix())


def test_there_is_one_stylesheet_and_modules_are_short() -> None:
    static = sorted(path.name for path in (ROOM / "static").iterdir())
    assert [name for name in static if name.endswith(".css")] == ["holdtrue.css"]
    for name in static:
        if name.endswith(".js"):
            text = asset(name)
            assert len(text.splitlines()) < 300
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)


def _colours() -> dict[str, tuple[str, str]]:
    found = re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", asset("holdtrue.css"))
    return {name: (light, dark) for name, light, dark in found}


def _luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


WORDS = [
    *[(name, ground) for name in ("ink", "quiet", "link") for ground in ("ground", "paper", "sunk")],
    *[(name, ground) for name in ("good", "bad", "busy") for ground in ("ground", "paper", f"{name}-ground")],
    *[(name, ground) for name in ("ink", "link") for ground in ("busy-ground", "bad-ground")],
]
LINES = [(name, "paper") for name in ("one", "two", "three", "rule-strong", "good", "bad", "busy")]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_have_a_contrast_of_4_5_and_lines_of_3(scheme: int) -> None:
    """Hold WCAG 2.2 AA, 1.4.3 for text and 1.4.11 for what charts and borders say."""
    colours = _colours()
    for least, pairs in ((4.5, WORDS), (3.0, LINES)):
        for name, ground in pairs:
            got = _contrast(colours[name][scheme], colours[ground][scheme])
            assert got >= least, f"{name} on {ground}: {got:.2f}"


def test_every_command_a_page_tells_exists() -> None:
    """Prevent an empty state that sends its reader to a command of another version."""
    told: set[str] = set()
    for path in TEMPLATES:
        told |= set(re.findall(r"holdtrue ([a-z]+)(?=[ <\"\\{])", path.read_text()))
    help_text = subprocess.run(
        [str(Path(sys.executable).with_name("holdtrue")), "--help"], capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"^\W*([a-z]+) {2,}", help_text, re.MULTILINE))
    assert {"approve", "promote", "up"} <= told
    assert told <= known
