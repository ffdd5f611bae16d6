"""Provider keys: found where the configuration says they are, in this process only, and never shown."""

import os
import stat
from pathlib import Path
from typing import Final

from holdtrue.core.errors import ConfigurationError

_LIMIT: Final = 16_384
_FORMS: Final = "Write env:VARIABLE or file:/PATH."


class MissingKey(ConfigurationError):
    """A provider's key is not where its configuration says."""

    code = "missing_key"
    status = 503


def check_reference(reference: str) -> str:
    """Return `reference` if it has a form in which keys are referred to, else raise ConfigurationError."""
    kind, _, name = reference.partition(":")
    good = {"env": name.isidentifier() and name.isascii(), "file": name.startswith("/")}.get(kind, False)
    if reference and not good:
        raise ConfigurationError(
            "That is not a reference to a key.",
            why="The key itself is never stored, only where the data plane finds it.",
            mend=_FORMS,
        )
    return reference


def read_key(reference: str, home: Path) -> str:
    """Return the secret that `reference` names, "" for no reference; raise MissingKey.

    A file inside the data folder `home` is no provider's key, whoever names it.
    """
    if not reference:
        return ""
    kind, _, name = check_reference(reference).partition(":")
    text = os.environ.get(name, "") if kind == "env" else _file(Path(name), home)
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise MissingKey(
            f"The key {reference} cannot be used.",
            why="It is empty, not there, or holds signs that no key has.",
            mend="Put it there and restart the data plane: holdtrue up",
        )
    return key


def _file(path: Path, home: Path) -> str:
    try:
        real = path.resolve(strict=True)
        if real.is_relative_to(home.resolve()) or not stat.S_ISREG(real.stat().st_mode):
            return ""
        with real.open(encoding="ascii") as file:
            return file.read(_LIMIT)
    except (OSError, ValueError):
        return ""
