"""Deliveries: checked, kept, quarantined, mended; and the dataset versions they make."""

import dataclasses
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue import data
from holdtrue.core.codec import dump
from holdtrue.core.errors import Conflict, InvalidInput, NotFound, StateError
from holdtrue.data import Contract, DatasetSpec, Ingest, QuarantineState, column, service
from tests.data.conftest import Room

SPEC = DatasetSpec(
    "flights",
    key="id",
    time="left_at",
    contract=Contract(
        (
            column("id", "string", unique=True),
            column("left_at", "timestamp"),
            column("distance", "int64", ge=1),
            column("delay", "float64", nullable=True, le=1000, severity="quarantine"),
        )
    ),
)
MOMENT = pa.timestamp("us", "UTC")


def rows_of(*delays: float | None, **change: Any) -> pa.Table:
    """Return rows with these delays, other columns as `change` says."""
    numbers = range(len(delays))
    return pa.table(
        {
            "id": [f"f{number}" for number in numbers],
            "left_at": pa.array(list(numbers), MOMENT),
            "distance": [200 + number for number in numbers],
            "delay": pa.array(delays, pa.float64()),
            **change,
        }
    )


@pytest.fixture
def declared(room: Room) -> Room:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    return room


def deliver(room: Room, window: str, table: pa.Table) -> tuple[Ingest, str | None]:
    """Take a window in and return what was found, and the version it made."""
    result = data.ingest(room.stores.blobs, SPEC, window, table)
    version = room.write(lambda tx: data.accept(tx, result))
    return result, None if version is None else version.id


def test_accepted_windows_make_versions_that_share_their_fragments(declared: Room) -> None:
    first, one = deliver(declared, "2013-01", rows_of(1, 2, None))
    _, two = deliver(declared, "2013-02", rows_of(3))
    assert one != two
    parts = declared.read(lambda connection: data.fragments(connection, "flights", "flights"))
    assert parts["2013-01"] == {"digest": first.digest, "rows": 3, "bytes": first.bytes}
    assert list(parts) == ["2013-01", "2013-02"]
    version = declared.read(lambda connection: data.latest(connection, "flights", "flights"))
    assert version is not None
    table = data.read(declared.stores.blobs, version.content)
    assert table["delay"].to_pylist() == [1, 2, None, 3]
    assert table.schema.field("left_at").type == MOMENT
    assert data.read(declared.stores.blobs, version.content, ["2013-02"]).num_rows == 1


def test_the_same_rows_in_any_order_are_the_same_bytes(room: Room) -> None:
    table = rows_of(*range(20))
    shuffled = table.take([(7 * place) % 20 for place in range(20)]).select(["delay", "left_at", "id", "distance"])
    wide = shuffled.set_column(2, "id", shuffled["id"].dictionary_encode())
    digests = {data.ingest(room.stores.blobs, SPEC, "w", each).digest for each in (table, shuffled, wide)}
    assert len(digests) == 1


def test_rows_of_one_key_are_ordered_by_the_rest(room: Room) -> None:
    spec = DatasetSpec("d", "id", "at", Contract((column("id", "string"), column("at", "timestamp"))))
    table = pa.table({"id": ["a", "a", "a"], "at": pa.array([3, 1, 2], MOMENT)})
    one, two = (data.ingest(room.stores.blobs, spec, "w", each).digest for each in (table, table.take([2, 0, 1])))
    assert one == two


def test_a_window_delivered_again_unchanged_makes_no_new_version(declared: Room) -> None:
    _, one = deliver(declared, "2013-01", rows_of(1, 2))
    before = len(declared.actions())
    _, two = deliver(declared, "2013-01", rows_of(1, 2))
    assert one == two
    assert len(declared.actions()) == before


def test_a_corrected_window_replaces_it_and_the_old_one_can_come_back(declared: Room) -> None:
    _, one = deliver(declared, "2013-01", rows_of(1, 2))
    _, two = deliver(declared, "2013-01", rows_of(1, 5))
    _, back = deliver(declared, "2013-01", rows_of(1, 2))
    assert one == back != two
    version = declared.read(lambda connection: data.latest(connection, "flights", "flights"))
    assert version is not None
    assert version.id == one


def test_a_broken_delivery_is_kept_whole_and_mended_by_the_next(declared: Room) -> None:
    broken = rows_of(1, 2, distance=["200 mi", "300 mi"])
    result, version = deliver(declared, "2013-04", broken)
    assert version is None
    assert result.digest is None
    assert [(each.column, each.rule, each.count, each.examples) for each in result.findings] == [
        ("distance", "type", 2, ("200 mi", "300 mi"))
    ]
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert held.state is QuarantineState.OPEN
    assert held.blocked
    assert held.blob is not None
    assert pq.read_table(declared.stores.blobs.path(held.blob))["distance"].to_pylist() == ["200 mi", "300 mi"]

    declared.clock.advance(3600)
    _, version = deliver(declared, "2013-04", rows_of(1, 2))
    (mended,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert mended.state is QuarantineState.MENDED
    assert mended.mended_by == version
    assert mended.closed_at == declared.clock.now()
    assert declared.actions()[-2:] == ["fragment.accepted", "quarantine.mended"]


def test_a_pass_of_another_window_mends_nothing(declared: Room) -> None:
    deliver(declared, "2013-04", rows_of(1, distance=["far"]))
    deliver(declared, "2013-05", rows_of(1))
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert held.state is QuarantineState.OPEN


def test_single_rows_are_kept_out_and_the_rest_is_taken(declared: Room) -> None:
    result, version = deliver(declared, "2013-04", rows_of(1, 5000, 2))
    assert version is not None
    assert (result.accepted, result.quarantined) == (2, 1)
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert not held.blocked
    assert held.rows == 1
    # The same delivery once more mends nothing and opens nothing.
    deliver(declared, "2013-04", rows_of(1, 5000, 2))
    assert declared.read(lambda connection: data.quarantines(connection, "flights")) == [held]
    deliver(declared, "2013-04", rows_of(1, 50, 2))
    (mended,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    assert mended.state is QuarantineState.MENDED


def test_the_same_broken_delivery_twice_is_one_quarantine(declared: Room) -> None:
    for _ in range(2):
        deliver(declared, "2013-04", rows_of(1, distance=["far"]))
    assert len(declared.read(lambda connection: data.quarantines(connection, "flights"))) == 1


def test_a_quarantine_is_discarded_once_and_for_a_reason(declared: Room) -> None:
    deliver(declared, "2013-04", rows_of(1, distance=["far"]))
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    with pytest.raises(InvalidInput, match="reason"):
        declared.write(lambda tx: service.discard(tx, held.id, " "))
    gone = declared.write(lambda tx: service.discard(tx, held.id, "the airport never had it"))
    assert gone.state is QuarantineState.DISCARDED
    assert declared.stores.ledger.events("flights")[-1].payload
    with pytest.raises(StateError, match="discarded"):
        declared.write(lambda tx: service.discard(tx, held.id, "again"))


def test_every_pair_of_quarantine_states_follows_the_table(declared: Room) -> None:
    deliver(declared, "2013-04", rows_of(1, distance=["far"]))
    (held,) = declared.read(lambda connection: data.quarantines(connection, "flights"))
    allowed = {(QuarantineState.OPEN, QuarantineState.MENDED), (QuarantineState.OPEN, QuarantineState.DISCARDED)}
    for current in QuarantineState:
        for wanted in QuarantineState:
            state = dataclasses.replace(held, state=current)
            if (current, wanted) in allowed:
                state.check_move(wanted)
            else:
                with pytest.raises(StateError, match=f"{current.value}.*{wanted.value}"):
                    state.check_move(wanted)


def test_a_delivery_checked_against_another_contract_is_refused(declared: Room) -> None:
    lax = DatasetSpec(
        "flights",
        "id",
        "left_at",
        Contract(tuple(column(each.name, each.dtype, nullable=True) for each in SPEC.contract.columns)),
    )
    result = data.ingest(declared.stores.blobs, lax, "2013-01", rows_of(None))
    with pytest.raises(Conflict, match="another contract"):
        declared.write(lambda tx: data.accept(tx, result))


def test_datasets_and_windows_that_are_not_there_are_named(declared: Room) -> None:
    result = data.ingest(declared.stores.blobs, SPEC, "2013-01", rows_of(1))
    with pytest.raises(NotFound, match="flights"):
        declared.write(lambda tx: data.accept(tx, result), project="other")
    deliver(declared, "2013-01", rows_of(1))
    version = declared.read(lambda connection: data.latest(connection, "flights", "flights"))
    assert version is not None
    with pytest.raises(NotFound, match="2013-09"):
        data.read(declared.stores.blobs, version.content, ["2013-09"])


def test_projects_do_not_see_each_other(declared: Room) -> None:
    deliver(declared, "2013-01", rows_of(1, distance=["far"]))
    deliver(declared, "2013-02", rows_of(1))
    assert declared.read(lambda connection: data.quarantines(connection, "other")) == []
    assert declared.read(lambda connection: data.datasets(connection, "other")) == []
    assert declared.read(lambda connection: data.latest(connection, "other", "flights")) is None


def test_a_key_outside_the_contract_is_refused(room: Room) -> None:
    spec = DatasetSpec("flights", "number", "left_at", SPEC.contract)
    with pytest.raises(InvalidInput, match="number"):
        room.write(lambda tx: data.declare(tx, (spec,)))


def test_the_routes_tell_what_is_there(declared: Room) -> None:
    blobs = declared.stores.blobs
    good = data.ingest(blobs, SPEC, "2013-01", rows_of(1, 2))
    bad = data.ingest(blobs, SPEC, "2013-02", rows_of(1, distance=["far"]))
    taken = declared.call("POST", "datasets/flights/deliveries", dump(good))
    assert taken["accepted"] == 2
    assert declared.call("POST", "datasets/flights/deliveries", dump(bad))["version"] is None

    (listed,) = declared.call("GET", "datasets")["items"]
    assert listed == declared.call("GET", "datasets/flights")
    assert listed["version"] == taken["version"]
    assert listed["fragments"]["2013-01"]["rows"] == 2
    with pytest.raises(NotFound, match="trains"):
        declared.call("GET", "datasets/trains")

    (held,) = declared.call("GET", "quarantines", state="open")["items"]
    assert held["findings"][0]["column"] == "distance"
    assert declared.call("GET", "quarantines", state="mended")["items"] == []
    with pytest.raises(InvalidInput, match="nowhere"):
        declared.call("GET", "quarantines", state="nowhere")
    gone = declared.call("POST", f"quarantines/{held['id']}/discard", {"reason": "never delivered"})
    assert gone["state"] == "discarded"


def test_a_delivery_whose_bytes_are_not_stored_is_refused(declared: Room) -> None:
    result = dump(data.ingest(declared.stores.blobs, SPEC, "2013-01", rows_of(1)))
    with pytest.raises(NotFound, match="blob"):
        declared.call("POST", "datasets/flights/deliveries", {**result, "digest": "0" * 64})
