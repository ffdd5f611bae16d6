"""When the log is sealed, what stands in the anchor file, and what opening refuses."""

import shutil
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import ConfigurationError, Corrupt
from holdtrue.storage.ledger import Ledger, Transaction
from holdtrue.storage.ledger.checkpoints import append_anchors, read_anchors
from holdtrue.storage.ledger.notes import Signer
from tests.storage.ledger.conftest import OpenLedger
from tests.storage.ledger.toys import BOTH, CONTEXT, about_files, check, make_table, put

PLACES = BOTH


def test_the_log_is_sealed_every_256_entries(ledger: Ledger, tmp_path: Path) -> None:
    def many(tx: Transaction) -> None:
        for number in range(255):
            put(str(number))(tx)

    ledger.write(CONTEXT, many)
    assert check(tmp_path).checkpoints == 0
    ledger.write(CONTEXT, put("one more"))
    found = check(tmp_path)
    assert (found.checkpoints, found.sealed, found.exit_code) == (1, 256, 0)


def test_the_log_is_sealed_after_a_minute(ledger: Ledger, clock: SimulatedClock, tmp_path: Path) -> None:
    ledger.write(CONTEXT, put("a"))
    clock.advance(59)
    ledger.write(CONTEXT, put("b"))
    found = check(tmp_path)
    assert (found.sealed, found.exit_code) == (0, 5)
    assert found.unsigned_since == 1_356_998_400_000_000
    clock.advance(1)
    ledger.write(CONTEXT, put("c"))
    assert check(tmp_path).sealed == 3


def test_the_log_is_sealed_on_request_and_at_the_end(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.checkpoint() == ""

    def approve(tx: Transaction) -> None:
        put("approved")(tx)
        tx.seal()

    ledger.write(CONTEXT, approve)
    assert check(tmp_path).sealed == 1
    note = ledger.checkpoint()
    assert note.split("\n")[1] == "1"
    assert ledger.checkpoint() == note
    ledger.write(CONTEXT, put("b"))
    ledger.close()
    assert check(tmp_path).sealed == 2


def test_a_failed_work_does_not_seal(ledger: Ledger, tmp_path: Path) -> None:
    def failing(tx: Transaction) -> None:
        tx.seal()
        raise KeyError

    ledger.write(CONTEXT, put("a"))
    with pytest.raises(KeyError):
        ledger.write(CONTEXT, failing)
    assert check(tmp_path).checkpoints == 0


def test_every_checkpoint_is_anchored(open_ledger: OpenLedger, tmp_path: Path) -> None:
    anchors = tmp_path / "elsewhere" / "anchors"
    ledger = open_ledger(anchors=anchors)
    make_table(ledger)
    notes: list[str] = []
    for key in "abc":
        ledger.write(CONTEXT, put(key))
        notes.append(ledger.checkpoint())
    ledger.close()
    assert read_anchors(anchors) == notes
    found = check(tmp_path, anchors=anchors)
    assert found.ok
    assert (found.anchors, found.checkpoints) == (3, 3)


def test_checkpoints_made_without_the_anchor_file_are_added_later(open_ledger: OpenLedger, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors"
    ledger = open_ledger()
    make_table(ledger)
    ledger.write(CONTEXT, put("a"))
    first = ledger.checkpoint()
    ledger.close()
    open_ledger(anchors=anchors).close()
    assert read_anchors(anchors) == [first]
    assert check(tmp_path, anchors=anchors).ok


@pytest.mark.parametrize("cut", range(1, 180, 7))
def test_an_anchor_torn_by_a_crash_is_written_again(tmp_path: Path, cut: int) -> None:
    anchors = tmp_path / "anchors"
    signer = Signer.new()
    notes = [signer.sign(size, bytes(32)) for size in (1, 2, 3)]
    append_anchors(anchors, notes[:2])
    text = anchors.read_text()
    anchors.write_text(text[:-cut])
    kept = read_anchors(anchors)
    assert kept == notes[: len(kept)]
    assert len(kept) >= 1
    append_anchors(anchors, notes[len(kept) :])
    assert read_anchors(anchors) == notes


def test_an_anchor_file_that_cannot_be_written_stops_nothing(open_ledger: OpenLedger, tmp_path: Path) -> None:
    anchors = tmp_path / "folder" / "anchors"
    anchors.parent.write_text("this is a file")
    ledger = open_ledger(anchors=anchors)
    make_table(ledger)
    ledger.write(CONTEXT, put("a"))
    first = ledger.checkpoint()
    anchors.parent.unlink()
    ledger.write(CONTEXT, put("b"))
    second = ledger.checkpoint()
    assert read_anchors(anchors) == [first, second]


@about_files
def test_a_restored_old_ledger_is_not_continued(open_ledger: OpenLedger, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors"
    ledger = open_ledger(anchors=anchors)
    make_table(ledger)
    ledger.write(CONTEXT, put("a"))
    ledger.close()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "old.db")
    ledger = open_ledger(anchors=anchors)
    ledger.write(CONTEXT, put("b"))
    ledger.close()
    for leftover in tmp_path.glob("ledger.db*"):
        leftover.unlink()
    shutil.copy(tmp_path / "old.db", tmp_path / "ledger.db")
    with pytest.raises(Corrupt, match="older than its anchor"):
        open_ledger(anchors=anchors)
    found = check(tmp_path, anchors=anchors)
    assert found.exit_code == 3


@about_files
def test_a_ledger_without_its_key_is_not_continued(
    ledger: Ledger, open_ledger: OpenLedger, tmp_path: Path, clock: SimulatedClock
) -> None:
    ledger.write(CONTEXT, put("a"))
    ledger.close()
    (tmp_path / "keys").rename(tmp_path / "away")
    with pytest.raises(ConfigurationError, match="missing"):
        open_ledger()
    other = Ledger.open(tmp_path / "other.db", clock=clock, keys=tmp_path / "keys")
    other.close()
    with pytest.raises(Corrupt, match="not signed by the key"):
        open_ledger()
