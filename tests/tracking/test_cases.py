"""Which records of evaluation datasets are of an entity, and what an erasure of it leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdtrue.storage.ledger import Ledger
from holdtrue.tracking import cases
from holdtrue.tracking.cases import rules
from holdtrue.tracking.cases.model import Record
from tests.tracking.conftest import CONTEXT


def record(**parts: Any) -> Record:
    """Return a record that says this."""
    row = Record("dr-1", 1, "", {}, None, None, 0, 0, "", "")
    return replace(row, **parts)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"inputs": {"customer": "17"}}, True),
        ({"inputs": {"customer": 17}}, True),
        ({"inputs": {"deep": [{"customer": [1, 17]}]}}, True),
        ({"outputs": [{"customer": "17"}]}, True),
        ({"expectations": {"customer": {"customer": "17"}}}, True),
        ({"tags": {"customer": "17"}}, True),
        ({"source": {"source_type": "TRACE", "source_data": {"trace_id": "tr-1"}}}, True),
        ({"source": {"source_type": "TRACE", "source_data": {"trace_id": "tr-2"}}}, False),
        ({"source": {"source_type": "DOCUMENT", "source_data": {"trace_id": "tr-1"}}}, False),
        ({"source": {"source_type": "TRACE", "source_data": None}}, False),
        ({"inputs": {"customer": "170", "other": "17"}}, False),
        ({"inputs": {"customer": 17.5}, "outputs": "17", "tags": {"17": "customer"}}, False),
        ({"inputs": {"customer": None}, "outputs": {"customer": True}}, False),
    ],
)
def test_a_record_names_an_entity_by_its_field_at_any_depth(parts: dict[str, Any], named: bool) -> None:
    assert rules.names(record(**parts), "customer", "17", frozenset({"tr-1"})) is named


def taken_out(ledger: Ledger) -> int:
    """Take out the records of one customer, page by page; return how many those were."""
    gone, place = 0, cases.START
    while place is not None:
        found, place = ledger.read(
            lambda c, after=place: cases.named_after(c, CONTEXT.project, after, "customer", "17", frozenset())
        )
        for own, records in found.items():
            gone += ledger.write(CONTEXT, lambda tx, i=own, r=records: cases.remove_records(tx, i, r))
    return gone


def test_what_remains_after_an_erasure_is_counted(ledger: Ledger, tmp_path: Path) -> None:
    def work(tx: Any) -> list[str]:
        made = [cases.create(tx, name, [], []).id for name in ("one", "two")]
        for own in made:
            cases.upsert(tx, own, [{"inputs": {"customer": number}} for number in range(1200)], tmp_path)
        return made

    one, two = ledger.write(CONTEXT, work)
    before = ledger.read(lambda c: cases.find(c, CONTEXT.project, one))
    assert (taken_out(ledger), taken_out(ledger)) == (2, 0)
    for own in (one, two):
        after = ledger.read(lambda c, own=own: cases.find(c, CONTEXT.project, own))
        assert after.count == 1199
    assert ledger.read(lambda c: cases.find(c, CONTEXT.project, one)).digest != before.digest
    rows, _ = ledger.read(lambda c: cases.records(c, CONTEXT.project, two, 2000, ""))
    assert 17 not in [each.inputs["customer"] for each in rows]
