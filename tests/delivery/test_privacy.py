"""Which models used what, and whether they might: by lineage, for a gate, as nobody can state it by hand."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from holdtrue import catalog, delivery, governance
from holdtrue.core.codec import load
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.data.erasure import Entity
from holdtrue.delivery import Submission
from holdtrue.delivery.privacy import Used, used
from holdtrue.delivery.privacy.records import Roles, predictions_of
from holdtrue.governance import BadEvidence, Policy, Rule
from tests.cli.test_commands import holdtrue
from tests.cli.toys import succeed
from tests.delivery.tails import TEXT, tail_folder
from tests.delivery.worlds import WORKER, World


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on real flights whose model was trained."""
    made = tail_folder(tmp_path_factory.mktemp("privacy"))
    succeed("run", "-w", "2013-01", "-w", "2013-02", cwd=made)
    return made


def asked(folder: Path, *arguments: str) -> list[Any]:
    return json.loads(succeed("data", "used", *arguments, "--json", cwd=folder))


def test_models_are_found_by_source_column_licence_kind_and_entity(folder: Path) -> None:
    for arguments in (
        ("--source", "bts"),
        ("--source", "flights"),
        ("--column", "flights.tailnum"),
        ("--column", "flights.arrival_delay"),
        ("--licence", "CC0-1.0"),
        ("--personal", "identifier"),
        ("--personal", "any"),
        ("--entity", "tailnum=N14228"),
    ):
        assert [each["label"] for each in asked(folder, *arguments)] == ["delay@1"], arguments
    for arguments in (
        ("--column", "flights.origin"),
        ("--personal", "health"),
        ("--entity", "tailnum=N00000"),
    ):
        assert asked(folder, *arguments) == [], arguments
    assert asked(folder, "--personal", "any")[0]["columns"] == ["flights.tailnum"]


@pytest.mark.parametrize(
    "wrong", [(), ("--source", "bts", "--licence", "x"), ("--column", "tailnum"), ("--entity", "tailnum")]
)
def test_a_question_that_cannot_be_meant_is_refused(folder: Path, wrong: tuple[str, ...]) -> None:
    done = holdtrue("data", "used", *wrong, cwd=folder)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "To mend it" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--source", "fligths"), "Did you mean “flights”?"),
        (("--column", "flights.tailnumm"), "Did you mean “flights.tailnum”?"),
        (("--licence", "CC-BY-NC-4.0"), "has no licence “CC-BY-NC-4.0”"),
        (("--personal", "helth"), "Did you mean “health”?"),
        (("--entity", "tailnumber=N14228"), "Did you mean “tailnum”?"),
    ],
)
def test_a_misspelt_name_is_not_answered_as_if_nothing_had_used_it(
    folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = holdtrue("data", "used", *arguments, cwd=folder)
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr


def test_a_model_for_a_purpose_that_a_column_does_not_allow_is_refused(folder: Path) -> None:
    (folder / "project.py").write_text(TEXT.replace('purpose="operations",', 'purpose="marketing",'))
    done = holdtrue("run", "--last", "1", cwd=folder)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "flights.tailnum (it may be used for operations, and the model's purpose is marketing)" in done.stdout
    (folder / "project.py").write_text(TEXT.replace('    purpose="operations",\n', ""))
    done = holdtrue("run", "--last", "1", cwd=folder)
    assert done.returncode == 3
    assert "the model states no purpose" in done.stdout


def test_a_purpose_that_is_taken_back_counts_for_the_next_release(folder: Path) -> None:
    (folder / "project.py").write_text(TEXT.replace('purposes=["operations"]', 'purposes=["research"]'))
    planned = succeed("plan", cwd=folder)
    assert "“tailnum” may be used for research, and was for operations" in planned
    assert "model delay@" in planned
    refused = holdtrue("run", "--last", "1", cwd=folder)
    assert refused.returncode == 3
    assert "1 column may not be used so" in refused.stdout
    # What is allowed again counts again, although that version of the rows is the older one.
    (folder / "project.py").write_text(TEXT)
    assert "privacy.allowed is True" in succeed("run", "--last", "1", cwd=folder)


def test_evidence_tells_purpose_columns_and_counts(world: World) -> None:
    tags = {"who": {"personal": "contact", "purposes": ["care"], "licence": "CC0-1.0"}}
    model = submitted(world, {"purpose": "care", "columns": {"flights": {"who": ["feature"], "km": ["km"]}}}, tags)
    content = evidence(world, model)
    assert content["allowed"] is True
    assert (content["personal"], content["refused"], content["erased"]) == (1, 0, 0)
    assert content["kinds"] == ["contact"]
    plain = {"personal": "none", "purposes": ["any"], "licence": "none", "source": "none"}
    assert content["columns"] == [
        {"dataset": "flights", "column": "km", "uses": ["km"], **plain},
        {
            "dataset": "flights",
            "column": "who",
            "uses": ["feature"],
            "personal": "contact",
            "purposes": ["care"],
            "licence": "CC0-1.0",
            "source": "none",
        },
    ]


def test_a_model_of_unknown_origin_is_not_allowed(world: World) -> None:
    found = evidence(world, submitted(world, {"purpose": "care"}, {}, traced=False))
    assert (found["traced"], found["allowed"]) == (False, False)


def test_a_model_that_says_no_columns_is_taken_to_use_all_that_are_tagged(world: World) -> None:
    found = evidence(world, submitted(world, {}, {"who": {"purposes": ["care"]}}))
    assert found["allowed"] is False
    assert found["failures"][0]["what"] == "flights.who"


def test_nobody_states_what_is_computed(world: World) -> None:
    world.declare(Policy("production", (Rule("allowed", "privacy.allowed"),), approvals=0))
    body = world.submission("one")
    body["evidence"].append({"kind": "privacy", "content": {"allowed": True}})
    with pytest.raises(BadEvidence):
        world.write(lambda tx: delivery.submit(tx, load(Submission, body)), WORKER)
    release = world.submit("one")
    assert release.decision is not None
    # Its model was made of no version that anybody knows.
    assert release.decision.outcome is governance.Outcome.REFUSED


def test_one_thing_is_asked_for(world: World) -> None:
    with pytest.raises(InvalidInput):
        Used()
    with pytest.raises(NotFound, match="no source “nothing”"):
        used(world.stores, world.project, Used(source="nothing"))


def submitted(world: World, more: dict[str, Any], tags: dict[str, Any], *, traced: bool = True) -> str:
    """Submit a release of a model with this content, made of a version with these tags; return the release."""
    world.declare()
    body = world.submission("one")
    dataset = body["release"]["versions"]["dataset"]

    def tag(tx: Any) -> str:
        content = {**catalog.get(tx.connection, tx.project, dataset).content, "tags": tags}
        return catalog.register(tx, "dataset", "flights", content).id

    source = world.write(tag) if tags else dataset
    model = body["versions"][0]
    model["content"] |= more
    model["derived_from"] = [source] if traced else []
    from holdtrue.core.ids import version_id

    body["release"]["versions"]["model"] = version_id("model", model["content"])
    return world.write(lambda tx: delivery.submit(tx, load(Submission, body)), WORKER).release


def evidence(world: World, release: str) -> Any:
    found = world.read(lambda connection: governance.evidence_of(connection, world.project, release))
    return next(each.content for each in found if each.kind == "privacy")


def test_an_entity_is_found_in_the_records_of_every_environment_of_a_service() -> None:
    roles = Roles(frozenset({"helper"}), frozenset({"delay"}))
    records = pa.table({"entity": ["ann", "ben"], "key": ["ann", "cy"]})
    matches = predictions_of("p", Entity("user", "ann"), roles).matches
    for stream in ("helper", "helper@staging", "delay", "delay@dev"):
        assert matches(stream, records).tolist() == [True, False], stream
    assert not matches("other@staging", records).any()
