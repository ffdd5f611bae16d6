"""Applications at request time: who is answered by which release, what is recorded, what happens in a failure."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.llm.gateway import ModelNotFound, ProviderBusy, ProviderFailed, ProviderRefused
from holdtrue.serving import Answered, Application, Arm, Engine, Question, Route, Snapshot
from holdtrue.serving.applications import LoadedApplication
from holdtrue.serving.plan import Stopped
from holdtrue.serving.rates import TooOften
from holdtrue.serving.snapshot import BadSnapshot, check_snapshot
from holdtrue.serving.table import Loaders, Table, build_table
from holdtrue.storage import Journal, Writer
from tests.serving.plane_home import Home

PROJECT, NAME = "help", "assistant"


@dataclass
class Fixed:
    """Answer with a release's name, or fail."""

    release: str
    failure: BaseException | None = None
    breaks: BaseException | None = None
    asked: list[Question] = field(default_factory=list[Question])

    async def answer(self, question: Question) -> Answered:
        self.asked.append(question)
        if self.failure is not None:
            raise self.failure
        return Answered(
            {"said": self.release},
            {"cited": 1.0, "answered": 0.5},
            [{"id": "docs#1"}],
            {"cost_micros": 5, "trace_id": "ab" * 16},
        )

    async def stream(self, question: Question) -> "Pieces":
        return Pieces(await self.answer(question), self.breaks)

    def say(self, question: Question, words: str) -> "Pieces":
        return Pieces(Answered({"said": words}), None, done=True)


@dataclass
class Pieces:
    """Give a fixed answer in two pieces, and break before the second if told to."""

    whole: Answered
    breaks: BaseException | None
    done: bool = False
    closed: int = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.whole.facts

    @property
    def answered(self) -> Answered:
        return self.whole if self.done else Answered({}, facts=self.whole.facts)

    async def deltas(self) -> AsyncGenerator[dict[str, Any]]:
        yield {"content": self.whole.body["said"]}
        if self.breaks is not None:
            raise self.breaks
        yield {"content": "."}
        self.done = True

    async def aclose(self) -> None:
        self.closed += 1


def part(release: str) -> Application:
    return Application(release=release, project=PROJECT, service=NAME, versions={}, parts={})


def route(*arms: Arm, **changes: Any) -> Route:
    given: dict[str, Any] = {"key": None, "entity": "user", "seed": "rol_1", "rollout": "rol_1"}
    return Route(project=PROJECT, service=NAME, arms=arms, **{**given, **changes})


def snapshot(home: Home, *releases: str, sequence: int = 1, arms: tuple[Arm, ...] = (), **changes: Any) -> Snapshot:
    share = 100.0 / len(releases)
    chosen = arms or tuple(Arm(f"arm-{place}", release, share) for place, release in enumerate(releases))
    return Snapshot(
        sequence,
        home.clock.now(),
        services={f"{PROJECT}/{NAME}": route(*chosen, **changes)},
        applications={release: part(release) for release in releases},
    )


@dataclass
class Desk:
    home: Home
    engine: Engine
    ready: dict[str, Fixed]
    writer: Writer

    def serve(self, shown: Snapshot) -> None:
        self.engine.table = build_table(shown, self.engine.table, Loaders(_no_model, self.load))

    def load(self, application: Application) -> LoadedApplication:
        if application.release not in self.ready:
            raise Unavailable("Its index is gone.")
        return LoadedApplication(application, self.ready[application.release])

    def ask(self, user: str = "ann", project: str = PROJECT, name: str = NAME) -> Any:
        question = Question({"messages": []}, project, name, user, "tok_1", "request-1")
        return asyncio.run(self.engine.applications.answer(question))

    def stream(self, user: str = "ann", most: int = 9) -> list[Any]:
        """Return the first pieces of an answer, closed after those."""

        async def taken() -> list[Any]:
            stream = await self.engine.applications.stream(
                Question({"messages": []}, PROJECT, NAME, user, "tok_1", "request-1")
            )
            found: list[Any] = []
            try:
                async for delta in stream.deltas():
                    found.append(delta["content"])
                    if len(found) == most:
                        break
            finally:
                await stream.aclose()
            return found

        return asyncio.run(taken())

    def records(self) -> list[Mapping[str, Any]]:
        journal = Journal(self.home.path / "journal", self.home.clock)
        try:
            return journal.table("prediction", PROJECT, service=NAME).to_pylist()
        finally:
            journal.close()


def _no_features(*asked: Any) -> Any:
    raise AssertionError(asked)


def _no_model(bundle: Any) -> Any:
    raise AssertionError(bundle)


@pytest.fixture(params=["strict", "fast"])
def desk(home: Home, request: pytest.FixtureRequest) -> Iterator[Desk]:
    journal = Journal(home.path / "journal", home.clock)
    writer = journal.writer("test", request.param)
    engine = Engine(home.clock, writer, lambda _: _no_features, strict=request.param == "strict")
    yield Desk(home, engine, {name: Fixed(name) for name in ("rel_a", "rel_b")}, writer)
    writer.close()


def test_an_answer_is_given_and_recorded_with_all_that_made_it(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a"))

    answered, prediction = desk.ask()

    desk.writer.flush()
    (record,) = desk.records()
    assert answered.body == {"said": "rel_a"}
    assert record["id"] == record["prediction_id"] == prediction
    assert (record["release"], record["arm"], record["role"], record["entity"]) == ("rel_a", "arm-0", "answer", "ann")
    assert (record["score"], record["fallback"], record["cost_micros"]) == (0.5, False, 5)
    assert (record["checks"], record["documents"]) == ('{"cited":1.0,"answered":0.5}', '[{"id":"docs#1"}]')
    assert record["trace_id"] == "ab" * 16
    (asked,) = desk.ready["rel_a"].asked
    assert (asked.prediction, asked.release, asked.arm) == (prediction, "rel_a", "arm-0")


def test_an_answer_in_pieces_is_recorded_like_a_whole_one(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a"))

    assert desk.stream() == ["rel_a", "."]

    desk.writer.flush()
    (record,) = desk.records()
    assert (record["score"], record["fallback"], record["error"], record["cost_micros"]) == (0.5, False, None, 5)
    assert 0 <= record["first_us"] <= record["latency_us"]
    assert record["documents"] == '[{"id":"docs#1"}]'


def test_an_answer_that_breaks_or_comes_too_late_counts_and_one_that_is_left_does_not(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a"))
    ends = (ProviderFailed("It broke."), asyncio.CancelledError("too_slow"), asyncio.CancelledError("unauthenticated"))
    for breaks in ends:
        desk.ready["rel_a"].breaks = breaks
        with pytest.raises(type(breaks)):
            desk.stream()
    desk.ready["rel_a"].breaks = None
    assert desk.stream(most=1) == ["rel_a"]
    for failure in (asyncio.CancelledError(), asyncio.CancelledError("too_slow")):
        desk.ready["rel_a"].failure = failure
        with pytest.raises(asyncio.CancelledError):
            desk.ask()

    desk.writer.flush()
    assert [(each["error"], each["fallback"], each["score"]) for each in desk.records()] == [
        ("provider_failed", True, 0.0),
        ("too_slow", True, 0.0),
        ("unauthenticated", False, None),
        ("left", False, None),
        ("left", False, None),
        ("too_slow", True, 0.0),
    ]


def test_a_challenger_that_fails_before_its_first_piece_is_stood_in_for(desk: Desk) -> None:
    desk.ready["rel_b"].failure = Unavailable("The provider is away.")
    arms = (Arm("champion", "rel_a", 1.0), Arm("challenger", "rel_b", 99.0))
    desk.serve(snapshot(desk.home, "rel_a", "rel_b", arms=arms))

    assert {"".join(desk.stream(f"user-{number}")) for number in range(10)} == {"rel_a."}

    desk.writer.flush()
    failed = [each for each in desk.records() if each["release"] == "rel_b"]
    assert failed
    assert {(each["fallback"], each["error"], each["score"]) for each in failed} == {(True, "unavailable", 0.0)}


@pytest.mark.parametrize(
    ("error", "alone", "beside"),
    [
        (ProviderBusy("Later."), True, True),
        (ModelNotFound("No such model."), True, True),
        (ProviderRefused("Not so."), False, True),
        (InvalidInput("No question."), False, False),
    ],
)
def test_whose_matter_a_refusal_is(desk: Desk, error: HoldtrueError, alone: bool, beside: bool) -> None:
    """What a provider refuses is the release's failure if another release can answer it."""
    desk.ready["rel_b"].failure = error
    desk.serve(snapshot(desk.home, "rel_b"))
    with pytest.raises(type(error)):
        desk.ask()
    desk.writer.flush()
    assert [each["error"] for each in desk.records()] == ([error.code] if alone else [])

    arms = (Arm("champion", "rel_a", 1.0), Arm("challenger", "rel_b", 99.0))
    desk.serve(snapshot(desk.home, "rel_a", "rel_b", sequence=2, arms=arms))
    user = next(name for number in range(99) if desk_arm(desk, name := f"user-{number}") == 1)
    if beside:
        assert desk.ask(user)[0].body == {"said": "rel_a"}
    else:
        with pytest.raises(type(error)):
            desk.ask(user)
    desk.writer.flush()
    assert [each["error"] for each in desk.records() if each["entity"] == user] == ([error.code] if beside else [])
    desk.ready["rel_a"].failure = error
    with pytest.raises(type(error)):
        desk.ask(user)


def desk_arm(desk: Desk, user: str) -> int:
    return desk.engine.table.applications.plans[PROJECT, NAME].arm_of(user)


def test_users_stay_on_their_arm_while_its_share_grows(desk: Desk) -> None:
    users = [f"user-{number}" for number in range(200)]
    challenged: list[set[str]] = []
    for sequence, share in ((1, 20.0), (2, 50.0)):
        arms = (Arm("champion", "rel_a", 100.0 - share), Arm("challenger", "rel_b", share))
        desk.serve(snapshot(desk.home, "rel_a", "rel_b", sequence=sequence, arms=arms))
        challenged.append({user for user in users if desk.ask(user)[0].body["said"] == "rel_b"})

    assert 20 < len(challenged[0]) < 65
    assert 75 < len(challenged[1]) < 125
    assert challenged[0] < challenged[1]


def test_where_a_challenger_fails_the_champion_answers_and_the_failure_counts(desk: Desk) -> None:
    desk.ready["rel_b"].failure = Unavailable("The provider is away.")
    arms = (Arm("champion", "rel_a", 1.0), Arm("challenger", "rel_b", 99.0))
    desk.serve(snapshot(desk.home, "rel_a", "rel_b", arms=arms))

    said = {desk.ask(f"user-{number}")[0].body["said"] for number in range(20)}

    desk.writer.flush()
    assert said == {"rel_a"}
    failed = [each for each in desk.records() if each["release"] == "rel_b"]
    assert len(failed) >= 15
    assert {(each["fallback"], each["error"], each["score"]) for each in failed} == {(True, "unavailable", 0.0)}


def test_a_failure_of_the_only_release_is_recorded_and_told(desk: Desk) -> None:
    desk.ready["rel_a"].failure = Unavailable("The provider is away.")
    desk.serve(snapshot(desk.home, "rel_a"))

    with pytest.raises(Unavailable, match="provider"):
        desk.ask()

    desk.writer.flush()
    (record,) = desk.records()
    assert (record["fallback"], record["error"]) == (True, "unavailable")


def test_a_request_that_is_wrong_is_the_users_matter_and_leaves_no_record(desk: Desk) -> None:
    desk.ready["rel_a"].failure = InvalidInput("No question.")
    desk.serve(snapshot(desk.home, "rel_a"))
    with pytest.raises(InvalidInput):
        desk.ask()
    desk.writer.flush()
    assert desk.records() == []


def test_a_release_that_cannot_be_loaded_leaves_the_one_before_in_place(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a"))
    desk.serve(snapshot(desk.home, "rel_gone", sequence=2))

    assert desk.ask()[0].body == {"said": "rel_a"}
    table = desk.engine.table
    assert table.sequence == 2
    assert "index is gone" in table.failed["rel_gone"]
    assert table.releases == {"rel_a"}


def test_what_was_never_loaded_is_not_served_and_what_is_unknown_not_found(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_gone"))
    assert not desk.engine.ready
    with pytest.raises(Unavailable, match="cannot answer now"):
        desk.ask()
    for project, name in ((PROJECT, "other"), ("elsewhere", NAME)):
        with pytest.raises(NotFound):
            desk.ask(project=project, name=name)


def test_what_is_loaded_is_kept_as_it_is(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a"))
    before = desk.engine.table.applications.loaded["rel_a"]
    desk.serve(snapshot(desk.home, "rel_a", "rel_b", sequence=2))
    assert desk.engine.table.applications.loaded["rel_a"] is before
    assert desk.engine.table.services == {(PROJECT, NAME)}
    assert Table().services == frozenset()


@pytest.mark.parametrize(
    "changes",
    [
        {"shadows": ("rel_b",)},
        {"paired": True},
        {"arms": (Arm("a", "rel_gone", 100.0),)},
        {"arms": (Arm("a", "rel_a", 60.0), Arm("b", "rel_b", 30.0))},
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(home: Home, changes: dict[str, Any]) -> None:
    with pytest.raises(BadSnapshot):
        check_snapshot(snapshot(home, "rel_a", "rel_b", **changes))


def test_while_it_is_switched_off_it_is_not_asked_and_what_is_said_counts_for_no_arm(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a", "rel_b", stopped="It harms."))
    with pytest.raises(Stopped) as refused:
        desk.ask()
    assert (refused.value.status, refused.value.why, refused.value.facts["retry_after"]) == (503, "It harms.", 60)
    with pytest.raises(Stopped):
        desk.stream()
    desk.serve(snapshot(desk.home, "rel_a", "rel_b", sequence=2, stopped="It harms.", words="Call us."))
    assert desk.ask()[0].body == {"said": "Call us."}
    assert "".join(desk.stream()) == "Call us.."
    assert not any(each.asked for each in desk.ready.values())
    desk.writer.flush()
    kept = [(each["arm"], each["rollout"], each["score"], each["error"]) for each in desk.records()]
    assert kept == [("stopped", None, None, "stopped")] * 2


def test_an_answer_under_way_is_cut_off_when_its_application_is_switched_off(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a"))

    async def main() -> None:
        question = Question({"messages": []}, PROJECT, NAME, "ann", "tok_1", "request-1")
        stream = await desk.engine.applications.stream(question)
        deltas = stream.deltas()
        assert (await anext(deltas))["content"] == "rel_a"
        desk.serve(snapshot(desk.home, "rel_a", sequence=2, stopped="It harms."))
        with pytest.raises(Stopped, match="switched off"):
            await anext(deltas)
        await stream.aclose()

    asyncio.run(main())
    desk.writer.flush()
    (record,) = desk.records()
    assert (record["error"], record["fallback"], record["rollout"], record["score"]) == ("stopped", False, None, None)


def test_a_whole_answer_that_comes_after_the_switch_is_not_given(desk: Desk) -> None:
    @dataclass
    class Slow(Fixed):
        async def answer(self, question: Question) -> Answered:
            desk.serve(snapshot(desk.home, "rel_a", sequence=2, stopped="It harms."))
            return await super().answer(question)

    desk.ready["rel_a"] = Slow("rel_a")
    desk.serve(snapshot(desk.home, "rel_a"))
    with pytest.raises(Stopped):
        desk.ask()
    desk.writer.flush()
    assert [each["error"] for each in desk.records()] == ["stopped"]


def test_an_application_is_switched_off_also_while_its_new_release_does_not_load(desk: Desk) -> None:
    desk.serve(snapshot(desk.home, "rel_a"))
    desk.serve(snapshot(desk.home, "rel_gone", sequence=2, stopped="It harms.", words="Later."))
    assert desk.ask()[0].body == {"said": "Later."}


def test_an_environment_of_an_application_answers_by_its_name(desk: Desk) -> None:
    shown = snapshot(desk.home, "rel_a")
    own = route(Arm("champion", "rel_b", 100.0), environment="staging", named=True)
    both = replace(
        shown,
        services={**shown.services, f"{PROJECT}/{NAME}@staging": own},
        applications={**shown.applications, "rel_b": part("rel_b")},
    )
    check_snapshot(both)
    desk.serve(both)
    assert [desk.ask(name=f"{NAME}{tail}")[0].body["said"] for tail in ("", "@production", "@staging")] == [
        "rel_a",
        "rel_a",
        "rel_b",
    ]
    with pytest.raises(NotFound):
        desk.ask(name=f"{NAME}@dev")
    desk.writer.flush()
    assert [each["release"] for each in desk.records()] == ["rel_a", "rel_a"]
    assert desk.engine.applications.names(PROJECT) == [NAME, f"{NAME}@staging"]


def test_an_application_takes_as_many_requests_as_it_declares(home: Home) -> None:
    asked: list[tuple[str, float]] = []

    def refuse_third(name: str, rate: float, what: str) -> None:
        asked.append((name, rate))
        if len(asked) > 2:
            raise TooOften(f"{what} is asked too often.", facts={"retry_after": 1})

    journal = Journal(home.path / "journal", home.clock)
    writer = journal.writer("test", "fast")
    engine = Engine(home.clock, writer, lambda _: _no_features, strict=False, rate=refuse_third)
    desk = Desk(home, engine, {"rel_a": Fixed("rel_a")}, writer)
    desk.serve(snapshot(home, "rel_a", rate=2.0))
    assert desk.ask()[0].body == {"said": "rel_a"}
    assert desk.stream() == ["rel_a", "."]
    with pytest.raises(TooOften, match="The application assistant"):
        desk.ask()
    assert asked == [("service/help/assistant", 2.0)] * 3
    writer.close()
