"""Test sets: questions with what a good answer must show, read from files, known by their content."""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from holdtrue.catalog import Difference, differences
from holdtrue.core.canonical import bytes_hash, canonical_bytes, content_hash
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, HoldtrueError, InvalidInput
from holdtrue.core.ids import check_name, version_id

MAX_BYTES: Final = 32 << 20
MAX_CASES: Final = 10_000
MAX_TEXT: Final = 100_000
MAX_TAG: Final = 100
_PLAINLY: Final = {
    "a valid tuple": "a list",
    "a valid dictionary": "an object",
    "a dictionary or an instance of Expected": "an object",
    "a valid string": "text",
}
_HEADER = re.compile(r"\s*\[\[\s*cases\s*\]\]")


class BadTestSet(ConfigurationError):
    """A test set cannot be used: the message names the file, the line and the field."""

    code = "bad_test_set"


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Name a tool and the arguments it is, or should be, called with."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Expected:
    """Say what a good answer shows; each check reads what concerns it, and skips cases that have nothing for it.

    `answers` are reference answers, any of which is right; `sources` the documents (or passages) that hold the
    answer; `answerable` is False where a good answer declines; `tool_calls` () means that no tool may be called.
    """

    answers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    answerable: bool = True
    contains: tuple[str, ...] = ()
    pattern: str = ""
    json_schema: Mapping[str, Any] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """Hold one question (or conversation), what a good answer shows, and the slices it belongs to.

    An application is asked with `question` or `messages`, and `inputs` (the other variables of a prompt); it must
    see nothing else. `tags` map a slice's name to this case's value in it.
    """

    id: str
    question: str = ""
    messages: tuple[Message, ...] = ()
    expected: Expected = field(default_factory=Expected)
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    weight: float = 1.0
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """Return the question: the field itself, or else the last message."""
        return self.question or (self.messages[-1].content if self.messages else "")

    def asked(self) -> dict[str, Any]:
        """Return all that an application may see of this case; an answer is kept under its hash."""
        return {
            "id": self.id,
            "question": self.question,
            "messages": [dump(each) for each in self.messages],
            "inputs": dict(self.inputs),
        }

    def digest(self) -> str:
        """Return the hash of the whole case."""
        return content_hash(dump(self))


@dataclass(frozen=True)
class TestSet:
    """Hold cases under a name; the same cases in the same order are the same version."""

    # A class of this name looks like a test to pytest.
    __test__: ClassVar[bool] = False

    name: str
    cases: tuple[Case, ...]

    def blob(self) -> bytes:
        """Return the cases as canonical JSON, one a line: the bytes that the version refers to."""
        return b"".join(canonical_bytes(dump(case)) + b"\n" for case in self.cases)

    def content(self) -> dict[str, Any]:
        """Return the content of the catalog's version of kind test_set: what is in the blob, and its digest."""
        return dict(self._content)

    @cached_property
    def _content(self) -> dict[str, Any]:
        return {
            "format": "cases/1",
            "cases": len(self.cases),
            "unanswerable": sum(not case.expected.answerable for case in self.cases),
            "slices": sorted({name for case in self.cases for name in case.tags}),
            "digest": bytes_hash(self.blob()),
        }

    @property
    def id(self) -> str:
        """Return the id of this version, tst_…"""
        return version_id("test_set", self._content)


@dataclass(frozen=True, slots=True)
class CaseChange:
    """Tell how one case differs between two versions of a test set."""

    id: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class TestSetDiff:
    """Tell which cases came, went and changed."""

    __test__: ClassVar[bool] = False

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[CaseChange, ...]
    same: int


def diff_test_sets(before: TestSet, after: TestSet) -> TestSetDiff:
    """Return how `after` differs from `before`, case by case; the order of cases does not count."""
    old, new = ({case.id: case for case in each.cases} for each in (before, after))
    changed = [
        CaseChange(name, tuple(differences(dump(old[name]), dump(new[name]))[0]))
        for name in old
        if name in new and old[name] != new[name]
    ]
    return TestSetDiff(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(changed),
        same=sum(name in new and old[name] == new[name] for name in old),
    )


def load_test_set(path: Path | str, name: str | None = None) -> TestSet:
    """Read a test set from JSON lines (.jsonl: one case a line) or TOML (a list `[[cases]]`).

    Its name is `name`, or the TOML file's `name`, or the file's own. Raises BadTestSet naming file, line and field.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in (".yaml", ".yml"):
        raise BadTestSet(
            f"{path.name} is YAML, which is not read here.",
            why="YAML needs a parser that is no part of the core, and reads words like “no” as false; "
            "JSON lines and TOML are read by Python itself.",
            mend="Write it as .jsonl (one case a line) or .toml (a list [[cases]]).",
        )
    if kind not in (".jsonl", ".toml"):
        raise BadTestSet(f"{path.name} is no test set.", why=f"Its name ends in “{kind}”.", mend="Use .jsonl or .toml.")
    text = _read(path)
    if kind == ".jsonl":
        return make_test_set(name or path.stem, _lines(path.name, text))
    named, placed = _tables(path.name, text)
    return make_test_set(name or named or path.stem, placed)


def read_test_set(name: str, blob: bytes) -> TestSet:
    """Return the test set whose `TestSet.blob` this is."""
    return make_test_set(name, _lines(f"the test set {name}", blob.decode()))


def make_test_set(name: str, placed: Iterator[tuple[str, Any]]) -> TestSet:
    """Build a test set from cases as JSON, each with the words that say where it stands; BadTestSet if one is bad."""
    check_name(name, "name of a test set")
    cases: list[Case] = []
    seen: dict[str, str] = {}
    for place, data in placed:
        case = _case(place, data)
        if case.id in seen:
            raise BadTestSet(
                f"{place}: the id “{case.id}” is taken.",
                why=f"{seen[case.id]} has it already, and results are paired by it.",
                mend="Give this case an id of its own.",
                facts={"place": place, "field": "id"},
            )
        seen[case.id] = place
        cases.append(case)
        if len(cases) > MAX_CASES:
            raise BadTestSet(f"{place}: a test set has at most {MAX_CASES} cases.", mend="Split it into several.")
    if not cases:
        raise BadTestSet(
            f"The test set “{name}” has no case.",
            why="An evaluation of nothing would let everything through.",
            mend='Write at least one, such as {"id": "q1", "question": "…", "expected": {"answers": ["…"]}}.',
        )
    return TestSet(name, tuple(cases))


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise BadTestSet(
            f"The test set {path.name} cannot be read.", why=f"{error.strerror}.", mend="Give the path of a file."
        ) from None
    if size > MAX_BYTES:
        raise BadTestSet(
            f"The test set {path.name} has {size:,} bytes.", why=f"At most {MAX_BYTES:,} are read.", mend="Split it."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadTestSet(
            f"{path.name}, line {line}: not UTF-8.", why=f"{error.reason}.", mend="Save the file as UTF-8."
        ) from None


def _lines(name: str, text: str) -> Iterator[tuple[str, Any]]:
    # Only line feeds end a line: JSON strings may hold the other separators as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            yield place, json.loads(line, object_pairs_hook=_once, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise BadTestSet(
                f"{place}{column}: not JSON.",
                why=f"{reason}.",
                mend="Each line is one JSON object, without a comma after it.",
                facts={"place": place},
            ) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"The field “{twice}” is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _tables(name: str, text: str) -> tuple[str, Iterator[tuple[str, Any]]]:
    """Return the name that a TOML file gives, and its cases with their places."""
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadTestSet(f"{name}: not TOML.", why=f"{error}.", mend="Correct that place.") from None
    unknown = sorted(found.keys() - {"name", "cases"})
    if unknown:
        raise BadTestSet(
            f"{name} has no field “{unknown[0]}”.", why="Known here: name, cases.", mend="Remove it.",
            facts={"field": unknown[0]},
        )  # fmt: skip
    cases, named = found.get("cases", []), found.get("name", "")
    if not isinstance(cases, list) or not isinstance(named, str):
        raise BadTestSet(f"{name}: “cases” is a list, and “name” is text.", mend="Write each case below [[cases]].")
    # TOML's parser does not say where a table begins; its headers do, unless text looks like one.
    headers = [number for number, line in enumerate(text.split("\n"), 1) if _HEADER.match(line)]
    known = len(headers) == len(cases)
    places = [f"{name}, line {headers[at]}" if known else f"{name}, case {at + 1}" for at in range(len(cases))]
    return named, zip(places, cases, strict=True)


def _case(place: str, data: Any) -> Case:
    if not isinstance(data, Mapping):
        raise BadTestSet(
            f"{place}: a case is an object.", why=f"This is {type(data).__name__}.", mend='Write {"id": …, …}.'
        )
    fields = dict(data)
    try:
        # What is expected is read apart, so that a misspelt field in it is compared with its own.
        if "expected" in fields:
            fields["expected"] = load(Expected, fields["expected"], f"{place}, expected")
        case = load(Case, fields, place)
        check_name(case.id, "case id")
        # TOML has dates; what a case holds is what its JSON form holds.
        case = load(Case, json.loads(canonical_bytes(dump(case))))
    except InvalidInput as error:
        if error.facts.get("what") == "case id":
            raise _placed(place, error) from None
        raise BadTestSet(
            f"{place}: it has no JSON form.",
            why=f"{error.why}.",
            mend="Use whole characters and finite numbers; write integers beyond 2^53 - 1 as text.",
            facts={"place": place},
        ) from None
    except HoldtrueError as error:
        raise _placed(place, error) from None
    wrong = next(_wrong(case), None)
    if wrong is not None:
        name, what, mend = wrong
        raise BadTestSet(f"{place}, {name}: {what}", mend=mend, facts={"place": place, "field": name})
    return case


def _placed(place: str, error: HoldtrueError) -> BadTestSet:
    """Return the error with the place in front, unless it is there already, and the field among the facts."""
    what = error.what if error.what.startswith(place) else f"{place}: {error.what}"
    field = error.facts.get("path", "id")
    why = error.why
    for theirs, ours in _PLAINLY.items():
        why = why.replace(theirs, ours)
    what = what.replace("has no setting", "has no field")
    return BadTestSet(what, why=why, mend=error.mend, facts={"place": place, "field": field})


def _wrong(case: Case) -> Iterator[tuple[str, str, str]]:
    """Yield what no good case has: the field, what is wrong with it, and the mend."""
    if bool(case.question) == bool(case.messages):
        yield "question", "a case has either a question or messages.", "Give one of the two."
    if not case.text.strip():
        yield "question", "it is blank.", "Write the question."
    if case.messages and case.messages[-1].role in ("assistant", "system"):
        yield "messages", f"the last one is the {case.messages[-1].role}'s.", "End with what the user asks."
    if sum(len(each.content) for each in case.messages) + len(case.question) > MAX_TEXT:
        yield "question", f"it has more than {MAX_TEXT:,} characters.", "Ask shorter."
    if not (math.isfinite(case.weight) and case.weight > 0.0):
        yield "weight", f"{case.weight} is no weight.", "Use a positive number; leave a case out to drop it."
    expected = case.expected
    if not expected.answerable and (expected.answers or expected.contains or expected.sources):
        yield (
            "expected.answerable",
            "an unanswerable question has no answers and no sources.",
            "Remove them, or let answerable be true.",
        )
    for name, texts in (("answers", expected.answers), ("sources", expected.sources), ("contains", expected.contains)):
        if any(not text.strip() for text in texts):
            yield f"expected.{name}", "an entry is blank.", "Remove it."
    if any(not (0 < len(name) <= MAX_TAG and 0 < len(value) <= MAX_TAG) for name, value in case.tags.items()):
        yield "tags", f"a slice has a name and a value of 1 to {MAX_TAG} characters.", 'Write {"topic": "installing"}.'
