"""Remove blobs that are not wanted any more, beside processes that store others."""

import fcntl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdtrue.storage.packs import MOST, MOST_BYTES, Pack
from holdtrue.storage.places import PARTS, Places, older

_SWEEP = 100


@dataclass(frozen=True, slots=True)
class Merged:
    """Say how many packs there were, how many of them were written together, and as how many."""

    packs: int
    merged: int
    made: int


def sweep(places: Places, kept: set[str], oldest: float) -> int:
    """Remove what is not in `kept` and was last put before the moment `oldest`; return how many digests went."""
    for folder in (places.temporary, places.assembled):
        for path in folder.iterdir() if folder.is_dir() else ():
            if older(path, oldest):
                path.unlink(missing_ok=True)
    loose = [digest for digest in places.digests() if digest not in kept]
    old = {digest for digest in loose if older(places.list_of(digest), oldest)}
    # A list that stays, though nothing refers to it yet, is younger than its parts, and needs them.
    needed: set[str] = set()
    for digest in loose:
        if digest not in old and (parts := places.listed(digest)) is not None:
            needed.update(parts.digests)
    plain = [digest for digest in loose if digest not in needed and older(places.file_of(digest), oldest)]
    # Lists go before their parts: what is there is whole.
    gone = _remove(places, [*map(places.list_of, sorted(old)), *map(places.file_of, plain)], oldest)
    return len(gone | _repack(places, {digest for digest in loose if digest not in needed}, oldest))


def merge(places: Places, oldest: float, *, dry: bool = False) -> Merged:
    """Write packs that are less than half full together, unless they were put to since the moment `oldest`.

    So there are few packs to look through, however many versions brought a few contents; `dry` only counts.
    """
    packs = places.packs.all(anew=True)
    merged = made = 0
    for group in _groups(places, packs.values(), oldest):
        if dry or places.packs.replace(group, frozenset(), oldest):
            merged, made = merged + len(group), made + 1
    return Merged(len(packs), merged, made)


def _groups(places: Places, packs: Iterable[Pack], oldest: float) -> Iterator[list[Pack]]:
    """Yield packs that are one together, oldest first: two that are less than half full always fit."""
    small: list[tuple[float, int, Pack]] = []
    for pack in packs:
        with suppress(FileNotFoundError):
            status = (places.packs.folder / pack.name).stat()
            if pack.count < MOST // 2 and status.st_size < MOST_BYTES // 2 and status.st_mtime <= oldest:
                small.append((status.st_mtime, status.st_size, pack))
    group: list[Pack] = []
    contents = size = 0
    for _, length, pack in sorted(small, key=lambda each: (each[0], each[2].name)):
        if contents + pack.count > MOST or size + length > MOST_BYTES:
            yield group
            group, contents, size = [], 0, 0
        group.append(pack)
        contents, size = contents + pack.count, size + length
    if len(group) > 1:
        yield group


def _repack(places: Places, dead: set[str], oldest: float) -> set[str]:
    """Write packs anew without what is dead in them; a pack whose contents were put again since stays as it is."""
    gone: set[str] = set()
    for pack in places.packs.all(anew=True).values():
        lost = dead.intersection(pack.digests())
        if lost and older(places.packs.folder / pack.name, oldest) and places.packs.replace([pack], lost, oldest):
            gone |= lost
    return gone


def _remove(places: Places, doomed: Sequence[Path], oldest: float) -> set[str]:
    gone: set[str] = set()
    for start in range(0, len(doomed), _SWEEP):
        # Behind the gate no put is between finding a blob and answering; finished ones renewed its age.
        with places.gated(fcntl.LOCK_EX):
            for path in doomed[start : start + _SWEEP]:
                if older(path, oldest):
                    path.unlink(missing_ok=True)
                    places.verified.pop(path.name, None)
                    gone.add(path.name.removesuffix(PARTS))
    return gone
