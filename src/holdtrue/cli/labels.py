"""How a version of a dataset is named on the command line."""

import re
from typing import Annotated

from holdtrue.cli.declaring import argument
from holdtrue.core.errors import ConfigurationError

_LABEL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})(?:@([A-Za-z0-9][A-Za-z0-9._-]{0,62}))?")
Label = Annotated[str, argument(help="Dataset and version: flights@3, flights@current, or just flights.")]


def split_label(label: str) -> tuple[str, str]:
    """Return the name and the version that “flights@3” names; without one, the present version."""
    found = _LABEL.fullmatch(label)
    if found is None:
        raise ConfigurationError(
            f"{label[:80]!r} does not name a version of a dataset.",
            why="A version is named by its dataset and a number, an alias or an id.",
            mend="Write it like flights@3, flights@current or flights.",
        )
    return found[1], found[2] or "current"
