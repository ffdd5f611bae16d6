"""Commands on datasets as a person uses them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from holdtrue.storage import BlobStore
from tests.cli.test_commands import holdtrue
from tests.cli.toys import edited, succeed, toy_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = toy_folder(tmp_path_factory.mktemp("data"))
    succeed("apply", cwd=made)
    succeed("run", "--ingest", "-w", "2031-02", "-w", "2031-03", cwd=made)
    return made


def test_versions_are_listed_shown_and_compared(folder: Path) -> None:
    assert [each["name"] for each in json.loads(succeed("data", "ls", "--json", cwd=folder))] == ["rows"]
    assert "rows@2 (current)" in succeed("data", "ls", "rows", cwd=folder)
    shown = succeed("data", "show", "rows@1", cwd=folder)
    assert "600 rows" in shown
    assert "amount  number" in shown
    told = succeed("data", "diff", "rows@1", "rows@2", cwd=folder)
    assert "added 600, such as 2031-03-00000" in told
    assert json.loads(succeed("data", "diff", "rows@1", "--json", cwd=folder))["rows"]["added"]["rows"] == 600


def test_a_version_is_written_whole_or_not_at_all(folder: Path) -> None:
    succeed("data", "export", "rows", "rows.parquet", cwd=folder)
    assert pq.read_table(folder / "rows.parquet").num_rows == 1200
    succeed("data", "export", "rows", "rows.csv", "--window", "2031-03", cwd=folder)
    assert pa_csv.read_csv(folder / "rows.csv").num_rows == 600
    for wrong, said in (
        (("rows", "rows.xlsx"), ".parquet or .csv"),
        (("rows", "none/rows.csv"), "no folder"),
        (("rows", "more.csv", "--window", "2031-09"), "2031-09"),
        (("rows@7", "more.csv"), "rows@7"),
        (("no rows", "more.csv"), "does not name a version"),
    ):
        done = holdtrue("data", "export", *wrong, cwd=folder)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (folder / "more.csv").exists()
    assert list(folder.glob(".holdtrue-*")) == []


def test_versions_of_two_datasets_are_not_compared(folder: Path) -> None:
    done = holdtrue("data", "diff", "rows@1", "trains@2", cwd=folder)
    assert done.returncode == 2
    assert "two datasets" in done.stderr


def test_files_become_versions_without_a_project_file(tmp_path: Path) -> None:
    (tmp_path / ".holdtrue").mkdir(mode=0o700)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("id,v\n1,2\n")
    assert "1 rows" in succeed("data", "add", "trips", "in", "--key", "id", cwd=tmp_path)
    (tmp_path / "in" / "a.csv").write_text("id,v\n1,3\n")
    assert json.loads(succeed("data", "add", "trips", "in/*.csv", "--key", "id", "--json", cwd=tmp_path))["number"] == 2
    assert "v 2 → 3" in succeed("data", "diff", "trips@1", cwd=tmp_path)
    (tmp_path / "in" / "b.txt").write_text("b")
    succeed("data", "add", "mixed", "in", cwd=tmp_path)
    succeed("data", "export", "mixed", "out", cwd=tmp_path)
    assert (tmp_path / "out" / "b.txt").read_text() == "b"
    assert "removed" in succeed("data", "gc", "--dry-run", cwd=tmp_path)
    done = holdtrue("data", "add", "mixed", "in", "--key", "id", cwd=tmp_path)
    assert done.returncode == 2
    assert "have no key" in done.stderr


def test_rows_of_queries_become_windows_and_are_divided(tmp_path: Path) -> None:
    (tmp_path / ".holdtrue").mkdir(mode=0o700)
    with sqlite3.connect(tmp_path / "own.db") as connection:
        connection.execute("CREATE TABLE trips (id TEXT, who TEXT, month TEXT)")
        rows = [(f"t{n}", f"w{n % 9}", f"2013-0{1 + n % 2}") for n in range(200)]
        connection.executemany("INSERT INTO trips VALUES (?, ?, ?)", rows)
    connection.close()
    for month in ("2013-01", "2013-02"):
        query = f"SELECT id, who FROM trips WHERE month = '{month}'"
        succeed(
            "data",
            "add",
            "trips",
            "--sql",
            "sqlite:///own.db",
            "--query",
            query,
            "-w",
            month,
            "--key",
            "id",
            cwd=tmp_path,
        )
    shown = json.loads(succeed("data", "show", "trips", "--json", cwd=tmp_path))
    assert [(each["window"], each["rows"]) for each in shown["windows"]] == [("2013-01", 100), ("2013-02", 100)]
    told = succeed(
        "data", "split", "trips@2", "apart", "--by", "group", "--column", "who", "--apart", "who", cwd=tmp_path
    )
    assert "0 values of who are in two parts" in told
    assert "apart@1" in succeed("data", "splits", "trips", cwd=tmp_path)
    counts = []
    for part in ("train", "test"):
        succeed("data", "export", "trips@2", f"{part}.parquet", "--split", "apart", "--part", part, cwd=tmp_path)
        counts.append(pq.read_table(tmp_path / f"{part}.parquet").num_rows)
    assert sum(counts) == 200
    assert min(counts) > 0
    query = "SELECT * FROM 'train.parquet'"
    assert f"{counts[0]} rows" in succeed("data", "add", "half", "--query", query, cwd=tmp_path)
    for wrong, said in (
        (("add", "trips", "--sql", "sqlite:///own.db"), "goes with a query"),
        (("add", "trips", "in", "--query", query), "Both were given"),
        (("add", "trips"), "Nothing to add"),
        (("add", "trips", "--query", "SELECT 1 AS id WHERE false"), "no row"),
        (("split", "trips", "s", "--part", "train"), "is no part"),
        (("export", "trips", "x.parquet", "--part", "train"), "--split is missing"),
        (("export", "trips@1", "x.parquet", "--split", "apart", "--part", "train"), "another version"),
    ):
        done = holdtrue("data", *wrong, cwd=tmp_path)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_an_addition_that_is_killed_shows_nothing_and_is_done_again(tmp_path: Path) -> None:
    home = tmp_path / ".holdtrue"
    home.mkdir(mode=0o700)
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.bin").write_bytes(os.urandom(17 << 20))
    adding = [sys.executable, "-m", "holdtrue", "data", "add", "pictures", "in"]
    with subprocess.Popen(adding, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # Parts of the first files are there; the list that makes a file of them, or the version, may not be yet.
        while not any(home.glob("blobs/[0-9a-f][0-9a-f]/*")):
            assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert "no project in this data folder yet" in holdtrue("data", "ls", cwd=tmp_path).stderr
    assert "2 files" in succeed("data", "add", "pictures", "in", cwd=tmp_path)
    succeed("data", "export", "pictures", "out", cwd=tmp_path)
    for number in range(2):
        assert (tmp_path / "out" / f"{number}.bin").read_bytes() == (tmp_path / "in" / f"{number}.bin").read_bytes()
    assert list(BlobStore(home / "blobs").verify()) == []


def test_a_contract_is_inferred_written_and_changed(folder: Path) -> None:
    (folder / "new.csv").write_text("id,v\na1,2\nb2,\n")
    inferred = succeed("data", "infer", "new.csv", cwd=folder)
    assert "ht.column('id', 'string', unique=True, pattern='[a-z][0-9]')" in inferred
    document = succeed("data", "contract", "rows", "--odcs", cwd=folder)
    (folder / "rows.odcs.yaml").write_text(document)
    assert succeed("data", "contract", "rows.odcs.yaml", cwd=folder) == succeed("data", "contract", "rows", cwd=folder)
    edited(folder, ('ht.column("amount", "float64", le=100)', 'ht.column("amount", "float64", nullable=True)'))
    planned = succeed("plan", cwd=folder)
    assert "breaking contract rows: “amount” may be missing now" in planned
    assert "breaking contract rows: “amount” has no largest value any more" in planned
    done = holdtrue("data", "infer", "nothing.csv", cwd=folder)
    assert done.returncode == 1
    assert "no file nothing.csv" in done.stderr
