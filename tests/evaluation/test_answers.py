"""Runs of an evaluation: bounded, cached, resumed after a kill, and honest about what failed."""

import asyncio
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.errors import Corrupt, InvalidInput, Unavailable
from holdtrue.evaluation import (
    AnswerCache,
    AnswerView,
    BadCheck,
    Case,
    Check,
    Expected,
    Helpers,
    Message,
    Progress,
    TestSet,
    keep_graded,
    run_answers,
    stored_graded,
)
from holdtrue.storage import ActionCache, BlobStore
from tests.crash.harness import Plan, crash, crash_folders, noted, nursery, repeated
from tests.evaluation.answerers import CHECKS, Answerer, questions
from tests.evaluation.clients import evaluate

APPLICATION = "a" * 64


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(ActionCache(tmp_path / "actions"), BlobStore(tmp_path / "blobs"))


def test_a_perfect_application_passes_and_a_wrong_one_fails_where_it_is_wrong() -> None:
    good = run_answers(questions(), Answerer(), CHECKS, application=APPLICATION)
    assert [row.case.id for row in good.rows] == [case.id for case in questions().cases]
    assert all(row.passed for row in good.rows)
    assert (good.test_set, good.name, good.asked) == (questions().id, "readme", 20)
    bad = run_answers(questions(), Answerer(always_wrong=("up", "gpu")), CHECKS, application=APPLICATION)
    assert [row.case.id for row in bad.rows if not row.passed] == ["up", "gpu"]


def test_each_case_is_graded_by_the_checks_that_apply_to_it() -> None:
    rows = {row.case.id: row for row in run_answers(questions(), Answerer(), CHECKS, application="x").rows}
    assert [each.check for each in rows["price"].grades] == ["abstention", "length"]
    assert [each.check for each in rows["predictions"].grades] == ["regex", "citation", "abstention", "length"]


def test_repeats_are_separate_answers_in_order() -> None:
    answerer = Answerer(right=0.5)
    found = run_answers(questions(), answerer, CHECKS, application="x", repeats=3, concurrency=1)
    assert [(row.case.id, row.repeat) for row in found.rows] == answerer.asked
    assert len(found.rows) == 60
    assert {row.passed for row in found.rows} == {True, False}


def test_what_is_known_is_not_asked_again(cache: AnswerCache) -> None:
    def run(answerer: Answerer, application: str = APPLICATION, **more: Any) -> Any:
        given: dict[str, Any] = {"cache": cache, "repeats": 2, **more}
        return run_answers(given.pop("cases", questions()), answerer, given.pop("checks", CHECKS),
                           application=application, **given)  # fmt: skip

    first, second = Answerer(right=0.6), Answerer(right=0.6)
    before, after = run(first), run(second)
    assert (before.asked, after.asked) == (40, 0)
    assert second.asked == []
    assert after == before
    other_checks = run(second, checks=(Check("abstention"),))
    assert other_checks.asked == 0
    assert [len(row.grades) for row in other_checks.rows] == [1] * 40
    assert run(second, application="b" * 64).asked == 40
    assert run(second, repeats=3).asked == 20
    changed = list(questions().cases)
    changed[0] = replace(changed[0], question="What licence is it?")
    changed[1] = replace(changed[1], expected=Expected(answers=("something else",)), tags={}, weight=2.0)
    asked = Answerer(right=0.6)
    run(asked, cases=TestSet("readme", tuple(changed)))
    assert sorted(set(asked.asked)) == [("licence", 0), ("licence", 1)]


def test_a_damaged_or_foreign_answer_is_asked_again(cache: AnswerCache, tmp_path: Path) -> None:
    run_answers(questions(), Answerer(), CHECKS, application="x", cache=cache)
    digests = list(cache.blobs.digests())
    (tmp_path / "blobs" / digests[0][:2] / digests[0]).write_bytes(b"{}")
    with pytest.raises(Corrupt):
        cache.blobs.get(digests[0])
    for key in list((tmp_path / "actions").rglob("[0-9a-f]" * 64))[:1]:
        cache.actions.put(key.name, cache.blobs.put(b'{"of": "another form"}'))
    again = run_answers(questions(), Answerer(), CHECKS, application="x", cache=cache)
    assert 1 <= again.asked <= 2
    assert run_answers(questions(), Answerer(), CHECKS, application="x", cache=cache).asked == 0


def test_a_failed_call_is_a_failed_answer_and_is_asked_again(cache: AnswerCache) -> None:
    broken = True

    def answer(case: Case, repeat: int) -> AnswerView:
        if broken and case.id == "up":
            raise Unavailable("The provider is down.", why="It answered 503.")
        if broken and case.id == "init":
            raise TimeoutError
        return Answerer()(case, repeat)

    found = run_answers(questions(), answer, CHECKS, application="x", cache=cache)
    rows = {row.case.id: row for row in found.rows}
    assert rows["up"].answer.error == "The provider is down. It answered 503."
    assert rows["init"].answer.error == "TimeoutError"
    assert not rows["up"].passed
    assert all("The provider is down." in each.why and each.score == 0.0 for each in rows["up"].grades)
    broken = False
    again = run_answers(questions(), answer, CHECKS, application="x", cache=cache)
    assert again.asked == 2
    assert all(row.passed for row in again.rows)


def test_a_mistake_in_the_callers_code_ends_the_run_and_keeps_what_was_there(cache: AnswerCache) -> None:
    answered = Answerer()

    def answer(case: Case, repeat: int) -> AnswerView:
        if case.id == "report":
            raise KeyError("a bug")
        return answered(case, repeat)

    with pytest.raises(KeyError, match="a bug"):
        run_answers(questions(), answer, CHECKS, application="x", cache=cache, concurrency=2)
    done = len(answered.asked)
    assert 7 <= done < 20
    assert run_answers(questions(), answered, CHECKS, application="x", cache=cache).asked == 20 - done
    with pytest.raises(InvalidInput, match="answered with str"):
        run_answers(questions(), lambda _, __: "text", CHECKS, application="x")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_answers_are_asked_at_once_than_allowed(concurrency: int) -> None:
    lock, now, most = threading.Lock(), 0, 0
    # Everybody waits until as many as may are there: too few would time out, too many would be counted.
    together = threading.Barrier(concurrency, timeout=60)

    def answer(case: Case, repeat: int) -> AnswerView:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()
        with lock:
            now -= 1
        return Answerer()(case, repeat)

    run_answers(questions(), answer, CHECKS, application="x", concurrency=concurrency)
    assert most == concurrency


def test_coroutines_are_awaited_and_bounded() -> None:
    now = most = 0

    async def answer(case: Case, repeat: int) -> AnswerView:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return Answerer()(case, repeat)

    async def complete(_: Sequence[Message], __: Mapping[str, Any]) -> str:
        await asyncio.sleep(0)
        return '{"reason": "fine", "score": 5}'

    checks = (*CHECKS, Check("judge", {"instructions": "Right?"}))
    found = run_answers(
        questions(), answer, checks, application="x", concurrency=3, helpers=Helpers(complete=complete)
    )  # fmt: skip
    assert 1 <= most <= 3
    assert all(row.passed for row in found.rows)


def test_a_mistake_cancels_coroutines_that_wait_for_ever() -> None:
    begun, cancelled = asyncio.Event(), False

    async def answer(case: Case, _: int) -> AnswerView:
        nonlocal cancelled
        if case.id == "needs":
            await begun.wait()
            raise KeyError("a bug")
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise
        return AnswerView()

    with pytest.raises(KeyError, match="a bug"):
        run_answers(questions(), answer, CHECKS, application="x", concurrency=2)
    assert cancelled


def test_inside_of_a_loop_it_runs_in_a_thread() -> None:
    async def inside() -> int:
        with pytest.raises(InvalidInput, match="running loop"):
            run_answers(questions(), Answerer(), CHECKS, application="x")
        found = await asyncio.to_thread(run_answers, questions(), Answerer(), CHECKS, application="x")
        return len(found.rows)

    assert asyncio.run(inside()) == 20


def test_progress_is_told_for_each_answer(cache: AnswerCache) -> None:
    told: list[Progress] = []
    for _ in range(2):
        told.clear()
        run_answers(
            questions(), Answerer(always_wrong=("up",)), CHECKS, application="x", cache=cache, on_progress=told.append
        )
    assert [each.done for each in told] == list(range(1, 21))
    assert told[-1] == Progress(done=20, of=20, cached=20, failed=1)


def test_verdicts_are_kept_and_abstentions_asked_again(cache: AnswerCache) -> None:
    replies = {"usable": False}
    asked: list[str] = []

    def complete(messages: Sequence[Message], _: Mapping[str, Any]) -> str:
        asked.append(messages[1].content)
        return '{"reason": "fine", "score": 5}' if replies["usable"] or len(asked) % 2 else "fine"

    def run(**options: Any) -> Any:
        check = Check("judge", {"instructions": "Right?", **options}, "right")
        return run_answers(questions(), Answerer(), (check, Check("abstention")), application="x",
                           cache=cache, helpers=Helpers(complete=complete), concurrency=1)  # fmt: skip

    grades = [each for row in run().rows for each in row.grades if each.check == "right"]
    assert [each.abstained for each in grades] == [False, True] * 8
    assert [each.passed for each in grades] == [True, False] * 8
    replies["usable"] = True
    asked.clear()
    assert all(row.passed for row in run().rows)
    assert len(asked) == 8
    asked.clear()
    run(model="another")
    assert len(asked) == 16


def test_cases_that_nothing_looks_at_are_refused() -> None:
    cases = [Case("a", "Q?"), Case("b", "Q?", expected=Expected(answers=("x",)))]
    with pytest.raises(BadCheck) as caught:
        run_answers(cases, Answerer(), [Check("exact")], application="x")
    assert "1 of 2 cases: a" in caught.value.what
    assert caught.value.facts["cases"] == ["a"]


@pytest.mark.parametrize(
    ("cases", "options", "words"),
    [
        ([], {}, "none"),
        ([Case("a", "Q?"), Case("a", "R?")], {}, "same id"),
        ([Case("a", "Q?")], {"repeats": 0}, "repeats is 0"),
        ([Case("a", "Q?")], {"repeats": 101}, "between 1 and 100"),
        ([Case("a", "Q?")], {"concurrency": 0}, "concurrency is 0"),
    ],
)
def test_what_cannot_be_run_is_refused(cases: list[Case], options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        run_answers(cases, Answerer(), [Check("abstention")], application="x", **options)
    assert words in str(caught.value)


def test_helpers_and_patterns_are_checked_before_anything_is_asked() -> None:
    answerer = Answerer()
    bad = Case("up", "Q?", expected=Expected(pattern="(?=a)"))
    for checks, cases in (
        ([Check("judge", {"instructions": "Right?"})], questions()),
        ([Check("similarity", {"by": "embedding"})], questions()),
        ([Check("regex")], [bad]),
    ):
        with pytest.raises(BadCheck):
            run_answers(cases, answerer, checks, application="x")
    assert answerer.asked == []


def test_half_characters_of_a_provider_do_no_harm(cache: AnswerCache) -> None:
    case = Case("a", "Q?")
    view = AnswerView("I don\ud800t know \ud83d", usage={"tokens": 3}, seconds=0.5)
    for _ in range(2):
        (row,) = run_answers([case], lambda _, __: view, [Check("length")], application="x", cache=cache).rows
        assert row.answer.text == "I don?t know ?"
        assert row.answer.seconds == 0.5


def test_a_whole_run_is_stored_and_comes_back(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    found = run_answers(questions(), Answerer(right=0.6), CHECKS, application="x", repeats=2)
    assert stored_graded(blobs, keep_graded(blobs, found)) == found


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Iterator[Path]]:
    yield crash_folders(tmp_path)
    for link in tmp_path.glob("memory-*"):
        shutil.rmtree(link.resolve())


@pytest.mark.timeout(120)
def test_a_killed_evaluation_goes_on_and_asks_nothing_twice(tmp_path: Path, folders: Iterator[Path]) -> None:
    seen: list[Path] = []

    def check(folder: Path, _: object) -> None:
        assert repeated(folder / "notes") == []
        if folder not in seen:
            seen.append(folder)

    with nursery("tests.evaluation.clients") as home:
        plan = Plan(8, longest=0.3, per_folder=4)
        crash(home, "tests.evaluation.clients:keep_evaluating", plan, folders, check)
    kept = 0
    for folder in seen:
        names = {note["done"] for note in noted(folder / "notes") if "done" in note}
        kept += len(names)
        mine = {name for name in names if name.startswith("answer/0/")}
        survivor = evaluate(folder, 0)
        assert survivor.asked <= 40 - len(mine)
        assert survivor == evaluate(tmp_path / f"fresh-{folder.name}", 0)
    assert kept > 0
