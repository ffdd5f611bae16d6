"""Which arm answers which row."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from holdtrue.serving.snapshot import Arm

_SPACE = float(2**64)


def chooser(arms: Sequence[Arm], seed: str) -> Callable[[Sequence[Any]], list[int]]:
    """Return a function from the entities of n rows to the positions of their arms, a list of n.

    An entity keeps its place in [0, 100) as long as the seed stands (BLAKE2b of seed and entity), and arms
    take up that line in order: when the last arm's share grows, no row leaves it. A hash without linear
    structure keeps the assignments of two seeds independent, which a checksum would not.
    """
    bounds: list[float] = []
    total = 0.0
    for arm in arms[:-1]:
        total += arm.percent
        bounds.append(total / 100 * _SPACE)
    start = blake2b(digest_size=8, key=seed.encode()[:64])

    def place(entity: Any) -> int:
        digest = start.copy()
        # The type goes in, so that 1 and "1" are two entities as they are two JSON values.
        digest.update(f"{type(entity).__name__}:{entity}".encode())
        point = int.from_bytes(digest.digest(), "big")
        for position, bound in enumerate(bounds):
            if point < bound:
                return position
        return len(bounds)

    def choose(entities: Sequence[Any]) -> list[int]:
        return [place(entity) for entity in entities]

    return choose
