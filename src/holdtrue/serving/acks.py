"""What the workers of data planes say of the snapshot that they serve: a file each, written by `watch`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Ack:
    """Hold what one data plane worker says: which snapshot it serves, what it loaded, what it could not."""

    worker: str
    sequence: int
    releases: frozenset[str]
    failed: Mapping[str, str]


def read_acks(home: Path) -> list[Ack]:
    """Return what the data planes say, by worker; a file that cannot be read says nothing."""
    found: list[Ack] = []
    for path in sorted((home / "routing" / "acks").glob("*.json")):
        try:
            data = orjson.loads(path.read_bytes())
            failed = {str(name): str(why) for name, why in data["failed"].items()}
            found.append(Ack(path.stem, int(data["sequence"]), frozenset(data["releases"]), failed))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
