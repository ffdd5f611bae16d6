import errno
import itertools
import stat
from pathlib import Path

import pytest

from holdtrue.core.errors import StorageFull, Unavailable
from holdtrue.storage.files import make_folder, storage_error, write_atomic
from tests.storage.faults import Fault, Killed, no_space


def test_write_atomic_replaces_the_file_and_keeps_it_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
def test_write_atomic_leaves_old_or_new_bytes_wherever_it_ends(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    for number in itertools.count(1):
        write_atomic(path, b"old")
        fault = Fault(number, error)
        try:
            with fault:
                write_atomic(path, b"new")
        except (StorageFull, Killed):
            assert path.read_bytes() in {b"old", b"new"}
        if not fault.hit:
            assert number > 5
            assert path.read_bytes() == b"new"
            return


def test_make_folder_makes_every_missing_parent_private(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "a" / "b")
    assert make_folder(made) == made
    assert {stat.S_IMODE(path.stat().st_mode) for path in (made, made.parent)} == {0o700}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EIO, Unavailable),
        (errno.EROFS, Unavailable),
        (errno.EACCES, OSError),
    ],
)
def test_disk_errors_get_their_meaning(number: int, kind: type[Exception]) -> None:
    error = storage_error(OSError(number, "why"), "the thing")
    assert type(error) is kind or isinstance(error, OSError)
    assert isinstance(error, kind)
    if not isinstance(error, OSError):
        assert "the thing" in error.what
        assert error.mend
