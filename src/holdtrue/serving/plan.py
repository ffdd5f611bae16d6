"""The compiled plan of a service: from a request's columns to scores, without building anything twice."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from types import MappingProxyType
from typing import Any, Final

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.serving.assembly import Assembly, Check, Columns, Lookup
from holdtrue.serving.contributions import Explain
from holdtrue.serving.lanes import Lane
from holdtrue.serving.refusing import challenger_of, rival_check
from holdtrue.serving.rules import chooser
from holdtrue.serving.runtime import Matrix, Model, ModelFailed, ModelFell, WrongShape, checked
from holdtrue.serving.snapshot import Bundle, Route

ANSWER: Final = "answer"
SHADOW: Final = "shadow"
STOPPED: Final = "stopped"
_MOST_FAILURES: Final = 32
_stopwatch: Final = SystemClock().monotonic
_log: Final = logging.getLogger("holdtrue.dataplane")


class NoAnswer(Unavailable):
    """No model answered, and the service has no fallback."""

    code = "no_answer"


class Stopped(Unavailable):
    """A service is switched off, and has no constant to answer with."""

    code = "service_stopped"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Hold one release ready to score: bundle, model, how its features are made, its contract's check.

    `moments` are the inputs that the features or the contract read as times, `size` the bytes of memory that it takes;
    `explain` says what features contributed to scores, None where nothing can.
    """

    bundle: Bundle
    model: Model
    assembly: Assembly
    check: Check | None
    moments: frozenset[str]
    size: int = 0
    explain: Explain | None = None


@dataclass(slots=True)
class Scored:
    """Hold the scores that one release gave to some rows of a request.

    `rows` are positions in the request (None: all of them, in order); `scores` one float a row;
    `failed` tells per row that the release did not give the score (None: no row failed), and `rescuers` which
    release did instead, "" for the fallback constant. `took_us` is how long features and model took for all of them.
    Of a model of several classes a score is the number of the one that is said, and `chances` are the probabilities of
    all, None for a row that no model answered.
    """

    release: str
    arm: str
    role: str
    rows: list[int] | None
    scores: list[float]
    failed: list[bool] | None
    names: tuple[str, ...]
    matrix: Matrix | None
    rescuers: list[str] | None = None
    took_us: int = 0
    chances: list[list[float] | None] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold one service compiled: its route and, by release, what is loaded.

    `bundle` describes the request and `check` its contract, both of the first arm; `moments` are the
    inputs that arrive as text and are read as times. `rival` is the contract of a rollout's challenger where it is
    another one, and `alone` the plan for requests that it refuses: the champion answers them. With `aside`, a model
    takes long or runs in another process.
    """

    route: Route
    bundle: Bundle
    loaded: Mapping[str, Loaded]
    check: Check | None
    moments: frozenset[str]
    choose: Callable[[Sequence[Any]], list[int]] | None
    rival: Check | None = None
    alone: "Plan | None" = None
    aside: bool = False
    lane: Lane[Any] = field(default_factory=Lane[Any], compare=False)

    def score(self, columns: Columns, rows: int, times: list[int], lookup: Lookup) -> list[Scored]:
        """Score `rows` rows with every arm and shadow they need; answers come first.

        `columns` are the request's inputs, `times` the microseconds for which features are looked up.
        Raises NoAnswer if a model fails and nothing else answers, and Stopped.
        """
        return self._score(_Matrices(columns, rows, times, lookup))

    def prepare(self, columns: Columns, rows: int, times: list[int], lookup: Lookup) -> Callable[[], list[Scored]]:
        """Make every feature now and return what scores them as `score` does, on any thread."""
        matrices = _Matrices(columns, rows, times, lookup)
        if self.route.stopped is None:
            for each in self.loaded.values():
                matrices.prepare(each.assembly)
        return lambda: self._score(matrices)

    def _score(self, matrices: "_Matrices") -> list[Scored]:
        rows = matrices.rows
        if self.route.stopped is not None:
            return [self._stopped(rows, self.route.stopped)]
        if self.choose is None:
            arm = self.route.arms[0]
            results = [self._run(arm.release, arm.name, ANSWER, None, matrices)]
        else:
            results = self._split(matrices.columns, rows, matrices)
        for release in self.route.shadows:
            unseen = _unseen(release, results, rows)
            if unseen is None or unseen:
                shadow = self._run(release, SHADOW, SHADOW, unseen, matrices)
                if shadow.failed is None:
                    results.append(shadow)
        return results

    def _split(self, columns: Columns, rows: int, matrices: "_Matrices") -> list[Scored]:
        route = self.route
        assert self.choose is not None
        assert route.unit is not None
        arms = self.choose(columns[route.unit])
        results: list[Scored] = []
        for position, arm in enumerate(route.arms):
            mine = [row for row, chosen in enumerate(arms) if chosen == position]
            if mine:
                every = None if len(mine) == rows else mine
                results.append(self._run(arm.release, arm.name, ANSWER, every, matrices))
        last, first = route.arms[-1], route.arms[0]
        if route.paired and results[-1].arm == last.name:
            twin = self._run(first.release, first.name, SHADOW, results[-1].rows, matrices)
            if twin.failed is None:
                results.append(twin)
        return results

    def _run(self, release: str, arm: str, role: str, rows: list[int] | None, matrices: "_Matrices") -> Scored:
        loaded = self.loaded.get(release)
        names = () if loaded is None else loaded.assembly.names
        began = _stopwatch()
        scores, matrix, chances = _scores(loaded, rows, matrices)
        took = _stopwatch() - began + (0.0 if loaded is None else matrices.shared(loaded.assembly))
        found = Scored(release, arm, role, rows, scores, None, names, matrix, took_us=int(took * 1e6), chances=chances)
        if not all(map(isfinite, scores)):
            found.failed = [not isfinite(score) for score in scores]
            if role == ANSWER:
                self._rescue(found, matrices)
        return found

    def _rescue(self, found: Scored, matrices: "_Matrices") -> None:
        """Answer the rows that the release failed on by the champion, the backup, or the constant."""
        assert found.failed is not None
        left = [place for place, bad in enumerate(found.failed) if bad]
        rescuers = [""] * len(found.scores)
        for other in (self.route.arms[0].release, self.route.backup):
            if other is None or other == found.release or not left:
                continue
            rows = left if found.rows is None else [found.rows[place] for place in left]
            scores, _, chances = _scores(self.loaded.get(other), rows, matrices)
            for number, (place, score) in enumerate(zip(left, scores, strict=True)):
                if isfinite(score):
                    found.scores[place] = score
                    rescuers[place] = other
                    if chances is not None:
                        # A release that could not be asked at all has none of its own.
                        mine: list[list[float] | None] = found.chances or [None] * len(found.scores)
                        mine[place], found.chances = chances[number], mine
            left = [place for place in left if not rescuers[place]]
        for place in left:
            found.scores[place] = self._constant(found.release)
        found.rescuers = rescuers

    def _constant(self, release: str) -> float:
        if self.route.fallback is None:
            raise NoAnswer(
                f"The service {self.route.service} cannot answer now.",
                why=f"The model of release {release} failed, and the service declares no fallback.",
                mend="Try again; declare a fallback on the service to get a constant answer instead.",
            )
        return self.route.fallback

    def _stopped(self, rows: int, reason: str) -> Scored:
        if self.route.fallback is None:
            raise Stopped(
                f"The service {self.route.service} is switched off.",
                why=reason,
                mend="Wait until it is switched on again.",
                facts={"retry_after": 60},
            )
        release, scores = self.route.arms[0].release, [self.route.fallback] * rows
        return Scored(release, STOPPED, ANSWER, None, scores, [True] * rows, (), None, [""] * rows)


Chances = list[list[float] | None] | None


def _scores(
    loaded: Loaded | None, rows: list[int] | None, matrices: "_Matrices"
) -> tuple[list[float], Matrix | None, Chances]:
    """Return the scores that a release gives to rows, NaN where it fails, the features that it read, and chances."""
    count = matrices.rows if rows is None else len(rows)
    matrix: Matrix | None = None
    if loaded is None:
        return [nan] * count, None, None
    try:
        matrix = matrices.of(loaded.assembly)
    except HoldtrueError:
        return [nan] * count, None, None
    if rows is not None:
        matrix = matrix[rows]
    attempt = _Attempt(loaded)
    scores = attempt.score(matrix)
    if not loaded.model.classes:
        if not all(map(isfinite, scores)):
            attempt.note_once("It gave a number that is not finite.")
        return scores, matrix, None
    chances: list[list[float] | None] = [row if _sound(row) else None for row in scores]
    # Of equal probabilities the first class is said, as scikit-learn says it.
    return [nan if row is None else float(row.index(max(row))) for row in chances], matrix, chances


def _sound(row: Any) -> bool:
    return isinstance(row, list) and all(map(isfinite, row))


class _Attempt:
    """Run one model for one batch; rows that spoil it are found by halves, so that they fail alone."""

    __slots__ = ("_failures", "_loaded")

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._failures = 0

    def score(self, matrix: Matrix) -> list[Any]:
        """Return a score for each row (of classes a list of them), NaN for those that the model fails on."""
        model = self._loaded.model
        try:
            scores: list[Any] = checked(model.score(matrix), len(matrix), len(model.classes)).tolist()
        except (WrongShape, ModelFell) as error:
            # Which score belongs to which row is unknown, also where a part of the rows happens to fit; and to try
            # again, by halves, would cost the next process as well.
            self._note(error.why)
            self._failures = _MOST_FAILURES
            return [nan] * len(matrix)
        except Exception as error:  # noqa: BLE001  # whatever a model raises is its failure, not the service's
            self._note(error.why if isinstance(error, ModelFailed) else repr(error))
            return self._halves(matrix)
        return scores

    def note_once(self, why: str) -> None:
        """Log why rows have no score, unless that was said already."""
        if not self._failures:
            self._note(why)

    def _note(self, why: str) -> None:
        if not self._failures:
            _log.error("The model of release %s failed: %s", self._loaded.bundle.release, why[:300])
        self._failures += 1

    def _halves(self, matrix: Matrix) -> list[Any]:
        half = len(matrix) // 2
        # A model that is broken as a whole is not asked for every row.
        if not half or self._failures > _MOST_FAILURES:
            return [nan] * len(matrix)
        return self.score(matrix[:half]) + self.score(matrix[half:])


def _unseen(release: str, results: list[Scored], rows: int) -> list[int] | None:
    """Return the rows that `release` has not scored for this request yet, None for all of them."""
    scored = [each for each in results if each.release == release]
    if not scored:
        return None
    seen = {row for each in scored for row in (range(rows) if each.rows is None else each.rows)}
    return [row for row in range(rows) if row not in seen]


class _Matrices:
    """Make each feature matrix of one request once, however many models read it."""

    __slots__ = ("_failed", "_lookup", "_made", "_taken", "_times", "columns", "rows")

    def __init__(self, columns: Columns, rows: int, times: list[int], lookup: Lookup) -> None:
        self.rows = rows
        self.columns = columns
        self._times = times
        self._lookup = lookup
        self._made: dict[str, Matrix] = {}
        self._taken: dict[str, float] = {}
        self._failed: dict[str, HoldtrueError] | None = None

    def of(self, assembly: Assembly) -> Matrix:
        matrix = self._made.get(assembly.digest)
        if matrix is None:
            if self._failed is not None and assembly.digest in self._failed:
                raise self._failed[assembly.digest]
            began = _stopwatch()
            matrix = assembly.make(self.columns, self._times, self._lookup)
            self._made[assembly.digest] = matrix
            self._taken[assembly.digest] = _stopwatch() - began
        return matrix

    def shared(self, assembly: Assembly) -> float:
        """Return the seconds that a matrix took which another model had made before; 0 to the one that made it."""
        taken = self._taken.get(assembly.digest, 0.0)
        if taken > 0.0:
            # The first to read it has waited for it already.
            self._taken[assembly.digest] = -taken
            return 0.0
        return -taken

    def prepare(self, assembly: Assembly) -> None:
        """Make a matrix now, so that no other thread looks features up; what fails is raised when it is asked for."""
        try:
            self.of(assembly)
        except HoldtrueError as error:
            self._failed = {**(self._failed or {}), assembly.digest: error}


def compile_plan(route: Route, loaded: Mapping[str, Loaded], bundle: Bundle) -> Plan:
    """Compile `route` over the releases in `loaded`; `bundle` describes the request, as the first arm's does.

    With one arm that holds everything, every row goes there and nothing is drawn.
    """
    if bundle.classes and route.fallback not in (None, *range(len(bundle.classes))):
        # A number that names no class answers nothing.
        route = replace(route, fallback=None)
    arms = tuple(arm for arm in route.arms if arm.percent > 0)
    choose = None
    if len(arms) > 1:
        choose = chooser(route.arms, route.seed)
    else:
        route = replace(route, arms=arms, paired=False)
    needed = {release: loaded[release] for release in route.releases if release in loaded}
    # What is switched off asks no model, and neither waits for one nor holds requests to a challenger's contract.
    rival, alone = (None, None) if route.stopped is not None else _rival(route, needed, bundle)
    first = loaded.get(route.arms[0].release)
    moments = {bundle.prediction_time} if bundle.prediction_time is not None else set[str]()
    moments.update(*(each.moments for each in needed.values()))
    texts = {each.name for each in bundle.inputs if each.datatype == "BYTES"}
    return Plan(
        route=route,
        bundle=bundle,
        loaded=MappingProxyType(needed),
        check=first.check if first is not None else None,
        moments=frozenset(moments & texts),
        choose=choose,
        rival=rival,
        alone=alone,
        aside=route.stopped is None and any(each.model.aside for each in needed.values()),
    )


def _rival(route: Route, loaded: Mapping[str, Loaded], bundle: Bundle) -> tuple[Check | None, Plan | None]:
    """Return the contract of the challenger where it is another one, and the plan without the challenger."""
    champion, challenger = loaded.get(route.arms[0].release), loaded.get(challenger_of(route) or "")
    if champion is None or challenger is None:
        return None, None
    rival = rival_check(champion.bundle, challenger.bundle, challenger.check)
    if rival is None:
        return None, None
    only = replace(route, arms=(replace(route.arms[0], percent=100.0),), shadows=(), paired=False)
    return rival, compile_plan(only, loaded, bundle)
