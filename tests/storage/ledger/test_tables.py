"""The building blocks of tables: moments, project columns, JSON."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

import holdtrue.storage.ledger.tables as tables
from holdtrue.storage.ledger import Timestamp, scoped

MOMENTS = st.datetimes(timezones=st.timezones()).filter(lambda moment: moment.astimezone(UTC).year not in (1, 9999))


@given(MOMENTS)
def test_a_moment_comes_back_to_the_microsecond(moment: datetime) -> None:
    dialect = sqlite.dialect()
    stored = Timestamp().process_bind_param(moment, dialect)
    back = Timestamp().process_result_value(stored, dialect)
    assert isinstance(stored, int)
    assert back == moment.astimezone(UTC)
    assert back is not None
    assert back.utcoffset() == timedelta(0)


def test_a_moment_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Timestamp().process_bind_param(datetime(2013, 1, 1), sqlite.dialect())  # noqa: DTZ001  # the case itself


def test_moments_of_all_zones_order_alike() -> None:
    east = datetime(2013, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert Timestamp().process_bind_param(east, sqlite.dialect()) == 1_356_994_800_000_000


def test_nan_is_not_json() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        tables.to_json({"a": float("nan")})


def test_the_base_query_is_scoped() -> None:
    query = scoped(tables.idempotency, "flights")
    assert "WHERE idempotency.project = 'flights'" in str(
        query.compile(compile_kwargs={"literal_binds": True})
    ).replace("\n", "")


def test_a_project_table_begins_its_key_with_the_project() -> None:
    assert [column.name for column in tables.idempotency.primary_key] == ["project", "actor", "key"]
    assert isinstance(tables.idempotency.c.project.type, sa.Text)
    assert not tables.idempotency.c.project.nullable
