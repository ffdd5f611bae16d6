"""When an environment is closed to changes: freezes, windows, time zones, and what is said."""

from datetime import UTC, datetime, timedelta

import pytest

from holdtrue.core.errors import ConfigurationError
from holdtrue.governance import ChangeWindow, Freeze, Policy, Rule
from holdtrue.governance.calendar import check_calendar, closed

RULES = (Rule("any", "true"),)
MONDAY = datetime(2026, 12, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
OFFICE = ChangeWindow(("mon", "tue", "wed", "thu"), 9.0, 16.5, "Europe/Vienna")


def policy(*windows: ChangeWindow, freezes: tuple[Freeze, ...] = ()) -> Policy:
    return Policy("production", RULES, freezes=freezes, windows=windows)


def test_without_a_calendar_it_is_always_open() -> None:
    assert closed(policy(), MONDAY) is None


def test_a_freeze_closes_from_its_beginning_until_before_its_end() -> None:
    frozen = policy(freezes=(Freeze(MONDAY, MONDAY + 48 * HOUR, "the holidays"),))
    assert closed(frozen, MONDAY - timedelta(microseconds=1)) is None
    found = closed(frozen, MONDAY)
    assert found is not None
    assert found.code == "change_frozen"
    assert "It is frozen: the holidays. It opens at 2026-12-23T00:00+00:00." in found.why
    assert "holdtrue rollback" in found.mend
    assert closed(frozen, MONDAY + 48 * HOUR) is None


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        (MONDAY + 7.9 * HOUR, False),  # 08:54 in Vienna
        (MONDAY + 8 * HOUR, True),
        (MONDAY + 15.49 * HOUR, True),
        (MONDAY + 15.5 * HOUR, False),
        (MONDAY + 4 * 24 * HOUR + 10 * HOUR, False),  # a Friday
        (datetime(2026, 7, 6, 7, 30, tzinfo=UTC), True),  # in summer 09:30
        (datetime(2026, 7, 6, 14, 45, tzinfo=UTC), False),
    ],
)
def test_a_window_is_meant_in_its_own_time_zone(moment: datetime, is_open: bool) -> None:
    assert (closed(policy(OFFICE), moment) is None) == is_open


def test_it_says_when_the_next_window_opens_and_a_freeze_goes_before_windows() -> None:
    found = closed(policy(OFFICE), MONDAY + 3 * 24 * HOUR + 20 * HOUR)
    assert found is not None
    assert "mon, tue, wed, thu from 09:00 to 16:30 (Europe/Vienna). It opens at 2026-12-28T08:00+00:00." in found.why
    frozen = policy(OFFICE, freezes=(Freeze(MONDAY, MONDAY + 24 * HOUR, "a fair"),))
    assert closed(frozen, MONDAY + 10 * HOUR) is not None
    assert closed(policy(OFFICE, ChangeWindow(("fri",), 0, 24)), MONDAY + 4 * 24 * HOUR) is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (policy(ChangeWindow((), 9, 16)), "no day"),
        (policy(ChangeWindow(("monday",), 9, 16)), "Days are mon"),
        (policy(ChangeWindow(("mon",), 16, 9)), "from 16 to 9 o'clock"),
        (policy(ChangeWindow(("mon",), 9, 25)), "Use hours from 0 to 24"),
        (policy(ChangeWindow(("mon",), 9, 16, "Vienna")), "no time zone “Vienna”"),
        (policy(ChangeWindow(("mon",), 9, 16, "../etc/passwd")), "no time zone"),
        (policy(freezes=(Freeze(MONDAY, MONDAY, "x"),)), "after it begins"),
        (policy(freezes=(Freeze(MONDAY, MONDAY + HOUR, " "),)), "no reason"),
        (policy(freezes=(Freeze(datetime(2026, 1, 1), MONDAY, "x"),)), "after it begins"),  # noqa: DTZ001
    ],
)
def test_a_calendar_that_makes_no_sense_is_refused(bad: Policy, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_calendar(bad)
    assert said in str(caught.value)
