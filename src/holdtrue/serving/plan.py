"""The compiled plan of a service: from a request's columns to scores, without building anything twice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.serving.assembly import Assembly, Check, Columns, Lookup
from holdtrue.serving.rules import chooser
from holdtrue.serving.runtime import Matrix, Model
from holdtrue.serving.snapshot import Bundle, Route

ANSWER: Final = "answer"
SHADOW: Final = "shadow"


class NoAnswer(Unavailable):
    """No model answered, and the service has no fallback."""

    code = "no_answer"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Hold one release ready to score: bundle, model, how its features are made, its contract's check.

    `moments` are the inputs that the features or the contract read as times.
    """

    bundle: Bundle
    model: Model
    assembly: Assembly
    check: Check | None
    moments: frozenset[str]


@dataclass(slots=True)
class Scored:
    """Hold the scores that one release gave to some rows of a request.

    `rows` are positions in the request (None: all of them, in order); `scores` one float a row;
    `failed` tells per row that the score is the fallback constant (None: no row failed).
    """

    release: str
    arm: str
    role: str
    rows: list[int] | None
    scores: list[float]
    failed: list[bool] | None
    names: tuple[str, ...]
    matrix: Matrix | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold one service compiled: its route and, by release, what is loaded.

    `bundle` describes the request and `check` its contract, both of the first arm; `moments` are the
    inputs that arrive as text and are read as times.
    """

    route: Route
    bundle: Bundle
    loaded: Mapping[str, Loaded]
    check: Check | None
    moments: frozenset[str]
    choose: Callable[[Sequence[Any]], list[int]] | None

    def score(self, columns: Columns, rows: int, times: list[int], lookup: Lookup) -> list[Scored]:
        """Score `rows` rows with every arm and shadow they need; answers come first.

        `columns` are the request's inputs, `times` the microseconds for which features are looked up.
        Raises NoAnswer if a model fails and the route has no fallback.
        """
        matrices = _Matrices(columns, rows, times, lookup)
        if self.choose is None:
            arm = self.route.arms[0]
            results = [self._run(arm.release, arm.name, ANSWER, None, matrices)]
        else:
            results = self._split(columns, rows, matrices)
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
        count = matrices.rows if rows is None else len(rows)
        if loaded is None:
            return self._failed(release, arm, role, rows, [0.0] * count, [True] * count, (), None)
        names = loaded.assembly.names
        try:
            matrix = matrices.of(loaded.assembly)
            if rows is not None:
                matrix = matrix[rows]
        except HoldtrueError:
            return self._failed(release, arm, role, rows, [0.0] * count, [True] * count, (), None)
        try:
            scores: list[float] = loaded.model.score(matrix).tolist()
        except HoldtrueError:
            return self._failed(release, arm, role, rows, [0.0] * count, [True] * count, names, matrix)
        if all(map(isfinite, scores)):
            return Scored(release, arm, role, rows, scores, None, names, matrix)
        failed = [not isfinite(score) for score in scores]
        return self._failed(release, arm, role, rows, scores, failed, names, matrix)

    def _failed(
        self,
        release: str,
        arm: str,
        role: str,
        rows: list[int] | None,
        scores: list[float],
        failed: list[bool],
        names: tuple[str, ...],
        matrix: Matrix | None,
    ) -> Scored:
        fallback = self.route.fallback
        if role == ANSWER:
            if fallback is None:
                raise NoAnswer(
                    f"The service {self.route.service} cannot answer now.",
                    why=f"The model of release {release} failed, and the service declares no fallback.",
                    mend="Try again; declare a fallback on the service to get a constant answer instead.",
                )
            scores = [fallback if bad else score for score, bad in zip(scores, failed, strict=True)]
        return Scored(release, arm, role, rows, scores, failed, names, matrix)


def _unseen(release: str, results: list[Scored], rows: int) -> list[int] | None:
    """Return the rows that `release` has not scored for this request yet, None for all of them."""
    scored = [each for each in results if each.release == release]
    if not scored:
        return None
    seen = {row for each in scored for row in (range(rows) if each.rows is None else each.rows)}
    return [row for row in range(rows) if row not in seen]


class _Matrices:
    """Make each feature matrix of one request once, however many models read it."""

    __slots__ = ("_columns", "_lookup", "_made", "_times", "rows")

    def __init__(self, columns: Columns, rows: int, times: list[int], lookup: Lookup) -> None:
        self.rows = rows
        self._columns = columns
        self._times = times
        self._lookup = lookup
        self._made: dict[str, Matrix] = {}

    def of(self, assembly: Assembly) -> Matrix:
        matrix = self._made.get(assembly.digest)
        if matrix is None:
            matrix = assembly.make(self._columns, self._times, self._lookup)
            self._made[assembly.digest] = matrix
        return matrix


def compile_plan(route: Route, loaded: Mapping[str, Loaded], bundle: Bundle) -> Plan:
    """Compile `route` over the releases in `loaded`; `bundle` describes the request, as the first arm's does.

    With one arm that holds everything, every row goes there and nothing is drawn.
    """
    arms = tuple(arm for arm in route.arms if arm.percent > 0)
    choose = None
    if len(arms) > 1:
        choose = chooser(route.arms, route.seed)
    else:
        route = replace(route, arms=arms, paired=False)
    needed = {release: loaded[release] for release in route.releases if release in loaded}
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
    )
