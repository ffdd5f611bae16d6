"""What only a database of its own can be or suffer: sessions that break, users, rights, and its own backups."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import exc

import holdtrue.storage.ledger.database as database
import holdtrue.storage.ledger.guards as guards
from holdtrue.core.clock import SimulatedClock, SystemClock
from holdtrue.core.errors import (
    ConfigurationError,
    Corrupt,
    HoldtrueError,
    InvalidInput,
    Locked,
    NewerSchema,
    NotFound,
    StorageFull,
    Unavailable,
)
from holdtrue.server import store as server_tables
from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import Ledger, metadata
from holdtrue.storage.ledger.care import care_of
from holdtrue.storage.ledger.verify import EDITED, TRUNCATED
from tests.clusters import PASSWORD, Cluster, running
from tests.storage.ledger.conftest import OpenLedger
from tests.storage.ledger.toys import CONTEXT, check, keys, make_table, place_of, put
from tests.storage.ledger.wires import Cut, Wire

PLACES = ("postgresql",)


def name_of(folder: Path) -> str:
    return str(place_of(folder)).rpartition("/")[2]


@pytest.fixture
def own(clock: SimulatedClock, tmp_path: Path) -> Iterator[tuple[Cluster, Ledger]]:
    """Open a ledger in a cluster that this test alone may stop."""
    with running() as cluster:
        ledger = Ledger.open(cluster.database(), clock=clock, keys=tmp_path / "keys")
        make_table(ledger)
        yield cluster, ledger
        ledger.close()


def test_migrating_an_empty_database_gives_the_declared_tables(open_ledger: OpenLedger, tmp_path: Path) -> None:
    room_routes()
    assert "tokens" in metadata.tables, server_tables
    open_ledger()
    engine = sa.create_engine(str(place_of(tmp_path)).replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": False}), metadata)
        columns = connection.execute(
            sa.text("SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns "
                    "WHERE table_schema = 'public' AND table_name <> 'alembic_version'")
        ).all()  # fmt: skip
    engine.dispose()
    assert [each for each in found if "alembic_version" not in str(each)] == []
    assert len(columns) > 400
    # As on SQLite: whole numbers of 64 bits, text in the order of its bytes.
    assert [row for row in columns if row.data_type == "integer"] == []
    assert [row for row in columns if row.data_type == "text" and row.collation_name != "C"] == []


def test_a_second_writer_is_refused_and_told_who_writes(ledger: Ledger, open_ledger: OpenLedger) -> None:
    with pytest.raises(Locked, match="Another process writes") as caught:
        open_ledger()
    assert f"holdtrue {socket.gethostname()}" in caught.value.why
    ledger.write(CONTEXT, put("a"))
    ledger.close()
    again = open_ledger()
    again.write(CONTEXT, put("b"))
    assert keys(again) == ["a", "b"]


def test_a_reader_cannot_write(ledger: Ledger, open_ledger: OpenLedger) -> None:
    reader = open_ledger(writer=False)
    with pytest.raises(Unavailable, match="only reads"):
        reader.write(CONTEXT, put("a"))
    for target in (reader, ledger):
        with pytest.raises(Unavailable, match="takes no changes"):
            target.read(lambda connection: connection.exec_driver_sql("INSERT INTO toys VALUES ('a', '')"))
    assert keys(reader) == []


def test_there_is_nothing_to_read_in_an_empty_database(open_ledger: OpenLedger) -> None:
    with pytest.raises(NotFound, match="no ledger"):
        open_ledger(writer=False)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'x' WHERE seq = 1",
        "DELETE FROM events WHERE seq = 2",
        "TRUNCATE events",
        "INSERT INTO events SELECT seq + 5, time, project, actor, on_behalf_of, action, object, before_digest,"
        " after_digest, request_id, payload_commitment, prev_hash, leaf_hash FROM events WHERE seq = 1",
        "INSERT INTO events SELECT * FROM events WHERE seq = 1"
        " ON CONFLICT (seq) DO UPDATE SET actor = 'x'",
        "UPDATE payloads SET body = '{}'",
        "DELETE FROM payloads WHERE seq = 1",
        "TRUNCATE payloads",
        "INSERT INTO payloads SELECT seq, project, salt, '{}' FROM payloads WHERE seq = 1",
        "UPDATE checkpoints SET note = ''",
        "DELETE FROM checkpoints",
        "TRUNCATE checkpoints",
        "TRUNCATE decisions",
    ],
)  # fmt: skip
def test_history_cannot_be_changed_by_accident(ledger: Ledger, tmp_path: Path, statement: str) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.write(CONTEXT, put("b"))
    ledger.checkpoint()
    with pytest.raises(exc.IntegrityError):
        ledger.write(CONTEXT, lambda tx: tx.execute(sa.text(statement)) and None)
    ledger.write(CONTEXT, put("c"))
    assert check(tmp_path).ok


def test_the_verifier_sees_what_the_owner_of_the_database_changed(
    ledger: Ledger, cluster: Cluster, tmp_path: Path
) -> None:
    for key in "abc":
        ledger.write(CONTEXT, put(key))
    ledger.close()
    assert (check(tmp_path).ok, check(tmp_path).entries) == (True, 3)
    name = name_of(tmp_path)
    cluster.execute("ALTER TABLE events DISABLE TRIGGER USER", name)
    cluster.execute("UPDATE events SET actor = 'usr_eve' WHERE seq = 2", name)
    assert [finding.seq for finding in check(tmp_path).findings if finding.code == EDITED][:1] == [2]
    cluster.execute("UPDATE events SET actor = 'usr_ann' WHERE seq = 2", name)
    assert check(tmp_path).ok
    cluster.execute("DELETE FROM events WHERE seq = 3", name)
    assert TRUNCATED in {finding.code for finding in check(tmp_path).findings}


def test_the_verifier_runs_without_the_rest_of_holdtrue(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.checkpoint()
    script = Path(database.__file__).with_name("verify.py")
    arguments = [sys.executable, "-I", str(script), str(place_of(tmp_path)), str(tmp_path / "keys" / "ledger.pub")]
    found = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("1 entries, 1 checkpoints")
    gone = subprocess.run(
        [*arguments[:3], "postgresql://house:s3cret@127.0.0.1:1/x", arguments[4]],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "cannot be reached" in gone.stderr
    assert "s3cret" not in gone.stderr + gone.stdout


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_text_that_postgresql_cannot_hold_is_refused_whole(ledger: Ledger, text: str) -> None:
    with pytest.raises((InvalidInput, UnicodeEncodeError)):
        ledger.write(CONTEXT, put(text))
    with pytest.raises((InvalidInput, UnicodeEncodeError)):
        ledger.read(lambda connection: connection.execute(sa.text("SELECT :text"), {"text": text}).scalar())
    ledger.write(CONTEXT, put("b"))
    assert keys(ledger) == ["b"]


def test_a_restart_of_the_server_loses_nothing_and_later_work_succeeds(
    own: tuple[Cluster, Ledger], tmp_path: Path
) -> None:
    cluster, ledger = own
    ledger.write(CONTEXT, put("before"))
    for number, how in enumerate((signal.SIGINT, signal.SIGQUIT)):
        cluster.stop(how)
        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot be reached") as caught:
                ledger.write(CONTEXT, put("meanwhile"))
            assert PASSWORD not in str(caught.value)
        with pytest.raises(Unavailable):
            ledger.events()
        cluster.start()
        ledger.write(CONTEXT, put(f"after {number}"))
    assert keys(ledger) == ["before", "after 0", "after 1"]
    assert ledger.failure is None


def test_a_session_that_is_ended_in_the_middle_undoes_its_work_and_no_other(
    ledger: Ledger, cluster: Cluster, tmp_path: Path
) -> None:
    ledger.write(CONTEXT, put("a"))

    def ended(tx: object) -> int:
        cluster.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name_of(tmp_path)}' AND state = 'idle in transaction'"
        )
        return put("lost")(tx)  # pyright: ignore[reportArgumentType]

    with pytest.raises(Unavailable, match="was lost"):
        ledger.write(CONTEXT, ended)
    ledger.write(CONTEXT, put("b"))
    assert keys(ledger) == ["a", "b"]
    assert [event.object for event in ledger.events()] == ["a", "b"]
    assert check(tmp_path).ok


@pytest.mark.parametrize("cut", ["before", "after", "unseen"])
def test_a_commit_whose_answer_is_lost_is_looked_up(
    cluster: Cluster, clock: SimulatedClock, tmp_path: Path, cut: Cut
) -> None:
    """Whoever guesses here either loses an acknowledged change or writes one twice."""
    wire = Wire(cluster.port)
    url = cluster.database()
    ledger = Ledger.open(url.replace(f":{cluster.port}", f":{wire.port}"), clock=clock, keys=tmp_path / "keys")
    make_table(ledger)
    ledger.write(CONTEXT, put("a"))
    wire.cut = cut
    if cut == "after":
        assert ledger.write(CONTEXT, put("b")) == 2
    else:
        with pytest.raises(Unavailable, match="was not written"):
            ledger.write(CONTEXT, put("b"))
    assert wire.cuts == 1
    ledger.write(CONTEXT, put("c"))
    expected = ["a", "b", "c"] if cut == "after" else ["a", "c"]
    assert keys(ledger) == expected
    assert [event.object for event in ledger.events()] == expected
    ledger.close()
    wire.close()


def test_a_log_that_moved_on_while_the_connection_was_down_stops_the_ledger(
    ledger: Ledger, open_ledger: OpenLedger, cluster: Cluster, tmp_path: Path
) -> None:
    """Two writers would each continue their own chain, and the history would fork."""
    ledger.write(CONTEXT, put("a"))
    cluster.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name_of(tmp_path)}'")
    other = open_ledger()
    with pytest.raises(Locked):
        ledger.write(CONTEXT, put("refused"))
    assert ledger.failure is None
    other.write(CONTEXT, put("foreign"))
    other.close()
    with pytest.raises(Corrupt, match="not as this process left it"):
        ledger.write(CONTEXT, put("b"))
    with pytest.raises(Corrupt):
        ledger.write(CONTEXT, put("c"))
    assert check(tmp_path).ok


def test_a_killed_writer_gives_its_lock_back(cluster: Cluster, clock: SimulatedClock, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from holdtrue.core.clock import SystemClock;"
        "from holdtrue.storage.ledger import Ledger; from tests.storage.ledger.toys import *;"
        "ledger = Ledger.open(sys.argv[1], clock=SystemClock(), keys=Path(sys.argv[2]));"
        "make_table(ledger); ledger.write(CONTEXT, put('a')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    url = cluster.database()
    killed = subprocess.run([sys.executable, "-c", script, url, str(tmp_path / "keys")], check=False)
    assert killed.returncode == -signal.SIGKILL
    ledger = Ledger.open(url, clock=clock, keys=tmp_path / "keys")
    assert keys(ledger) == ["a"]
    ledger.close()


def refused(url: str, tmp_path: Path, *, writer: bool = True) -> HoldtrueError:
    """Return what keeps a ledger from opening; nothing of it or of its causes shows the password."""
    with pytest.raises(HoldtrueError) as caught:
        Ledger.open(url, clock=SystemClock(), keys=tmp_path / "keys", writer=writer)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert PASSWORD not in repr(cause) + str(cause)
        assert "s3cret" not in repr(cause) + str(cause)
        assert quote(PASSWORD, safe="") not in repr(cause) + str(cause)
        cause = cause.__cause__ or cause.__context__
    assert caught.value.mend
    return caught.value


def test_what_keeps_a_database_from_opening_is_said_and_mended(cluster: Cluster, tmp_path: Path) -> None:
    good = cluster.database()
    for writer in (True, False):
        wrong = refused(good.replace(quote(PASSWORD, safe=""), "s3cret"), tmp_path, writer=writer)
        assert isinstance(wrong, ConfigurationError)
        assert "password authentication failed" in wrong.why
    missing = refused(cluster.url("nowhere"), tmp_path)
    assert isinstance(missing, ConfigurationError)
    assert missing.mend.endswith("createdb --encoding=UTF8 --template=template0 nowhere")
    nobody = refused(f"postgresql://house:s3cret@127.0.0.1:1/{cluster.port}", tmp_path)
    assert isinstance(nobody, Unavailable)
    assert "Connection refused" in nobody.why
    for odd in ("postgresql://house:s3cret@[::1/x", "postgresql://house:s3cret@h/x?colour=red"):
        assert "cannot be read" in refused(odd, tmp_path).why


def test_a_database_that_cannot_hold_every_text_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.execute("CREATE DATABASE odd ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    found = refused(cluster.url("odd"), tmp_path)
    assert "LATIN1" in found.why


def test_another_database_is_refused_and_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.database()
    name = url.rpartition("/")[2]
    cluster.execute("CREATE TABLE holidays (day text)", name)
    assert isinstance(refused(url, tmp_path), Corrupt)
    assert cluster.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace", name) == [
        ("holidays",)
    ]


def test_a_user_without_rights_is_told_which_it_needs(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.database()
    cluster.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    found = refused(url.replace("house:", "guest:"), tmp_path)
    assert isinstance(found, ConfigurationError)
    assert "permission denied for schema public" in found.why
    assert "GRANT CREATE" in found.mend


def test_a_read_only_database_is_named_as_such(cluster: Cluster, tmp_path: Path, ledger: Ledger) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.close()
    cluster.execute(f"ALTER DATABASE {name_of(tmp_path)} SET default_transaction_read_only = on")
    ledger = Ledger.open(place_of(tmp_path), clock=SystemClock(), keys=tmp_path / "keys")
    with pytest.raises(Unavailable, match="takes no changes"):
        ledger.write(CONTEXT, put("b"))
    assert (keys(ledger), ledger.failure) == (["a"], None)
    cluster.execute(f"ALTER DATABASE {name_of(tmp_path)} RESET default_transaction_read_only")
    ledger.close()


@pytest.mark.parametrize("writer", [True, False])
def test_a_newer_ledger_is_refused_and_left_alone(
    ledger: Ledger, open_ledger: OpenLedger, cluster: Cluster, tmp_path: Path, *, writer: bool
) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.close()
    cluster.execute("UPDATE alembic_version SET version_num = '9999'", name_of(tmp_path))
    with pytest.raises(NewerSchema, match="newer version") as caught:
        open_ledger(writer=writer)
    assert caught.value.facts == {"found": "9999", "known": database.HEAD}
    cluster.execute(f"UPDATE alembic_version SET version_num = '{database.HEAD}'", name_of(tmp_path))
    assert keys(open_ledger(writer=writer)) == ["a"]


def test_a_migration_that_fails_leaves_nothing(
    open_ledger: OpenLedger, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(connection: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(guards, "create_guards", failing)
    with pytest.raises(KeyboardInterrupt):
        open_ledger()
    things = "SELECT COUNT(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert cluster.execute(things, name_of(tmp_path)) == [(0,)]
    monkeypatch.undo()
    open_ledger().close()
    assert check(tmp_path).ok


def test_an_older_ledger_is_backed_up_and_brought_up_to_date(
    ledger: Ledger, open_ledger: OpenLedger, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.close()
    name = name_of(tmp_path)
    last = database.REVISIONS[-2]
    cluster.execute("DROP TABLE toys", name)
    downgrade(str(place_of(tmp_path)), last)
    assert [row[0] for row in cluster.execute("SELECT version_num FROM alembic_version", name)] == [last]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="pg_dump is not installed") as caught:
        open_ledger()
    assert "apt-get install postgresql-client" in caught.value.mend
    monkeypatch.setenv("PATH", f"{cluster.programs}:/usr/bin:/bin")
    again = open_ledger()
    make_table(again)
    again.write(CONTEXT, put("b"))
    (made,) = (tmp_path / "backups").iterdir()
    assert made.name.startswith(f"ledger-{last}-")
    assert check(tmp_path).entries == 2


def downgrade(url: str, revision: str) -> None:
    """Take the newest migrations back, as an older version would have left the database."""
    from alembic import command
    from alembic.config import Config

    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    engine.dispose()


def test_a_backup_is_put_back_and_what_was_there_is_kept(
    ledger: Ledger, open_ledger: OpenLedger, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{cluster.programs}:/usr/bin:/bin")
    care = care_of(place_of(tmp_path))
    ledger.write(CONTEXT, put("a"))
    ledger.checkpoint()
    made = care.copy_to(tmp_path / "backups" / "one.dump")
    assert made.stat().st_mode & 0o777 == 0o600
    ledger.write(CONTEXT, put("b"))
    with pytest.raises(Locked):
        care.put_back(made, tmp_path / "backups" / "kept.dump")
    ledger.close()
    broken = tmp_path / "backups" / "broken.dump"
    broken.write_bytes(made.read_bytes()[:3000])
    with pytest.raises((Corrupt, Unavailable)):
        care.put_back(broken, tmp_path / "backups" / "kept1.dump")
    assert check(tmp_path).entries == 2
    with pytest.raises(NotFound):
        care.put_back(tmp_path / "nothing.dump", tmp_path / "backups" / "kept2.dump")
    care.put_back(made, tmp_path / "backups" / "kept.dump")
    assert (check(tmp_path).ok, check(tmp_path).entries) == (True, 1)
    restored = open_ledger()
    assert keys(restored) == ["a"]
    with pytest.raises(exc.IntegrityError):
        restored.write(CONTEXT, lambda tx: tx.execute(sa.text("DELETE FROM events")) and None)
    restored.close()
    care.put_back(tmp_path / "backups" / "kept.dump", tmp_path / "backups" / "kept3.dump")
    assert keys(open_ledger()) == ["a", "b"]
    assert sorted(each.name for each in (tmp_path / "backups").iterdir() if "part" in each.name) == []


def test_care_says_what_is_true_of_the_server(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(CONTEXT, put("a"))
    care = care_of(place_of(tmp_path))
    found = care.check()
    assert PASSWORD not in str(found)
    assert found["schema"] == f"{database.HEAD} (this version's is {database.HEAD})"
    assert found["pages"].startswith("ok")
    # The tests' cluster trades safety for speed, and that is what an owner must hear.
    assert found["durability"] == "not safe: fsync is off"
    with pytest.raises(Locked):
        care.compact()
    ledger.write(CONTEXT, lambda tx: [put(str(number), "x" * 1_000)(tx) for number in range(2_000)])
    ledger.write(CONTEXT, lambda tx: tx.execute(sa.text("DELETE FROM toys")) and None)
    ledger.close()
    before, after = care.compact()
    assert after < before


def test_a_full_disk_refuses_and_recovers(tmp_path: Path, clock: SimulatedClock, small_server: Cluster) -> None:
    ballast = small_server.folder / "ballast"
    ledger = Ledger.open(small_server.database(), clock=clock, keys=tmp_path / "keys")
    make_table(ledger)
    ledger.write(CONTEXT, put("a"))
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 65_536):
            pass
    refusals: list[HoldtrueError] = []
    acknowledged = ["a"]
    for number in range(20_000):
        try:
            ledger.write(CONTEXT, put(str(number), "x" * 4_000))
        except HoldtrueError as error:
            refusals.append(error)
            break
        acknowledged.append(str(number))
    assert isinstance(refusals[0], StorageFull | Unavailable)
    assert keys(ledger) == acknowledged
    assert ledger.failure is None
    ballast.unlink()
    wait_for(ledger, "again")
    assert keys(ledger) == [*acknowledged, "again"]
    ledger.close()


def wait_for(ledger: Ledger, key: str) -> None:
    """Write once the server takes writes again: a full disk of its log makes it start anew."""
    pause = threading.Event()
    for _ in range(200):
        try:
            ledger.write(CONTEXT, put(key))
        except HoldtrueError:
            pause.wait(0.05)
        else:
            return
    raise AssertionError("it never took a write again")


@pytest.fixture
def small_server(small_folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(small_folder)
    cluster.start(wal_recycle="off", max_wal_size="32MB", min_wal_size="32MB")
    yield cluster
    cluster.stop(signal.SIGQUIT)


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 160 MiB, of which a new cluster takes half; needs the right to mount."""
    folder = Path(tempfile.mkdtemp(prefix="holdtrue-pg-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: a really full disk needs the right to mount a tmpfs (run as root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()
