"""Remove blobs that are not wanted any more, beside processes that store others."""

import fcntl
from collections.abc import Sequence
from pathlib import Path

from holdtrue.storage.files import sync_folder
from holdtrue.storage.places import PARTS, Places, older

_SWEEP = 100


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


def _repack(places: Places, dead: set[str], oldest: float) -> set[str]:
    """Write packs anew without what is dead in them; a pack whose contents were put again since stays as it is."""
    gone: set[str] = set()
    for pack in places.packs.all(anew=True).values():
        path, lost = places.packs.folder / pack.name, dead.intersection(pack.digests())
        if not lost or not older(path, oldest):
            continue
        places.packs.without(pack, lost)
        with places.gated(fcntl.LOCK_EX):
            if older(path, oldest):
                path.unlink()
                gone |= lost
        sync_folder(places.packs.folder)
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
