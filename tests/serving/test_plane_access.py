import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from holdtrue.serving import read_access
from holdtrue.serving.access import BadAccessFile


def entry(secret: str, **changes: Any) -> dict[str, Any]:
    known = {
        "sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "actor": "svc_1",
        "project": "flights",
        "permissions": ["predict"],
        "expires_at": None,
    }
    return {**known, **changes}


def written(path: Path, *entries: dict[str, Any]) -> Path:
    tokens = {f"t{number}": each for number, each in enumerate(entries)}
    (path / "access.json").write_text(json.dumps({"policy_version": 4, "tokens": tokens}))
    return path / "access.json"


def test_a_whole_credential_is_needed(tmp_path: Path) -> None:
    start = "ht_svc_" + "0" * 40
    table = read_access(written(tmp_path, entry(start + "1"), entry(start + "2", project=None)))

    first, second = table.check((start + "1").encode()), table.check((start + "2").encode())

    assert first is not None
    assert second is not None
    assert (first.project, second.project) == ("flights", None)
    assert first.permissions == {"predict"}
    assert table.policy_version == 4
    for other in (start, start + "3", start + "11", "", hashlib.sha256((start + "1").encode()).hexdigest()):
        assert table.check(other.encode()) is None


def test_a_grant_ends_at_its_moment(tmp_path: Path) -> None:
    table = read_access(written(tmp_path, entry("a", expires_at=1000), entry("b")))
    assert table.at(999) is table
    later = table.at(1000)
    assert later.check(b"a") is None
    assert later.check(b"b") is not None
    # A clock that goes back does not revive it.
    assert later.at(0).check(b"a") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "abc"},
        {"sha256": "00"},
        {"sha256": None},
        {"permissions": "predict"},
        {"project": 7},
        {"expires_at": "never"},
        {"actor": None},
    ],
)
def test_a_damaged_file_is_refused_as_a_whole(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BadAccessFile):
        read_access(written(tmp_path, entry("a"), entry("b", **changes)))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"policy_version": 1, "tokens": []}'])
def test_what_is_no_access_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "access.json").write_text(text)
    with pytest.raises(BadAccessFile):
        read_access(tmp_path / "access.json")
    with pytest.raises(BadAccessFile):
        read_access(tmp_path / "missing.json")
