import itertools

import pytest

from holdtrue import monitoring
from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.errors import InvalidInput, NotFound, StateError
from holdtrue.monitoring import MOVES, Incident, IncidentState
from holdtrue.monitoring.model import move
from holdtrue.storage.ledger import Transaction, WriteContext
from tests.monitoring.production import PROJECT, Production

ANNA = WriteContext(Actor("usr_anna", "human", "Anna", frozenset({Role.OPERATOR})), PROJECT)


def opened(tx: Transaction, kind: str = "quality", text: str = "It fell.") -> Incident:
    return monitoring.open_incident(tx, service="delay", kind=kind, title="Quality fell", text=text)


@pytest.mark.parametrize(("current", "wanted"), list(itertools.product(IncidentState, IncidentState)))
def test_every_move_is_allowed_or_refused_by_the_table(current: IncidentState, wanted: IncidentState) -> None:
    allowed = {("open", "acknowledged"), ("open", "resolved"), ("acknowledged", "resolved")}
    assert (wanted in MOVES[current]) == ((current, wanted) in allowed)
    if wanted in MOVES[current]:
        assert move(current, wanted) is wanted
    else:
        with pytest.raises(StateError) as caught:
            move(current, wanted)
        assert caught.value.facts == {"machine": "incident", "current": current, "wanted": wanted}


@pytest.mark.parametrize("path", [("acknowledge", "resolve"), ("resolve",)])
def test_an_incident_is_walked_to_its_end_and_no_further(production: Production, path: tuple[str, ...]) -> None:
    acts = {
        "acknowledge": lambda tx, name: monitoring.acknowledge(tx, name),
        "resolve": lambda tx, name: monitoring.resolve(tx, name, "The new release took over."),
    }
    ledger = production.stores.ledger
    incident = ledger.write(ANNA, opened)
    for name in path:
        incident = ledger.write(ANNA, lambda tx, act=acts[name], this=incident.id: act(tx, this))
    assert incident.state is IncidentState.RESOLVED
    assert incident.owner == "usr_anna"
    assert incident.resolved_at == production.clock.now()
    assert [entry.kind for entry in incident.timeline] == [
        "opened",
        *{"acknowledge": ["acknowledged", "resolved"]}.get(path[0], ["resolved"]),
    ]
    for act in acts.values():
        with pytest.raises(StateError):
            ledger.write(ANNA, lambda tx, act=act: act(tx, incident.id))
    actions = [event.action for event in ledger.events(PROJECT, object=incident.id)]
    assert actions[0] == "incident.opened"
    assert actions[-1] == "incident.resolved"


def test_what_goes_on_joins_the_open_incident_and_what_comes_back_opens_another(production: Production) -> None:
    ledger = production.stores.ledger
    first = ledger.write(ANNA, opened)
    again = ledger.write(ANNA, lambda tx: opened(tx, text="It fell further."))
    assert again.id == first.id
    assert [entry.text for entry in again.timeline] == ["It fell.", "It fell further."]
    other = ledger.write(ANNA, lambda tx: opened(tx, kind="rollout"))
    assert other.id != first.id
    production.clock.advance(seconds=1)
    assert ledger.write(ANNA, lambda tx: monitoring.resolve_service(tx, "delay", "Mended.")) == (first.id,)
    back = ledger.write(ANNA, opened)
    assert back.id not in (first.id, other.id)
    unresolved = ledger.read(lambda conn: monitoring.incidents(conn, PROJECT, unresolved=True))
    assert [each.id for each in unresolved] == [back.id, other.id]
    older = ledger.read(lambda conn: monitoring.incidents(conn, PROJECT, after=back.id))
    assert {each.id for each in older} == {first.id, other.id}


def test_notes_are_kept_with_who_wrote_them_also_after_the_end(production: Production) -> None:
    ledger = production.stores.ledger
    incident = ledger.write(ANNA, opened)
    ledger.write(ANNA, lambda tx: monitoring.resolve(tx, incident.id, "Over."))
    noted = ledger.write(ANNA, lambda tx: monitoring.note(tx, incident.id, "  It was the weather. "))
    assert (noted.timeline[-1].text, noted.timeline[-1].actor) == ("It was the weather.", "usr_anna")
    assert [entry.number for entry in noted.timeline] == [1, 2, 3]


@pytest.mark.parametrize("text", ["", "   ", "x" * 4001])
def test_empty_and_endless_texts_are_refused(production: Production, text: str) -> None:
    ledger = production.stores.ledger
    incident = ledger.write(ANNA, opened)
    for act in (monitoring.resolve, monitoring.note):
        with pytest.raises(InvalidInput, match="1 to 4000"):
            ledger.write(ANNA, lambda tx, act=act: act(tx, incident.id, text))
    assert ledger.read(lambda conn: monitoring.incident(conn, PROJECT, incident.id)) == incident


def test_an_incident_of_another_project_does_not_exist_here(production: Production) -> None:
    ledger = production.stores.ledger
    incident = ledger.write(ANNA, opened)
    with pytest.raises(NotFound, match=incident.id):
        ledger.read(lambda conn: monitoring.incident(conn, "other", incident.id))
    foreign = WriteContext(ANNA.actor, "other")
    with pytest.raises(NotFound):
        ledger.write(foreign, lambda tx: monitoring.acknowledge(tx, incident.id))
