"""One entity, looked up as somebody wrote it: what is known, and why what is not is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.features import Latest, OnlineStore, Trailing
from holdtrue.features.finding import find

DAY = 86_400_000_000
NOW = 100 * DAY
PAID = Latest("paid", "sales", "customer", "at", ("amount",), "2d")
MANY = Trailing("many", "sales", "customer", "at", "amount", ("count",), "24h")
SHOP = Latest("shop", "sales", "shop", "at", ("amount",), "2d")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    made = OnlineStore(tmp_path)
    rows = {"customer": ["x", 17, "17", 18], "shop": ["a"] * 4, "amount": [1.0, 2.0, 3.0, 4.0]}
    made.ingest([PAID, MANY, SHOP], "sales", {**rows, "at": [NOW, NOW - 1, NOW - 5 * DAY, NOW - 5 * DAY]})
    yield made
    made.close()


@pytest.mark.parametrize(
    ("written", "states", "sentences", "entity"),
    [
        ("x", ["known", "known"], ["", ""], "x"),
        ("18", ["expired", "outside"], ["older than 2d", "no row in the window of 24h"], 18),
        ("y", ["unseen", "outside"], ["never seen by then", "no row in the window of 24h"], "y"),
        ("018", ["unseen", "outside"], ["never seen by then", "no row in the window of 24h"], "018"),
        ("-5", ["unseen", "outside"], ["never seen by then", "no row in the window of 24h"], "-5"),
        ("1.5", ["unseen", "outside"], ["never seen by then", "no row in the window of 24h"], "1.5"),
    ],
)
def test_what_is_not_known_has_its_reason(
    store: OnlineStore, written: str, states: list[str], sentences: list[str], entity: str | int
) -> None:
    found = find(store, [PAID, SHOP, MANY], {"customer": written}, NOW)
    assert [each.state for each in found] == states
    assert [each.sentence for each in found] == sentences
    assert found[0].entity == entity


def test_digits_are_the_number_or_the_text_that_has_rows_that_count(store: OnlineStore) -> None:
    paid, many = find(store, [PAID, MANY], {"customer": "17"}, NOW)
    assert (paid.entity, paid.found.values, many.entity, many.found.values) == (17, (2.0,), 17, (1.0,))
    (before,) = find(store, [PAID], {"customer": "17"}, NOW - 4 * DAY)
    assert (before.entity, before.found.values) == ("17", (3.0,))
    (long_after,) = find(store, [PAID], {"customer": "18"}, NOW + DAY)
    assert long_after.last == NOW - 5 * DAY
