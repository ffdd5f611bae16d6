"""A data folder that takes spans."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.traces.spans import House, open_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Open an empty data folder."""
    opened = open_house(tmp_path / "home")
    yield opened
    opened.stores.journal.close()
