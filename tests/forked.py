"""Run commands of the real program, and programs of its users, each in a process of its own with its libraries loaded.

A command takes longer to import what it needs than to do its work. So one process imports it once and forks a child
for each command: the child has the arguments, folder, environment and exit status of a process begun anew.
"""

import atexit
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "holdtrue.server.build",
    "holdtrue.project",
    "holdtrue.project.training",
    "pyarrow.compute",
    "pyarrow.parquet",
    "duckdb",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "skl2onnx",
)


def run(arguments: tuple[str, ...], cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one command and return its exit status and what it printed; TimeoutExpired after two minutes."""
    return _run((), {"arguments": arguments}, cwd, environ)


def run_program(
    program: str, libraries: tuple[str, ...], cwd: Path, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the text of a program as `python -c` does; `libraries` are loaded already, what else it imports is not."""
    return _run(libraries, {"arguments": ["-c"], "program": program}, cwd, environ)


def _run(
    libraries: tuple[str, ...], wish: Mapping[str, Any], cwd: Path, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        asked = {**wish, "cwd": str(cwd), "environ": dict(environ), "out": str(out), "err": str(err)}
        status = _ask(libraries, asked)
        return subprocess.CompletedProcess(wish["arguments"], status, out.read_text("utf-8"), err.read_text("utf-8"))


def _ask(libraries: tuple[str, ...], asked: Mapping[str, Any]) -> int:
    process = _parent(libraries)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], 120)
    if not ready:
        process.kill()
        _parent.cache_clear()
        raise subprocess.TimeoutExpired(list(asked["arguments"]), 120)
    return int(process.stdout.readline())


@cache
def _parent(libraries: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.forked", *libraries]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end() -> None:
        process.communicate()

    atexit.register(end)
    return process


def _serve(libraries: tuple[str, ...]) -> None:
    """Fork a child for each line that comes, and answer with its exit status."""
    if not libraries:
        from holdtrue.cli.main import command_line
        from holdtrue.server.table import room_routes

        command_line()
        room_routes()
    for name in libraries or _LIBRARIES:
        importlib.import_module(name)
    answers = os.dup(1)
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(answers)
            _become(asked)
        _, status = os.waitpid(child, 0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(asked: Mapping[str, Any]) -> None:
    """Be the command or program that is asked for, as if begun anew."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    for path, flags, descriptor in (
        ("/dev/null", os.O_RDONLY, 0),
        (asked["out"], os.O_WRONLY | os.O_CREAT, 1),
        (asked["err"], os.O_WRONLY | os.O_CREAT, 2),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.path[0] = ""
    status = 1
    try:
        if "program" in asked:
            sys.argv = asked["arguments"]
            exec(compile(asked["program"], "<program>", "exec"), {"__name__": "__main__"})  # noqa: S102  # the tests' own
            status = 0
        else:
            from holdtrue.cli.main import main

            sys.argv = ["holdtrue", *asked["arguments"]]
            status = main(asked["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  # what a process begun anew would print, too
        traceback.print_exc()
    # An interpreter's end but for its last part: to take a second's worth of modules apart.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(tuple(sys.argv[1:]))
