"""What a step gave for given inputs: step key → digest of its result, so equal work is done once."""

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from holdtrue.storage.files import make_folder, write_atomic
from holdtrue.storage.places import check_digest

_HASH = 32


class ActionCache:
    """Keep step key → result digest in a folder that any number of processes may share."""

    def __init__(self, root: Path) -> None:
        self._root = make_folder(root)

    def get(self, key: str) -> str | None:
        """Return the digest stored for `key` (64 hexadecimal digits), or None.

        A damaged entry counts as none: the step runs again and its put replaces the entry.
        """
        try:
            digest, _, check = self._file(key).read_bytes().rstrip(b"\n").partition(b" ")
        except FileNotFoundError:
            return None
        if check != _check(digest):
            return None
        return digest.decode()

    def put(self, key: str, digest: str) -> None:
        """Store `digest` for `key`, durably; a later put of the same key replaces it. Raises StorageFull."""
        text = check_digest(digest).encode()
        path = self._file(key)
        make_folder(path.parent)
        write_atomic(path, text + b" " + _check(text) + b"\n")

    def note(self, key: str, data: bytes) -> None:
        """Keep bytes that only save work, in place of what was kept under `key` before; raise StorageFull."""
        path = self._note(key)
        make_folder(path.parent)
        write_atomic(path, blake3(data).digest() + data)

    def noted(self, key: str, *, use: bool = True) -> bytes | None:
        """Return the bytes that were kept last, None if there are none or they are damaged.

        With `use`, that they were of use now is kept too: it tells which notes can go.
        """
        path = self._note(key)
        try:
            kept = path.read_bytes()
        except FileNotFoundError:
            return None
        if use:
            with suppress(OSError):
                os.utime(path)
        data = kept[_HASH:]
        return data if blake3(data).digest() == kept[:_HASH] else None

    def notes(self) -> Iterator[tuple[str, float]]:
        """Yield the key of every note, and when it was last read or written, in seconds since 1970."""
        for path in list(self._root.glob("notes/*")):
            with suppress(FileNotFoundError):
                if len(path.name) == 2 * _HASH:
                    yield path.name, path.stat().st_mtime

    def forget(self, key: str) -> None:
        """Remove a note, which costs the work that it saved and nothing else."""
        self._note(key).unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Forget the result of a step, which is done again when it is needed."""
        self._file(key).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Yield the digest of every result."""
        for _, digest in self.items():
            yield digest

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield key and digest of every result."""
        for folder in self._root.glob("[0-9a-f][0-9a-f]"):
            for path in list(folder.iterdir()):
                digest = self.get(path.name) if len(path.name) == 64 else None
                if digest is not None:
                    yield path.name, digest

    def _note(self, key: str) -> Path:
        return self._root / "notes" / check_digest(key)

    def _file(self, key: str) -> Path:
        return self._root / check_digest(key)[:2] / key


def _check(digest: bytes) -> bytes:
    return b"%08x" % zlib.crc32(digest)
