"""Statements that must mean the same on both databases."""

import math

import pytest
import sqlalchemy as sa

from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import Ledger, any_case_like, exact_like, pairs_in
from holdtrue.tracking import store
from holdtrue.tracking.model import DatasetInput, Metric, Pair
from tests.storage.ledger.conftest import OpenLedger
from tests.storage.ledger.toys import BOTH, CONTEXT

PLACES = BOTH
WORDS = ("a%b", "a_b", "axb", "A_B", "a*b", "a?b", "[ab]", "a\\b", "ä", "Ä", "", "B", "b")


@pytest.fixture
def tracked(open_ledger: OpenLedger) -> Ledger:
    """Return a ledger with every room's tables."""
    room_routes()
    return open_ledger()


def tags(ledger: Ledger, run: int = 1) -> dict[str, str]:
    found = ledger.read(lambda connection: store.pairs_of(connection, "flights", store.run_tags, [run]))
    return {each.key: each.value for each in found[run]}


@pytest.mark.parametrize("count", [1, 49, 50, 51, 120, 250])
def test_of_two_rows_with_one_key_in_a_batch_the_later_has_the_last_word(tracked: Ledger, count: int) -> None:
    """PostgreSQL changes no row twice in one statement, and many rows go in one."""
    batch = [Pair(f"k{number % 70:03}", str(number)) for number in range(count)]
    for _ in range(2):
        tracked.write(CONTEXT, lambda tx: store.put_tags(tx, 1, batch))
    assert tags(tracked) == {each.key: each.value for each in batch}
    assert list(tags(tracked)) == sorted(tags(tracked))


def test_a_point_that_is_sent_again_is_there_once(tracked: Ledger) -> None:
    points = [Metric("m", step, 0, value, 0) for step, value in enumerate([math.inf, -math.inf, 0.1, 1e-300] * 40)]
    nan = Metric("m", 500, 0, 0.0, 1)
    for _ in range(2):
        tracked.write(CONTEXT, lambda tx: store.add_metrics(tx, tx.project, [(1, 0, [*points, nan, nan])]))
    page = tracked.read(lambda connection: store.history(connection, "flights", 1, "m", limit=1_000))
    assert [tuple(each) for each in page.points] == [(each[1], each[2], each[3], each[4]) for each in [*points, nan]]
    large = Metric("large", 2**62, -(2**62), 1.0, 0)
    tracked.write(CONTEXT, lambda tx: store.add_metrics(tx, tx.project, [(1, 2**62, [large])]))
    found = tracked.read(lambda connection: store.metrics_of(connection, "flights", [1]))
    assert large in found[1]


@pytest.mark.parametrize("pattern", ["a%b", "a_b", "A_B", "%*%", "%?%", "[ab]", "%\\%", "ä", "%", "_", ""])
def test_patterns_match_the_same_texts(tracked: Ledger, pattern: str) -> None:
    tracked.write(CONTEXT, lambda tx: store.put_tags(tx, 1, [Pair(word, word) for word in WORDS]))
    value = store.run_tags.c.value

    def matching(condition: sa.ColumnElement[bool]) -> list[str]:
        query = sa.select(value).where(condition).order_by(value)
        return tracked.read(lambda connection: list(connection.execute(query).scalars()))

    assert matching(exact_like(value, pattern)) == sorted(word for word in WORDS if like(word, pattern))
    folded = sorted(word for word in WORDS if like(ascii_lower(word), pattern.lower()))
    assert matching(any_case_like(value, pattern)) == folded


def ascii_lower(text: str) -> str:
    return "".join(sign.lower() if sign.isascii() else sign for sign in text)


def like(text: str, pattern: str) -> bool:
    """Tell whether a text matches, sign by sign."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(text[start:], pattern[1:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and like(text[1:], pattern[1:])


def test_pairs_are_found_in_a_json_list(tracked: Ledger) -> None:
    for number, context in enumerate(("train", "te\"st'")):
        given = DatasetInput(f"d{number}", "1", "", "", "", "", (Pair("mlflow.data.context", context), Pair("a", "b")))
        tracked.write(CONTEXT, lambda tx, given=given, number=number: store.put_dataset(tx, number, 0, given))
    table = store.run_datasets
    pairs, key, value = pairs_in(table.c.tags)
    query = sa.select(table.c.name).select_from(sa.join(table, pairs, sa.true()))
    query = query.where(key == "mlflow.data.context", value == "te\"st'")
    assert tracked.read(lambda connection: list(connection.execute(query).scalars())) == ["d1"]
    rows = tracked.read(lambda connection: store.select_datasets(connection, "flights", [0], 10))
    assert [(row.name, "train" in row.tags) for row in rows] == [("d0", True), ("d1", False)]
