"""`holdtrue consume` beside the real processes and a real Redis: once through, and until it is told to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cli.test_commands import holdtrue
from tests.cli.test_serving import X, served, write
from tests.cli.toys import succeed
from tests.server.test_consuming import redis_url, store

FIXTURES = (redis_url, store)
WHERE = ("--home", "home", "--project", "credit")


def put(store: Any, count: int) -> None:
    for row in X[:count]:
        store.xadd("asked", {"row": json.dumps(dict(zip(("X_0", "X_1", "X_2"), map(float, row), strict=True)))})


def test_a_stream_is_answered_once_through_and_until_it_is_told_to_stop(
    tmp_path: Path, redis_url: str, store: Any
) -> None:
    write(tmp_path / "model.onnx", 1.0)
    put(store, 20)
    store.xadd("asked", {"row": "[]"})
    with served(tmp_path, "model.onnx", "--name", "credit", "--home", "home"):
        command = ("consume", "credit", "--stream", "asked", "--redis", redis_url, *WHERE)
        done = json.loads(succeed(*command, "--once", "--json", cwd=tmp_path))
        assert (done["answered"], done["refused"], done["repeated"]) == (20, 1, 0)
        assert store.xlen("asked.answers") == 21
        unknown = holdtrue("consume", "other", *command[2:], "--once", cwd=tmp_path)
        assert unknown.returncode == 1
        assert "serves no model other" in unknown.stderr
        same = holdtrue(*command, "--answers", "asked", cwd=tmp_path)
        assert same.returncode == 1
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "holdtrue", *command, "--answers", "told"],
            cwd=tmp_path,
            env=clean,
            stdout=subprocess.PIPE,
            text=True,
        )
        put(store, 5)
        until = time.monotonic() + 60
        while store.xlen("told") < 5:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "5 answered, 0 refused" in said
    alone = holdtrue(*command, "--once", cwd=tmp_path)
    assert alone.returncode == 1
    assert "No server runs" in alone.stderr
