"""Load a project file: the user's own code, run in the user's own process only."""

import importlib.util
import os
import sys
from pathlib import Path

from holdtrue.core.errors import ConfigurationError, HoldtrueError, NotFound
from holdtrue.project.definitions import Project

DEFAULT_FILE = "project.py"


def load_project(path: Path) -> Project:
    """Run the file and return the one `Project` in it.

    Raises NotFound without a file, and ConfigurationError, naming the line, if it fails or defines none.
    """
    if not path.is_file():
        raise NotFound(
            f"There is no project file at {path}.",
            mend="Write one with `holdtrue init`, or name yours with --file.",
            facts={"path": str(path)},
        )
    # Libraries that fit on several cores read this as they are imported. Threads that spin while they wait keep others
    # from the cores: on two cores with other work, fitting 273,000 rows took 19 s of both so, and 6 s without.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    name = f"holdtrue_project_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # A project file may use modules beside it, as a script may.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except HoldtrueError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"{path.name} cannot be loaded: {type(error).__name__}: {error}",
            why=_place(path, error),
            mend="Correct the file; `python " + path.name + "` shows the same error.",
        ) from error
    found = [value for value in vars(module).values() if isinstance(value, Project)]
    if len(found) != 1:
        raise ConfigurationError(
            f"{path.name} defines {len(found)} projects.",
            why="A project file defines exactly one `holdtrue.Project`.",
            mend="Add `project = ht.Project(…)`." if not found else "Move the others to files of their own.",
        )
    found[0].root = path.resolve().parent
    return found[0]


def _place(path: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f"Line {error.lineno}."
    step = error.__traceback__
    line = None
    while step is not None:
        if Path(step.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = step.tb_lineno
        step = step.tb_next
    return f"Line {line}." if line else "It happened in a module that the file imports."
