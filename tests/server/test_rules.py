"""Pure decisions: tokens, paths, hosts, origins."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.server.rules import (
    base62,
    csrf_token,
    host_status,
    json_depth,
    make_token,
    parse_token,
    plain_path,
    same_origin,
    same_secret,
    secret_digest,
)

IDS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=12, max_size=12)
SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@given(IDS, st.binary(min_size=32, max_size=32), st.sampled_from(["user", "service"]))
def test_a_token_is_read_back(token_id: str, secret: bytes, kind: str) -> None:
    text = make_token(kind, token_id, secret)
    parts = parse_token(text)
    assert parts is not None
    assert (parts.kind, parts.id) == (kind, token_id)
    assert len(text) == len(f"ht_{kind}_") + 12 + 1 + 43 + 1 + 6
    assert same_secret(text, secret_digest(text))


@given(IDS, st.binary(min_size=32, max_size=32), st.data())
def test_a_changed_sign_is_found_by_the_checksum(token_id: str, secret: bytes, data: st.DataObject) -> None:
    text = make_token("user", token_id, secret)
    place = data.draw(st.integers(0, len(text) - 1))
    sign = data.draw(st.sampled_from(SIGNS + "_- /").filter(lambda each: each != text[place]))
    assert parse_token(text[:place] + sign + text[place + 1 :]) is None


def test_256_bits_fit_in_43_signs() -> None:
    assert 62**43 > 2**256 > 62**42
    assert base62(2**256 - 1, 43) != base62(0, 43)
    with pytest.raises(ValueError, match="32 bytes"):
        make_token("user", "0" * 12, b"short")


@pytest.mark.parametrize(
    "path",
    [b"/", b"/api/projects/flights/releases", b"/a.b-c_d~e", b"/v2/models/delay@3", b"/x/rel_0a:1+2=3"],
)
def test_plain_paths(path: bytes) -> None:
    assert plain_path(path)


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"api",
        b"*",
        b"//",
        b"/api//x",
        b"/api/",
        b"/./api",
        b"/api/..",
        b"/api/../x",
        b"/.hidden",
        b"/api/%2e%2e/x",
        b"/%61pi",
        b"/api;x=1",
        b"/api\\x",
        b"/api x",
        b"/api\x00",
        b"/api\r\n",
        "/äpi".encode(),
        b"/a?b",
        b"/a#b",
        b"http://host/api",
        b"/" + b"a" * 3000,
    ],
)
def test_every_other_spelling_is_refused(path: bytes) -> None:
    assert not plain_path(path)


def test_a_hostile_path_is_decided_quickly() -> None:
    started = time.perf_counter()
    for path in (b"/" + b"a" * 2000 + b"%", b"/a" * 1000 + b"%", b"/" + b"a." * 1000 + b"//"):
        assert not plain_path(path)
    assert time.perf_counter() - started < 0.5


@given(st.lists(st.text(max_size=40), max_size=3))
def test_no_text_but_a_listed_host_is_answered(values: list[str]) -> None:
    allowed = frozenset({"127.0.0.1:7700"})
    assert (host_status(values, allowed) == 200) == (values == ["127.0.0.1:7700"])


@pytest.mark.parametrize(
    ("origin", "site", "same"),
    [
        ("http://a", "same-origin", True),
        (None, "same-origin", True),
        ("http://a", None, True),
        (None, None, False),
        ("http://a:81", None, False),
        ("null", None, False),
        ("http://b", "same-origin", False),
        ("http://a", "cross-site", False),
        ("http://a", "same-site", False),
        ("http://a", "none", False),
    ],
)
def test_only_pages_of_this_origin_change_things(origin: str | None, site: str | None, same: bool) -> None:
    assert same_origin(origin, site, "http://a") is same


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_depth_is_counted_outside_of_texts(value: object) -> None:
    import json

    def depth(part: object) -> int:
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    data = json.dumps(value).encode()
    assert json_depth(data, depth(value))
    assert depth(value) == 0 or not json_depth(data, depth(value) - 1)


@given(st.recursive(st.text("[]{}a"), lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_brackets_in_texts_nest_nothing(value: object) -> None:
    import json

    def depth(part: object) -> int:
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    data = json.dumps({"all": [value]}).encode()
    assert json_depth(data, depth(value) + 2)
    assert not json_depth(data, depth(value) + 1)


def test_a_page_token_does_not_tell_its_session() -> None:
    assert csrf_token("hs_1.secret") != csrf_token("hs_2.secret")
    assert "secret" not in csrf_token("hs_1.secret")
