"""What holds for the tests of evaluation: they run loops of their own."""

import asyncio.events as events
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_loop_of_a_browser() -> Iterator[None]:
    """Hide the loop that Playwright's synchronous door leaves marked as running in this thread.

    A browser lives as long as its session; tests that follow in the same process start loops of their own.
    """
    left = events._get_running_loop()
    events._set_running_loop(None)
    yield
    events._set_running_loop(left)
