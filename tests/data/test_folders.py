"""Folders as they lie: what cannot be kept is named, and no version has a part of a folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.errors import Conflict, InvalidInput, NotFound, StorageFull
from holdtrue.data.adding import Added, Adding
from holdtrue.data.collecting import Collect, collect
from holdtrue.data.folders import Folder, find_files
from holdtrue.storage import BlobStore
from tests.data.conftest import Room
from tests.storage.faults import no_space

COUNT = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    for number in range(COUNT):
        place = made / f"{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{number:03d}.bin"
        file.write_bytes(str(number).encode() * 5)
        os.utime(file, (1_000_000_000, 1_000_000_000))
    return made


def _add(room: Room, folder: Path) -> Added:
    return Adding(room.stores.blobs, room.stores.actions, "things").tree(find_files([str(folder)]))


def test_many_small_files_share_a_file_and_one_that_changed_is_read_alone(room: Room, folder: Path) -> None:
    blobs: BlobStore = room.stores.blobs
    first = _add(room, folder)
    assert (first.files, first.read) == (COUNT, COUNT)
    assert len(list(blobs.packs.folder.iterdir())) == 1
    found = blobs.tree(first.content["tree"])
    assert list(found) == sorted(found)
    assert {name: blobs.get(digest) for name, digest in found.items()} == {
        f"{number % 3}/{number:03d}.bin": str(number).encode() * 5 for number in range(COUNT)
    }
    assert _add(room, folder).read == 0
    (folder / "0" / "000.bin").write_bytes(b"new")
    os.utime(folder / "0" / "000.bin", (1_000_000_100, 1_000_000_100))
    second = _add(room, folder)
    assert second.read == 1
    again = blobs.tree(second.content["tree"])
    assert {name for name in again if again[name] != found[name]} == {"0/000.bin"}
    assert blobs.get(again["0/000.bin"]) == b"new"


def test_what_is_shown_fetched_and_collected_of_a_folder(room: Room, folder: Path) -> None:
    added = _add(room, folder)
    room.call("POST", "datasets/things/versions", added.content)
    shown = room.call("GET", "datasets/things/versions/1")
    assert (len(shown["files"]), shown["bytes"]) == (COUNT, added.content["bytes"])
    each = shown["files"][7]
    fetched = room.call("GET", f"datasets/things/versions/1/fragments/{each['digest']}")
    assert fetched.file.read_bytes() == (folder / each["file"]).read_bytes()


def test_files_gone_from_the_store_are_read_again(room: Room, folder: Path) -> None:
    first = _add(room, folder)
    (pack,) = room.stores.blobs.packs.folder.iterdir()
    pack.unlink()
    second = _add(room, folder)
    assert second.read == COUNT
    assert second.content == first.content


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: (place / "link").symlink_to(place / "0"), "a link"),
        (lambda place: (place / "link").symlink_to("/nowhere"), "a link"),
        (lambda place: os.mkfifo(place / "pipe"), "no regular file"),
        (lambda place: open(os.fsencode(place) + b"/\xe9t\xe9.txt", "wb").close(), r"\\xe9t\\xe9.txt is no UTF-8"),
    ],
    ids=["link", "broken link", "pipe", "no UTF-8"],
)
def test_what_no_version_can_hold_is_named(folder: Path, make: Callable[[Path], None], said: str) -> None:
    make(folder / "0")
    with pytest.raises(InvalidInput, match=said) as refused:
        find_files([str(folder)])
    str(refused.value).encode()


def test_a_folder_of_folders_without_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(NotFound, match="The folder is empty"):
        find_files([str(tmp_path / "empty")])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("a")
    with pytest.raises(NotFound, match=r"empty.* names no file"):
        find_files([str(tmp_path / "other"), str(tmp_path / "empty")])


def _denied(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def test_a_file_or_folder_that_cannot_be_read_is_named_and_nothing_is_made(
    room: Room, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_files([str(folder)])
    secret = str(folder / "1" / "001.bin")
    whole = os.open

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        return _denied() if path == secret else whole(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opened)
        with pytest.raises(InvalidInput, match=r"1/001.bin cannot be read(.|\n)*Permission denied"):
            Adding(room.stores.blobs, room.stores.actions, "things").tree(found)
    assert list(room.stores.blobs.digests()) == []
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", _denied)
        with pytest.raises(InvalidInput, match="cannot be read"):
            find_files([str(folder)])


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "a link"])
def test_a_file_that_changes_after_it_was_found_is_refused(
    room: Room, folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, file = find_files([str(folder)]), folder / "2" / "002.bin"
    inode, read = file.stat().st_ino, os.read

    def slow(descriptor: int, size: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode:
            os.truncate(file, 100 if change == "longer" else 1)
        return read(descriptor, size)

    if change == "gone":
        file.unlink()
    elif change == "a link":
        file.unlink()
        file.symlink_to(folder / "0" / "000.bin")
    else:
        monkeypatch.setattr(os, "read", slow)
    with pytest.raises((Conflict, InvalidInput), match=r"002\.bin"):
        Adding(room.stores.blobs, room.stores.actions, "things").tree(found)
    assert list(room.stores.blobs.digests()) == []


def test_a_full_disk_leaves_no_version(room: Room, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise no_space()

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StorageFull):
            _add(room, folder)
    assert list(room.stores.blobs.digests()) == []
    assert _add(room, folder).read == COUNT


def test_names_are_those_below_what_was_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    whole: Folder = find_files([str(folder)])
    for named in ("in", "in/", "./in", "in/../in", f"{folder}/"):
        assert find_files([named]).names == whole.names
        assert find_files([named]).root == folder
    assert find_files(["in/0", "in/1/*.bin"]).names[0] == "0/000.bin"
    assert find_files(["in/0/000.bin"]).names == ["000.bin"]


def _looked_ahead(script: str, *arguments: str) -> list[str]:
    """Run a script of one thread, in which a copy of the process looks at files; return the words that it prints."""
    whole = f"""
import sys, threading
from holdtrue.core.errors import HoldtrueError
from holdtrue.data.ahead import Ahead
from holdtrue.data.folders import find_files, look_at
assert threading.active_count() == 1
{script}
"""
    command = [sys.executable, "-c", whole, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


@pytest.mark.parametrize("names", [["in"], ["in/0", "in/1/*.bin"], ["in/0/000.bin"]])
def test_looking_ahead_finds_the_same(folder: Path, names: list[str]) -> None:
    script = """
import os
os.chdir(sys.argv[1])
with Ahead(sys.argv[2:]) as ahead:
    found = ahead.folder()
plain = find_files(sys.argv[2:])
assert found[:3] == plain[:3]
assert found.looks[1:] == look_at(plain.paths)[1:]
print(len(found.names))
"""
    assert int(_looked_ahead(script, str(folder.parent), *names)[0]) >= 1


def test_what_looking_ahead_cannot_read_is_said_as_ever(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "0")
    script = """
with Ahead(sys.argv[1:]) as ahead:
    try:
        ahead.folder()
    except HoldtrueError as error:
        print(error.code, "link" in str(error))
"""
    assert _looked_ahead(script, str(folder)) == ["invalid_input", "True"]


def test_looking_ahead_for_nothing_leaves_no_process(folder: Path) -> None:
    """Prevent that a command which fails before it needs the files waits for them, or leaves a process behind."""
    script = """
import os
try:
    with Ahead(sys.argv[1:]):
        raise KeyError
except KeyError:
    print("ended")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("none")
"""
    for number in range(3000):
        (folder / f"a-name-that-fills-the-pipe-between-the-two-{number:0100}").touch()
    assert _looked_ahead(script, str(folder)) == ["ended", "none"]


def test_a_file_that_comes_or_goes_is_told_from_those_that_stay(room: Room, folder: Path) -> None:
    _add(room, folder)
    (folder / "0" / "000.bin").unlink()
    (folder / "zz.bin").write_bytes(b"new")
    again = _add(room, folder)
    assert (again.files, again.read) == (COUNT, 1)
    assert set(room.stores.blobs.tree(again.content["tree"])) == set(find_files([str(folder)]).names)


def test_packs_of_many_versions_become_one_when_bytes_are_collected(room: Room, folder: Path) -> None:
    blobs: BlobStore = room.stores.blobs
    trees: list[dict[str, str]] = []
    for number in range(3):
        for file in sorted(folder.rglob("*.bin")):
            file.write_bytes(file.read_bytes() + bytes([number]))
        added = _add(room, folder)
        room.call("POST", "datasets/things/versions", added.content)
        trees.append(blobs.tree(added.content["tree"]))
    packs = blobs.packs.folder
    assert len(list(packs.iterdir())) == 3
    untouched = {"packs": 3, "small_packs": 0, "merged_into": 0}
    assert collect(room.stores, Collect()).items() >= untouched.items()
    for path in packs.iterdir():
        os.utime(path, (0, 0))
    merged = {"packs": 3, "small_packs": 3, "merged_into": 1, "removed": 0}
    assert collect(room.stores, Collect(dry=True)).items() >= merged.items()
    assert len(list(packs.iterdir())) == 3
    assert collect(room.stores, Collect()).items() >= merged.items()
    assert len(list(packs.iterdir())) == 1
    assert len({blobs.get(digest) for tree in trees for digest in tree.values()}) == 3 * COUNT
    assert list(blobs.verify()) == []


def test_what_is_known_of_files_takes_no_more_room_with_each_version(room: Room, folder: Path) -> None:
    """Prevent that a changed file of ten thousand leaves a list of all of them behind each time."""
    _add(room, folder)
    notes = room.stores.home / "actions" / "notes"
    (first,) = notes.iterdir()
    size = first.stat().st_size
    for number in range(3):
        file = folder / "0" / "000.bin"
        file.write_bytes(bytes([number]) * 9)
        os.utime(file, (1_000_000_000, 1_000_000_001 + number))
        assert _add(room, folder).read == 1
    (last,) = notes.iterdir()
    assert last == first
    assert abs(last.stat().st_size - size) < 200


def test_a_damaged_note_of_files_only_costs_work(room: Room, folder: Path) -> None:
    before = _add(room, folder)
    (note,) = (room.stores.home / "actions" / "notes").iterdir()
    data = note.read_bytes()
    note.write_bytes(data[:-9] + b"x" + data[-8:])
    again = _add(room, folder)
    assert (again.read, again.content) == (COUNT, before.content)


def test_what_was_loaded_ahead_is_what_is_known(room: Room, folder: Path) -> None:
    _add(room, folder)
    adding = Adding(room.stores.blobs, room.stores.actions, "things")
    adding.prepare(str(folder))
    (folder / "1" / "001.bin").write_bytes(b"another")
    assert adding.tree(find_files([str(folder)])).read == 1
    other = folder / "1"
    adding.prepare(str(folder))
    assert adding.tree(find_files([str(other)])).read == len(find_files([str(other)]).names), "another folder is new"
