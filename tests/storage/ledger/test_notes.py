"""Keys and signed notes in the formats of C2SP."""

import base64
import stat
from pathlib import Path

import pytest

from holdtrue.core.errors import ConfigurationError, Corrupt
from holdtrue.storage.ledger.notes import Checkpoint, Signer, key_id, load_signer

# The example key of the format's reference implementation (golang.org/x/mod/sumdb/note).
NAME, KEY_ID, KEY = "PeterNeumann", "c74f20a3", "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def test_the_key_id_is_that_of_the_format() -> None:
    assert key_id(NAME, base64.b64decode(KEY)[1:]).hex() == KEY_ID


def test_a_signed_note_opens_with_its_key() -> None:
    signer = Signer.new()
    note = signer.sign(7, bytes(range(32)))
    assert signer.open(note) == Checkpoint(signer.name, 7, bytes(range(32)))
    assert note.split("\n")[:2] == [signer.name, "7"]
    assert note.split("\n")[3] == ""


@pytest.mark.parametrize("at", range(0, 200, 3))
def test_a_changed_note_does_not_open(at: int) -> None:
    signer = Signer.new()
    note = signer.sign(7, bytes(range(32)))
    changed = note[: at % len(note)] + "~" + note[at % len(note) + 1 :]
    with pytest.raises(Corrupt):
        signer.open(changed)


def test_a_note_of_another_key_does_not_open() -> None:
    with pytest.raises(Corrupt, match="not signed by the key"):
        Signer.new().open(Signer.new().sign(1, bytes(32)))


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    made = load_signer(tmp_path / "keys", fresh=True)
    read = load_signer(tmp_path / "keys", fresh=False)
    assert read.secret_text() == made.secret_text()
    assert (tmp_path / "keys" / "ledger.pub").read_text() == made.verifier_key + "\n"
    assert stat.S_IMODE((tmp_path / "keys" / "ledger.key").stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"ledger.key", "ledger.pub"}


def test_a_missing_key_of_a_used_ledger_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing") as caught:
        load_signer(tmp_path / "keys", fresh=False)
    assert "backup" in caught.value.mend


@pytest.mark.parametrize("damage", ["", "PRIVATE+KEY+x", "PRIVATE+KEY+a+00000000+AQ==", "-----BEGIN"])
def test_a_damaged_key_file_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "ledger.key").write_text(damage)
    with pytest.raises(ConfigurationError, match=r"ledger\.key"):
        load_signer(tmp_path, fresh=True)


def test_a_key_file_with_one_wrong_digit_is_refused(tmp_path: Path) -> None:
    text = load_signer(tmp_path, fresh=True).secret_text()
    place = len(text) - 10
    other = "A" if text[place] != "A" else "B"
    (tmp_path / "ledger.key").write_text(text[:place] + other + text[place + 1 :])
    with pytest.raises(ConfigurationError):
        load_signer(tmp_path, fresh=False)
