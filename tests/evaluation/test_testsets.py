"""Test sets from files: what is refused, and with which words; versions by content."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation import (
    BadTestSet,
    Case,
    Expected,
    Message,
    TestSet,
    ToolCall,
    diff_test_sets,
    keep_test_set,
    load_test_set,
    stored_test_set,
)
from holdtrue.evaluation.testsets import make_test_set, read_test_set
from holdtrue.storage import BlobStore, open_stores
from holdtrue.storage.ledger import WriteContext
from tests.evaluation.answerers import questions
from tests.governance.worlds import ADA
from tests.sampling import examples

GOOD = '{"id": "q1", "question": "What?", "expected": {"answers": ["a"]}}'


def read(folder: Path, text: str | bytes, name: str = "set.jsonl") -> TestSet:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_test_set(path)


def test_json_lines_and_toml_say_the_same(tmp_path: Path) -> None:
    lines = read(
        tmp_path,
        '{"id": "q1", "question": "Which licence?", "expected": {"answers": ["MIT"], "sources": ["README"]}}\n\n'
        '{"id": "q2", "messages": [{"role": "user", "content": "Book it"}], "weight": 2, "tags": {"topic": "tools"},'
        ' "expected": {"tool_calls": [{"name": "book", "arguments": {"seats": 2}}]}}\n',
    )
    tables = read(
        tmp_path,
        'name = "set"\n[[cases]]\nid = "q1"\nquestion = "Which licence?"\n'
        'expected = {answers = ["MIT"], sources = ["README"]}\n'
        '[[cases]]\nid = "q2"\nweight = 2\ntags.topic = "tools"\nmessages = [{role = "user", content = "Book it"}]\n'
        'expected.tool_calls = [{name = "book", arguments.seats = 2}]\n',
        "set.toml",
    )
    assert lines == tables
    assert lines.cases[1] == Case(
        "q2",
        messages=(Message("user", "Book it"),),
        expected=Expected(tool_calls=(ToolCall("book", {"seats": 2}),)),
        tags={"topic": "tools"},
        weight=2.0,
    )
    assert lines.cases[1].text == "Book it"


@pytest.mark.parametrize(
    ("text", "words", "field"),
    [
        ('{"id": "q2", "question": "x", "expcted": {}}', ["line 2 has no field “expcted”", "“expected”?"], "expcted"),
        ('{"id": "q2", "question": "x", "expected": {"anwsers": []}}', ["line 2", "“answers”?"], "anwsers"),
        ('{"id": "q2", "question": "x", "expected": {"answers": "a"}}', ["line 2", "a list"], "answers"),
        ('{"id": "q2", "question": "x", "tags": ["a"]}', ["line 2", "“tags”", "object"], "tags"),
        ('{"id": "q2", "question": 5}', ["line 2", "text"], "question"),
        ('{"question": "x"}', ["line 2", "“id”", "required"], "id"),
        ('{"id": "q 2", "question": "x"}', ["line 2", "'q 2'"], "id"),
        ('{"id": "q1", "question": "x"}', ["line 2", "“q1” is taken", "line 1"], "id"),
        ('{"id": "q2"}', ["line 2, question", "either"], "question"),
        ('{"id": "q2", "question": "  "}', ["line 2", "blank"], "question"),
        ('{"id": "q2", "question": "x", "messages": [{"role": "user", "content": "y"}]}', ["either"], "question"),
        ('{"id": "q2", "messages": [{"role": "usr", "content": "y"}]}', ["line 2", "'user'"], "messages.0.role"),
        ('{"id": "q2", "messages": [{"role": "assistant", "content": "y"}]}', ["the assistant's"], "messages"),
        ('{"id": "q2", "question": "x", "weight": 0}', ["line 2, weight", "0.0"], "weight"),
        ('{"id": "q2", "question": "x", "weight": 1e999}', ["line 2", "no JSON form"], None),
        ('{"id": "q2", "question": "x", "weight": NaN}', ["line 2", "NaN"], None),
        ('{"id": "q2", "question": "\\ud800"}', ["line 2", "no JSON form"], None),
        ('{"id": "q2", "question": "x", "inputs": {"n": 99999999999999999999}}', ["line 2", "2^53"], None),
        ('{"id": "q2", "question": "x", "id": "q3"}', ["line 2", "“id” is there twice"], None),
        ('{"id": "q2", "question": "x"},', ["line 2, column 30", "without a comma"], None),
        ("[1]", ["line 2", "object"], None),
        ("[" * 100_000, ["line 2", "recursion"], None),
        (
            '{"id": "q2", "question": "x", "expected": {"answerable": false, "answers": ["y"]}}',
            ["line 2", "unanswerable"],
            "expected.answerable",
        ),
        ('{"id": "q2", "question": "x", "expected": {"sources": [""]}}', ["line 2", "blank"], "expected.sources"),
        ('{"id": "q2", "question": "x", "tags": {"topic": ""}}', ["line 2", "slice"], "tags"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(
    tmp_path: Path, text: str, words: list[str], field: str | None
) -> None:
    with pytest.raises(BadTestSet) as caught:
        read(tmp_path, f"{GOOD}\n{text}\n")
    said = str(caught.value)
    assert "set.jsonl" in said
    for word in words:
        assert word in said
    assert caught.value.mend
    if field is not None:
        assert caught.value.facts["field"] == field


def test_a_mistake_in_toml_is_named_with_the_line_of_its_case(tmp_path: Path) -> None:
    good = '[[cases]]\nid = "q1"\nquestion = "x"\n'
    with pytest.raises(BadTestSet, match=r"set.toml, line 4 has no field “qestion”"):
        read(tmp_path, good + '[[cases]]\nid = "q2"\nqestion = "y"\n', "set.toml")
    with pytest.raises(BadTestSet, match="case 1"):
        read(tmp_path, '[[cases]]\nid = "q1"\nquestion = """\n[[cases]]\n"""\nwight = 2', "set.toml")
    for text, words in (
        ("[[cases]\n", "line 1"),
        ('nam = "x"\n' + good, "nam"),
        ("cases = 3", "list"),
        ("", "no case"),
    ):
        with pytest.raises(BadTestSet) as caught:
            read(tmp_path, text, "set.toml")
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("set.jsonl", "", "no case"),
        ("set.jsonl", "\n \n", "no case"),
        ("set.jsonl", b"\xff\xfe{}", "line 1: not UTF-8"),
        ("set.yaml", "- id: q1", "YAML"),
        ("set.csv", "q1,x", "“.csv”"),
    ],
)
def test_what_is_no_test_set_is_refused(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    with pytest.raises(BadTestSet) as caught:
        read(tmp_path, text, name)
    assert words in str(caught.value)
    with pytest.raises(BadTestSet, match="cannot be read"):
        load_test_set(tmp_path / "absent.jsonl")


def test_dates_of_toml_are_text_as_they_are_in_the_blob(tmp_path: Path) -> None:
    found = read(tmp_path, '[[cases]]\nid = "q1"\nquestion = "x"\ninputs.day = 2020-01-02\n', "set.toml")
    assert found.cases[0].inputs == {"day": "2020-01-02"}
    assert read_test_set("set", found.blob()) == found


def test_a_version_is_known_by_its_cases_alone() -> None:
    found = questions()
    assert found.id.startswith("tst_")
    assert TestSet("other-name", found.cases).id == found.id
    assert TestSet("readme", found.cases[::-1]).id != found.id
    assert found.content()["cases"] == 20
    assert found.content()["unanswerable"] == 4
    assert found.content()["slices"] == ["topic"]
    assert len(json.dumps(found.content())) < 1000


def test_a_test_set_goes_into_the_catalog_and_comes_back(tmp_path: Path) -> None:
    stores = open_stores(tmp_path / "home", SystemClock())
    try:
        context = WriteContext(ADA, "flights")
        found = questions()
        version = stores.ledger.write(context, lambda tx: keep_test_set(tx, stores.blobs, found))
        assert version.id == found.id
        assert version.kind == "test_set"
        assert version.blobs == (found.content()["digest"],)
        assert stored_test_set(stores.blobs, version) == found
        again = stores.ledger.write(context, lambda tx: keep_test_set(tx, stores.blobs, found))
        assert again.number == version.number == 1
        fewer = TestSet("readme", found.cases[1:])
        later = stores.ledger.write(context, lambda tx: keep_test_set(tx, stores.blobs, fewer))
        assert later.number == 2
    finally:
        stores.close()


def test_only_a_test_set_is_read_as_one(tmp_path: Path) -> None:
    stores = open_stores(tmp_path / "home", SystemClock())
    try:
        from holdtrue import catalog

        context = WriteContext(ADA, "flights")
        prompt = stores.ledger.write(context, lambda tx: catalog.register(tx, "prompt", "p", {"text": "x"}))
        with pytest.raises(InvalidInput, match="no test set"):
            stored_test_set(BlobStore(tmp_path / "blobs"), prompt)
    finally:
        stores.close()


def test_a_diff_names_cases_and_what_changed_in_them() -> None:
    before = make_test_set("s", iter([(f"line {at}", {"id": f"q{at}", "question": f"Q{at}?"}) for at in range(4)]))
    cases = list(before.cases[1:])
    cases[0] = Case("q1", "Q1?", expected=Expected(answers=("yes",)))
    found = diff_test_sets(before, TestSet("s", (Case("q9", "New?"), *reversed(cases))))
    assert (found.added, found.removed, found.same) == (("q9",), ("q0",), 2)
    (change,) = found.changed
    assert change.id == "q1"
    assert [(each.path, each.after) for each in change.differences] == [("expected.answers[0]", "yes")]


FIELDS: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.sampled_from(["q1", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "question", "messages", "expected", "answers", "tags", "role", "content", "weight"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(FIELDS, max_size=3))
def test_any_json_is_a_test_set_or_a_bad_one(lines: list[Any]) -> None:
    text = "\n".join(json.dumps(each) for each in lines)
    try:
        found = read_test_set("s", text.encode())
    except BadTestSet as error:
        assert error.mend  # noqa: PT017  # both ends are good, and this is what one must have
    else:
        assert read_test_set("s", found.blob()) == found
