import itertools
import os
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import Corrupt, HoldtrueError, NewerSchema, StorageFull
from holdtrue.storage import Journal
from holdtrue.storage.journal import Damage
from holdtrue.storage.journal.segments import read_segment
from tests.storage.faults import Fault, Killed, no_space
from tests.storage.records import columns


def ids(journal: Journal) -> list[str]:
    return journal.table("label", "flights")["id"].to_pylist()


@pytest.fixture
def segment(journal: Journal, tmp_path: Path) -> Path:
    """A closed segment of five acknowledged frames."""
    writer = journal.writer("w")
    for number in range(5):
        writer.append("label", "flights", "svc", columns([f"{number}.a", f"{number}.b"]), 2)
    writer.close()
    return tmp_path / "journal" / "live" / "w-000001.seg"


def test_an_unfinished_append_at_the_end_is_left_out_wherever_it_was_cut(
    tmp_path: Path, clock: SimulatedClock, segment: Path
) -> None:
    whole = segment.read_bytes()
    last = read_segment(segment).frames[-1]
    # What a killed writer leaves: bytes that were never acknowledged, so beyond the mark.
    segment.with_suffix(".mark").write_bytes(last.offset.to_bytes(8, "little"))
    journal = Journal(tmp_path / "journal", clock)
    for end in range(last.offset, last.end):
        segment.write_bytes(whole[:end])
        assert ids(journal) == [f"{number}.{row}" for number in range(4) for row in "ab"]
        assert list(journal.verify()) == []
    assert journal.seal() == 1
    assert len(ids(journal)) == 8


def test_an_acknowledged_append_that_is_cut_is_a_loss_and_not_an_unfinished_append(
    journal: Journal, segment: Path
) -> None:
    whole = segment.read_bytes()
    frames = read_segment(segment).frames
    for end in (0, 10, frames[0].offset, frames[2].offset, frames[2].offset + 5, frames[-1].end - 1):
        segment.write_bytes(whole[:end])
        with pytest.raises(Corrupt, match=r"live/w-000001\.seg") as caught:
            journal.table("label", "flights")
        assert caught.value.facts["file"] == "live/w-000001.seg"
        assert caught.value.facts["offset"] in {end, frames[2].offset, frames[-1].offset}
        assert "--repair" in caught.value.mend
        segment.write_bytes(whole)
    assert len(ids(journal)) == 10


@pytest.mark.parametrize("removed", [1, 30, 500])
def test_bytes_cut_out_of_the_middle_are_named_and_repaired_around(
    journal: Journal, segment: Path, tmp_path: Path, removed: int
) -> None:
    frames = read_segment(segment).frames
    whole = segment.read_bytes()
    at = frames[1].offset + 3
    cut = whole[:at] + whole[at + removed :]
    segment.write_bytes(cut)
    for use in (lambda: ids(journal), lambda: journal.tail("label", "flights", "svc", None), journal.seal):
        with pytest.raises(Corrupt, match=f"byte {frames[1].offset}"):
            use()
    assert [damage.file for damage in journal.verify()] == ["live/w-000001.seg"]
    lost = journal.repair()
    assert lost[0].file == "live/w-000001.seg"
    assert lost[0].offset == frames[1].offset
    assert segment.read_bytes() == cut, "a repair must not change the evidence"
    kept = ids(journal)
    assert {"0.a", "0.b"} <= set(kept)
    assert len(kept) == (8 if removed < 500 else len(kept))
    assert journal.repair() == []
    rows, _ = journal.tail("label", "flights", "svc", None)
    assert rows["id"].to_pylist() == kept
    assert journal.seal() == 1
    assert ids(journal) == kept
    assert (tmp_path / "journal" / "damaged" / "w-000001.seg").read_bytes() == cut


def test_a_whole_frame_taken_out_is_noticed(journal: Journal, segment: Path) -> None:
    frames = read_segment(segment).frames
    whole = segment.read_bytes()
    segment.write_bytes(whole[: frames[2].offset] + whole[frames[2].end :])
    with pytest.raises(Corrupt, match="Frame 2 is missing"):
        ids(journal)
    assert journal.repair()
    assert ids(journal) == [f"{number}.{row}" for number in (0, 1, 3, 4) for row in "ab"]


def test_any_changed_byte_is_noticed(journal: Journal, segment: Path) -> None:
    whole = segment.read_bytes()
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 0x20
        segment.write_bytes(data)
        with pytest.raises(HoldtrueError) as caught:
            ids(journal)
        assert isinstance(caught.value, Corrupt | NewerSchema)
        segment.write_bytes(whole)
    assert len(ids(journal)) == 10


def test_a_damaged_header_loses_no_record_once_repaired(journal: Journal, segment: Path) -> None:
    data = bytearray(segment.read_bytes())
    data[3] ^= 1
    segment.write_bytes(data)
    with pytest.raises(Corrupt, match="byte 0"):
        ids(journal)
    journal.repair()
    assert len(ids(journal)) == 10


def test_a_segment_cut_to_nothing_can_be_repaired(journal: Journal, segment: Path) -> None:
    os.truncate(segment, 7)
    with pytest.raises(Corrupt):
        ids(journal)
    journal.repair()
    assert ids(journal) == []
    assert journal.seal() == 1


def test_without_a_mark_damage_before_intact_frames_is_still_noticed(journal: Journal, segment: Path) -> None:
    segment.with_suffix(".mark").unlink()
    frames = read_segment(segment).frames
    data = bytearray(segment.read_bytes())
    data[frames[1].offset + 40] ^= 1
    segment.write_bytes(data)
    with pytest.raises(Corrupt, match=f"byte {frames[1].offset}"):
        ids(journal)


def test_one_damaged_segment_does_not_stop_others_from_being_sealed(journal: Journal, segment: Path) -> None:
    os.truncate(segment, segment.stat().st_size // 2)
    journal.writer("other").append("label", "flights", "svc", columns(["fine"]), 1)
    with pytest.raises(Corrupt, match="w-000001"):
        journal.seal()
    assert not list(segment.parent.glob("other-*.seg"))
    assert segment.exists()


def test_a_newer_format_is_refused_by_name(journal: Journal, segment: Path) -> None:
    data = bytearray(segment.read_bytes())
    data[16] = 2
    segment.write_bytes(data)
    with pytest.raises(NewerSchema, match="format 2"):
        ids(journal)


def test_a_damaged_parquet_file_is_named_and_set_aside(journal: Journal, segment: Path, tmp_path: Path) -> None:
    writer = journal.writer("other")
    writer.append("label", "flights", "svc", columns(["fine"], day=1), 1)
    assert journal.seal() == 2
    path = next((tmp_path / "journal" / "sealed").rglob("w-000001.parquet"))
    data = bytearray(path.read_bytes())
    for at in (4, len(data) // 3, len(data) - 6):
        changed = data.copy()
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        with pytest.raises(Corrupt, match=r"w-000001\.parquet"):
            Journal(tmp_path / "journal", SimulatedClock.__new__(SimulatedClock)).table("label", "flights")
    assert [damage.file for damage in journal.verify()] == [
        "sealed/kind=label/project=flights/service=svc/day=2013-01-01/w-000001.parquet"
    ]
    path.unlink()
    with pytest.raises(Corrupt, match=r"w-000001\.parquet"):
        Journal(tmp_path / "journal", SimulatedClock.__new__(SimulatedClock)).table("label", "flights")
    assert [type(damage) for damage in journal.repair()] == [Damage]
    assert ids(journal) == ["fine"]
    assert journal.repair() == []


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
def test_sealing_that_ends_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, clock: SimulatedClock, error: BaseException
) -> None:
    for number in itertools.count(1):
        root = tmp_path / f"journal-{number}"
        journal = Journal(root, clock)
        writer = journal.writer("w", "fast", segment_bytes=300)
        for step in range(3):
            writer.append("label", "flights", "svc", columns([f"{step}.a"], step), 1)
            writer.append("prediction", "flights", "svc", columns([f"{step}.b"], step), 1)
        writer.close()
        before = ids(journal)
        _, cursor = journal.tail("label", "flights", "svc", None)
        with Fault(number, error) as fault:
            try:
                journal.seal(roll=False)
            except (StorageFull, Killed):
                assert fault.hit
        for opened in (journal, Journal(root, clock)):
            assert ids(opened) == before
            assert opened.counts() == {"label/flights/svc": 3, "prediction/flights/svc": 3}
            assert opened.tail("label", "flights", "svc", cursor)[0].num_rows == 0
        journal.seal()
        assert ids(journal) == before
        assert not list((root / "live").glob("*.seg"))
        assert not list((root / "live").glob("*.mark"))
        assert not list(root.rglob("*.tmp"))
        if not fault.hit:
            assert number > 20
            return
