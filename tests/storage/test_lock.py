import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdtrue.core.errors import ConfigurationError, Locked
from holdtrue.storage import FolderLock
from holdtrue.storage.lock import refuse_remote

HOLD = """
import sys
from pathlib import Path
from holdtrue.storage import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_holders_pid_until_the_holder_is_gone(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=str(holder.pid)) as caught:
            FolderLock(tmp_path)
        assert f"kill {holder.pid}" in caught.value.mend
        assert caught.value.facts["pid"] == holder.pid
        holder.kill()
        holder.wait()
    FolderLock(tmp_path).release()


def test_a_lock_is_exclusive_within_a_process_and_can_be_given_back(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(Locked, match=str(os.getpid())):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    other = FolderLock(tmp_path)
    assert other.instance != lock.instance
    other.release()


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_remote(tmp_path)
    table = f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {tmp_path} rw - nfs4 server:/export rw\n"
    monkeypatch.setattr(Path, "read_text", lambda self: table)
    with pytest.raises(ConfigurationError, match="nfs4"):
        refuse_remote(tmp_path / "below")
    refuse_remote(tmp_path.parent)
