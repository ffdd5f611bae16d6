"""Quarantined rows as a person meets them: shown, written out, corrected and taken in again, or given up."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tests.cli.test_commands import holdtrue
from tests.cli.toys import edited, succeed, toy_folder

COLUMN = 'ht.column("amount", "float64", le=100)'
NARROW = (COLUMN, 'ht.column("amount", "float64", le=1.5, severity="quarantine")')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = toy_folder(tmp_path)
    edited(made, NARROW)
    succeed("apply", cwd=made)
    return made


def taken(folder: Path, window: str) -> Any:
    """Take a window in and return the quarantine that it opened."""
    holdtrue("run", "--ingest", "-w", window, cwd=folder)
    return listed(folder)[-1]


def listed(folder: Path) -> list[Any]:
    return json.loads(succeed("quarantines", "--json", cwd=folder))


def rows(folder: Path) -> int:
    return json.loads(succeed("data", "show", "rows", "--json", cwd=folder))["rows"]


def test_rows_are_shown_corrected_and_taken_in_again(folder: Path) -> None:
    held = taken(folder, "2031-02")
    assert rows(folder) == 600 - held["rows"]
    shown = succeed("data", "quarantine", held["id"], "--out", "held.parquet", cwd=folder)
    assert "quarantine  “amount” is above 1.5" in shown
    assert "id 2031-02-" in shown
    table = pq.read_table(folder / "held.parquet")
    assert table.num_rows == held["rows"]
    # Half of the rows are corrected first: the others stay out, in a quarantine of their own.
    half = table.num_rows // 2
    amounts = [1.0] * half + table["amount"].to_pylist()[half:]
    place = table.column_names.index("amount")
    pq.write_table(table.set_column(place, "amount", pa.array(amounts)), folder / "half.parquet")
    told = json.loads(succeed("data", "mend", held["id"], "half.parquet", "--json", cwd=folder))
    assert (told["state"], told["accepted"], told["quarantined"]) == (
        "mended",
        600 - (table.num_rows - half),
        table.num_rows - half,
    )
    rest = listed(folder)[-1]
    assert (rest["state"], rest["rows"]) == ("open", table.num_rows - half)
    # What is written as text is read again as text.
    succeed("data", "quarantine", rest["id"], "--out", "rest.csv", cwd=folder)
    text = pa_csv.read_csv(folder / "rest.csv")
    text = text.set_column(text.column_names.index("amount"), "amount", pc.min_element_wise(text["amount"], 1.25))  # pyright: ignore
    pa_csv.write_csv(text, folder / "mended.csv")
    assert "600 rows" in succeed("data", "mend", rest["id"], "mended.csv", cwd=folder)
    assert rows(folder) == 600
    assert {each["state"] for each in listed(folder)} == {"mended"}


def test_rows_are_taken_in_as_they_are_once_the_contract_was_mended(folder: Path) -> None:
    held = taken(folder, "2031-03")
    still = json.loads(succeed("data", "mend", held["id"], "--json", cwd=folder))
    assert (still["state"], still["quarantined"]) == ("open", held["rows"])
    edited(folder)
    succeed("apply", cwd=folder)
    assert "is mended" in succeed("data", "mend", held["id"], cwd=folder)
    assert rows(folder) == 600
    again = holdtrue("data", "mend", held["id"], cwd=folder)
    assert again.returncode == 1
    assert "is mended" in again.stderr


def test_a_blocked_delivery_is_mended_as_a_whole_or_given_up(folder: Path) -> None:
    held = taken(folder, "2030-01")
    assert held["blocked"]
    done = holdtrue("data", "mend", held["id"], cwd=folder)
    assert done.returncode == 4
    assert "still blocked" in done.stdout
    succeed("data", "quarantine", held["id"], "--out", "whole.parquet", cwd=folder)
    table = pq.read_table(folder / "whole.parquet")
    pq.write_table(table.append_column("amount", pa.array([0.5] * table.num_rows)), folder / "whole.parquet")
    assert "600 rows" in succeed("data", "mend", held["id"], "whole.parquet", cwd=folder)
    other = taken(folder, "2031-02")
    assert "discarded" in succeed("data", "discard", other["id"], "--reason", "they were tests", cwd=folder)
    assert holdtrue("data", "discard", other["id"], "--reason", "again", cwd=folder).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("quarantine", "qua_nothing"), "There is no quarantine"),
        (("mend", "qua_nothing"), "There is no quarantine"),
        (("quarantine", "ID", "--out", "rows.xlsx"), ".parquet or .csv"),
        (("quarantine", "ID", "--out", "none/rows.csv"), "no folder"),
        (("mend", "ID", "none.parquet"), "no file"),
        (("mend", "ID", "project.py"), "not a table"),
        (("discard", "ID", "--reason", " "), "for a reason"),
    ],
)
def test_what_cannot_be_done_says_why(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    held = taken(folder, "2031-02")
    done = holdtrue("data", *(held["id"] if each == "ID" else each for each in arguments), cwd=folder)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
