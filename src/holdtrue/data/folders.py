"""Find files in folders as they lie, and read them so that one that changes meanwhile is told."""

import os
import stat
import time
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

from holdtrue.core.errors import Conflict, HoldtrueError, InvalidInput, NotFound
from holdtrue.data.endings import ENDINGS

# Texts, not paths: of ten thousand files, making paths took longer than asking the disk about them.


class Looks(NamedTuple):
    """Hold what files were, by their place: size, time (ns) and number on the disk; `since` is a moment before (ns)."""

    since: int
    sizes: list[int]
    times: list[int]
    numbers: list[int]


class Folder(NamedTuple):
    """Hold where files are looked for, and which were found: names below `root` in order, with their paths.

    `looks` are what they were, if they have been looked at already.
    """

    root: Path
    names: list[str]
    paths: list[str]
    looks: Looks | None = None

    @property
    def tables(self) -> bool:
        """Tell whether every file is one of rows, by its ending."""
        return all(name.lower().endswith(ENDINGS) for name in self.names)


def find_files(patterns: Sequence[str]) -> Folder:
    """Return the files that paths, folders and globs name, by their names below the folder that holds them all.

    Raises NotFound for a pattern without a file, InvalidInput for what is no regular file, or has a name of no text.
    """
    paths: dict[str, str] = {}
    for pattern in patterns:
        there = os.path.lexists(pattern)
        files: dict[str, str] = {}
        for path in [pattern] if there else sorted(glob(pattern, recursive=True)):
            start, whole = len(path.rstrip("/")), os.path.abspath(path).rstrip("/")
            files.update({whole + file[start:]: file for file in _below(path)})
        paths |= files
        if not files:
            raise NotFound(
                f"{pattern!r} names no file.",
                why="The folder is empty." if there else "There is nothing of that name.",
                mend="Name a file, a folder, or a glob in quotes: 'deliveries/*.parquet'.",
            )
    if len(patterns) == 1 and os.path.isdir(patterns[0]):
        root = os.path.abspath(patterns[0])
    else:
        root = os.path.commonpath({os.path.dirname(path) for path in paths})
    start = len(root.rstrip("/")) + 1
    _check_names(paths)
    found = sorted(paths)
    return Folder(Path(root), [path[start:] for path in found], [paths[path] for path in found])


def look_at(paths: Sequence[str]) -> Looks:
    """Return what files are; ten thousand are looked at, so that nothing else is called for each."""
    since = time.time_ns()  # file times are the machine's, whatever clock was injected
    try:
        found = list(map(os.lstat, paths))
    except OSError:
        found = [look(path) for path in paths]
    return Looks(
        since,
        [each.st_size for each in found],
        [each.st_mtime_ns for each in found],
        [each.st_ino for each in found],
    )


def look(path: str) -> os.stat_result:
    """Return what a file is; raise what says that it cannot be read."""
    try:
        return os.lstat(path)
    except OSError as error:
        raise unreadable(path, error) from error


def identity(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced: size, time (ns) and number on its disk."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def read_whole(path: str) -> tuple[bytes, os.stat_result]:
    """Return a file's bytes and what it was then; Conflict if it changed meanwhile, InvalidInput if it is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise changed(path)
            data = os.read(descriptor, before.st_size + 1)
            while 0 < len(data) < before.st_size and (more := os.read(descriptor, before.st_size + 1 - len(data))):
                data += more
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, error) from error
    if identity(after) != identity(before) or len(data) != before.st_size:
        raise changed(path)
    return data, after


def changed(path: str) -> Conflict:
    """Say that somebody writes a file while it is read."""
    return Conflict(
        f"The file {_shown(path)} changed while it was read.",
        why="Somebody is still writing it; nothing of it was taken.",
        mend="Add it when it is finished.",
        facts={"file": _shown(path)},
    )


def unreadable(path: str, error: OSError) -> HoldtrueError:
    """Say that a file or folder cannot be read; one that was there a moment ago and is gone has changed."""
    if isinstance(error, FileNotFoundError):
        return changed(path)
    return InvalidInput(
        f"{_shown(path)} cannot be read.",
        why=f"The system answered: {error.strerror}. A version holds every file of a folder, or is not made.",
        mend="Give yourself the right to read it (chmod u+r), mend the disk, or leave it out.",
        facts={"file": _shown(path)},
    )


def _below(path: str) -> list[str]:
    """Return a file, or all files in a folder and below; links and other things are refused by name."""
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise _no_file(path, link=stat.S_ISLNK(mode))
    found: list[str] = []
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        found.append(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        raise _no_file(entry.path, link=entry.is_symlink())
        except OSError as error:
            raise unreadable(folder, error) from error
    return found


def _no_file(path: str, *, link: bool) -> InvalidInput:
    return InvalidInput(
        f"{_shown(path)} is {'a link' if link else 'no regular file'}.",
        why="A version holds files; what a link points to may change, or lie anywhere.",
        mend="Put the file itself there, or leave the link out.",
        facts={"file": _shown(path)},
    )


def _check_names(paths: Mapping[str, str]) -> None:
    try:
        "".join(paths).encode()
    except UnicodeEncodeError:
        for path in paths:
            if _shown(path) != path:
                raise InvalidInput(
                    f"The name of the file {_shown(path)} is no UTF-8.",
                    why="Names in a version are texts, so that every machine can read them.",
                    mend="Rename it (convmv -f latin1 -t utf8 does it for a folder).",
                    facts={"file": _shown(path)},
                ) from None


def _shown(path: str) -> str:
    r"""Return a path as a text: bytes of it that are no UTF-8 are written as \xNN."""
    return os.fsencode(path).decode(errors="backslashreplace")
