"""The verifier finds every forgery, raises no false alarm, and runs without the rest of Holdtrue."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import holdtrue.storage.ledger.verify as verifier
from holdtrue.core.clock import SimulatedClock
from holdtrue.storage.ledger import Ledger
from holdtrue.storage.ledger.checkpoints import append_anchors, read_anchors
from holdtrue.storage.ledger.database import back_up, connect_reader
from holdtrue.storage.ledger.events import entry_bytes
from holdtrue.storage.ledger.notes import Signer
from holdtrue.storage.ledger.verify import EDITED, FORKED, KEY, SOUND, TRUNCATED, UNSIGNED, verify
from tests.storage.ledger import forge
from tests.storage.ledger.toys import CONTEXT, make_table, put

SEALED, ENTRIES = 40, 43
MEMORY = Path("/dev/shm")  # noqa: S108


@dataclass(frozen=True)
class Original:
    """A sound ledger of 43 entries, 40 of them under five checkpoints, one payload erased."""

    folder: Path
    public: str
    signer: Signer

    @property
    def database(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def anchors(self) -> Path:
        return self.folder / "anchors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    folder = tmp_path_factory.mktemp("original")
    clock = SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC))
    ledger = Ledger.open(folder / "live.db", clock=clock, keys=folder / "keys", anchors=folder / "anchors")
    make_table(ledger)
    for number in range(ENTRIES):
        clock.advance(1)
        if number == 12:
            ledger.write(CONTEXT, lambda tx: tx.erase(5, reason="asked for"))
        else:
            ledger.write(CONTEXT, put(f"toy-{number % 7}", str(number)))
        if (number + 1) % 8 == 0:
            ledger.checkpoint()
    # What a thief copies is the file of a running ledger: its last three entries are not signed yet.
    source = connect_reader(folder / "live.db")
    back_up(source, folder / "ledger.db")
    source.close()
    ledger.close()
    anchors = read_anchors(folder / "anchors")
    (folder / "anchors").unlink()
    append_anchors(folder / "anchors", anchors[:5])
    return Original(
        folder,
        (folder / "keys" / "ledger.pub").read_text(),
        Signer.parse((folder / "keys" / "ledger.key").read_text()),
    )


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of copies are made in it."""
    folder = MEMORY / f"{tmp_path.name}-{tmp_path.parent.name}" if MEMORY.is_dir() else tmp_path / "copies"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def forged(original: Original, folder: Path, mutation: forge.Mutation, seed: int) -> tuple[Path, str]:
    copy = folder / "copy.db"
    shutil.copyfile(original.database, copy)
    forger = forge.Forger(copy, SEALED)
    done = mutation(forger, random.Random(seed))
    forger.close()
    return copy, done


def test_a_sound_ledger_is_sound(original: Original) -> None:
    found = verify(original.database, original.public, anchors=original.anchors)
    assert found.ok, found.findings
    assert (found.entries, found.sealed, found.checkpoints, found.anchors) == (ENTRIES, SEALED, 5, 5)
    assert (found.erased, found.exit_code) == (1, UNSIGNED)
    assert verify(original.database, original.public).ok


MUTATIONS: dict[str, tuple[forge.Mutation, set[int]]] = {
    "edit_cell": (forge.edit_cell, {EDITED, FORKED, KEY, TRUNCATED}),
    "renumber": (forge.renumber, {EDITED}),
    "copy_cell": (forge.copy_cell, {EDITED}),
    "swap_payloads": (forge.swap_payloads, {EDITED}),
    "delete_row": (forge.delete_row, {EDITED}),
    "delete_and_close_the_gap": (forge.delete_and_close_the_gap, {EDITED, FORKED}),
    "insert": (forge.insert, {EDITED, FORKED}),
    "insert_stray": (forge.insert_stray, {EDITED}),
    "reorder": (forge.reorder, {EDITED, FORKED}),
    "truncate": (forge.truncate, {TRUNCATED, EDITED}),
    "rewrite": (forge.rewrite, {FORKED, EDITED}),
    "sign_with_another_key": (forge.sign_with_another_key, {KEY}),
    "swap_checkpoints": (forge.swap_checkpoints, {EDITED}),
    "hide_table": (forge.hide_table, {EDITED}),
    "fake_erasure": (forge.fake_erasure, {EDITED, FORKED}),
}


def misses(original: Original, folder: Path, name: str, seeds: range) -> list[str]:
    """Return each forgery that the verifier let pass, or took for something else."""
    mutation, codes = MUTATIONS[name]
    missed: list[str] = []
    for seed in seeds:
        copy, done = forged(original, folder, mutation, seed)
        found = verify(copy, original.public, anchors=original.anchors)
        if found.ok or found.exit_code not in codes:
            missed.append(f"{name} seed {seed}: {done}: {found.exit_code} {found.findings[:2]}")
    return missed


@pytest.mark.parametrize("name", MUTATIONS)
def test_no_forgery_is_missed(original: Original, fast: Path, name: str) -> None:
    assert misses(original, fast, name, range(600 if name == "edit_cell" else 110)) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MUTATIONS)
def test_no_forgery_is_missed_in_a_hundred_thousand(original: Original, fast: Path, name: str) -> None:
    assert misses(original, fast, name, range(1_000, 1_000 + (16_000 if name == "edit_cell" else 6_000))) == []


def test_a_fork_by_the_owner_of_the_key_is_found_by_its_anchors(original: Original, fast: Path) -> None:
    for seed in range(50):
        copy, done = forged(original, fast, forge.fork(original.signer), seed)
        found = verify(copy, original.public, anchors=original.anchors)
        assert found.exit_code == FORKED, done
        # The stated limit: without an anchor outside, the owner of the key can rewrite history.
        assert verify(copy, original.public).ok


def test_an_older_copy_is_found_by_its_anchors(original: Original, fast: Path) -> None:
    def roll_back(forger: forge.Forger, rng: random.Random) -> str:
        size = rng.choice([16, 24, 32])
        for table in ("events", "payloads"):
            forger.database.execute(f"DELETE FROM {table} WHERE seq > ?", (size,))
        forger.database.execute("DELETE FROM checkpoints WHERE number > ?", (size // 8,))
        return str(size)

    for seed in range(20):
        copy, _ = forged(original, fast, roll_back, seed)
        assert verify(copy, original.public, anchors=original.anchors).exit_code == TRUNCATED


def test_another_key_is_named_as_the_problem(original: Original) -> None:
    found = verify(original.database, Signer.new().verifier_key, anchors=original.anchors)
    assert found.exit_code == KEY
    same_name = Signer(original.signer.name, Signer.new().key)
    assert verify(original.database, same_name.verifier_key).exit_code == KEY


@pytest.mark.parametrize(
    "text", ["", "a", "a+b+c", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"]
)
def test_what_is_no_key_is_refused(original: Original, text: str) -> None:
    with pytest.raises(ValueError, match="public key"):
        verify(original.database, text)


def test_changed_anchors_are_found(original: Original, tmp_path: Path) -> None:
    text = original.anchors.read_text()
    for place in range(0, len(text) - 2, 23):
        if text[place] in "\n—":
            continue
        changed = tmp_path / "anchors"
        changed.write_text(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :])
        assert not verify(original.database, original.public, anchors=changed).ok, place


def test_flipped_bits_never_pass_as_another_history(original: Original, fast: Path) -> None:
    """A flip may hit unused space; what the ledger says is then unchanged, or the verifier objects."""
    data = original.database.read_bytes()
    rng = random.Random(7)
    expected = told(original.database)
    objections = 0
    for _ in range(400):
        place = rng.randrange(100, len(data))
        copy = fast / "copy.db"
        copy.write_bytes(data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :])
        if verify(copy, original.public, anchors=original.anchors).ok:
            assert told(copy) == expected
        else:
            objections += 1
    # The tables of all rooms share the file, so most flips hit what the verifier does not speak of.
    assert objections > 8


def told(path: Path) -> list[object]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [
            database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("events", "payloads", "checkpoints")
        ]
    finally:
        database.close()


def run(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", ISOLATED, str(Path(verifier.__file__)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# Only the packages' folder is given, and importing Holdtrue from it is made impossible.
ISOLATED = f"""
import runpy, sys
sys.path.append({str(Path(rfc8785.__file__).parents[1])!r})
sys.modules['holdtrue'] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_the_verifier_runs_alone(original: Original, fast: Path) -> None:
    public = original.folder / "keys" / "ledger.pub"
    sound = run(original.database, public, original.anchors)
    assert (sound.returncode, sound.stderr) == (UNSIGNED, "")
    assert "43 entries, 5 checkpoints, 5 anchors, 3 entries not signed yet" in sound.stdout
    copy, _ = forged(original, fast, forge.rewrite, 1)
    wrong = run(copy, public)
    assert wrong.returncode == FORKED
    assert "WRONG" in wrong.stdout
    assert run(fast / "nothing.db", public).returncode == EDITED
    assert run(original.database).returncode == KEY
    assert run(original.database, original.folder / "nothing").returncode == KEY


def test_a_sealed_ledger_ends_with_zero(original: Original, fast: Path) -> None:
    def cut(forger: forge.Forger, rng: random.Random) -> str:
        for table in ("events", "payloads"):
            forger.database.execute(f"DELETE FROM {table} WHERE seq > ?", (SEALED,))
        return ""

    copy, _ = forged(original, fast, cut, 0)
    assert verify(copy, original.public, anchors=original.anchors).exit_code == SOUND


TEXT = st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(st.sampled_from(verifier._COLUMNS), TEXT | st.integers(-(2**53) + 1, 2**53 - 1)))  # pyright: ignore[reportPrivateUsage]
def test_three_ways_give_one_canonical_form(entry: dict[str, str | int]) -> None:
    """The writer uses orjson, the verifier the standard library: both must be RFC 8785 for such entries."""
    canonical = rfc8785.dumps(entry)
    assert entry_bytes(entry) == b"\x01" + canonical
    assert json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == canonical
