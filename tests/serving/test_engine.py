"""The engine in this process: what happens to requests that share a turn, and when something fails."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput, NotFound, Unavailable
from holdtrue.serving import Arm, BadSnapshot, Engine, Input, Route, Snapshot, load_model
from holdtrue.serving.assembly import compile_assembly, compile_check
from holdtrue.serving.batching import Answer
from holdtrue.serving.engine import ContractBroken, NotServed
from holdtrue.serving.isolated import code_refused
from holdtrue.serving.plan import Loaded, NoAnswer, Plan, Stopped
from holdtrue.serving.records import record_columns
from holdtrue.serving.runtime import ModelFailed
from holdtrue.serving.table import Loaders, Table, build_table
from holdtrue.storage import Journal, Writer
from tests.sampling import examples
from tests.serving.plane_home import FEATURES, INPUTS, PROJECT, SERVICE, START, Home, flight


def nothing_known(views: Any, entities: Mapping[str, Any], times: Sequence[int]) -> Mapping[str, Any]:
    """Look features up in a store that knows nothing but whom to refuse."""
    if "XXX" in entities["origin"]:
        raise InvalidInput("This origin cannot be looked up.")
    if "YYY" in entities["origin"]:
        raise RuntimeError("a bug")
    names = [name for view in views for name in view.features]
    return {name: np.full(len(times), np.nan) for name in names}


@dataclass
class Bench:
    engine: Engine
    home: Home
    writer: Writer

    async def predict(self, rows: list[dict[str, Any]], request_id: str | None = None) -> Answer:
        columns = {each.name: [row[each.name] for row in rows] for each in INPUTS}
        plan = self.engine.plan(PROJECT, SERVICE)
        return await self.engine.predict(plan, columns, len(rows), request_id, self.engine.stopwatch())

    def together(self, *requests: list[dict[str, Any]]) -> list[Any]:
        """Send requests in one turn of the event loop; return answers and errors."""

        async def main() -> list[Any]:
            return await asyncio.gather(*map(self.predict, requests), return_exceptions=True)

        return asyncio.run(main())


Publish = Callable[..., Bench]


@pytest.fixture
def serve(home: Home) -> Iterator[Publish]:
    """Make an engine over real models and a real journal."""
    journal = Journal(home.path / "journal", SystemClock())
    writers: list[Writer] = []

    def publish(
        *releases: tuple[str, str], strict: bool = False, broken: str = "", score: Any = None, **changes: Any
    ) -> Bench:
        def load(bundle: Any) -> Loaded:
            data = home.blobs.get(bundle.model.digest)
            model = load_model(data, bytes_hash(data))
            if bundle.release == broken:
                model = replace(model, score=score or fail)
            check, moments = compile_check(bundle)
            assembly = compile_assembly(bundle, model.features)
            return Loaded(bundle, model, assembly, check, assembly.moments | moments)

        writer = journal.writer(f"test-{len(writers)}", "strict" if strict else "fast")
        writers.append(writer)
        engine = Engine(home.clock, writer, lambda _: nothing_known, strict=strict)
        bundles = [home.bundle(release, model) for release, model in releases]
        snapshot = home.publish(*bundles, **changes)
        engine.table = build_table(snapshot, Table(), loaders(load))
        return Bench(engine, home, writer)

    yield publish
    for writer in writers:
        with suppress(Unavailable):
            writer.close()


def loaders(load: Any) -> Loaders:
    """Return what loads models; no snapshot here has an application."""
    return Loaders(load, fail)


def fail(matrix: Any) -> Any:
    raise ModelFailed("The model did not answer.")


@pytest.mark.parametrize("strict", [False, True])
def test_requests_of_one_turn_get_their_own_answers(serve: Publish, strict: bool) -> None:
    bench = serve(("rel_a", "champion"), strict=strict)
    requests = [[flight(number + row) for row in range(number % 3 + 1)] for number in range(12)]

    together = bench.together(*requests)
    alone = [bench.together(request)[0] for request in requests]

    assert [each.scores for each in together] == [each.scores for each in alone]
    records = bench.home.records("prediction")
    assert len(records) == 2 * sum(map(len, requests))
    by_id = {each["id"]: each for each in records}
    for request, answer in zip(requests, together, strict=True):
        assert [by_id[name]["key"] for name in answer.ids] == [row["flight_id"] for row in request]
        assert [by_id[name]["score"] for name in answer.ids] == pytest.approx(answer.scores)
        assert {by_id[name]["request_id"] for name in answer.ids} == {answer.ids[0]}


def watched(plan: Plan) -> tuple[Plan, list[int]]:
    """Return a plan whose model tells of how many rows each of its batches has."""
    begun: list[int] = []
    whole = plan.loaded["rel_a"].model.score

    def score(matrix: Any) -> Any:
        begun.append(len(matrix))
        return whole(matrix)

    loaded = replace(plan.loaded["rel_a"], model=replace(plan.loaded["rel_a"].model, score=score))
    return replace(plan, loaded={"rel_a": loaded}), begun


def test_a_batch_takes_in_who_comes_while_it_is_gathered_but_not_for_ever(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"))
    plan = bench.engine.plan(PROJECT, SERVICE)
    plan, begun = watched(plan)

    async def main(count: int) -> None:
        answers: list[Awaitable[Answer]] = []
        for number in range(count):
            columns = {name: [value] for name, value in flight(number).items()}
            answers.append(bench.engine.predict(plan, columns, 1, None, 0.0))
            await asyncio.sleep(0)
        await asyncio.gather(*answers)

    asyncio.run(main(3))
    assert begun == [3]
    begun.clear()
    asyncio.run(main(9))
    assert sum(begun) == 9
    assert 3 < begun[0] < 9


@pytest.mark.parametrize("strict", [False, True])
def test_the_last_request_of_a_turn_begins_its_batch(serve: Publish, strict: bool) -> None:
    """As the server tells: who has yet to begin, and who began last."""
    bench = serve(("rel_a", "champion"), strict=strict)
    plan, turn = bench.engine.plan(PROJECT, SERVICE), bench.engine.turn
    plan, begun = watched(plan)

    async def request(number: int, *, counted: bool) -> list[int]:
        if counted:
            turn.starting -= 1
            turn.last = asyncio.current_task()  # type: ignore[assignment]
        columns = {name: [value] for name, value in flight(number).items()}
        answering = bench.engine.predict(plan, columns, 1, None, 0.0)
        seen = list(begun)
        await answering
        return seen

    async def main() -> list[list[int]]:
        turn.starting = 3
        found = await asyncio.gather(*(request(number, counted=True) for number in range(3)))
        # One that another server took in is not counted, and waits for the end of its turn.
        begun.clear()
        return [*found, await request(3, counted=False)]

    found = asyncio.run(main())
    assert found[-1] == []
    assert begun == [1]
    assert [3] in found[:3]
    bench.writer.close()
    assert len(bench.home.records("prediction")) == 4


def test_one_request_that_fails_does_not_fail_the_others(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"))
    good, bug = [flight(1)], [flight(2, origin="YYY")]
    plan = bench.engine.plan(PROJECT, SERVICE)
    bench.engine.table = replace(bench.engine.table, plans={(PROJECT, SERVICE): replace(plan, check=None)})

    first, second, third = bench.together(good, bug, good)

    assert first.scores == third.scores
    assert isinstance(second, Unavailable)
    assert "bug" not in str(second)


def test_features_that_cannot_be_looked_up_give_the_fallback(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"))
    plan = bench.engine.plan(PROJECT, SERVICE)
    bench.engine.table = replace(bench.engine.table, plans={(PROJECT, SERVICE): replace(plan, check=None)})
    (answer,) = bench.together([flight(1, origin="XXX"), flight(2)])
    assert answer.scores == [0.25, 0.25]
    assert answer.fallback == [True, True]


def test_the_champion_answers_for_a_failing_canary_and_the_failure_is_the_canarys(serve: Publish) -> None:
    arms = (Arm("champion", "rel_a", 50.0), Arm("canary", "rel_b", 50.0))
    bench = serve(("rel_a", "champion"), ("rel_b", "challenger"), arms=arms, paired=True, broken="rel_b")
    rows = [flight(number) for number in range(40)]

    (answer,) = bench.together(rows)

    assert set(answer.arms) == {"champion", "canary"}
    assert answer.fallback == [arm == "canary" for arm in answer.arms]
    champion = serve(("rel_a", "champion"))
    (expected,) = champion.together(rows)
    assert answer.scores == expected.scores
    records = [each for each in bench.home.records("prediction") if each["prediction_id"] in set(answer.ids)]
    answers = [each for each in records if each["role"] == "answer"]
    of_canary = [each for each in answers if each["arm"] == "canary"]
    assert [each["fallback"] for each in of_canary] == [True] * answer.arms.count("canary")
    assert {(each["release"], each["fallback_release"]) for each in of_canary} == {("rel_b", "rel_a")}
    assert {each["fallback_release"] for each in answers if each["arm"] == "champion"} == {None}
    # The champion's twin scores are there all the same: they tell what the rows would have got.
    twins = [each for each in records if each["role"] == "shadow"]
    assert len(twins) == answer.arms.count("canary")
    assert not any(each["fallback"] for each in twins)


def test_a_challenger_that_answers_and_shadows_scores_each_row_once(serve: Publish) -> None:
    arms = (Arm("champion", "rel_a", 50.0), Arm("challenger", "rel_b", 50.0))
    releases = (("rel_a", "champion"), ("rel_b", "challenger"))
    bench = serve(*releases, arms=arms, paired=True, shadows=("rel_b",))
    bench.together([flight(number) for number in range(30)])
    records = bench.home.records("prediction")
    assert sorted((each["key"], each["release"]) for each in records) == sorted(
        (f"flight-{number}", release) for number in range(30) for release in ("rel_a", "rel_b")
    )


def test_a_failing_shadow_is_left_out(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"), ("rel_b", "challenger"), shadows=("rel_b",), broken="rel_b")
    (answer,) = bench.together([flight(1)])
    assert answer.fallback is None
    assert [each["role"] for each in bench.home.records("prediction")] == ["answer"]


def test_without_a_fallback_a_failing_model_is_an_error(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"), broken="rel_a", fallback=None)
    (answer,) = bench.together([flight(1)])
    assert isinstance(answer, NoAnswer)
    assert bench.home.records("prediction") == []


def spoilt(matrix: Any) -> Any:
    """Score like a model that trips over one kind of row, whatever stands beside it."""
    if (matrix[:, 0] == 107.0).any():
        raise ZeroDivisionError("this row")
    return matrix[:, 0] / 1000


WAYS: dict[str, Callable[[Any], Any]] = {
    "raises": spoilt,
    "is not a number": lambda matrix: np.where(matrix[:, 0] == 107.0, np.nan, matrix[:, 0] / 1000),
    "is infinite": lambda matrix: np.where(matrix[:, 0] == 107.0, np.inf, matrix[:, 0] / 1000),
}


@pytest.mark.parametrize("score", WAYS.values(), ids=WAYS.keys())
def test_a_row_that_spoils_a_batch_fails_alone(serve: Publish, score: Any) -> None:
    bench = serve(("rel_a", "champion"), broken="rel_a", score=score)
    answers = bench.together(*([flight(number)] for number in range(12)))
    found = [(answer.scores[0], answer.fallback) for answer in answers]
    expected: list[Any] = [(pytest.approx((100 + number) / 1000), None) for number in range(12)]
    expected[7] = (0.25, [True])
    assert found == expected
    kept = {each["key"]: (each["fallback"], each["fallback_release"]) for each in bench.home.records("prediction")}
    assert kept == {f"flight-{number}": (number == 7, "" if number == 7 else None) for number in range(12)}


def test_a_model_whose_number_is_not_finite_is_told_of_in_the_log(
    serve: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    bench = serve(("rel_a", "champion"), broken="rel_a", score=WAYS["is not a number"])
    (answer,) = bench.together([flight(7), flight(8)])
    assert answer.fallback == [True, False]
    assert "The model of release rel_a failed: It gave a number that is not finite." in caplog.text


def test_a_model_that_always_answers_with_the_wrong_shape_is_not_asked_for_every_row(serve: Publish) -> None:
    asked: list[int] = []

    def score(matrix: Any) -> Any:
        asked.append(len(matrix))
        return np.zeros(3)

    bench = serve(("rel_a", "champion"), broken="rel_a", score=score)
    (answer,) = bench.together([flight(number) for number in range(1000)])
    assert answer.fallback == [True] * 1000
    assert answer.scores == [0.25] * 1000
    assert asked == [1000]


def test_a_broken_model_is_not_asked_for_every_row(serve: Publish) -> None:
    asked: list[int] = []

    def score(matrix: Any) -> Any:
        asked.append(len(matrix))
        raise MemoryError

    bench = serve(("rel_a", "champion"), broken="rel_a", score=score)
    (answer,) = bench.together([flight(number) for number in range(1000)])
    assert answer.fallback == [True] * 1000
    assert len(asked) < 100


def test_a_backup_answers_before_the_constant(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"), ("rel_b", "challenger"), broken="rel_a", backup="rel_b")
    expected = serve(("rel_b", "challenger")).together([flight(1), flight(2)])[0].scores
    (answer,) = bench.together([flight(1), flight(2)])
    assert (answer.scores, answer.fallback, answer.releases) == (expected, [True, True], ["rel_a"] * 2)
    kept = [each for each in bench.home.records("prediction") if each["prediction_id"] in answer.ids]
    assert [(each["release"], each["fallback_release"]) for each in kept] == [("rel_a", "rel_b")] * 2


def test_a_backup_answers_for_a_release_that_cannot_be_loaded(home: Home) -> None:
    def load(bundle: Any) -> Loaded:
        if bundle.release == "rel_a":
            raise InvalidInput("Its file is damaged.")
        model = load_model(home.blobs.get(bundle.model.digest), bundle.model.digest)
        return Loaded(bundle, model, compile_assembly(bundle, model.features), None, frozenset())

    bundles = home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger")
    alone = build_table(home.publish(*bundles, fallback=None), Table(), loaders(load))
    assert alone.unserved == {(PROJECT, SERVICE)}
    table = build_table(home.publish(*bundles, fallback=None, backup="rel_b"), Table(), loaders(load))
    assert (table.unserved, set(table.failed)) == (frozenset(), {"rel_a"})
    journal = Journal(home.path / "journal", SystemClock())
    writer = journal.writer("test", "fast")
    engine = Engine(home.clock, writer, lambda _: nothing_known, strict=False)
    engine.table = table
    (answer,) = Bench(engine, home, writer).together([flight(1)])
    writer.close()
    assert (answer.fallback, answer.releases) == ([True], ["rel_a"])
    assert [each["fallback_release"] for each in home.records("prediction")] == ["rel_b"]


def test_a_service_that_is_switched_off_answers_with_its_constant_and_asks_no_model(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"), stopped="The prices are wrong.", rollout="rol_1")
    (answer,) = bench.together([flight(1), flight(2)])
    assert (answer.scores, answer.fallback, answer.arms) == ([0.25] * 2, [True] * 2, ["stopped"] * 2)
    kept = bench.home.records("prediction")
    assert [(each["arm"], each["fallback"], each["fallback_release"]) for each in kept] == [("stopped", True, "")] * 2
    assert {each["rollout"] for each in kept} == {None}
    (refused,) = bench.together([flight(1, origin="SFO")])
    assert isinstance(refused, ContractBroken)


def test_a_service_that_is_switched_off_without_a_constant_says_why(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"), stopped="The prices are wrong.", fallback=None)
    (refused,) = bench.together([flight(1)])
    assert isinstance(refused, Stopped)
    assert (refused.status, refused.why) == (503, "The prices are wrong.")


def test_a_service_is_switched_off_also_while_its_new_release_does_not_load(home: Home) -> None:
    def load(bundle: Any) -> Loaded:
        if bundle.release == "rel_bad":
            raise Unavailable("The disk is slow.")
        data = home.blobs.get(bundle.model.digest)
        model = load_model(data, bundle.model.digest)
        return Loaded(bundle, model, compile_assembly(bundle, model.features), None, frozenset())

    first, second = home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger")
    arms = (Arm("champion", "rel_a", 95.0), Arm("canary", "rel_b", 5.0))
    table = build_table(home.publish(first, second, arms=arms, rollout="rol_1"), Table(), loaders(load))
    before = table.plans[PROJECT, SERVICE]
    bad = home.bundle("rel_bad", "challenger")
    table = build_table(home.publish(bad, stopped="It harms.", fallback=0.5), table, loaders(load))
    kept = table.plans[PROJECT, SERVICE].route
    assert (kept.arms, kept.stopped, kept.fallback) == (arms, "It harms.", 0.5)
    table = build_table(home.publish(bad), table, loaders(load))
    after = table.plans[PROJECT, SERVICE]
    assert (after.route, after.loaded) == (before.route, before.loaded)


def test_what_is_switched_off_waits_for_no_model_that_takes_long(home: Home) -> None:
    def load(bundle: Any) -> Loaded:
        model = load_model(home.blobs.get(bundle.model.digest), bundle.model.digest)
        slow = replace(model, aside=True)
        return Loaded(bundle, slow, compile_assembly(bundle, model.features), None, frozenset())

    one = home.bundle("rel_a", "champion")
    table = build_table(home.publish(one), Table(), loaders(load))
    assert table.plans[PROJECT, SERVICE].aside
    table = build_table(home.publish(one, stopped="It hangs."), table, loaders(load))
    assert not table.plans[PROJECT, SERVICE].aside


def test_a_backup_of_another_service_answers_and_is_not_asked_for_by_this_ones_name(home: Home) -> None:
    simple = home.bundle("rel_simple", "challenger", service="base")
    odd = home.bundle("rel_odd", "challenger", service="base", inputs=(*INPUTS, Input("gate", "BYTES")))
    with pytest.raises(BadSnapshot, match="the backup of"):
        home.publish(home.bundle("rel_a", "champion"), odd, backup="rel_odd")
    snapshot = home.publish(home.bundle("rel_a", "champion"), simple, backup="rel_simple")

    def load(bundle: Any) -> Loaded:
        model = load_model(home.blobs.get(bundle.model.digest), bundle.model.digest)
        broken = replace(model, score=fail) if bundle.release == "rel_a" else model
        return Loaded(bundle, broken, compile_assembly(bundle, model.features), None, frozenset())

    table = build_table(snapshot, Table(), loaders(load))
    assert set(table.pinned) == {(PROJECT, SERVICE, "rel_a")}
    journal = Journal(home.path / "journal", SystemClock())
    writer = journal.writer("test", "fast")
    engine = Engine(home.clock, writer, lambda _: nothing_known, strict=False)
    engine.table = table
    (answer,) = Bench(engine, home, writer).together([flight(1)])
    writer.close()
    assert (answer.fallback, answer.releases) == ([True], ["rel_a"])
    assert [each["fallback_release"] for each in home.records("prediction")] == ["rel_simple"]


def test_scores_within_the_band_are_marked_as_no_decision(serve: Publish) -> None:
    rows = [flight(number) for number in range(30)]
    arms = (Arm("champion", "rel_a", 50.0), Arm("canary", "rel_b", 50.0))
    low, high = 0.105, 0.12
    for changes in ({}, {"arms": arms}):
        bench = serve(
            ("rel_a", "champion"),
            ("rel_b", "challenger"),
            abstain=(low, high),
            broken="rel_a",
            score=lambda matrix: matrix[:, 0] / 1000,
            **changes,
        )
        (answer,) = bench.together(rows)
        assert answer.abstained == [low <= score <= high for score in answer.scores]
        assert 0 < sum(answer.abstained) < len(rows)
        kept = {each["prediction_id"]: each["abstained"] for each in bench.home.records("prediction")}
        assert [kept[name] for name in answer.ids] == answer.abstained
    failing = serve(("rel_a", "champion"), abstain=(0.0, 1.0), broken="rel_a")
    assert failing.together([flight(1)])[0].abstained == [False]


def test_a_request_that_nobody_waits_for_is_neither_scored_nor_recorded(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"))

    async def main() -> list[Any]:
        gone = asyncio.ensure_future(bench.predict([flight(1)]))
        stays = asyncio.ensure_future(bench.predict([flight(2)]))
        asyncio.get_running_loop().call_soon(gone.cancel)
        return [*await asyncio.gather(gone, stays, return_exceptions=True)]

    # The cancellation and the scoring come in the same turn, so either order is right; what counts is the other one.
    first, second = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert len(second.scores) == 1
    assert "flight-2" in {each["key"] for each in bench.home.records("prediction")}


def test_in_strict_mode_no_record_means_no_answer(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"), strict=True)
    bench.writer.close()
    answers = bench.together([flight(1)], [flight(2)])
    assert all(isinstance(answer, Unavailable) for answer in answers)


def test_in_fast_mode_lost_records_are_counted(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"))
    bench.writer.close()
    answers = bench.together([flight(1)], [flight(2), flight(3)])
    assert [len(answer.scores) for answer in answers] == [1, 2]
    assert bench.engine.dropped == 3


def test_what_is_not_served_is_told_apart(serve: Publish) -> None:
    bench = serve(("rel_a", "narrow"), fallback=None)
    with pytest.raises(NotServed):
        bench.engine.plan(PROJECT, SERVICE)
    with pytest.raises(NotFound):
        bench.engine.plan(PROJECT, "other")
    with pytest.raises(NotFound):
        bench.engine.plan("other", SERVICE)
    assert not bench.engine.ready


def test_a_broken_contract_names_the_column(serve: Publish) -> None:
    bench = serve(("rel_a", "champion"))
    (refused,) = bench.together([flight(1), flight(2, origin="SFO")])
    assert isinstance(refused, ContractBroken)
    assert refused.facts == {"column": "origin", "rule": "isin"}
    (refused,) = bench.together([flight(1, scheduled="yesterday")])
    assert isinstance(refused, InvalidInput)
    assert "scheduled" in refused.what


def test_a_loaded_release_is_kept_while_snapshots_come(home: Home) -> None:
    loads: list[str] = []

    def load(bundle: Any) -> Loaded:
        loads.append(bundle.release)
        data = home.blobs.get(bundle.model.digest)
        model = load_model(data, bundle.model.digest)
        return Loaded(bundle, model, compile_assembly(bundle, model.features), None, frozenset())

    first, second = home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger")
    table = build_table(home.publish(first), Table(), loaders(load))
    arms = (Arm("champion", "rel_a", 95.0), Arm("canary", "rel_b", 5.0))
    table = build_table(home.publish(first, second, arms=arms), table, loaders(load))
    assert loads == ["rel_a", "rel_b"]
    table = build_table(home.publish(second), table, loaders(load))
    assert loads == ["rel_a", "rel_b"]
    assert set(table.loaded) == {"rel_b"}
    changed = home.bundle("rel_b", "challenger", output="delay")
    table = build_table(home.publish(changed), table, loaders(load))
    assert loads == ["rel_a", "rel_b", "rel_b"]


def test_a_loader_that_trips_fails_one_release_only(home: Home) -> None:
    def load(bundle: Any) -> Loaded:
        raise ZeroDivisionError("inside a loader")

    table = build_table(home.publish(home.bundle("rel_a", "champion")), Table(), loaders(load))
    assert "ZeroDivisionError" in table.failed["rel_a"]
    assert table.plans[PROJECT, SERVICE].loaded == {}


def test_what_mends_a_release_that_cannot_be_loaded_is_kept_with_the_reason(home: Home) -> None:
    def load(bundle: Any) -> Loaded:
        raise code_refused()

    table = build_table(home.publish(home.bundle("rel_a", "champion")), Table(), loaders(load))
    assert "This model is code, which is not run here." in table.failed["rel_a"]
    assert 'Set model_code = "isolated" in config.toml' in table.failed["rel_a"]


def _route(shares: list[float], shadows: int, paired: bool) -> Route:
    arms = tuple(Arm(f"arm{place}", f"rel_{place}", share) for place, share in enumerate(shares))
    names = tuple(f"rel_{len(shares) + place}" for place in range(shadows))
    return Route(PROJECT, SERVICE, "flight_id", "flight_id", arms, "seed", None, names, paired, 0.5)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 12),
    split=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    shadows=st.integers(0, 2),
    paired=st.booleans(),
)
def test_every_row_is_answered_once_and_recorded_as_answered(
    home: Home, rows: int, split: list[int], shadows: int, paired: bool
) -> None:
    shares = [100 * part / sum(split) for part in split]

    def load(bundle: Any) -> Loaded:
        data = home.blobs.get(bundle.model.digest)
        model = load_model(data, bundle.model.digest)
        return Loaded(bundle, model, compile_assembly(bundle, model.features), None, frozenset())

    bundles = {
        f"rel_{place}": home.bundle(f"rel_{place}", ("champion", "challenger")[place % 2])
        for place in range(len(shares) + shadows)
    }
    services = {f"{PROJECT}/{SERVICE}": _route(shares, shadows, paired)}
    snapshot = Snapshot(1, START, services, bundles)
    plan = build_table(snapshot, Table(), loaders(load)).plans[PROJECT, SERVICE]
    flights = [flight(number) for number in range(rows)]
    columns = {each.name: [row[each.name] for row in flights] for each in INPUTS}
    ids = [f"p{row}" for row in range(rows)]

    results = plan.score(columns, rows, [0] * rows, nothing_known)
    record, count = record_columns(
        plan.route,
        columns,
        results,
        ids=ids,
        times=[0] * rows,
        now_us=0,
        request_ids=["r"] * rows,
        latencies=[1] * rows,
    )

    table = {
        name: list(values) if isinstance(values, list | np.ndarray) else [values] * count
        for name, values in record.items()
    }
    assert all(len(values) == count for values in table.values())
    assert len(set(table["id"])) == count
    answers = [row for row in range(count) if table["role"][row] == "answer"]
    assert sorted(table["prediction_id"][row] for row in answers) == sorted(ids)
    assert count - len(answers) == shadows * rows + (
        sum(table["arm"][row] == plan.route.arms[-1].name for row in answers)
        if plan.route.paired and len(plan.route.arms) > 1
        else 0
    )
    for row in range(count):
        number = ids.index(table["prediction_id"][row])
        assert table["key"][row] == table["x_flight_id"][row] == f"flight-{number}"
        model = load_model(*_bytes(home, table["release"][row]))
        features = [[table[f"f_{name}"][row] for name in FEATURES.names]]
        assert table["score"][row] == pytest.approx(model.score(np.array(features, np.float32))[0])


def _bytes(home: Home, release: str) -> tuple[bytes, str]:
    data = home.models[("champion", "challenger")[int(release[-1]) % 2]]
    return data, bytes_hash(data)
