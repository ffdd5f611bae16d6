"""One at a time takes history into an online store, and an erasure comes after whoever does."""

import subprocess
import sys
from pathlib import Path

import pytest

from holdtrue.core.errors import Unavailable
from holdtrue.features.taking import taking

_HOLD = """
import sys
from pathlib import Path
from holdtrue.features.taking import taking
with taking(Path(sys.argv[1]), "toy"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_whoever_takes_history_is_alone_until_it_ends_or_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Unavailable, match="is being filled"), taking(tmp_path, "toy", 0.0):
        pass
    with taking(tmp_path, "other", 0.0):
        pass
    holder.kill()
    holder.communicate()
    with taking(tmp_path, "toy", 0.0):
        pass
