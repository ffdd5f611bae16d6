"""Clocks, errors, addresses and roles."""

import inspect
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core import errors
from holdtrue.core.access import PERMISSIONS, Permission, Role, allowed
from holdtrue.core.addresses import is_public
from holdtrue.core.clock import SimulatedClock, Stopwatch, SystemClock, from_microseconds, microseconds

MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS)
def test_microseconds_bring_a_moment_back(moment: datetime) -> None:
    assert from_microseconds(microseconds(moment)) == moment


def test_a_simulated_clock_stands_still_until_it_is_moved() -> None:
    start = datetime(2013, 3, 1, 5, tzinfo=timezone(timedelta(hours=5)))
    clock = SimulatedClock(start)
    assert clock.now() == clock.now() == datetime(2013, 3, 1, tzinfo=UTC)
    before = clock.monotonic()
    clock.advance(90)
    assert (clock.now() - start, clock.monotonic() - before) == (timedelta(seconds=90), 90)
    clock.set(start - timedelta(days=1))
    assert clock.now() < start


def test_a_stopwatch_goes_on_where_the_clock_stands() -> None:
    watch = Stopwatch(datetime(2013, 1, 1, tzinfo=UTC))
    found = [watch.now() for _ in range(1000)]
    assert found == sorted(found)
    assert found[0] >= watch.start == microseconds(datetime(2013, 1, 1, tzinfo=UTC))
    assert SystemClock().now().tzinfo is UTC


def test_errors_have_codes_of_their_own_and_one_form() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.HoldtrueError)]
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        error = kind("It is so.", why="Because.", mend="Do this.", facts={"at": 3})
        assert str(error) == "It is so.\nWhy: Because.\nTo mend it: Do this."
        told = error.to_json()["error"]
        assert told == {
            "code": kind.code,
            "what": "It is so.",
            "why": "Because.",
            "mend": "Do this.",
            "facts": {"at": 3},
        }
        assert 400 <= kind.status < 600
        assert kind.exit_code > 0
    assert str(errors.NotFound("Gone.")) == "Gone."


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "2002:7f00:1::",
        "2001:0:4136:e378::1",
        "::127.0.0.1",
    ],
)
def test_addresses_that_lead_inside(address: str) -> None:
    assert not is_public(address)


def test_nobody_may_approve_and_deploy_and_decide_who_may() -> None:
    for role in Role:
        mine = PERMISSIONS[role]
        powers = {Permission.APPROVALS_WRITE, Permission.DEPLOYMENTS_WRITE, Permission.TOKENS_WRITE}
        assert len(mine & powers) <= 1, role
    assert not allowed([], Permission.STATUS_READ)
    assert allowed([Role.SERVICE, Role.VIEWER], Permission.AUDIT_READ)
    assert not allowed([Role.SERVICE], Permission.DEPLOYMENTS_WRITE)
    assert {permission for granted in PERMISSIONS.values() for permission in granted} == set(Permission)
