"""Ask an application all questions of a test set, grade what it answers, and never ask the same thing twice."""

import asyncio
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, TypeAlias

from holdtrue.core.canonical import canonical_bytes, content_hash
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, Corrupt, HoldtrueError, InvalidInput, NotFound
from holdtrue.evaluation.checks import (
    Check,
    Helpers,
    applies,
    check_case,
    check_checks,
    grade,
    options_of,
)
from holdtrue.evaluation.judges import Rubric, judge_messages
from holdtrue.evaluation.matching import BadCheck
from holdtrue.evaluation.testsets import Case, TestSet
from holdtrue.evaluation.views import AnswerView, Grade, short
from holdtrue.storage import ActionCache, BlobStore

MAX_REPEATS: Final = 100
MAX_CONCURRENCY: Final = 256

Answer: TypeAlias = Callable[[Case, int], AnswerView | Awaitable[AnswerView]]
"""Ask the application one case; the number counts repeats from 0."""


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """Hold one answer to one case, and what each check that applies to the case found in it."""

    case: Case
    repeat: int
    answer: AnswerView
    grades: tuple[Grade, ...]

    @property
    def passed(self) -> bool:
        """Tell whether every check passed."""
        return all(each.passed for each in self.grades)


@dataclass(frozen=True, slots=True)
class Graded:
    """Hold all answers of one application to one test set, in the order of its cases, repeats together.

    `application` is the digest of what answered; `asked` counts the answers that were not known before this run.
    """

    test_set: str
    name: str
    application: str
    release: str
    checks: tuple[Check, ...]
    repeats: int
    rows: tuple[GradedAnswer, ...]
    asked: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """Tell how far a run is: answers there, of how many, known before, and not passed."""

    done: int
    of: int
    cached: int
    failed: int


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """Keep answers and verdicts by what they depend on, durably: a run that was killed goes on where it was."""

    actions: ActionCache
    blobs: BlobStore

    def get(self, key: str, kind: type[Any]) -> Any:
        """Return the value of `kind` kept for `key`, or None; what is damaged or has another form counts as none."""
        digest = self.actions.get(key)
        if digest is None:
            return None
        try:
            return load(kind, json.loads(self.blobs.get(digest)))
        except (ConfigurationError, Corrupt, NotFound, ValueError):
            return None

    def put(self, key: str, value: Any) -> None:
        """Keep `value` for `key`. Raises StorageFull."""
        self.actions.put(key, self.blobs.put(canonical_bytes(dump(value))))


def run_answers(
    cases: TestSet | Sequence[Case],
    answer: Answer,
    checks: Sequence[Check],
    *,
    application: str,
    release: str = "",
    repeats: int = 1,
    cache: AnswerCache | None = None,
    helpers: Helpers | None = None,
    concurrency: int = 8,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Graded:
    """Ask every case `repeats` times and grade the answers, at most `concurrency` at once.

    `answer` may be a function or a coroutine function: it is called in threads of this run, and coroutines run in a
    loop of this run, so call this from a thread without one. A HoldtrueError or OSError that it raises is a failed
    answer, which is not kept: the next run asks again. Answers are kept under `application` (a digest of everything
    that answers), what the application sees of the case, and the repeat; a judge's verdicts under the whole prompt.
    So a changed check or reference asks nothing again. Raises BadCheck for checks that cannot be used, or cases that
    no check applies to.
    """
    _need_no_loop()
    test_set = _as_test_set(cases)
    _between("repeats", repeats, MAX_REPEATS)
    _between("concurrency", concurrency, MAX_CONCURRENCY)
    tools = helpers or Helpers()
    wanted = _wanted(test_set, checks, tools)
    work = [(case, repeat) for case in test_set.cases for repeat in range(repeats)]

    async def run() -> list[tuple[GradedAnswer, bool]]:
        calls = _Calls(asyncio.get_running_loop())
        judge = None if tools.complete is None else calls.blocking(tools.complete)
        asker = _Asker(calls.blocking(answer), application, cache, Helpers(tools.embed, judge), wanted)
        return await _all(work, asker, calls, concurrency, on_progress)

    done = asyncio.run(run())
    return Graded(
        test_set=test_set.id,
        name=test_set.name,
        application=application,
        release=release or next((row.answer.release for row, _ in done if row.answer.release), ""),
        checks=tuple(checks),
        repeats=repeats,
        rows=tuple(row for row, _ in done),
        asked=sum(not cached for _, cached in done),
    )


async def _all(
    work: Sequence[tuple[Case, int]],
    asker: "_Asker",
    calls: "_Calls",
    concurrency: int,
    on_progress: Callable[[Progress], None],
) -> list[tuple[GradedAnswer, bool]]:
    """Do all of `work`, at most `concurrency` at once, and return its rows in order; the first error ends it."""
    loop = asyncio.get_running_loop()
    rows: dict[int, tuple[GradedAnswer, bool]] = {}
    waiting = iter(enumerate(work))
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="evaluation")
    cached = failed = 0

    async def keep_working() -> None:
        nonlocal cached, failed
        for at, (case, repeat) in waiting:
            row, known = await loop.run_in_executor(pool, asker.row, case, repeat)
            rows[at] = row, known
            cached, failed = cached + known, failed + (not row.passed)
            on_progress(Progress(len(rows), len(work), cached, failed))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(work))):
                group.create_task(keep_working())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        calls.cancel()
        # The threads that still wait for this loop need it until they end.
        await asyncio.to_thread(pool.shutdown, cancel_futures=True)
    return [rows[at] for at in range(len(work))]


class _Calls:
    """Let threads call what may be a coroutine function: its coroutines run in the loop, and can be cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[Future[Any]] = set()

    def blocking(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` as one that returns its result, whether it is a coroutine function or not."""

        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            if not inspect.isawaitable(result):
                return result
            future = asyncio.run_coroutine_threadsafe(_awaited(result), self._loop)
            self._open.add(future)
            try:
                return future.result()
            finally:
                self._open.discard(future)

        return call

    def cancel(self) -> None:
        """Cancel the coroutines that somebody waits for."""
        for future in list(self._open):
            future.cancel()


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


@dataclass(frozen=True, slots=True)
class _Asker:
    """Make one row: the answer, from the cache or from the application, and its grades."""

    answer: Callable[[Case, int], Any]
    application: str
    cache: AnswerCache | None
    helpers: Helpers
    wanted: Mapping[str, Sequence[Check]]

    def row(self, case: Case, repeat: int) -> tuple[GradedAnswer, bool]:
        """Return the row and whether its answer was known."""
        key = content_hash(
            {"kept": "answer/1", "application": self.application, "asked": case.asked(), "repeat": repeat}
        )
        view: AnswerView | None = None if self.cache is None else self.cache.get(key, AnswerView)
        known = view is not None
        if view is None:
            view = self._ask(case, repeat)
            if self.cache is not None and not view.error:
                self.cache.put(key, view)
        grades = tuple(self._grade(check, case, repeat, view) for check in self.wanted[case.id])
        return GradedAnswer(case, repeat, view, grades), known

    def _ask(self, case: Case, repeat: int) -> AnswerView:
        try:
            view = self.answer(case, repeat)
        except HoldtrueError as error:
            return AnswerView(error=short(f"{error.what} {error.why}".strip(), 500))
        except OSError as error:
            return AnswerView(error=short(str(error) or type(error).__name__, 500))
        if not isinstance(view, AnswerView):
            raise InvalidInput(
                f"The application answered with {type(view).__name__}.", mend="Return an AnswerView for each case."
            )
        return _whole(view)

    def _grade(self, check: Check, case: Case, repeat: int, view: AnswerView) -> Grade:
        if self.cache is None or check.kind != "judge" or view.error:
            return grade(check, case, view, self.helpers)
        rubric: Rubric = options_of(check)
        prompt = [dump(each) for each in judge_messages(rubric, case, view)]
        key = content_hash({"kept": "verdict/1", "rubric": dump(rubric), "prompt": prompt, "repeat": repeat})
        found: Grade | None = self.cache.get(key, Grade)
        if found is None:
            found = grade(check, case, view, self.helpers)
            # A judge that could not be asked, or gave no usable reply, is asked again next time.
            if not found.abstained:
                self.cache.put(key, found)
        return replace(found, check=check.label)


def _whole(view: AnswerView) -> AnswerView:
    """Return an answer that has a JSON form: half characters and numbers without one are replaced."""
    try:
        canonical_bytes(dump(view))
    except (InvalidInput, ValueError):
        return load(AnswerView, _plain(asdict(view)), "An answer")
    return view


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)


def _wanted(test_set: TestSet, checks: Sequence[Check], helpers: Helpers) -> dict[str, list[Check]]:
    """Return the checks of each case; BadCheck where a check cannot be used, or a case has none."""
    check_checks(checks, helpers)
    found: dict[str, list[Check]] = {}
    for case in test_set.cases:
        found[case.id] = [check for check in checks if applies(check, case)]
        for check in found[case.id]:
            check_case(check, case)
    bare = [name for name, each in found.items() if not each]
    if bare:
        raise BadCheck(
            f"No check applies to {len(bare)} of {len(found)} cases: {', '.join(bare[:5])}.",
            why="An answer that nothing looks at would count as good.",
            mend="Give them what a check compares with (answers, sources, pattern, …), or add a check, such as "
            '{"kind": "abstention"} or a judge.',
            facts={"cases": bare[:50]},
        )
    return found


def _as_test_set(cases: TestSet | Sequence[Case]) -> TestSet:
    found = cases if isinstance(cases, TestSet) else TestSet("cases", tuple(cases))
    names = [case.id for case in found.cases]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(
            "These cases cannot be evaluated.",
            why="There is none." if not names else "Two of them have the same id, and results are paired by it.",
            mend="Load them with load_test_set, which says where the mistake is.",
        )
    return found


def _need_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InvalidInput(
        "An evaluation cannot run inside of a running loop.",
        why="It has a loop of its own, and would keep yours waiting.",
        mend="Call it in a thread: await asyncio.to_thread(run_answers, …)",
    )


def _between(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidInput(f"{name} is {value}.", why=f"It is between 1 and {most}.", mend="Choose another number.")


def keep_graded(blobs: BlobStore, graded: Graded) -> str:
    """Store a whole run as a blob and return its digest, so that the next release can be compared with it."""
    return blobs.put(canonical_bytes(dump(graded)))


def stored_graded(blobs: BlobStore, digest: str) -> Graded:
    """Return a run that `keep_graded` stored; raises NotFound, Corrupt."""
    return load(Graded, json.loads(blobs.get(digest)), "The evaluation")
